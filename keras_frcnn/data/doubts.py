"""What is wrong with the boxes of a data set as a whole, told by their numbers.

A few bad boxes are left out and named. Where many are bad in one way, the files mean something else
by their numbers, and leaving out what happens to fail would train on what happens to pass.

Shapes and names
----------------
corners  (N, 4) float64 (xmin, ymin, xmax, ymax) of N objects as written, NaN for what is no number.
sizes  (N, 2) (height, width) of the image that each was marked on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from keras_frcnn.data.dataset import WrittenImage, WrittenObject, corner_numbers
from keras_frcnn.data.images import exif_orientation

# Share of images, lines or objects that may be left out without a word of the user.
MOST_BAD = 0.1

# Pixels by which programs round sizes, and share of a box inside its image to count as inside.
_NEAR = 2
_INSIDE = 0.9

# What else the four numbers may be: how corners are made of them.
_SWAPPED = "ymin, xmin, ymax, xmax (x and y swapped)"
_FORMS: dict[str, Callable[..., tuple[np.ndarray, ...]]] = {
    "": lambda a, b, c, d: (a, b, c, d),
    "x, y, width, height": lambda a, b, c, d: (a, b, a + c, b + d),
    "centre x, centre y, width, height": lambda a, b, c, d: (
        *(a - c / 2, b - d / 2, a + c / 2, b + d / 2),
    ),
    "xmin, xmax, ymin, ymax": lambda a, b, c, d: (a, c, b, d),
    "xmax, ymax, xmin, ymin": lambda a, b, c, d: (c, d, a, b),
    _SWAPPED: lambda a, b, c, d: (b, a, d, c),
}


class Mend(NamedTuple):
    """How boxes that were marked on another form of an image come to lie on the upright one.

    Attributes:
        size: (height, width) of the image that they were marked on.
        scale: of its sides.
        orientation: 1, or the EXIF orientation from 5 to 8 by which it was turned afterwards.
    """

    size: tuple[int, int]
    scale: float
    orientation: int

    @property
    def action(self) -> str:
        """What is done, for the report."""
        if self.orientation == 1:
            return f"boxes scaled by {self.scale:.4g}"
        return f"boxes turned by the EXIF orientation {self.orientation}"

    def apply(self, box: np.ndarray) -> np.ndarray:
        """(4,) half-open (y1, x1, y2, x2) on the upright image."""
        y1, x1, y2, x2 = box * self.scale
        if self.orientation == 1:
            return np.array([y1, x1, y2, x2])
        width, height = self.size
        x1, y1, x2, y2 = y1, x1, y2, x2
        if self.orientation in (7, 8):
            y1, y2 = height - y2, height - y1
        if self.orientation in (6, 7):
            x1, x2 = width - x2, width - x1
        return np.array([y1, x1, y2, x2])


def judge_sizes(
    images: Sequence[WrittenImage], real: Sequence[tuple[int, int]]
) -> tuple[list[Mend | None], str]:
    """What to do about images whose size is not the written one.

    Boxes are mended only where the case is certain: all sizes of the data set differ by one factor,
    or are those of photos before their EXIF orientation turned them, and the boxes fit them.

    Returns:
        for each image how its boxes are mended, or None; and the doubt about all, or ``""``.
    """
    mends: list[Mend | None] = [None] * len(images)
    marked = [i for i, image in enumerate(images) if image.objects]
    size_of = {i: size for i in marked if (size := images[i].size) is not None}
    other = [i for i, size in size_of.items() if np.abs(np.subtract(size, real[i])).max() > _NEAR]
    swapped = {i: exif_orientation(images[i].path) for i in other if size_of[i] == real[i][::-1]}
    resized = [i for i in other if i not in swapped]
    doubtful = []
    for group in ([i for i, orientation in swapped.items() if orientation >= 5], resized):
        written_sizes, real_sizes = [size_of[i] for i in group], [real[i] for i in group]
        chosen = [images[i] for i in group]
        on_written = _share_inside(chosen, written_sizes)
        if _share_inside(chosen, real_sizes) > on_written:
            continue  # it is the written size that is wrong
        factor = 1.0
        certain = on_written >= 0.95
        if group is resized and group:
            factor = float(np.sum(real_sizes) / np.sum(written_sizes))
            rounding = np.abs(np.multiply(written_sizes, factor) - real_sizes).max()
            certain = certain and len(group) == len(marked) and rounding <= 1
        doubtful += [] if certain else group
        for i in group if certain else ():
            mends[i] = Mend(size_of[i], factor, swapped.get(i, 1))
    if len(doubtful) <= MOST_BAD * len(size_of):
        return mends, ""
    first = doubtful[0]
    return mends, (
        f"{len(doubtful)} of the {len(size_of)} sizes in the annotations are not those of the "
        f"images (such as {images[first].annotation}: {_by(size_of[first])} written, "
        f"{_by(real[first])} real), "
        "so that the boxes may lie anywhere: were the images resized after they were marked?"
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
    lost = ~(overlap(corners, sizes) >= 0.5) | is_normalised(corners)
    lost |= np.array([bool(o.fault or not o.class_name) for _, o in objects], bool)
    if lost.sum() <= MOST_BAD * len(lost):
        return ""
    position = int(np.argmax(lost))
    image, first = objects[position]
    found = first.fault or " ".join(f"'{text}'" for text in first.corners)
    return (
        f"{lost.sum()} of the {len(lost)} objects in {sets} are no boxes inside their images, more "
        f"than {MOST_BAD:.0%}{_cause(objects, corners, sizes, lost)}. The first: "
        f"{image.annotation}, {first.where}: {found} in an image of {_by(sizes[position])}"
    )


def is_normalised(corners: np.ndarray) -> np.ndarray:
    """(N,) whether all four numbers lie in 0..1, but for rounding: no object has one pixel."""
    highest = corners.max(-1)
    return (corners.min(-1) >= -0.05) & (highest <= 1.05) & (highest > 0)


def overlap(corners: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """(N,) share of each box that lies inside its image; NaN where it is no box."""
    low, high = corners[:, :2], corners[:, 2:]
    with np.errstate(all="ignore"):
        inside = np.minimum(high, sizes[:, ::-1]) - np.maximum(low, 0)
        shares = np.clip(inside / (high - low), 0, 1).prod(-1)
    return np.where((high > low).all(-1), shares, np.nan)


def _gathered(
    images: Sequence[WrittenImage], sizes: Sequence[tuple[int, int]]
) -> tuple[np.ndarray, np.ndarray]:
    """``corners`` and ``sizes`` of all objects of images."""
    corners = [corner_numbers(written.corners) for image in images for written in image.objects]
    each = [size for image, size in zip(images, sizes, strict=True) for _ in image.objects]
    return np.array(corners, float).reshape(-1, 4), np.array(each, float).reshape(-1, 2)


def _share_inside(images: Sequence[WrittenImage], sizes: Sequence[tuple[int, int]]) -> float:
    """How many of the boxes, those that are any, lie inside images of such sizes."""
    shares = overlap(*_gathered(images, sizes))
    return float((shares >= _INSIDE).sum() / max(1, np.isfinite(shares).sum()))


def _cause(
    objects: Sequence[tuple[WrittenImage, WrittenObject]],
    corners: np.ndarray,
    sizes: np.ndarray,
    lost: np.ndarray,
) -> str:
    """The likely cause, to follow a number, or ``""``."""
    positions = np.flatnonzero(lost).tolist()
    if is_normalised(corners[lost]).mean() > 0.5:
        return ": they are numbers from 0 to 1, shares of the image's sides; write pixels"
    if np.mean([bool(re.search(r"\d,\d", str(objects[i][1].corners))) for i in positions]) > 0.5:
        return ": they have decimal commas; write points"
    fits = {
        form: (overlap(np.stack(corners_of(*corners.T), -1), sizes) >= _INSIDE).mean()
        for form, corners_of in _FORMS.items()
    }
    best = max(fits, key=fits.__getitem__)
    if best == _SWAPPED and fits[best] > 0.5:
        paths = list(dict.fromkeys(objects[i][0].path for i in positions))[:100]
        if np.mean([exif_orientation(path) >= 5 for path in paths]) > 0.5:
            return (
                ": most fit the photos as they are stored, before the EXIF orientation turns them; "
                "turn their pixels for good, or mark them again"
            )
    if best and fits[best] > 0.5:
        return f": most would be if the numbers were {best}; write xmin, ymin, xmax, ymax"
    if (corners[lost][:, 2:] > corners[lost][:, :2]).all(-1).mean() > 0.5:
        return ": were the images resized or turned after they were marked?"
    return ""


def _by(size: Sequence[float]) -> str:
    return f"{size[1]:.0f} x {size[0]:.0f} pixels (width x height)"
