"""What is wrong with the boxes of a data set as a whole, told by their numbers.

A few bad boxes are left out and named. Where many are bad in one way, the files mean something else
by their numbers, and leaving out what happens to fail would train on what happens to pass.

Shapes and names
----------------
N  objects of all images together.
corners  (N, 4) float64 (xmin, ymin, xmax, ymax) as written, NaN where they are no numbers.
sizes  (N, 2) (height, width) of the image that each was marked on.
written, real  (I, 2) (height, width) of images in the annotation and of the upright image.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from keras_frcnn.data.images import exif_orientation
from keras_frcnn.data.written import WrittenImage, WrittenObject, corner_numbers

# Share of images, lines or objects that may be left out without a word of the user.
MOST_BAD = 0.1

# Pixels by which programs round sizes, and share of a box inside its image to count as inside.
_NEAR = 2
_INSIDE = 0.9

# What else the four numbers may be: corners (xmin, ymin, xmax, ymax) made of them.
_OTHER_FORMS: dict[str, Callable[..., tuple[np.ndarray, ...]]] = {
    "x, y, width, height": lambda a, b, c, d: (a, b, a + c, b + d),
    "centre x, centre y, width, height": lambda a, b, c, d: (
        *(a - c / 2, b - d / 2),
        *(a + c / 2, b + d / 2),
    ),
    "xmin, xmax, ymin, ymax": lambda a, b, c, d: (a, c, b, d),
    "xmax, ymax, xmin, ymin": lambda a, b, c, d: (c, d, a, b),
    "ymin, xmin, ymax, xmax (x and y swapped)": lambda a, b, c, d: (b, a, d, c),
}


@dataclass(frozen=True)
class Mend:
    """How boxes that were marked on another form of the image come to lie on the upright one.

    Attributes:
        size: (height, width) of the image that they were marked on.
        scale: of sides.
        orientation: EXIF orientation by which the image was turned afterwards.
    """

    size: tuple[int, int]
    scale: float = 1.0
    orientation: int = 1

    @property
    def action(self) -> str:
        """What is done, for the report."""
        if self.orientation == 1:
            return f"boxes scaled by {self.scale:.4g}"
        return f"boxes turned by the EXIF orientation {self.orientation}"

    def apply(self, box: np.ndarray) -> np.ndarray:
        """(4,) half-open (y1, x1, y2, x2) on the upright image."""
        y1, x1, y2, x2 = box * self.scale
        height, width = self.size
        if self.orientation >= 5:
            y1, x1, y2, x2, height, width = x1, y1, x2, y2, width, height
        if self.orientation in (3, 4, 7, 8):
            y1, y2 = height - y2, height - y1
        if self.orientation in (2, 3, 6, 7):
            x1, x2 = width - x2, width - x1
        return np.array([y1, x1, y2, x2])


def judge_sizes(
    images: Sequence[WrittenImage], real: Sequence[tuple[int, int]]
) -> tuple[list[Mend | None], str]:
    """What to do about images whose size is not the written one.

    Boxes are mended only where the case is certain: all sizes of the data set differ by one factor,
    or the written size is that of a photo before its EXIF orientation turned it, and the boxes fit
    it.

    Args:
        images, real: of every image that can be read.

    Returns:
        for each image how its boxes are mended, or None; and the doubt about all, or ``""``.
    """
    mends: list[Mend | None] = [None] * len(images)
    with_objects = [i for i, image in enumerate(images) if image.objects]
    sized = [i for i in with_objects if images[i].size is not None]
    other = [i for i in sized if np.abs(np.subtract(images[i].size, real[i])).max() > _NEAR]
    swapped = [i for i in other if images[i].size == tuple(real[i])[::-1]]
    marked = {i: exif_orientation(images[i].path) for i in swapped}
    turned = [i for i in swapped if marked[i] >= 5]
    doubtful = 0
    for group in (turned, [i for i in other if i not in marked]):
        sizes = [images[i].size for i in group], [real[i] for i in group]
        on_written, on_real = (_share_inside([images[i] for i in group], each) for each in sizes)
        if not group or on_real > on_written:
            continue  # it is the written size that is wrong
        factor = _common_factor(*sizes)
        one_factor = factor is not None and len(group) == len(with_objects)
        if on_written >= 0.95 and (group is turned or one_factor):
            for i in group:
                scale, orientation = (1.0, marked[i]) if group is turned else (factor, 1)
                mends[i] = Mend(images[i].size, scale, orientation)
        else:
            doubtful += len(group)
            first = group[0]
    if doubtful <= MOST_BAD * len(sized):
        return mends, ""
    example = images[first]
    return mends, (
        f"{doubtful} of the {len(sized)} sizes in the annotations are not those of the images "
        f"(such as {example.annotation}: {_by(example.size)} written, {_by(real[first])} real), so "
        "that the boxes may lie anywhere: were the images resized or turned after they were marked?"
    )


def doubt_about_objects(
    images: Sequence[WrittenImage],
    real: Sequence[tuple[int, int]],
    mends: Sequence[Mend | None],
    sets: str,
) -> str:
    """Why more than :data:`MOST_BAD` of the objects are no boxes in their images, or ``""``."""
    frames = [mend.size if mend else size for mend, size in zip(mends, real, strict=True)]
    corners, sizes = _gathered(images, frames)
    objects = [(image, written) for image in images for written in image.objects]
    lost = (overlap(corners, sizes) < 0.5) | is_normalised(corners)
    lost |= np.array([bool(o.fault or not o.class_name) for _, o in objects], bool)
    number = int(lost.sum())
    if number <= MOST_BAD * len(lost):
        return ""
    position = int(np.argmax(lost))
    image, first = objects[position]
    found = first.fault or " ".join(f"'{text}'" for text in first.corners)
    cause = _cause(objects, corners, sizes, lost)
    return (
        f"{number} of the {len(lost)} objects in {sets} are no boxes inside their images, more "
        f"than {MOST_BAD:.0%}{cause}. The first: {image.annotation}, {first.where}: {found} in an "
        f"image of {_by(sizes[position])}"
    )


def is_normalised(corners: np.ndarray) -> np.ndarray:
    """(N,) whether all four numbers lie in 0..1, but for rounding: no object has one pixel."""
    highest = corners.max(-1)
    return (corners.min(-1) >= -0.05) & (highest <= 1.05) & (highest > 0)


def overlap(corners: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """(N,) share of each box that lies inside its image; 0 where it is no box."""
    low, high = corners[:, :2], corners[:, 2:]
    sides = high - low
    with np.errstate(all="ignore"):
        inside = np.minimum(high, sizes[:, ::-1]) - np.maximum(low, 0)
        shares = np.clip(inside / sides, 0, 1).prod(-1)
    return np.where((sides > 0).all(-1), shares, 0.0)


def _gathered(
    images: Sequence[WrittenImage], sizes: Sequence[tuple[int, int]]
) -> tuple[np.ndarray, np.ndarray]:
    """``corners`` and ``sizes`` of all objects of images."""
    corners = [corner_numbers(written.corners) for image in images for written in image.objects]
    counts = [len(image.objects) for image in images]
    return (
        np.array(corners, np.float64).reshape(-1, 4),
        np.repeat(np.array(sizes, np.float64).reshape(-1, 2), counts, axis=0),
    )


def _share_inside(images: Sequence[WrittenImage], sizes: Sequence[tuple[int, int]]) -> float:
    """How many of the boxes, those that are any, lie inside images of such sizes."""
    corners, sizes = _gathered(images, sizes)
    are_boxes = (corners[:, 2:] > corners[:, :2]).all(-1)
    return float((overlap(corners, sizes)[are_boxes] >= _INSIDE).sum() / max(1, are_boxes.sum()))


def _common_factor(
    written: Sequence[tuple[int, int]], real: Sequence[tuple[int, int]]
) -> float | None:
    """By which every written side becomes the real one, but for rounding; None if none does."""
    if not written:
        return None
    factor = float(np.sum(real) / np.sum(written))
    return factor if np.abs(np.multiply(written, factor) - real).max() <= 1 else None


def _cause(
    objects: Sequence[tuple[WrittenImage, WrittenObject]],
    corners: np.ndarray,
    sizes: np.ndarray,
    lost: np.ndarray,
) -> str:
    """The likely cause, to follow a number, or ``""``."""
    positions = np.flatnonzero(lost)
    most = len(positions) / 2
    if is_normalised(corners[lost]).sum() > most:
        return ": they are numbers from 0 to 1, shares of the image's sides; write pixels"
    texts = [" ".join(text or "" for text in objects[i][1].corners) for i in positions]
    if sum(re.search(r"\d,\d", text) is not None for text in texts) > most:
        return ": they have decimal commas; write points"
    columns = corners.T
    fit = {"": (overlap(corners, sizes) >= _INSIDE).mean()}
    for form, corners_of in _OTHER_FORMS.items():
        other = np.stack(corners_of(*columns), -1)
        fit[form] = (overlap(other, sizes) >= _INSIDE).mean()
    best = max(fit, key=fit.__getitem__)
    if best and fit[best] > 0.5:
        if "swapped" in best:
            paths = list(dict.fromkeys(objects[i][0].path for i in positions))[:100]
            if sum(exif_orientation(path) >= 5 for path in paths) > len(paths) / 2:
                return (
                    ": most fit the photos as they are stored, before the EXIF orientation turns "
                    "them; turn the pixels of the photos for good, or mark them again"
                )
        return f": most would be if the numbers were {best}; write xmin, ymin, xmax, ymax"
    if (corners[lost][:, 2:] > corners[lost][:, :2]).all(-1).sum() > most:
        return ": were the images resized or turned after they were marked?"
    return ""


def _by(size: Sequence[float]) -> str:
    return f"{size[1]:.0f} x {size[0]:.0f} pixels (width x height)"
