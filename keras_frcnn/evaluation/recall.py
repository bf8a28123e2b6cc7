"""Recall of proposals: how many objects the best N proposals of each image cover.

Shapes and names
----------------
G  objects of one image that are not difficult; P  its proposals, best first.
T  IoU thresholds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from keras_frcnn.data.dataset import Dataset
from keras_frcnn.errors import UserError
from keras_frcnn.evaluation.matching import box_overlaps
from keras_frcnn.evaluation.uncertainty import draw_images

# The horizontal axis of figure 2 of the paper.
IOU_THRESHOLDS = tuple(round(0.5 + 0.05 * step, 2) for step in range(11))


@dataclass(frozen=True, eq=False)
class ProposalRecall:
    """Recall of the best proposals of each image, with the ends of an interval over images.

    Attributes:
        iou_thresholds: (T,) float64.
        recall: (T,) float64, the share of objects whose proposal reaches the threshold.
        average_recall: twice the area under the recall for IoU 0.5 to 1.
        objects: how many there are, difficult ones left out.
    """

    iou_thresholds: np.ndarray
    recall: np.ndarray
    recall_low: np.ndarray
    recall_high: np.ndarray
    average_recall: float
    average_recall_low: float
    average_recall_high: float
    objects: int


def proposal_recall(
    dataset: Dataset,
    proposals: Mapping[str, np.ndarray],
    number: int,
    *,
    iou_thresholds: tuple[float, ...] = IOU_THRESHOLDS,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> ProposalRecall:
    """Recall at each threshold, and average recall, of the best ``number`` proposals of an image.

    The average recall needs no thresholds: ``2 / G * sum(max(IoU - 0.5, 0))`` over the objects is
    exactly twice the area (average recall of Hosang, Benenson, Dollar and Schiele 2015, which PY
    imdb.py, evaluate_recall, integrates in steps of 0.001). The interval is the percentile
    bootstrap over images, which keeps the objects of one image together.

    Args:
        proposals: (P, 4) boxes by ``Example.key``, best first; an image that is missing has none.

    Raises:
        UserError: there is no object that counts, or proposals of an image that is not in the set.
    """
    counts, sums = _sums(dataset, proposals, number, iou_thresholds)
    values = sums.sum(axis=0) / counts.sum()
    low, high = _bootstrap(counts, sums, confidence, resamples, seed)
    return ProposalRecall(
        iou_thresholds=np.asarray(iou_thresholds, np.float64),
        recall=values[:-1],
        recall_low=low[:-1],
        recall_high=high[:-1],
        average_recall=float(values[-1]),
        average_recall_low=float(low[-1]),
        average_recall_high=float(high[-1]),
        objects=int(counts.sum()),
    )


def recall_rows(
    dataset: Dataset,
    proposals: Mapping[str, np.ndarray],
    counts: Sequence[int],
    iou_thresholds: tuple[float, ...],
) -> list[dict]:
    """One dictionary for each N of ``counts``: recall by IoU and average recall, with intervals."""
    rows = []
    for count in counts:
        found = proposal_recall(dataset, proposals, count, iou_thresholds=iou_thresholds)
        intervals = np.stack((found.recall, found.recall_low, found.recall_high), axis=1).tolist()
        average = (found.average_recall, found.average_recall_low, found.average_recall_high)
        kept = sum(min(len(boxes), count) for boxes in proposals.values())
        rows.append(
            {
                "proposals": count,
                "mean_proposals": kept / len(proposals),
                "recall": dict(zip((f"{iou:g}" for iou in iou_thresholds), intervals, strict=True)),
                "average_recall": list(average),
                "objects": found.objects,
            }
        )
    return rows


@dataclass(frozen=True)
class RecallContrast:
    """A sum of recalls with signs, and the ends of its interval over images, as shares."""

    value: float
    low: float
    high: float

    @property
    def resolved(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0


def recall_contrast(
    dataset: Dataset,
    terms: Sequence[tuple[float, Mapping[str, np.ndarray], int]],
    *,
    iou_threshold: float = 0.5,
) -> RecallContrast:
    """``sum(sign * recall)``, all terms over the same draws of images: a paired comparison.

    ``[(1, boxes, 2000), (-1, boxes, 300)]`` gives what recall loses from 2000 to 300 proposals.

    Args:
        terms: sign, proposals by ``Example.key`` best first, and how many of each image count.

    Raises:
        UserError: as :func:`proposal_recall`.
    """
    sums = np.zeros((len(dataset), 1))
    for sign, proposals, number in terms:
        counts, of_term = _sums(dataset, proposals, number, (iou_threshold,))
        sums += sign * of_term[:, :1]
    low, high = _bootstrap(counts, sums)
    return RecallContrast(float(sums.sum() / counts.sum()), float(low[0]), float(high[0]))


def matched_overlaps(objects: np.ndarray, proposals: np.ndarray) -> np.ndarray:
    """IoU of each of (G, 4) objects with its own of (P, 4) proposals: one covers one object.

    Of all pairs the one with the highest IoU is taken, then the highest of what is left, and so on
    (PY imdb.py, evaluate_recall). An image without proposals has all its objects missed; PY leaves
    such objects out of the count.

    Returns:
        (G,) float64, 0 for an object that no proposal is left for.
    """
    result = np.zeros(len(objects))
    left = box_overlaps(proposals, objects)
    for _ in range(min(len(objects), len(proposals))):
        row, column = np.unravel_index(left.argmax(), left.shape)
        if left[row, column] <= 0:
            break
        result[column] = left[row, column]
        left[row] = -1.0
        left[:, column] = -1.0
    return result


def _sums(
    dataset: Dataset,
    proposals: Mapping[str, np.ndarray],
    number: int,
    iou_thresholds: Sequence[float],
) -> tuple[np.ndarray, np.ndarray]:
    """What recall is the quotient of, for each of the I images.

    Returns:
        (I,) objects; (I, T + 1) how many of them reach each threshold, and their share in the
        average recall.
    """
    where = " + ".join(dataset.sets)
    unknown = proposals.keys() - {example.key for example in dataset.examples}
    if unknown:
        raise UserError(
            f"There are proposals of the image {min(unknown)}, which is not one of the "
            f"{len(dataset)} images of {where}: evaluate on the set they were made on."
        )
    if not any((~example.difficult).any() for example in dataset.examples):
        raise UserError(
            f"Recall needs objects, and the {len(dataset)} images of {where} have none that is not "
            "difficult: evaluate on images with objects."
        )
    counts = np.zeros(len(dataset), np.int64)
    sums = np.zeros((len(dataset), len(iou_thresholds) + 1))
    for index, example in enumerate(dataset.examples):
        best = proposals.get(example.key, np.zeros((0, 4)))[:number]
        overlaps = matched_overlaps(example.without_difficult().boxes_image, best)
        counts[index] = len(overlaps)
        sums[index, :-1] = (overlaps[:, None] >= np.asarray(iou_thresholds)).sum(axis=0)
        sums[index, -1] = 2 * np.maximum(overlaps - 0.5, 0).sum()
    return counts, sums


def _bootstrap(
    counts: np.ndarray,
    sums: np.ndarray,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Ends of the percentile interval of ``sums / counts`` over images, (T + 1,) each."""
    weights = draw_images(len(counts), resamples, seed)
    # A resample without any object says nothing about recall.
    weights = weights[weights @ counts > 0]
    values = weights @ sums / (weights @ counts)[:, None]
    tail = (1 - confidence) / 2
    low, high = np.quantile(values, (tail, 1 - tail), axis=0)
    return low, high
