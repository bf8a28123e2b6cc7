"""The score threshold at which a class is detected best, and what is found there.

Shapes and names
----------------
D  detections of one class by falling score, without those of difficult objects.
F1  harmonic mean of precision and recall, 2 TP / (detections + objects).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class OperatingPoint:
    """What the detections with at least ``score_threshold`` amount to."""

    score_threshold: float
    precision: float
    recall: float
    f1: float


def best_f1(
    scores: np.ndarray, true_positives: np.ndarray, ground_truth: int
) -> OperatingPoint | None:
    """The threshold of the highest F1; of equal ones the highest threshold.

    Detections of one score are kept or dropped together, as a threshold does it.

    Args:
        scores: (D,) in falling order.
        true_positives: (D,) int, counts among the first 1 .. D detections.
        ground_truth: objects that are not difficult.

    Returns:
        None where there are no objects or none of them is found.
    """
    if not ground_truth or not len(scores) or not true_positives[-1]:
        return None
    last_of_score = np.flatnonzero(np.append(scores[1:] != scores[:-1], True))
    kept = last_of_score + 1
    f1 = 2 * true_positives[last_of_score] / (kept + ground_truth)
    best = int(f1.argmax())
    true, rank = int(true_positives[last_of_score[best]]), int(last_of_score[best])
    return OperatingPoint(
        score_threshold=float(scores[rank]),
        precision=true / (rank + 1),
        recall=true / ground_truth,
        f1=float(f1[best]),
    )
