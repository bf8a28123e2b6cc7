"""Why detections of another program find nothing: columns in another order, fractions, classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from keras_frcnn.data.dataset import Dataset, Example
from keras_frcnn.detection.detections import NO_DETECTIONS, ImageDetections
from keras_frcnn.errors import UserError
from keras_frcnn.evaluation.matching import box_overlaps

CORNERS = "xmin, ymin, xmax, ymax"
SIZES = "x, y, width, height"
# (score, four numbers) -> y1, x1, y2, x2.
READINGS: dict[str, Callable] = {
    CORNERS: lambda s, a, b, c, d: (b, a, d, c),
    SIZES: lambda s, a, b, c, d: (b, a, b + d, a + c),
    "ymin, xmin, ymax, xmax": lambda s, a, b, c, d: (a, b, c, d),
    "centre x, centre y, width, height": lambda s, a, b, c, d: (
        *(b - d / 2, a - c / 2, b + d / 2, a + c / 2),
    ),
    "xmin, ymin, xmax, ymax, score": lambda s, a, b, c, d: (a, s, c, b),
}
# A detector that finds fewer than this is looked at, and another reading has to find as many.
LEAST_FOUND = 0.25


def check_plausible(
    dataset: Dataset, detections: Mapping[str, ImageDetections], written: str, path: object
) -> list[str]:
    """Looks whether detections that find little would find much if they were read otherwise.

    Args:
        written: as what they were read, ``CORNERS`` (of VOC: the first pixel is 1) or ``SIZES``.
        path: where they come from.

    Returns:
        A remark where nothing is found, and the cause is not certain.

    Raises:
        UserError: another reading finds much more, or most boxes lie outside of their images.
    """
    best = {e.key: _best(e, detections.get(e.key, NO_DETECTIONS)) for e in dataset.examples}
    number = sum(map(len, best.values()))

    def found(reading: str, fractions: bool = False, any_class: bool = False) -> int:
        return sum(
            _found(e, best[e.key], written, reading, fractions, any_class) for e in dataset.examples
        )

    as_written = found(written)
    if number and as_written >= LEAST_FOUND * number:
        return []
    others = {
        f"{reading}{' from 0 to 1' if fractions else ''}": found(reading, fractions)
        for reading in READINGS
        for fractions in (False, True)
    }
    likely = max(others, key=others.__getitem__)
    so_far = (
        f"Of the {number} best detections in {path}, read as {written}, {as_written} lie on an "
        "object of their class"
    )
    if others[likely] > max(1, LEAST_FOUND * number, 3 * as_written):
        raise UserError(
            f"{so_far}; read as {likely}, {others[likely]} would. Write them as {written} in "
            "pixels of the original images."
        )
    outside = sum(
        int(_centre_is_outside(e, detections.get(e.key, NO_DETECTIONS)).sum())
        for e in dataset.examples
    )
    total = sum(map(len, detections.values()))
    if 2 * outside > total:
        raise UserError(
            f"{outside} of the {total} boxes in {path} lie outside of their images: expected "
            f"{written} in pixels of the original images. Were they made on images of another "
            "size, or on other images?"
        )
    if as_written or not number:
        return []
    in_any_class = found(written, any_class=True)
    if others[likely]:
        cause = f"read as {likely}, {others[likely]} would"
    elif in_any_class:
        cause = f"{in_any_class} lie on an object of another class: are the classes numbered alike?"
    else:
        cause = "were they made on these images, in pixels of their original size?"
    return [f"{so_far}; {cause}"]


def _best(example: Example, found: ImageDetections) -> ImageDetections:
    rows = np.argsort(-found.scores, kind="stable")[: len(example.classes)]
    return ImageDetections(found.boxes_image[rows], found.scores[rows], found.classes[rows])


def _found(
    example: Example,
    best: ImageDetections,
    written: str,
    reading: str,
    fractions: bool,
    any_class: bool,
) -> int:
    """How many objects of an image have a detection of their class at IoU 0.5, as read."""
    if not len(best):
        return 0
    y1, x1, y2, x2 = best.boxes_image.astype(np.float64).T
    corners = (x1 + 1, y1 + 1, x2, y2)
    columns = corners if written == CORNERS else (x1, y1, x2 - x1, y2 - y1)
    boxes = np.stack(READINGS[reading](best.scores, *columns), axis=-1)
    if fractions:
        boxes = boxes * np.tile((example.height, example.width), 2)
    overlaps = box_overlaps(boxes, example.boxes_image)
    if not any_class:
        overlaps[best.classes[:, None] != example.classes] = -1
    return int((overlaps.max(axis=0) >= 0.5).sum())


def _centre_is_outside(example: Example, found: ImageDetections) -> np.ndarray:
    centres = (found.boxes_image[:, :2] + found.boxes_image[:, 2:]) / 2
    return np.any((centres < 0) | (centres > (example.height, example.width)), axis=1)
