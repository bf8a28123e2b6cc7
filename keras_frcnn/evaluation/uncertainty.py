"""How sure a mean average precision is, and whether two of them differ: the bootstrap over images.

Shapes and names
----------------
I  images; B  replicates, each a draw of I images with replacement.
weights  (B, I) int, how often each image was drawn.
d  detections of one class over the data set by falling score, ignored ones left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from keras_frcnn.evaluation.matching import IGNORED, TRUE_POSITIVE, Matches
from keras_frcnn.evaluation.voc import average_precision_11point, average_precision_area

# (B, d) tables are made for so many numbers at once: a few tens of megabytes.
_NUMBERS_AT_ONCE = 2_000_000


@dataclass(frozen=True)
class Difference:
    """Mean average precision of a system minus that of another on the same images.

    Attributes:
        error: standard error of the value by the paired bootstrap.
    """

    value: float
    error: float

    @property
    def resolved(self) -> bool:
        """Whether it exceeds twice its standard error."""
        return abs(self.value) > 2 * self.error


def draw_images(images: int, replicates: int = 1000, seed: int = 0) -> np.ndarray:
    """(B, I) int32: how often each image is drawn in each replicate."""
    generator = np.random.default_rng(seed)
    even = np.full(images, 1 / images)
    return generator.multinomial(images, even, size=replicates).astype(np.int32)


def resampled_means(
    matches: Matches, number_of_classes: int, weights: np.ndarray, *, eleven_point: bool
) -> np.ndarray:
    """(B,) mean average precision of every replicate.

    A replicate's mean is over the classes that it has objects of; NaN where it has none at all.

    Args:
        number_of_classes: foreground classes.
        weights: of :func:`draw_images`; ones give the mean average precision itself.
        eleven_point: the metric of VOC before 2010 instead of the area.
    """
    counted = matches.order[matches.outcomes[matches.order] != IGNORED]
    average_precision = average_precision_11point if eleven_point else average_precision_area
    replicates, images = weights.shape
    totals, classes = np.zeros(replicates), np.zeros(replicates)
    for index in range(1, number_of_classes + 1):
        of_class = counted[matches.classes[counted] == index]
        objects = (matches.object_classes == index) & ~matches.object_difficult
        per_image = np.bincount(matches.object_images[objects], minlength=images)
        ground_truth = weights @ per_image
        is_true = matches.outcomes[of_class] == TRUE_POSITIVE
        rows = max(1, _NUMBERS_AT_ONCE // max(1, len(of_class)))
        for start in range(0, replicates, rows):
            part = slice(start, start + rows)
            totals[part] += average_precision(
                *_curves(matches.images[of_class], is_true, weights[part]),
                np.maximum(ground_truth[part], 1),
            )
        classes += ground_truth > 0
    return np.divide(totals, classes, out=np.full(replicates, np.nan), where=classes > 0)


def _curves(
    images: np.ndarray, is_true: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(B, d) true positives and precision of one class.

    The copies of an image have tied scores. A true positive counted several times at once leaves
    the monotone precision as it is with the copies one by one.
    """
    drawn = weights[:, images].astype(np.int64)
    true_positives = np.cumsum(drawn * is_true, axis=1)
    return true_positives, true_positives / np.maximum(np.cumsum(drawn, axis=1), 1)
