"""The detector, Fast R-CNN (section 3.2): its models, targets, loss, and the detections it makes.

It pools the features of each region (RoI), says which class it is, and refines its box for every
class. In training its RoIs are drawn from the proposals and the ground-truth boxes of an image.

Shapes and names
----------------
N  images, P  proposals of one image, G  its ground-truth boxes.
R  RoIs; C  classes, background included; F  channels of the features.
boxes, rois  (., 4) float32, half-open (y1, x1, y2, x2) in pixels of the network input.
gt_classes  (G,) int32, 1-based; labels  (R,) int32, 0 is background.
deltas  (R, 4) float32, (ty, tx, th, tw) that move the RoI onto its ground-truth box; the detector
    predicts (R, 4 * C), class c at [4 * c : 4 * c + 4].
seed  (2,) int32 of the stateless random functions.
PY, ML  the two published codes, see :mod:`keras_frcnn.recipes`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from keras_frcnn.geometry.boxes import clip, decode, encode
from keras_frcnn.network.backbones import Backbone
from keras_frcnn.network.backbones.heads import random_normal
from keras_frcnn.network.normalisation import DeltaSums, Normalisation
from keras_frcnn.network.roi_pooling import RoiPooling
from keras_frcnn.network.suppression import suppress
from keras_frcnn.network.targets import (
    derived_seed,
    match_rois,
    sample_positives_and_negatives,
    smooth_l1_sum,
)
from keras_frcnn.recipes import DetectionFilter, DetectorConfig


class DetectorTargets(NamedTuple):
    """The drawn RoIs, foreground first, and what the losses compare with.

    Attributes:
        rois: (R, 4) float32 in the frame of the proposals.
        labels: (R,) int32.
        deltas: (R, 4) float32, normalised; 0 for background.
    """

    rois: tf.Tensor
    labels: tf.Tensor
    deltas: tf.Tensor


def build_detector(
    backbone: Backbone, feature_dtype: str, classes: int, roi_pooling: str, seed: int | None
) -> tuple[keras.Model, keras.Model]:
    """RoI pooling, the head and the two output layers, as two models over the same layers.

    The outputs start from N(0, 0.01) and N(0, 0.001) (stage1_fast_rcnn_train.pt VGG:431,454) and
    compute in float32 whatever the precision.

    Args:
        roi_pooling: its kind, see :class:`RoiPooling`.

    Returns:
        ``[features, rois, roi_image] -> [class_logits, deltas]`` without dropout, and the same with
        a ``dropout_seed`` (2,) int32 as fourth input.
    """
    cls_score = keras.layers.Dense(
        classes,
        kernel_initializer=random_normal(seed, 2000, 0.01),
        dtype="float32",
        name="cls_score",
    )
    bbox_pred = keras.layers.Dense(
        4 * classes,
        kernel_initializer=random_normal(seed, 2001, 0.001),
        dtype="float32",
        name="bbox_pred",
    )
    inputs = [
        keras.Input((None, None, backbone.channels), dtype=feature_dtype, name="features"),
        keras.Input((4,), name="rois"),
        keras.Input((), dtype="int32", name="roi_image"),
    ]
    dropout_seed = keras.Input(batch_shape=(2,), dtype="int32", name="dropout_seed")
    pooling = RoiPooling(roi_pooling, backbone.roi_size, name="roi_pooling")
    pooled = pooling(inputs)

    def model(extra: list, hidden: tf.Tensor, name: str) -> keras.Model:
        return keras.Model([*inputs, *extra], [cls_score(hidden), bbox_pred(hidden)], name=name)

    return (
        model([], backbone.head(pooled), "detector"),
        model([dropout_seed], backbone.head(pooled, dropout_seed), "detector_training"),
    )


def detector_targets(
    proposals: Any,
    gt_boxes: Any,
    gt_classes: Any,
    seed: Any,
    rois_per_image: int,
    config: DetectorConfig,
    normalisation: Normalisation | None = None,
) -> DetectorTargets:
    """Draw RoIs of one image, and say what the detector should make of them (Fast R-CNN, 2.3).

    - Candidates are the proposals and the ground-truth boxes (ML roidb_from_proposal.m:41-48; PY
      proposal_target_layer.py:48-52).
    - Foreground overlaps a ground-truth box by an IoU of at least ``foreground_iou``, and has the
      class of the one that it overlaps most (PY config.py:53; ML fast_rcnn_get_minibatch.m:93).
    - Background has its best IoU in [``background_iou_low``, ``background_iou_high``).
    - At most ``round(rois_per_image * foreground_fraction)`` are foreground (PY
      minibatch.py:25-26), background fills up. With too few of both the sample is smaller: nothing
      is drawn twice (PY minibatch.py:96-113).

    Args:
        proposals: (P, 4); P may be 0.
        gt_boxes, gt_classes: (G, 4) and (G,); G may be 0.
        rois_per_image: 64 with two images a step.
        normalisation: of the deltas, (C, 4) each, the row of background unused; None: they stay as
            they are.

    Returns:
        R RoIs, none where no candidate is eligible.
    """
    candidates, gt_boxes = _join_ground_truth(proposals, gt_boxes)
    matches = match_rois(candidates, gt_boxes)
    foreground = matches.max_iou >= config.foreground_iou
    background = (
        (matches.max_iou >= config.background_iou_low)
        & (matches.max_iou < config.background_iou_high)
        & ~foreground
    )
    foreground, background = sample_positives_and_negatives(
        foreground,
        background,
        seed,
        size=rois_per_image,
        positive_fraction=config.foreground_fraction,
    )
    foreground_positions = tf.where(foreground)[:, 0]
    background_positions = tf.where(background)[:, 0]

    foreground_gt = tf.gather(matches.matched_gt, foreground_positions)
    foreground_rois = tf.gather(candidates, foreground_positions)
    foreground_labels = tf.gather(tf.cast(gt_classes, tf.int32), foreground_gt)
    deltas = encode(foreground_rois, tf.gather(gt_boxes, foreground_gt))
    if normalisation is not None:
        deltas = normalisation.normalised(deltas, foreground_labels)

    background_rois = tf.gather(candidates, background_positions)
    background_labels = tf.zeros_like(background_positions, tf.int32)
    return DetectorTargets(
        rois=tf.concat([foreground_rois, background_rois], axis=0),
        labels=tf.concat([foreground_labels, background_labels], axis=0),
        deltas=tf.concat([deltas, tf.zeros_like(background_rois)], axis=0),
    )


def detector_foreground_deltas(
    proposals: Any,
    gt_boxes: Any,
    gt_classes: Any,
    *,
    foreground_iou: float,
    number_of_classes: int,
) -> DeltaSums:
    """Sums per class over **all** foreground candidates of an image: the normalisation's measure.

    As in ML fast_rcnn_prepare_image_roidb.m:58-96 and PY roidb.py:67-105. Arguments as those of
    :func:`detector_targets`; ``number_of_classes`` is C. The row of background is 0.
    """
    candidates, gt_boxes = _join_ground_truth(proposals, gt_boxes)
    matches = match_rois(candidates, gt_boxes)
    positions = tf.where(matches.max_iou >= foreground_iou)[:, 0]
    gt_positions = tf.gather(matches.matched_gt, positions)
    labels = tf.gather(tf.cast(gt_classes, tf.int32), gt_positions)
    deltas = encode(tf.gather(candidates, positions), tf.gather(gt_boxes, gt_positions))
    return DeltaSums(
        count=tf.math.unsorted_segment_sum(tf.ones_like(labels), labels, number_of_classes),
        delta_sum=tf.math.unsorted_segment_sum(deltas, labels, number_of_classes),
        sum_of_squares=tf.math.unsorted_segment_sum(tf.square(deltas), labels, number_of_classes),
    )


def _join_ground_truth(proposals: Any, gt_boxes: Any) -> tuple[tf.Tensor, tf.Tensor]:
    """The candidates (P + G, 4), proposals first, and the gt boxes (G, 4), both float32."""
    gt_boxes = tf.cast(gt_boxes, tf.float32)
    return tf.concat([tf.cast(proposals, tf.float32), gt_boxes], axis=0), gt_boxes


def detector_losses(
    detector: keras.Model,
    features: tf.Tensor,
    proposals: Sequence[tf.Tensor],
    batch: dict[str, tf.Tensor],
    seed: tf.Tensor,
    rois_per_image: int,
    config: DetectorConfig,
    normalisation: Normalisation,
) -> dict[str, tf.Tensor]:
    """The two losses of Fast R-CNN over RoIs that are drawn from each image (its section 2.3).

    Args:
        detector: the model that takes a ``dropout_seed``, see :func:`build_detector`.
        proposals: those of each image, (P, 4).
        batch: ``gt_boxes`` (N, G, 4), ``gt_classes`` (N, G) and ``gt_count`` (N,), as
            :mod:`keras_frcnn.data.pipeline` makes it.

    Returns:
        ``detector_class_loss``, ``detector_box_loss``, ``foreground_rois``, ``background_rois``.
    """
    samples = []
    for image, proposals_of_image in enumerate(proposals):
        count = batch["gt_count"][image]
        samples.append(
            detector_targets(
                proposals_of_image,
                batch["gt_boxes"][image, :count],
                batch["gt_classes"][image, :count],
                derived_seed(seed, 1, image),
                rois_per_image,
                config,
                normalisation,
            )
        )
    of_images = [tf.fill(tf.shape(sample.labels), index) for index, sample in enumerate(samples)]
    roi_image = tf.concat(of_images, axis=0)
    labels = tf.concat([sample.labels for sample in samples], axis=0)
    rois = tf.concat([sample.rois for sample in samples], axis=0)
    target_deltas = tf.concat([sample.deltas for sample in samples], axis=0)
    inputs = [features, rois, roi_image, derived_seed(seed, 2)]
    class_logits, deltas = detector(inputs, training=True)
    foreground = tf.reduce_sum(tf.cast(labels > 0, tf.float32))
    return {
        "detector_class_loss": detector_class_loss(class_logits, labels),
        "detector_box_loss": detector_box_loss(deltas, target_deltas, labels, sigma=config.sigma),
        "foreground_rois": foreground,
        "background_rois": tf.cast(tf.size(labels), tf.float32) - foreground,
    }


def detector_class_loss(logits: Any, labels: Any) -> tf.Tensor:
    """Softmax cross-entropy (R, C) against (R,), mean over the RoIs; 0 for R = 0.

    stage1_fast_rcnn_train.pt:464-478 (both codes).
    """
    cross_entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(
        labels=tf.cast(labels, tf.int32), logits=tf.cast(logits, tf.float32)
    )
    return tf.reduce_sum(cross_entropy) / _at_least_one(cross_entropy)


def detector_box_loss(
    pred_deltas: Any, target_deltas: Any, labels: Any, *, sigma: float
) -> tf.Tensor:
    """Smooth L1 of the label's own deltas, summed over foreground, over the number of **all** RoIs.

    stage1_fast_rcnn_train.pt:464-478 (both codes): sigma 1, weight 1. 0 without foreground.
    """
    pred_deltas = tf.cast(pred_deltas, tf.float32)
    labels = tf.cast(labels, tf.int32)
    rois, classes = tf.shape(pred_deltas)[0], tf.shape(pred_deltas)[1] // 4
    # A masked sum picks the class: the gradient of a gather would be a scatter with a slower and,
    # on a GPU, not deterministic sum.
    own_class = tf.one_hot(labels, classes)[:, :, tf.newaxis]
    per_class = tf.reshape(pred_deltas, [rois, classes, 4])
    own_deltas = tf.reduce_sum(per_class * own_class, axis=1)
    return smooth_l1_sum(own_deltas, target_deltas, labels > 0, sigma) / _at_least_one(labels)


def _at_least_one(rows: tf.Tensor) -> tf.Tensor:
    """Number of rows as float32, 1 where there is none."""
    return tf.cast(tf.maximum(tf.shape(rows)[0], 1), tf.float32)


class Detections(NamedTuple):
    """The D detections of each image, best first, zero-padded.

    Attributes:
        boxes_input: (N, D, 4) float32, in pixels of the network input.
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
    """Boxes of every class, clipped, filtered and suppressed within it (Fast R-CNN, section 3).

    Args:
        class_logits: (N, R, C) float32; here R is of each image, zero-padded.
        deltas: (N, R, 4 * C) float32, not normalised.
        rois: (N, R, 4) float32 that the deltas refer to.
        roi_count: (N,) int32, RoIs that are real.
        image_sizes: (N, 2) true height and width of each input.
    """
    sizes = tf.cast(image_sizes, tf.float32)[:, :, None, None]
    images, rois_padded = tf.shape(rois)[0], tf.shape(rois)[1]
    foreground = class_logits.shape[-1] - 1
    scores = tf.nn.softmax(class_logits)[..., 1:]
    scores = tf.where(tf.sequence_mask(roi_count, rois_padded)[..., None], scores, -1.0)
    class_deltas = tf.reshape(deltas, (images, rois_padded, foreground + 1, 4))[:, :, 1:]
    boxes = decode(rois[:, :, None], class_deltas)
    boxes = clip(boxes, sizes[:, 0], sizes[:, 1])
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
