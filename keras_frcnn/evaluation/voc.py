"""Average precision as the PASCAL VOC devkit computes it (VOCevaldet.m, VOCap.m).

Boxes are half-open here, so the devkit's "+1" widths of inclusive corners are plain differences.

Shapes and names
----------------
D  detections of one image, or of one class over the data set; G  objects of one image or class.
true_positives  (D,) int64, counts among the first 1 .. D detections; precision  (D,), their share.
ground_truth  number of objects of a class that are not difficult: the devkit's npos.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from keras_frcnn.data.dataset import Dataset
from keras_frcnn.detection.detections import ImageDetections
from keras_frcnn.errors import UserError
from keras_frcnn.evaluation.matching import IGNORED, TRUE_POSITIVE, Matches, match_detections


@dataclass(frozen=True)
class OperatingPoint:
    """What the detections with at least ``score_threshold`` amount to."""

    score_threshold: float
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True, eq=False)
class ClassEvaluation:
    """One class over the data set.

    Attributes:
        ap_11point, ap_area: average precision, None without ground truth.
        ground_truth: objects that are not difficult.
        detections: how many, those of difficult objects included.
        scores, precision, recall: (D,) by falling score, without the detections of difficult
            objects, which count for nothing; recall is 0 without ground truth.
        best: the highest F1; None where no object is found.
    """

    ap_11point: float | None
    ap_area: float | None
    ground_truth: int
    detections: int
    scores: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    best: OperatingPoint | None

    @property
    def final_recall(self) -> float | None:
        """Recall of all detections together, None without ground truth."""
        if not self.ground_truth:
            return None
        return float(self.recall[-1]) if len(self.recall) else 0.0


@dataclass(frozen=True, eq=False)
class VocEvaluation:
    """The VOC metric of one set of detections.

    Attributes:
        map_11point, map_area: means over the classes with ground truth, None without any.
        per_class: by class name, in the order of ``class_names``.
        iou_threshold: least overlap of a true positive.
        strictly_greater: whether the overlap must exceed it (PY) or may equal it (devkit, ML).
        dataset, detections: what was evaluated; detections by ``Example.key``.
        matches: what became of every detection and object.
    """

    map_11point: float | None
    map_area: float | None
    per_class: dict[str, ClassEvaluation]
    iou_threshold: float
    strictly_greater: bool
    dataset: Dataset
    detections: Mapping[str, ImageDetections]
    matches: Matches

    def to_json(self) -> dict[str, Any]:
        """Everything but detections, curves and matches, for ``evaluation.json``."""
        per_class = {
            name: {
                "ap_11point": result.ap_11point,
                "ap_area": result.ap_area,
                "ground_truth": result.ground_truth,
                "detections": result.detections,
                "recall": result.final_recall,
                "best_f1": None if result.best is None else dataclasses.asdict(result.best),
            }
            for name, result in self.per_class.items()
        }
        return {
            "map_11point": self.map_11point,
            "map_area": self.map_area,
            "per_class": per_class,
            "iou_threshold": self.iou_threshold,
            "iou_rule": ">" if self.strictly_greater else ">=",
            "images": len(self.dataset),
            "ids_hash": self.dataset.ids_hash,
            "sets": list(self.dataset.sets),
            "class_names": list(self.dataset.class_names),
        }


def evaluate_voc(
    dataset: Dataset,
    detections: Mapping[str, ImageDetections],
    *,
    iou_threshold: float = 0.5,
    strictly_greater: bool = False,
) -> VocEvaluation:
    """Average precision of every class, 11-point and area, and the means.

    Arguments are those of :func:`keras_frcnn.evaluation.matching.match_detections`.

    Raises:
        UserError: detections of an image that is not in the set, of a class that is not in
            ``dataset.class_names``, or with a score or box that is not a finite number.
    """
    _check(dataset, detections)
    matches = match_detections(
        dataset, detections, iou_threshold=iou_threshold, strictly_greater=strictly_greater
    )
    objects = matches.object_classes[~matches.object_difficult]
    counts = np.bincount(objects, minlength=len(dataset.class_names) + 1)
    classes_in_order = matches.classes[matches.order]
    per_class = {}
    for index, name in enumerate(dataset.class_names, start=1):
        ranked = matches.order[classes_in_order == index]
        counted = ranked[matches.outcomes[ranked] != IGNORED]
        per_class[name] = _evaluate_class(
            matches.scores[counted],
            matches.outcomes[counted] == TRUE_POSITIVE,
            ground_truth=int(counts[index]),
            detections=len(ranked),
        )
    return VocEvaluation(
        map_11point=_mean([result.ap_11point for result in per_class.values()]),
        map_area=_mean([result.ap_area for result in per_class.values()]),
        per_class=per_class,
        iou_threshold=iou_threshold,
        strictly_greater=strictly_greater,
        dataset=dataset,
        detections=detections,
        matches=matches,
    )


def best_f1(
    scores: np.ndarray, true_positives: np.ndarray, ground_truth: int
) -> OperatingPoint | None:
    """The threshold of the highest F1; of equal ones the highest threshold.

    A threshold keeps or drops all detections of one score together.

    Args:
        scores: (D,) in falling order.

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
        # The shortest decimal that is this float32, as the files of detections have it.
        score_threshold=float(str(scores[rank])),
        precision=true / (rank + 1),
        recall=true / ground_truth,
        f1=float(f1[best]),
    )


