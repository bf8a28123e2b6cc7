"""Which object each detection found, by the rule of the PASCAL VOC devkit (VOCevaldet.m).

Boxes are half-open here, so the devkit's "+1" widths of inclusive corners are plain differences.

Shapes and names
----------------
D  all detections of a data set, image after image; G  all its objects, image after image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from keras_frcnn.data.dataset import Dataset
from keras_frcnn.detection.detections import NO_DETECTIONS, ImageDetections

TRUE_POSITIVE, FALSE_POSITIVE, IGNORED = 1, 0, -1


@dataclass(frozen=True, eq=False)
class Matches:
    """What became of every detection and every object of a data set.

    Attributes:
        images: (D,) int64, position of the image in ``dataset.examples``.
        rows: (D,) int64, position among the detections of that image.
        classes: (D,) int32; scores: (D,), float32 or float64 as the detections have them.
        outcomes: (D,) int8, ``TRUE_POSITIVE``, ``FALSE_POSITIVE`` or ``IGNORED``.
        order: (D,) int64, all detections by falling score; ties in their order above.
        object_images: (G,) int64; object_classes: (G,) int32; object_difficult: (G,) bool.
        object_scores: (G,) score of the true positive that found the object, minus infinity where
            none did; of the type of ``scores``, so that a threshold parts both alike.
    """

    images: np.ndarray
    rows: np.ndarray
    classes: np.ndarray
    scores: np.ndarray
    outcomes: np.ndarray
    order: np.ndarray
    object_images: np.ndarray
    object_classes: np.ndarray
    object_difficult: np.ndarray
    object_scores: np.ndarray


def match_detections(
    dataset: Dataset,
    detections: Mapping[str, ImageDetections],
    *,
    iou_threshold: float,
    strictly_greater: bool = False,
) -> Matches:
    """Compares each detection with the object of its class and image that it overlaps most.

    Detections go by falling score; ties in the order of the image list, then of the image's
    detections. Below the threshold a detection is a false positive. On a difficult object it counts
    for nothing. The first detection of any other object is a true positive, the next are false
    ones. Of equal overlaps the first object counts (VOCevaldet.m).

    Args:
        detections: by ``Example.key``; an image that is missing has none.
        strictly_greater: the overlap must exceed the threshold (PY voc_eval.py:168-181) instead of
            reaching it (VOCevaldet.m).
    """
    objects_of = [len(example.classes) for example in dataset.examples]
    first_objects = np.cumsum([0, *objects_of])
    images, rows, overlaps, objects, classes, scores = [], [], [], [], [], []
    for index, example in enumerate(dataset.examples):
        found = detections.get(example.key, NO_DETECTIONS)
        images.append(np.full(len(found), index))
        rows.append(np.arange(len(found)))
        classes.append(found.classes)
        scores.append(found.scores)
        of_image = box_overlaps(found.boxes_image, example.boxes_image)
        of_image[found.classes[:, None] != example.classes] = -1.0
        # The last column stands for no object, where the image has none.
        of_image = np.pad(of_image, ((0, 0), (0, 1)), constant_values=-1.0)
        best = of_image.argmax(axis=1)
        overlaps.append(of_image[rows[-1], best])
        objects.append(first_objects[index] + best)
    every_score, every_object = _joined(scores, np.float64), _joined(objects, np.int64)
    object_difficult = _joined([example.difficult for example in dataset.examples], bool)
    best_overlaps = _joined(overlaps, np.float64)
    reached = best_overlaps >= iou_threshold
    if strictly_greater:
        reached = best_overlaps > iou_threshold
    order = np.argsort(-every_score, kind="stable")
    outcomes = np.full(len(order), FALSE_POSITIVE, np.int8)
    hits = order[reached[order]]
    outcomes[hits[object_difficult[every_object[hits]]]] = IGNORED
    hits = hits[outcomes[hits] != IGNORED]
    found_objects, first = np.unique(every_object[hits], return_index=True)
    outcomes[hits[first]] = TRUE_POSITIVE
    object_scores = np.full(len(object_difficult), -np.inf, every_score.dtype)
    object_scores[found_objects] = every_score[hits[first]]
    return Matches(
        images=_joined(images, np.int64),
        rows=_joined(rows, np.int64),
        classes=_joined(classes, np.int32),
        scores=every_score,
        outcomes=outcomes,
        order=order,
        object_images=np.repeat(np.arange(len(dataset)), objects_of),
        object_classes=_joined([example.classes for example in dataset.examples], np.int32),
        object_difficult=object_difficult,
        object_scores=object_scores,
    )


def box_overlaps(boxes_a: np.ndarray, boxes_b: np.ndarray) -> np.ndarray:
    """IoU of every box of (A, 4) with every box of (B, 4), in double precision as the devkit's.

    Returns:
        (A, B) float64, -1 where boxes do not intersect (VOCevaldet.m asks iw > 0 and ih > 0), so
        that a threshold of 0 is not reached by boxes far apart.
    """
    a, b = boxes_a.astype(np.float64), boxes_b.astype(np.float64)
    sides = np.minimum(a[:, None, 2:], b[:, 2:]) - np.maximum(a[:, None, :2], b[:, :2])
    meets = (sides > 0).all(axis=-1)
    intersection = sides[..., 0] * sides[..., 1]
    areas_a, areas_b = ((x[:, 2] - x[:, 0]) * (x[:, 3] - x[:, 1]) for x in (a, b))
    union = areas_a[:, None] + areas_b - intersection
    return np.divide(intersection, union, out=np.full(meets.shape, -1.0), where=meets)


def _joined(parts: list[np.ndarray], dtype: type) -> np.ndarray:
    """The parts one after the other, of their own type; an empty array of ``dtype`` without any."""
    return np.concatenate(parts) if parts else np.zeros(0, dtype)
