"""The last cuts over a whole data set, as the paper's MATLAB code makes them.

Per class the best detections of all images together are kept, and only then suppressed within
each image (fast_rcnn_test.m:130-150, imdb_eval_voc.m:60).

Shapes and names
----------------
D  detections of one image; boxes_image  (D, 4) half-open (y1, x1, y2, x2), original pixels.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from keras_frcnn.evaluation.detection_files import ImageDetections


def keep_best_per_class(
    detections: Mapping[str, ImageDetections],
    number_of_classes: int,
    limit_per_class: int,
) -> dict[str, ImageDetections]:
    """Keeps the ``limit_per_class`` best detections of each class over the whole data set.

    ML keeps the best 40 times the number of images, before its final non-maximum suppression
    (fast_rcnn_test.m:74-79,130-150). Of equal scores the earlier one in the mapping is kept.

    Args:
        number_of_classes: foreground classes; the others are dropped.

    Returns:
        The same keys in the same order; the detections kept stay in their order.
    """
    if not detections:
        return {}
    classes = np.concatenate([d.classes for d in detections.values()])
    scores = np.concatenate([d.scores for d in detections.values()])
    keep = np.zeros(len(scores), bool)
    for index in range(1, number_of_classes + 1):
        of_class = np.flatnonzero(classes == index)
        order = np.argsort(-scores[of_class], kind="stable")
        keep[of_class[order[:limit_per_class]]] = True
    ends = np.cumsum([len(d) for d in detections.values()])
    masks = np.split(keep, ends[:-1])
    return {
        key: ImageDetections(d.boxes_image[mask], d.scores[mask], d.classes[mask])
        for (key, d), mask in zip(detections.items(), masks, strict=True)
    }


def suppress_within_classes(detections: ImageDetections, iou_threshold: float) -> ImageDetections:
    """Greedy non-maximum suppression of one image's detections, each class for itself.

    Args:
        iou_threshold: a detection goes when its IoU with a better one of its class exceeds it.
    """
    keep = []
    for index in np.unique(detections.classes):
        of_class = np.flatnonzero(detections.classes == index)
        kept = tf.image.non_max_suppression(
            tf.constant(detections.boxes_image[of_class], tf.float32),
            tf.constant(detections.scores[of_class], tf.float32),
            len(of_class),
            iou_threshold,
        )
        keep.append(of_class[kept.numpy()])
    order = np.sort(np.concatenate([*keep, np.zeros(0, np.int64)]))
    return ImageDetections(
        detections.boxes_image[order], detections.scores[order], detections.classes[order]
    )