def average_precision_11point(
    true_positives: np.ndarray, precision: np.ndarray, ground_truth: Any
) -> np.ndarray:
    """Mean over the recalls 0, 0.1 .. 1 of the best precision at that recall or a higher one.

    The metric of VOC before 2010. ``recall >= k / 10`` is asked in integers: the floating steps
    0:0.1:1 lie above 0.3, 0.6 and 0.7, which a recall of 3 in 10 would then miss.

    Args:
        true_positives, precision: (..., D), those of the first 1 .. D detections.
        ground_truth: (...) objects that are not difficult, at least 1.

    Returns:
        (...,) float64.
    """
    objects = np.asarray(ground_truth)[..., None]
    best = [
        np.where(10 * true_positives >= tenth * objects, precision, 0.0).max(axis=-1, initial=0.0)
        for tenth in range(11)
    ]
    return np.mean(best, axis=0)


def average_precision_area(
    true_positives: np.ndarray, precision: np.ndarray, ground_truth: Any
) -> np.ndarray:
    """Area under the precision-recall curve made monotone from the right: VOC since 2010 (VOCap.m).

    Arguments and result are those of :func:`average_precision_11point`.
    """
    steps = np.diff(true_positives, prepend=0, axis=-1)
    return (steps * monotone(precision)).sum(axis=-1) / ground_truth


def monotone(precision: np.ndarray) -> np.ndarray:
    """(..., D) the best precision at each recall or a higher one."""
    return np.maximum.accumulate(precision[..., ::-1], axis=-1)[..., ::-1]


def decimal(value: float | None) -> str:
    """Three decimals, and ``-`` for what is not known."""
    return "-" if value is None else f"{value:.3f}"


def class_rows(evaluation: VocEvaluation) -> list[dict[str, str]]:
    """A row of each class, and the means last: what is known, by heading."""
    rows = []
    results = evaluation.per_class.values()
    for name, result in evaluation.per_class.items():
        best = {} if result.best is None else dataclasses.asdict(result.best)
        rows.append(
            {
                "class": name,
                "objects": str(result.ground_truth),
                "detections": str(result.detections),
                "recall": decimal(result.final_recall),
                "AP 11-point": decimal(result.ap_11point),
                "AP area": decimal(result.ap_area),
                "best F1": decimal(best.get("f1")),
                "at score": decimal(best.get("score_threshold")),
                "precision there": decimal(best.get("precision")),
                "recall there": decimal(best.get("recall")),
            }
        )
    means = {
        "class": "mean",
        "objects": str(sum(result.ground_truth for result in results)),
        "detections": str(sum(result.detections for result in results)),
        "AP 11-point": decimal(evaluation.map_11point),
        "AP area": decimal(evaluation.map_area),
    }
    return [*rows, means]


def print_table(evaluation: VocEvaluation, console: Console) -> None:
    """Prints one row a class and the means."""
    rule = ">" if evaluation.strictly_greater else ">="
    table = Table(
        title=f"VOC average precision, IoU {rule} {evaluation.iou_threshold:g}, "
        f"{len(evaluation.dataset)} images of {' + '.join(evaluation.dataset.sets)}",
        caption="Objects: without difficult ones. Classes without objects are not in the mean. "
        "Best F1: of all score thresholds.",
    )
    table.add_column("class")
    headings = ("objects", "detections", "recall", "AP 11-point", "AP area", "best F1", "at score")
    for heading in headings:
        table.add_column(heading, justify="right")
    *rows, means = class_rows(evaluation)
    for row in rows:
        table.add_row(*(row[heading] for heading in ("class", *headings)))
    table.add_section()
    table.add_row(*(means.get(heading, "") for heading in ("class", *headings)), style="bold")
    console.print(table)


def _evaluate_class(
    scores: np.ndarray, is_true: np.ndarray, *, ground_truth: int, detections: int
) -> ClassEvaluation:
    """The (D,) arrays of one class by falling score, without the detections that are ignored."""
    true_positives = np.cumsum(is_true, dtype=np.int64)
    precision = true_positives / np.arange(1, len(scores) + 1)
    curve = (true_positives, precision, ground_truth)
    return ClassEvaluation(
        ap_11point=float(average_precision_11point(*curve)) if ground_truth else None,
        ap_area=float(average_precision_area(*curve)) if ground_truth else None,
        ground_truth=ground_truth,
        detections=detections,
        scores=scores,
        precision=precision,
        recall=true_positives / max(ground_truth, 1),
        best=best_f1(scores, true_positives, ground_truth),
    )


def _check(dataset: Dataset, detections: Mapping[str, ImageDetections]) -> None:
    keys = {example.key for example in dataset.examples}
    for key, found in detections.items():
        if key not in keys:
            raise UserError(
                f"There are detections of the image {key}, which is not one of the {len(keys)} "
                f"images of {' + '.join(dataset.sets)}: evaluate on the set they were made on."
            )
        if not len(found):
            continue
        if not (np.isfinite(found.scores).all() and np.isfinite(found.boxes_image).all()):
            raise UserError(
                f"A detection of the image {key} has a score or box that is not a finite number: "
                "the training that made these weights has diverged."
            )
        number = len(dataset.class_names)
        if found.classes.min() < 1 or found.classes.max() > number:
            raise UserError(
                f"A detection of the image {key} has a class outside 1 to {number}, the classes of "
                f"{' + '.join(dataset.sets)}: the detector was trained on other classes."
            )


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
