"""Plots: loss curves, label statistics.

They are made of figure objects: importing or calling this module never changes pyplot's state and
needs no display.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from keras_frcnn.data.dataset import Dataset
from keras_frcnn.runs.metrics import read_records
from keras_frcnn.runs.stage_table import stage_title
from keras_frcnn.system.files import written_whole
from keras_frcnn.system.fonts import font_for

LOSSES = {
    "loss": ("total", "black"),
    "rpn_class_loss": ("RPN class", "tab:blue"),
    "rpn_box_loss": ("RPN box", "tab:orange"),
    "detector_class_loss": ("detector class", "tab:green"),
    "detector_box_loss": ("detector box", "tab:purple"),
}
LARGEST = 1e30
IOU_BANDS = (
    (0.7, math.inf, "tab:green", "best IoU at least 0.7"),
    (0.5, 0.7, "tab:orange", "0.5 to 0.7"),
    (-math.inf, 0.5, "tab:red", "below 0.5"),
)

# Smaller letters are not read, in points.
LEAST_LETTERS = 6


def save_curves(metrics_path: Path | str, png: Path | str, mode: str = "alternating") -> None:
    """Draws the losses of ``metrics.jsonl`` over the iterations, one panel a stage.

    The raw values are pale, their moving average is drawn over them; a dashed line marks where
    the learning rate changes. Of an iteration that a resumed run did again the last line counts.
    An unfinished last line, as a running or killed training leaves, is skipped.

    Raises:
        UserError: the file cannot be read or a line other than the last is no record.
    """
    stages: dict[Any, dict[int, dict[str, Any]]] = {}
    for record in read_records(Path(metrics_path)):
        stages.setdefault(record["stage"], {})[record["iteration"]] = record
    panels = max(1, len(stages))
    figure = Figure(figsize=(4.6 * panels + 1, 4.4), dpi=110, layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)[0]
    for axis, (stage, records) in zip(axes, stages.items(), strict=False):
        _draw_stage(axis, stage, mode, [records[iteration] for iteration in sorted(records)])
    if not stages:
        axes[0].set_title("no iteration finished yet")
    axes[0].set_ylabel("loss")
    save_figure(figure, Path(png))


def save_label_statistics(
    dataset: Dataset,
    png: Path | str,
    *,
    anchors_input: np.ndarray,
    shapes: np.ndarray,
    best_ious: np.ndarray,
    covering: str = "anchor",
) -> None:
    """Objects per class, and their sizes at network input scale against the anchors.

    Args:
        dataset: the training images; every object that it holds is counted.
        anchors_input: (A, 4) anchors of one position in pixels of the network input; (0, 4) where
            a network has none.
        shapes: (G, 2) heights and widths of the objects in pixels of the network input, in the
            order of the examples and their objects.
        best_ious: (G,) best IoU of each object with any box of its image, in that order.
        covering: what these boxes are: ``anchor`` or ``proposal``.

    Raises:
        ValueError: ``best_ious`` does not have one entry an object.
    """
    if len(best_ious) != dataset.number_of_objects:
        raise ValueError(f"expected {dataset.number_of_objects} IoUs, received {len(best_ious)}")
    heights, widths = shapes.T
    every_class = np.concatenate([np.zeros(0, int), *(e.classes for e in dataset.examples)])
    counts = np.bincount(every_class.astype(int), minlength=len(dataset.class_names) + 1)[1:]
    height = min(max(6.0, 0.26 * len(counts) + 1.5), 20.0)
    figure = Figure(figsize=(12.5, height), dpi=110, layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw_class_counts(left, dataset, counts, height - 1.5)
    _draw_sizes(right, widths, heights, np.asarray(best_ious), anchors_input)
    title = "no boxes"
    if len(best_ious):
        shares = [f"{np.mean(best_ious < least):.1%} at IoU {least}" for least in (0.5, 0.7)]
        article = "an" if covering[0] in "aeiou" else "a"
        title = f"boxes without {article} {covering}: " + ", ".join(shares)
    figure.suptitle(title)
    save_figure(figure, Path(png))


def save_anchor_clusters(
    png: Path | str,
    *,
    mean_ious: dict[int, float],
    published_mean_iou: float,
    shapes: np.ndarray,
    best_ious: np.ndarray,
    anchors_input: np.ndarray,
) -> None:
    """Mean IoU over the number of anchors, and the objects' sizes against the anchors chosen.

    Args:
        png: file to write.
        mean_ious: number of anchors -> mean IoU of the shapes with the nearest, from k-means.
        published_mean_iou: the same of the paper's nine.
        shapes: (G, 2) heights and widths of the objects in pixels of the network input.
        best_ious: (G,) best IoU of each object with any anchor of its image.
        anchors_input: (A, 4) anchors of one position in pixels of the network input.
    """
    figure = Figure(figsize=(12.5, 6), dpi=110, layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(list(mean_ious), list(mean_ious.values()), marker="o", label="k-means")
    chosen = len(anchors_input)
    style = {"color": "black", "zorder": 3, "s": 90}
    left.scatter([chosen], [mean_ious[chosen]], marker="P", label=f"chosen: {chosen}", **style)
    left.scatter([9], [published_mean_iou], marker="x", label="the paper's nine", **style)
    left.set(xlabel="anchors", ylabel="mean IoU of the shapes with the nearest anchor")
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    left.set_title("shapes alone, all around one centre")
    left.grid(alpha=0.25)
    left.legend(loc="lower right", fontsize=9)
    heights, widths = shapes.T
    _draw_sizes(right, widths, heights, best_ious, anchors_input)
    covered = [f"{np.mean(best_ious >= least):.1%} at IoU {least}" for least in (0.5, 0.7)]
    figure.suptitle(f"boxes with an anchor, placed as in training: {', '.join(covered)}")
    save_figure(figure, Path(png))


def _draw_stage(axis: Axes, stage: int, mode: str, records: list[dict[str, Any]]) -> None:
    highest = 0.0
    style: dict[str, Any]
    for name, (label, colour) in LOSSES.items():
        points = [(r["iteration"], r[name]) for r in records if _is_finite(r.get(name))]
        if not points:
            continue
        iterations, values = np.array(points, np.float64).T
        axis.plot(iterations, values, color=colour, alpha=0.2, linewidth=0.7)
        smooth = _moving_average(values, 1 + len(values) // 25)
        style = {"linewidth": 1.8, "marker": "o" if len(values) == 1 else None}
        axis.plot(iterations, smooth, color=colour, label=label, **style)
        highest = max(highest, float(np.percentile(values, 98)), 1.05 * float(smooth.max()))
    for before, after in zip(records, records[1:], strict=False):
        rates = before.get("learning_rate"), after.get("learning_rate")
        if all(map(_is_finite, rates)) and rates[0] != rates[1]:
            axis.axvline(after["iteration"], color="gray", linestyle="--", linewidth=1)
            place: dict[str, Any] = {"transform": axis.get_xaxis_transform(), "rotation": 90}
            style = {"va": "top", "ha": "right", "fontsize": 8, "color": "gray"}
            axis.text(after["iteration"], 0.98, f"learning rate {rates[1]:g}", **place, **style)
    if highest > 0:
        axis.set_ylim(0, 1.08 * highest)
    axis.set_title(stage_title(stage, mode))
    axis.set_xlabel("iteration")
    axis.grid(alpha=0.25)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize=9)


def _is_finite(value: Any) -> bool:
    """Whether a picture has room for it: beyond that, sums and limits of axes overflow."""
    return isinstance(value, (int, float)) and abs(value) < LARGEST


def _moving_average(values: np.ndarray, window: int) -> np.ndarray:
    """Centred, with weights that fall off to both sides; at the ends over the values there are."""
    weights = np.bartlett(2 * window + 1)[1:-1]
    if len(weights) > len(values):
        return np.full_like(values, values.mean())
    counts = np.convolve(np.ones_like(values), weights, mode="same")
    return np.convolve(values, weights, mode="same") / counts


def drawable(names: Sequence[str]) -> tuple[list[str], dict[str, Path]]:
    """Names as a figure can show them, and the font for them as a keyword of matplotlib.

    What stands between two dollar signs would be a formula.
    """
    font = font_for("".join(names))
    return [font.readable(name).replace("$", r"\$") for name in names], {"font": font.file}


def named_ticks(names: Sequence[str], inches: float) -> tuple[range, list[str], dict[str, Any]]:
    """Places, names and style of the ticks of classes along an axis, of many only some.

    Args:
        inches: length of the axis, roughly.
    """
    texts, font = drawable(names)
    points = 0.8 * 72 * inches / max(len(texts), 1)
    step = math.ceil(LEAST_LETTERS / points)
    style = {**font, "fontsize": min(10, points * step)}
    return range(0, len(texts), step), texts[::step], style


def _draw_class_counts(axis: Axes, dataset: Dataset, counts: np.ndarray, inches: float) -> None:
    places, names, style = named_ticks(dataset.class_names, inches)
    bars = axis.barh(range(len(counts)), counts, min(0.8, 0.2 + 0.1 * len(counts)))
    axis.set_yticks(places, names, **style)
    if places.step == 1:
        axis.bar_label(bars, padding=3, fontsize=min(9, style["fontsize"]))
    axis.invert_yaxis()
    axis.margins(x=0.12, y=0.02)
    axis.set_xlabel("objects")
    axis.set_title(f"{counts.sum()} objects in {len(dataset)} images")


def _draw_sizes(
    axis: Axes,
    widths: np.ndarray,
    heights: np.ndarray,
    best_ious: np.ndarray,
    anchors_input: np.ndarray,
) -> None:
    alpha = float(np.clip(300 / max(len(widths), 1), 0.08, 0.7))
    for low, high, colour, label in IOU_BANDS:
        of_band = (best_ious >= low) & (best_ious < high)
        axis.scatter(widths[of_band], heights[of_band], s=9, color=colour, alpha=alpha, linewidth=0)
        axis.scatter([], [], s=30, color=colour, label=f"{label} ({of_band.sum()})")
    anchor_heights, anchor_widths = (anchors_input[:, 2:] - anchors_input[:, :2]).T
    if len(anchors_input):
        _draw_anchors(axis, anchor_widths, anchor_heights)
    every_side = np.concatenate([widths, heights, anchor_widths, anchor_heights])
    if not len(every_side):
        every_side = np.array([16.0, 512.0])
    low, high = max(0.5, every_side.min()), every_side.max()
    limits = (0.8 * low, high * (high / low) ** 0.17)  # room for the sizes beside the anchors
    axis.set(xscale="log", yscale="log", xlim=limits, ylim=limits, box_aspect=1)
    for scale in (axis.xaxis, axis.yaxis):
        scale.set_major_locator(LogLocator(subs=(1, 2, 5)))
        scale.set_major_formatter("{x:g}")
        scale.set_minor_locator(NullLocator())
    axis.set_xlabel("box width (pixels of the network input)")
    axis.set_ylabel("box height (pixels of the network input)")
    axis.set_title("sizes of the objects" + (", and the anchors" if len(anchors_input) else ""))
    axis.grid(alpha=0.25)
    axis.legend(loc="upper left", fontsize=9)


def _draw_anchors(axis: Axes, anchor_widths: np.ndarray, anchor_heights: np.ndarray) -> None:
    style: dict[str, Any] = {"marker": "P", "s": 90, "color": "black", "edgecolor": "white"}
    axis.scatter(anchor_widths, anchor_heights, label="anchors", zorder=3, **style)
    plate = {"facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 1}
    style = {"xytext": (7, 5), "textcoords": "offset points", "fontsize": 8, "bbox": plate}
    for width, height in zip(anchor_widths, anchor_heights, strict=True):
        axis.annotate(f"{width:.0f} x {height:.0f}", (width, height), zorder=2.9, **style)


def save_figure(figure: Figure, png: Path) -> None:
    """Writes a PNG whole: a viewer that follows a training never meets half a picture."""
    with written_whole(png) as partial:
        figure.savefig(partial, format="png")
