"""How far two sets of detections agree: one network in another precision, exported, or in int8.

The average precision of a few images moves by chance. Most detections of the reference, the form
that is right, should be detections of the other form too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_frcnn.detection.detections import NO_DETECTIONS, ImageDetections
from keras_frcnn.evaluation.matching import IGNORED, TRUE_POSITIVE, box_overlaps
from keras_frcnn.evaluation.voc import (
    VocEvaluation,
    average_precision_area,
    decimal,
    evaluate_voc,
)

if TYPE_CHECKING:
    from keras_frcnn.evaluation.evaluate import Evaluation

REFERENCE_SCORE = 0.3


@dataclass(frozen=True)
class Tolerance:
    """Least overlap, and largest difference of scores, of two detections that are the same."""

    iou: float
    score: float

    def __str__(self) -> str:
        return f"IoU >= {self.iou:g}, score within {self.score:g}"


# What half precision is held to, and what int8 is.
CLOSE = Tolerance(iou=0.9, score=0.05)
ROUGH = Tolerance(iou=0.8, score=0.1)


@dataclass(frozen=True)
class Agreement:
    """How many detections of the reference, from :data:`REFERENCE_SCORE`, have a partner.

    Attributes:
        kept: those that have one within the tolerance.
    """

    detections: int
    kept: int
    tolerance: Tolerance

    @property
    def share(self) -> float | None:
        """Kept over all, None without any."""
        return self.kept / self.detections if self.detections else None

    def __str__(self) -> str:
        if self.share is None:
            return f"no detections from score {REFERENCE_SCORE:g} to find partners of"
        return (
            f"{100 * self.share:.1f} % of {self.detections} detections from score "
            f"{REFERENCE_SCORE:g} have a partner ({self.tolerance})"
        )

    def to_json(self) -> dict[str, Any]:
        """An entry of ``evaluation.json``."""
        return {
            **asdict(self.tolerance),
            "detections": self.detections,
            "kept": self.kept,
            "share": self.share,
        }


def has_partner(
    reference: ImageDetections, other: ImageDetections, tolerance: Tolerance
) -> np.ndarray:
    """Which of the reference's D detections in an image have a partner, (D,) bool.

    A partner has the same class, place and score. Two may share one, which suppression within
    classes all but rules out. Limits have a slack of 1e-6, float32's rounding of scores.
    """
    same = reference.classes[:, None] == other.classes
    distance = np.abs(reference.scores[:, None].astype(np.float64) - other.scores)
    near = box_overlaps(reference.boxes_image, other.boxes_image) >= tolerance.iou - 1e-6
    return (same & near & (distance <= tolerance.score + 1e-6)).any(axis=1)


def paired(reference: ImageDetections, other: ImageDetections) -> tuple[np.ndarray, np.ndarray]:
    """How far detections with a partner by ``CLOSE`` are from the one nearest in place.

    Returns:
        (P,) largest difference of a corner in pixels, and (P,) differences of the scores.
    """
    rows = np.flatnonzero(has_partner(reference, other, CLOSE))
    same = reference.classes[rows, None] == other.classes
    overlaps = np.where(same, box_overlaps(reference.boxes_image[rows], other.boxes_image), -2.0)
    partners = overlaps.argmax(axis=1) if len(rows) else rows
    corners = np.abs(reference.boxes_image[rows] - other.boxes_image[partners])
    scores = np.abs(reference.scores[rows] - other.scores[partners])
    return corners.max(axis=1, initial=0.0), scores


def agreement(
    references: Mapping[str, ImageDetections],
    others: Mapping[str, ImageDetections],
    tolerance: Tolerance = CLOSE,
) -> Agreement:
    """Counts the partners over all images, by key; an image that is missing has no detection."""
    kept = [
        has_partner(found.at_least(REFERENCE_SCORE), others.get(key, NO_DETECTIONS), tolerance)
        for key, found in references.items()
    ]
    return Agreement(sum(map(len, kept)), int(sum(map(np.sum, kept))), tolerance)


def compare(
    evaluated: Evaluation, references: dict[str, ImageDetections], name: str
) -> tuple[dict[str, Any], list[str]]:
    """Compares the detections of an evaluation with a reference.

    Args:
        name: what the sentences call the reference.

    Returns:
        An entry of the evaluation's record, and sentences for the screen.
    """
    voc = evaluated.voc
    other = evaluate_voc(
        evaluated.dataset,
        references,
        iou_threshold=voc.iou_threshold,
        strictly_greater=voc.strictly_greater,
    )
    pooled = [pooled_average_precision(result) for result in (voc, other)]
    found = [agreement(references, evaluated.detections, tolerance) for tolerance in (CLOSE, ROUGH)]
    sentences = [
        f"AP of all classes in one ranking: {decimal(pooled[0])}, in {name} {decimal(pooled[1])}",
        *(f"of {name}: {each}" for each in found),
    ]
    record = {
        "detections": name,
        "ap_pooled": pooled[0],
        "ap_pooled_against": pooled[1],
        "agreement": [each.to_json() for each in found],
    }
    return record, sentences


def pooled_average_precision(evaluation: VocEvaluation) -> float | None:
    """Average precision (area) of all detections in one ranking; None without objects.

    Detections match objects of their own class, and the curve counts all classes together. Over
    few images it moves less by chance than a mean over classes with a handful of objects each.
    """
    matches = evaluation.matches
    objects = int(np.sum(~matches.object_difficult))
    if not objects:
        return None
    outcomes = matches.outcomes[matches.order]
    true_positives = np.cumsum(outcomes[outcomes != IGNORED] == TRUE_POSITIVE)
    precision = true_positives / np.arange(1, len(true_positives) + 1)
    return float(average_precision_area(true_positives, precision, objects))
