"""Draws precision-recall curves, one panel a class."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from keras_frcnn.evaluation.voc import ClassEvaluation, VocEvaluation, decimal, monotone
from keras_frcnn.plots import drawable, save_figure

# The curve of a class with half a million detections need not hold half a million points.
MOST_POINTS = 2000
# More panels are not looked at, and take minutes to draw.
MOST_PANELS = 60


def classes_shown(evaluation: VocEvaluation) -> list[str]:
    """The classes that get a picture, in their order: all, or those with the lowest area AP."""
    names, results = list(evaluation.per_class), evaluation.per_class.values()
    areas = [2.0 if result.ap_area is None else result.ap_area for result in results]
    lowest = np.argsort(areas, kind="stable")[:MOST_PANELS]
    return [names[index] for index in sorted(lowest)]


def save_precision_recall(evaluation: VocEvaluation, png: Path | str) -> None:
    """Draws precision over recall, what the area AP sums, and the best F1 of ``classes_shown``."""
    names = classes_shown(evaluation)
    columns = min(len(names), 5) if len(names) > 4 else max(1, min(len(names), 2))
    rows = max(1, math.ceil(len(names) / columns))
    width, height = 2.9 * columns + 0.8, 2.8 * rows + 1.2
    figure = Figure(figsize=(width, height), dpi=100)
    # Not shared: the time that matplotlib takes for shared axes grows with their square.
    axes = figure.subplots(rows, columns, squeeze=False)
    # By hand: the layout engines take seconds for 20 panels.
    margins = {"left": 0.7 / width, "right": 1 - 0.15 / width, "wspace": 0.1, "hspace": 0.22}
    figure.subplots_adjust(bottom=0.6 / height, top=1 - 0.75 / height, **margins)
    panels = axes.ravel()
    titles, font = drawable(names)
    for index, (axis, title, name) in enumerate(zip(panels, titles, names, strict=False)):
        axis.set_title(title, **font, fontsize=11)
        _draw_class(axis, evaluation.per_class[name])
        # The lowest panel of each column carries the numbers, also where the last row is not full.
        is_lowest = index + columns >= len(names)
        axis.tick_params(labelleft=index % columns == 0, labelbottom=is_lowest)
    for axis in panels[len(names) :]:
        axis.set_visible(False)
    figure.supxlabel("recall", y=0.15 / height, va="bottom")
    figure.supylabel("precision", x=0.12 / width, ha="left")
    rule = ">" if evaluation.strictly_greater else ">="
    mean = (
        f"mean AP {decimal(evaluation.map_area)} area, {decimal(evaluation.map_11point)} 11-point"
    )
    title = f"{mean}; IoU {rule} {evaluation.iou_threshold:g}"
    if len(names) < len(evaluation.per_class):
        title += (
            f"; the {len(names)} of {len(evaluation.per_class)} classes with the lowest area AP"
        )
    figure.suptitle(title, y=1 - 0.12 / height, va="top", fontsize=12 if columns > 1 else 9)
    save_figure(figure, Path(png))


def _draw_class(axis: Axes, result: ClassEvaluation) -> None:
    axis.set(xlim=(0, 1.02), ylim=(0, 1.05))
    axis.grid(alpha=0.25)
    if not result.ground_truth:
        nothing = "no objects to find"
        axis.text(0.5, 0.5, nothing, ha="center", va="center", color="grey", fontsize=10)
        return
    kept = _worth_drawing(result.recall)
    recall, precision = result.recall[kept], result.precision[kept]
    envelope = monotone(result.precision)[kept]
    # Where recall jumps the envelope's step belongs to the detection that it jumps to.
    steps = (np.concatenate([[0], recall]), np.concatenate([envelope[:1], envelope]))
    label = f"AP {decimal(result.ap_area)} area\n     {decimal(result.ap_11point)} 11-point"
    axis.fill_between(*steps, step="pre", alpha=0.15, color="tab:blue", linewidth=0)
    axis.plot(recall, precision, color="tab:blue", linewidth=1.6, label=label)
    if result.best is not None:
        point = result.best
        at = f"F1 {point.f1:.2f} at {point.score_threshold:.2f}"
        axis.plot(point.recall, point.precision, "o", color="tab:orange", markersize=6, label=at)
    # A low curve leaves room above it, a high one below.
    is_high = (result.ap_area or 0.0) > 0.4
    axis.legend(loc="lower left" if is_high else "upper right", fontsize=8, framealpha=0.8)


def _worth_drawing(recall: np.ndarray) -> np.ndarray:
    """At most ``MOST_POINTS`` positions of (D,) detections: where recall rises, and just before."""
    rises = np.flatnonzero(np.diff(recall, prepend=0.0) > 0)
    kept = np.unique(np.concatenate([rises, np.maximum(rises - 1, 0), [len(recall) - 1]]))
    kept = kept[(kept >= 0) & (kept < len(recall))]
    if len(kept) > MOST_POINTS:
        kept = kept[np.linspace(0, len(kept) - 1, MOST_POINTS).astype(int)]
    return kept
