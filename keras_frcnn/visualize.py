"""Pictures: detections and training samples on photos, loss curves, label statistics.

Boxes are half-open; Pillow draws inclusive corners, so the right and bottom lines are drawn at
``x2 - 1`` and ``y2 - 1``. Plots are made of figure objects: importing or calling this module
never changes pyplot's state and needs no display.

Shapes and names
----------------
H, W  size of the image at hand.
D  boxes to draw; A  anchors of one position; G  objects of the data set.
image  (H, W, 3) uint8 RGB.
boxes  (D, 4) half-open (y1, x1, y2, x2) in pixels of that image.
colour  (red, green, blue), each 0 to 255.
"""

from __future__ import annotations

import colorsys
import json
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator
from PIL import Image, ImageDraw, ImageFont

from keras_frcnn.data.dataset import Dataset, Example
from keras_frcnn.errors import UserError

Colour = tuple[int, int, int]

# Twenty hues that are told apart side by side, bright enough for a line on a dark photo.
CLASS_COLOURS: tuple[Colour, ...] = (
    *((230, 25, 75), (60, 180, 75), (255, 225, 25), (30, 130, 255), (245, 130, 48)),
    *((170, 60, 210), (70, 240, 240), (240, 50, 230), (191, 239, 69), (250, 170, 190)),
    *((0, 150, 140), (205, 170, 255), (180, 110, 40), (255, 255, 255), (150, 255, 190)),
    *((205, 92, 92), (140, 140, 0), (255, 200, 150), (70, 70, 220), (170, 170, 170)),
)
# Kinds of boxes of a training sample, in the order in which they are drawn.
SAMPLE_COLOURS: dict[str, Colour] = {
    "background": (255, 70, 70),
    "foreground": (60, 230, 90),
    "ground truth": (255, 230, 40),
}
STAGE_NAMES = {
    1: "RPN",
    2: "detector",
    3: "RPN on shared features",
    4: "detector, shared",
}
LOSSES = {
    "loss": ("total", "black"),
    "rpn_class_loss": ("RPN class", "tab:blue"),
    "rpn_box_loss": ("RPN box", "tab:orange"),
    "detector_class_loss": ("detector class", "tab:green"),
    "detector_box_loss": ("detector box", "tab:purple"),
}
IOU_BANDS = (
    (0.7, math.inf, "tab:green", "best IoU at least 0.7"),
    (0.5, 0.7, "tab:orange", "0.5 to 0.7"),
    (-math.inf, 0.5, "tab:red", "below 0.5"),
)


def class_colour(index: int) -> Colour:
    """The colour of class ``index`` (1-based; 0 works too), the same in every picture."""
    if 0 < index <= len(CLASS_COLOURS):
        return CLASS_COLOURS[index - 1]
    # The golden ratio spreads any number of hues; the value sets neighbours apart as well.
    red, green, blue = colorsys.hsv_to_rgb(index * 0.618034 % 1, 0.75, (1.0, 0.75)[index % 2])
    return round(255 * red), round(255 * green), round(255 * blue)


def draw_detections(
    image: np.ndarray,
    boxes_image: np.ndarray,
    labels: Sequence[str],
    scores: Sequence[float] | None,
    colours: Sequence[Colour],
) -> Image.Image:
    """Draws boxes with name and score; line width and letters grow with the image.

    Every line has a dark edge and every label a plate in the colour of its box, so both are
    readable on any photo. Plates stay within the image and avoid each other where there is room;
    the best score chooses its place first and lies on top.

    Args:
        image: (H, W, 3) uint8.
        boxes_image: (D, 4).
        labels: (D,) names.
        scores: (D,), or None to write the names alone.
        colours: (D,), usually ``class_colour(class_index)``.
    """
    picture = Image.fromarray(image)
    draw = ImageDraw.Draw(picture)
    unit = math.sqrt(picture.width * picture.height)
    line_width = max(2, round(unit / 220))
    ranking = np.arange(len(labels)) if scores is None else np.argsort(-np.asarray(scores))
    for index in ranking[::-1]:
        _draw_box(draw, boxes_image[index], colours[index], line_width)
    plates: list[tuple[int, int, int, int]] = []
    texts: list[tuple[str, ImageFont.FreeTypeFont]] = []
    for index in ranking:
        text = labels[index] if scores is None else f"{labels[index]} {scores[index]:.2f}"
        font = _fitting_font(text, max(11, round(unit / 32)), picture.width)
        texts.append((text, font))
        plates.append(_place_plate(text, font, boxes_image[index], picture.size, plates))
    for index, plate, (text, font) in reversed(list(zip(ranking, plates, texts, strict=True))):
        _draw_plate(draw, plate, text, font, colours[index])
    return picture


