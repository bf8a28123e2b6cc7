"""Which class was taken for which: the confusion matrix of detections."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from keras_frcnn.data.dataset import Dataset, Example
from keras_frcnn.detection.detections import NO_DETECTIONS, ImageDetections
from keras_frcnn.evaluation.matching import box_overlaps
from keras_frcnn.plots import named_ticks, save_figure
from keras_frcnn.system.files import write_table

BACKGROUND, MISSED = "background", "missed"

# Shown with the picture and in the report.
RULE = (
    "Detections with a score of at least {score:g}, the best first: each takes the free object of "
    "its image, of whatever class, that it overlaps most, at IoU {iou:g} or more. A detection "
    "without one is background, an object without one missed. Difficult objects, and detections "
    "left over that reach one, count for nothing."
)


@dataclass(frozen=True, eq=False)
class ConfusionMatrix:
    """Counts of pairs, with how they came about.

    Attributes:
        counts: (C + 1, C + 1) int64. Rows: class of the object, the last one background. Columns:
            class of the detection, the last one missed. The last entry is always 0.
        class_names: (C,).
        score_threshold, iou_threshold: what counts as a detection and as a pair.
    """

    counts: np.ndarray
    class_names: tuple[str, ...]
    score_threshold: float
    iou_threshold: float

    @property
    def rule(self) -> str:
        """How the pairs were made, in words."""
        return RULE.format(score=self.score_threshold, iou=self.iou_threshold)


def confusion_matrix(
    dataset: Dataset,
    detections: Mapping[str, ImageDetections],
    *,
    score_threshold: float,
    iou_threshold: float = 0.5,
) -> ConfusionMatrix:
    """Counts which class was taken for which, by ``RULE``.

    Ties of score go to the earlier detection, ties of overlap to the earlier object. Unlike in the
    average precision, a detection of the wrong class uses up the object that it lies on.

    Args:
        detections: by ``Example.key``; an image that is missing has none.
    """
    number = len(dataset.class_names)
    counts = np.zeros((number + 1, number + 1), np.int64)
    for example in dataset.examples:
        found = detections.get(example.key, NO_DETECTIONS).at_least(score_threshold).best()
        rows, columns = _pairs(example, found, iou_threshold, number + 1)
        np.add.at(counts, (rows - 1, columns - 1), 1)
    return ConfusionMatrix(counts, dataset.class_names, score_threshold, iou_threshold)


def write_confusion_csv(path: Path | str, confusion: ConfusionMatrix) -> None:
    """Writes the counts with names; a file of that name is replaced."""
    heads = (*confusion.class_names, BACKGROUND)
    counts = zip(heads, confusion.counts.tolist(), strict=True)
    heading = ["object \\ detection", *confusion.class_names, MISSED]
    write_table(path, [heading, *([name, *row] for name, row in counts)])


def save_confusion(confusion: ConfusionMatrix, png: Path | str) -> None:
    """Draws the counts; the colour is the share of the row, so rare classes are as readable."""
    counts = confusion.counts
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    number = len(counts)
    side = min(max(5.5, 0.5 * number + 2.5), 30)
    figure = Figure(figsize=(side + 1, side), dpi=100, layout="constrained")
    axis = figure.subplots()
    image = axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    columns, texts, style = named_ticks([*confusion.class_names, MISSED], side - 2.5)
    # Numbers in every cell of hundreds of classes would neither be read nor drawn in time.
    for row, column in np.argwhere(counts) if columns.step == 1 else ():
        colour = "white" if shares[row, column] > 0.55 else "black"
        text = str(counts[row, column])
        axis.text(column, row, text, ha="center", va="center", fontsize=8, color=colour)
    axis.set_xticks(columns, texts, rotation=90, **style)
    rows, texts, style = named_ticks([*confusion.class_names, BACKGROUND], side - 2.5)
    axis.set_yticks(rows, texts, **style)
    axis.axhline(number - 1.5, color="grey", linewidth=1)
    axis.axvline(number - 1.5, color="grey", linewidth=1)
    axis.set_xlabel("class of the detection")
    axis.set_ylabel("class of the object")
    axis.set_title(
        f"score at least {confusion.score_threshold:g}, IoU at least {confusion.iou_threshold:g}"
    )
    figure.colorbar(image, ax=axis, label="share of the row", shrink=0.8)
    save_figure(figure, Path(png))


def _pairs(
    example: Example, found: ImageDetections, iou_threshold: float, nothing: int
) -> tuple[np.ndarray, np.ndarray]:
    """Classes of objects and detections of one image, pair by pair, 1-based.

    Args:
        found: best first.
        nothing: the number that stands for background and for missed.
    """
    overlaps = box_overlaps(found.boxes_image, example.boxes_image)
    counted = ~example.difficult
    on_difficult = (overlaps[:, example.difficult] >= iou_threshold).any(axis=1)
    reached = (overlaps >= iou_threshold) & counted
    free = counted.copy()
    partner = np.full(len(found), -1)
    # Only what reaches an object needs its turn; everything else is background at once.
    for row in np.flatnonzero(reached.any(axis=1)):
        candidates = np.where(reached[row] & free, overlaps[row], -1.0)
        best = int(candidates.argmax())
        if candidates[best] >= 0:
            partner[row] = best
            free[best] = False
    paired = partner >= 0
    alone = ~paired & ~on_difficult
    rows = [example.classes[partner[paired]], np.full(alone.sum(), nothing), example.classes[free]]
    columns = [found.classes[paired], found.classes[alone], np.full(free.sum(), nothing)]
    return np.concatenate(rows), np.concatenate(columns)
