"""Pictures: detections and training samples on photos.

Boxes are half-open (y1, x1, y2, x2) in pixels of the image that they are drawn on; Pillow draws
inclusive corners, so the right and bottom lines are drawn at ``x2 - 1`` and ``y2 - 1``.
"""

from __future__ import annotations

import colorsys
import functools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from keras_frcnn.system.fonts import font_for

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
# What became of an object or detection, in the order in which they are drawn: colour, and whether
# the box is ground truth, which is dashed. Told apart without colours too: by line and label.
OUTCOMES: dict[str, tuple[Colour, bool]] = {
    "ignored": ((190, 190, 190), False),
    "difficult": ((190, 190, 190), True),
    "true positive": ((60, 150, 255), False),
    "found": ((60, 230, 90), True),
    "false positive": ((255, 70, 70), False),
    "missed": ((255, 225, 25), True),
}


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
        text, font = _fitting(text, max(11, round(unit / 32)), picture.width)
        texts.append((text, font))
        plates.append(_place_plate(text, font, boxes_image[index], picture.size, plates))
    for index, plate, (text, font) in reversed(list(zip(ranking, plates, texts, strict=True))):
        _draw_plate(draw, plate, text, font, colours[index])
    return picture


def draw_samples(
    image: np.ndarray,
    boxes: np.ndarray,
    kinds: Sequence[str],
    words: Mapping[str, str] | None = None,
    totals: Mapping[str, int] | None = None,
) -> Image.Image:
    """A training image with the anchors or RoIs that its step sampled, and what they should find.

    Args:
        image: (H, W, 3) uint8, the network input before its mean is subtracted.
        boxes: (D, 4) in pixels of that image; they may overhang it.
        kinds: (D,) each ``"foreground"``, ``"background"`` or ``"ground truth"``.
        words: what to call the kinds in the legend, which names no others; default: all of them.
        totals: how many there are of kinds of which not all are drawn.

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
    words = {kind: kind for kind in reversed(SAMPLE_COLOURS)} if words is None else words
    for kind, word in words.items():
        drawn, colour = list(kinds).count(kind), SAMPLE_COLOURS[kind]
        total = (totals or {}).get(kind, drawn)
        text = f"{word} {drawn}" if total == drawn else f"{word} {drawn} of {total}"
        text, font = _fitting(text, max(11, round(unit / 36)), picture.width // 3)
        width, height = _plate_size(text, font)
        _draw_plate(draw, (x, 0, x + width, height), text, font, colour)
        x += width
    return picture


def draw_outcomes(
    image: np.ndarray, boxes: np.ndarray, outcomes: Sequence[str], labels: Sequence[str]
) -> Image.Image:
    """Ground truth (dashed) and detections (solid), and what became of each.

    Args:
        image: (H, W, 3) uint8.
        boxes: (D, 4) in pixels of that image.
        outcomes: (D,) keys of ``OUTCOMES``.
        labels: (D,) what is written at each box; ``""``: nothing.

    Raises:
        ValueError: another outcome.
    """
    unknown = set(outcomes) - set(OUTCOMES)
    if unknown:
        raise ValueError(f"expected outcomes {list(OUTCOMES)}, received {sorted(unknown)}")
    picture = Image.fromarray(image)
    draw = ImageDraw.Draw(picture)
    unit = math.sqrt(picture.width * picture.height)
    width = max(2, round(unit / 200))
    drawing = sorted(range(len(boxes)), key=lambda index: list(OUTCOMES).index(outcomes[index]))
    for index in drawing:
        colour, dashed = OUTCOMES[outcomes[index]]
        (_draw_dashed_box if dashed else _draw_box)(draw, boxes[index], colour, width)
    plates: list[tuple[int, int, int, int]] = []
    for index in reversed(drawing):
        if labels[index]:
            text, font = _fitting(labels[index], max(11, round(unit / 34)), picture.width)
            plates.append(_place_plate(text, font, boxes[index], picture.size, plates))
            _draw_plate(draw, plates[-1], text, font, OUTCOMES[outcomes[index]][0])
    return picture


def shrunk(image: Image.Image, longest: int) -> Image.Image:
    """The image with its longer side at most so many pixels; smaller images stay as they are."""
    scale = min(1.0, longest / max(image.size))
    width, height = (max(1, round(side * scale)) for side in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def contact_sheet(images: Sequence[Image.Image], columns: int, cell: int = 480) -> Image.Image:
    """The pictures row by row, each shrunk into a square of ``cell`` pixels, with white gaps.

    Raises:
        ValueError: no images, or no columns.
    """
    if not images or columns < 1:
        raise ValueError(f"expected images and columns, received {len(images)} and {columns}")
    small = [shrunk(image.convert("RGB"), cell) for image in images]
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


def _draw_box(draw: ImageDraw.ImageDraw, box: np.ndarray, colour: Colour, width: int) -> None:
    x1, y1, x2, y2 = _inclusive(box)
    edge = max(1, width // 3)
    outer = (x1 - edge, y1 - edge, x2 + edge, y2 + edge)
    draw.rectangle(outer, outline=(0, 0, 0), width=width + 2 * edge)
    draw.rectangle((x1, y1, x2, y2), outline=colour, width=width)


def _draw_dashed_box(
    draw: ImageDraw.ImageDraw, box: np.ndarray, colour: Colour, width: int
) -> None:
    x1, y1, x2, y2 = _inclusive(box)
    draw.rectangle((x1, y1, x2, y2), outline=(0, 0, 0), width=width)
    dash = 4 * width
    for start in range(x1, x2 + 1, 2 * dash):
        end = min(start + dash, x2)
        draw.rectangle((start, y1, end, min(y1 + width - 1, y2)), fill=colour)
        draw.rectangle((start, max(y2 - width + 1, y1), end, y2), fill=colour)
    for start in range(y1, y2 + 1, 2 * dash):
        end = min(start + dash, y2)
        draw.rectangle((x1, start, min(x1 + width - 1, x2), end), fill=colour)
        draw.rectangle((max(x2 - width + 1, x1), start, x2, end), fill=colour)


def _inclusive(box: np.ndarray) -> tuple[int, int, int, int]:
    """The first and last pixels of a half-open box as Pillow wants them: (x1, y1, x2, y2)."""
    y1, x1, y2, x2 = (round(float(value)) for value in box)
    return x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)


def _fitting(text: str, size: int, room: int) -> tuple[str, ImageFont.FreeTypeFont]:
    """The text as it can be drawn, and its font.

    Smaller than asked where the plate would be wider than ``room``.
    """
    shown_by = font_for(text)
    text = shown_by.readable(text)
    font = _truetype(shown_by.file, size)
    while size > 8 and _plate_size(text, font)[0] > room:
        size -= max(1, size // 10)
        font = _truetype(shown_by.file, size)
    return text, font


@functools.lru_cache(maxsize=64)
def _truetype(file: Path, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(file, size)


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
    over = [] if y1 < height else [(x1, y1 - height)]
    candidates = [*over, (x1, y1), (x2 - width, y1 - height), (x1, y2), (x1, y2 - height)]
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
