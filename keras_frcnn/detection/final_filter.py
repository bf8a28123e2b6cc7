"""The last cut over a whole data set: the best detections of each class in all images together.

The MATLAB code cuts before non-maximum suppression (fast_rcnn_test.m:130-150, imdb_eval_voc.m:60),
here suppression comes first: 40 boxes an image and class before it leave about eight objects of a
crowd (blood cells: area AP of RBC 0.572 instead of 0.773 on one network).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from keras_frcnn.detection.detections import ImageDetections


def keep_best_per_class(
    detections: Mapping[str, ImageDetections], number_of_classes: int, limit_per_class: int
) -> dict[str, ImageDetections]:
    """Keeps the ``limit_per_class`` best detections of each class over the whole data set.

    ML keeps the best 40 times the number of images (fast_rcnn_test.m:74-79,130-150). Of equal
    scores the earlier one in the mapping is kept.

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