def draw_samples(image: np.ndarray, boxes: np.ndarray, kinds: Sequence[str]) -> Image.Image:
    """A training image with the anchors or RoIs that its step sampled, and what they should find.

    Args:
        image: (H, W, 3) uint8, the network input before its mean is subtracted.
        boxes: (D, 4) in pixels of that image; they may overhang it.
        kinds: (D,) each ``"foreground"``, ``"background"`` or ``"ground truth"``.

    Raises:
        ValueError: another kind.
    """
    unknown = set(kinds) - set(SAMPLE_COLOURS)
    if unknown:
        raise ValueError(f"expected kinds {list(SAMPLE_COLOURS)}, received {sorted(unknown)}")
    picture = Image.fromarray(image)
    draw = ImageDraw.Draw(picture, "RGBA")
    unit = math.sqrt(picture.width * picture.height)
    thin = max(1, round(unit / 500))
    for kind, colour in SAMPLE_COLOURS.items():
        for box in (box for box, of_kind in zip(boxes, kinds, strict=True) if of_kind == kind):
            if kind == "background":  # a hundred and more: thin and pale
                draw.rectangle(_inclusive(box), outline=(*colour, 120), width=thin)
            else:
                _draw_box(draw, box, colour, 2 * thin)
    x = 0
    for kind, colour in reversed(SAMPLE_COLOURS.items()):
        text = f"{kind} {sum(of_kind == kind for of_kind in kinds)}"
        font = _fitting_font(text, max(11, round(unit / 36)), picture.width // 3)
        width, height = _plate_size(text, font)
        _draw_plate(draw, (x, 0, x + width, height), text, font, colour)
        x += width
    return picture


def contact_sheet(images: Sequence[Image.Image], columns: int, cell: int = 480) -> Image.Image:
    """The pictures row by row, each shrunk into a square of ``cell`` pixels, with white gaps.

    Raises:
        ValueError: no images, or no columns.
    """
    if not images or columns < 1:
        raise ValueError(f"expected images and columns, received {len(images)} and {columns}")
    small = []
    for image in images:
        scale = min(1.0, cell / max(image.size))
        size = tuple(max(1, round(side * scale)) for side in image.size)
        small.append(image.convert("RGB").resize(size, Image.Resampling.LANCZOS))
    columns = min(columns, len(small))
    rows = [small[start : start + columns] for start in range(0, len(small), columns)]
    gap = max(4, cell // 60)
    column_width = max(image.width for image in small) + gap
    heights = [max(image.height for image in row) + gap for row in rows]
    sheet = Image.new("RGB", (columns * column_width + gap, sum(heights) + gap), "white")
    for row, y, height in zip(rows, np.cumsum([gap, *heights]).tolist(), heights, strict=False):
        for column, image in enumerate(row):
            x = gap + column * column_width + (column_width - gap - image.width) // 2
            sheet.paste(image, (x, y + (height - gap - image.height) // 2))
    return sheet


def save_curves(metrics_path: Path | str, png: Path | str) -> None:
    """Draws the losses of ``metrics.jsonl`` over the iterations, one panel a stage.

    The raw values are pale, their moving average is drawn over them; a dashed line marks where
    the learning rate changes. Of an iteration that a resumed run did again the last line counts.
    An unfinished last line, as a running or killed training leaves, is skipped.

    Raises:
        UserError: the file cannot be read or a line other than the last is no JSON object.
    """
    stages: dict[Any, dict[int, dict[str, Any]]] = {}
    for record in _read_metrics(Path(metrics_path)):
        stages.setdefault(record["stage"], {})[record["iteration"]] = record
    panels = max(1, len(stages))
    figure = Figure(figsize=(4.6 * panels + 1, 4.4), dpi=110, layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)[0]
    for axis, (stage, records) in zip(axes, stages.items(), strict=False):
        _draw_stage(axis, stage, [records[iteration] for iteration in sorted(records)])
    if not stages:
        axes[0].set_title("no iteration finished yet")
    axes[0].set_ylabel("loss")
    _save_figure(figure, Path(png))


def save_label_statistics(
    dataset: Dataset,
    png: Path | str,
    *,
    anchors_input: np.ndarray,
    scale_of: Callable[[Example], float],
    best_ious: np.ndarray,
) -> None:
    """Objects per class, and their sizes at network input scale against the anchors.

    Args:
        dataset: the training images; every object that it holds is counted.
        anchors_input: (A, 4) anchors of one position in pixels of the network input.
        scale_of: network input size / original size of an image.
        best_ious: (G,) best IoU of each object with any anchor of its image, in the order of the
            examples and their objects.

    Raises:
        ValueError: ``best_ious`` does not have one entry an object.
    """
    if len(best_ious) != dataset.number_of_objects:
        raise ValueError(f"expected {dataset.number_of_objects} IoUs, received {len(best_ious)}")
    sides = [np.zeros((0, 2))]
    for example in dataset.examples:
        boxes = example.boxes_image * scale_of(example)
        sides.append(boxes[:, 2:] - boxes[:, :2])
    heights, widths = np.concatenate(sides).T
    every_class = np.concatenate([np.zeros(0, int), *(e.classes for e in dataset.examples)])
    counts = np.bincount(every_class.astype(int), minlength=len(dataset.class_names) + 1)[1:]
    bar_height = max(6.0, 0.26 * len(counts) + 1.5)
    figure = Figure(figsize=(12.5, min(bar_height, 30)), dpi=110, layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw_class_counts(left, dataset, counts)
    _draw_sizes(right, widths, heights, np.asarray(best_ious), anchors_input)
    title = "no boxes"
    if len(best_ious):
        shares = [f"{np.mean(best_ious < least):.1%} at IoU {least}" for least in (0.5, 0.7)]
        title = "boxes without an anchor: " + ", ".join(shares)
    figure.suptitle(title)
    _save_figure(figure, Path(png))


def _draw_box(draw: ImageDraw.ImageDraw, box: np.ndarray, colour: Colour, width: int) -> None:
    x1, y1, x2, y2 = _inclusive(box)
    edge = max(1, width // 3)
    outer = (x1 - edge, y1 - edge, x2 + edge, y2 + edge)
    draw.rectangle(outer, outline=(0, 0, 0), width=width + 2 * edge)
    draw.rectangle((x1, y1, x2, y2), outline=colour, width=width)


def _inclusive(box: np.ndarray) -> tuple[int, int, int, int]:
    """The first and last pixels of a half-open box as Pillow wants them: (x1, y1, x2, y2)."""
    y1, x1, y2, x2 = (round(float(value)) for value in box)
    return x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)


def _fitting_font(text: str, size: int, room: int) -> ImageFont.FreeTypeFont:
    """The default font, smaller than asked where the plate would be wider than ``room``."""
    font = ImageFont.load_default(size=size)
    while size > 8 and _plate_size(text, font)[0] > room:
        size -= max(1, size // 10)
        font = ImageFont.load_default(size=size)
    return font


def _plate_size(text: str, font: ImageFont.FreeTypeFont) -> tuple[int, int]:
    # Ascent and descent instead of the letters at hand: the plates of all words are as high.
    padding = max(1, round(font.size / 6))
    ascent, descent = font.getmetrics()
    return math.ceil(font.getlength(text)) + 2 * padding, ascent + descent + padding


def _place_plate(
    text: str,
    font: ImageFont.FreeTypeFont,
    box: np.ndarray,
    image_size: tuple[int, int],
    taken: Sequence[tuple[int, int, int, int]],
) -> tuple[int, int, int, int]:
    """(x1, y1, x2, y2) of the first free place: over, in or under the box; over it if none is."""
    y1, x1, y2, x2 = (round(float(value)) for value in box)
    width, height = _plate_size(text, font)
    candidates = [
        (x1, y1 - height),
        (x1, y1),
        (x2 - width, y1 - height),
        (x1, y2),
        (x1, y2 - height),
    ]
    if y1 < height:
        candidates = candidates[1:]
    places = []
    for x, y in candidates:
        x = max(0, min(x, image_size[0] - width))
        y = max(0, min(y, image_size[1] - height))
        places.append((x, y, x + width, y + height))
    free = (place for place in places if not any(_overlap(place, other) for other in taken))
    return next(free, places[0])


def _overlap(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _draw_plate(
    draw: ImageDraw.ImageDraw,
    plate: tuple[int, int, int, int],
    text: str,
    font: ImageFont.FreeTypeFont,
    colour: Colour,
) -> None:
    x1, y1, x2, y2 = plate
    draw.rectangle((x1, y1, x2 - 1, y2 - 1), fill=colour)
    luminance = np.dot(colour, (0.299, 0.587, 0.114))
    ink = (0, 0, 0) if luminance > 125 else (255, 255, 255)
    padding = max(1, round(font.size / 6))
    draw.text((x1 + padding, y1 + padding // 2), text, fill=ink, font=font)


def _read_metrics(path: Path) -> list[dict[str, Any]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UserError(f"The metrics {path} cannot be read: {error.strerror}.") from error
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            if number == len(lines):
                break
            raise UserError(f"Line {number} of {path} is not JSON: {error}.") from error
        if isinstance(record, dict) and "stage" in record and "iteration" in record:
            records.append(record)
    return records


def _draw_stage(axis: Axes, stage: Any, records: list[dict[str, Any]]) -> None:
    highest = 0.0
    for name, (label, colour) in LOSSES.items():
        points = [(r["iteration"], r[name]) for r in records if _is_finite(r.get(name))]
        if not points:
            continue
        iterations, values = np.array(points, np.float64).T
        axis.plot(iterations, values, color=colour, alpha=0.2, linewidth=0.7)
        smooth = _moving_average(values, 1 + len(values) // 25)
        axis.plot(iterations, smooth, color=colour, linewidth=1.8, label=label)
        highest = max(highest, float(np.percentile(values, 98)), 1.05 * float(smooth.max()))
    for before, after in zip(records, records[1:], strict=False):
        rates = before.get("learning_rate"), after.get("learning_rate")
        if all(map(_is_finite, rates)) and rates[0] != rates[1]:
            axis.axvline(after["iteration"], color="gray", linestyle="--", linewidth=1)
            place = {"transform": axis.get_xaxis_transform(), "rotation": 90}
            style = {"va": "top", "ha": "right", "fontsize": 8, "color": "gray"}
            axis.text(
                after["iteration"],
                0.98,
                f"learning rate {rates[1]:g}",
                **place,
                **style,
            )
    if highest > 0:
        axis.set_ylim(0, 1.08 * highest)
    name = STAGE_NAMES.get(stage)
    axis.set_title(f"stage {stage}: {name}" if name else str(stage))
    axis.set_xlabel("iteration")
    axis.grid(alpha=0.25)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize=9)


def _is_finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _moving_average(values: np.ndarray, window: int) -> np.ndarray:
    """Centred, with weights that fall off to both sides; at the ends over the values there are."""
    weights = np.bartlett(2 * window + 1)[1:-1]
    if len(weights) > len(values):
        return np.full_like(values, values.mean())
    counts = np.convolve(np.ones_like(values), weights, mode="same")
    return np.convolve(values, weights, mode="same") / counts


def _draw_class_counts(axis: Axes, dataset: Dataset, counts: np.ndarray) -> None:
    bars = axis.barh(dataset.class_names, counts, min(0.8, 0.2 + 0.1 * len(counts)))
    axis.bar_label(bars, padding=3, fontsize=9)
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
        axis.scatter(
            widths[of_band],
            heights[of_band],
            s=9,
            color=colour,
            alpha=alpha,
            linewidth=0,
        )
        axis.scatter([], [], s=30, color=colour, label=f"{label} ({of_band.sum()})")
    anchor_heights, anchor_widths = (anchors_input[:, 2:] - anchors_input[:, :2]).T
    style = {
        "marker": "P",
        "s": 90,
        "color": "black",
        "edgecolor": "white",
        "zorder": 3,
    }
    axis.scatter(anchor_widths, anchor_heights, label="anchors", **style)
    plate = {"facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 1}
    style = {
        "xytext": (7, 5),
        "textcoords": "offset points",
        "fontsize": 8,
        "bbox": plate,
    }
    for width, height in zip(anchor_widths, anchor_heights, strict=True):
        axis.annotate(f"{width:.0f} x {height:.0f}", (width, height), zorder=4, **style)
    every_side = np.concatenate([widths, heights, anchor_widths, anchor_heights])
    low, high = max(0.5, every_side.min()), every_side.max()
    limits = (
        0.8 * low,
        high * (high / low) ** 0.17,
    )  # room for the sizes beside the anchors
    axis.set(xscale="log", yscale="log", xlim=limits, ylim=limits, box_aspect=1)
    for scale in (axis.xaxis, axis.yaxis):
        scale.set_major_locator(LogLocator(subs=(1, 2, 5)))
        scale.set_major_formatter("{x:g}")
        scale.set_minor_locator(NullLocator())
    axis.set_xlabel("box width (pixels of the network input)")
    axis.set_ylabel("box height (pixels of the network input)")
    axis.set_title("sizes of the objects, and the anchors")
    axis.grid(alpha=0.25)
    axis.legend(loc="upper left", fontsize=9)


def _save_figure(figure: Figure, png: Path) -> None:
    # Renamed when complete: a viewer that follows a training never meets half a picture.
    temporary = png.with_name(f".{png.name}.{os.getpid()}.tmp")
    try:
        png.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(temporary, format="png")
        os.replace(temporary, png)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UserError(f"The picture {png} cannot be written: {error.strerror}.") from error
