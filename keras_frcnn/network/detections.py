"""From the detector's outputs to detections (section 3.3 of Fast R-CNN, recipe 4.8).

Shapes and names
----------------
N  images, R  RoIs of each image (zero-padded), C  classes incl. background, D  detections kept.
*_input  pixels of the rescaled network input.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from keras_frcnn.geometry import boxes as box_geometry
from keras_frcnn.network.suppression import suppress
from keras_frcnn.recipes import DetectionFilter


class Detections(NamedTuple):
    """Scored boxes of each image, best first, zero-padded.

    Attributes:
        boxes_input: (N, D, 4) float32.
        scores: (N, D) float32 in [0, 1].
        classes: (N, D) int32, 1-based.
        count: (N,) int32.
    """

    boxes_input: tf.Tensor
    scores: tf.Tensor
    classes: tf.Tensor
    count: tf.Tensor


def select_detections(
    class_logits: tf.Tensor,
    deltas: tf.Tensor,
    rois: tf.Tensor,
    roi_count: tf.Tensor,
    image_sizes: tf.Tensor,
    detection_filter: DetectionFilter,
) -> Detections:
    """Class-specific boxes, clipped, filtered and suppressed within each class.

    Args:
        class_logits: (N, R, C) float32.
        deltas: (N, R, 4 * C) float32, class-major, in units of the un-normalised targets.
        rois: (N, R, 4) float32, the proposals that the deltas refer to.
        roi_count: (N,) int32, RoIs that are real.
        image_sizes: (N, 2) true height and width of each input.
    """
    sizes = tf.cast(image_sizes, tf.float32)[:, :, None, None]
    images, rois_padded = tf.shape(rois)[0], tf.shape(rois)[1]
    foreground = class_logits.shape[-1] - 1
    scores = tf.nn.softmax(class_logits)[..., 1:]
    scores = tf.where(tf.sequence_mask(roi_count, rois_padded)[..., None], scores, -1.0)
    class_deltas = tf.reshape(deltas, (images, rois_padded, foreground + 1, 4))[:, :, 1:]
    boxes = box_geometry.decode(rois[:, :, None], class_deltas)
    boxes = box_geometry.clip(boxes, sizes[:, 0], sizes[:, 1])
    per_class = rois_padded
    if detection_filter.per_class_before_nms is not None:
        per_class = tf.minimum(rois_padded, detection_filter.per_class_before_nms)
        by_class, index = tf.math.top_k(tf.transpose(scores, (0, 2, 1)), per_class)
        boxes = tf.gather(tf.transpose(boxes, (0, 2, 1, 3)), index, batch_dims=2)
        scores, boxes = tf.transpose(by_class, (0, 2, 1)), tf.transpose(boxes, (0, 2, 1, 3))
    in_total = per_class * foreground
    if detection_filter.per_image is not None:
        in_total = detection_filter.per_image
    kept = suppress(
        boxes,
        scores,
        per_class=per_class,
        in_total=in_total,
        iou_threshold=detection_filter.nms_iou,
        score_threshold=detection_filter.score_threshold,
    )
    valid = tf.sequence_mask(kept.count, tf.shape(kept.classes)[1])
    classes = tf.where(valid, kept.classes + 1, 0)
    return Detections(kept.boxes, kept.scores, classes, kept.count)
