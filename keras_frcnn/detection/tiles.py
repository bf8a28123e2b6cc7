"""Large images in overlapping tiles: objects keep their size, memory stays flat.

An object that a seam cuts is whole in the next tile if it is no larger than the overlap. Whole
boxes come first, so they drop the parts of them that other tiles saw.

Shapes and names
----------------
D  detections of all tiles of an image.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from keras_frcnn.data.dataset import Dataset
from keras_frcnn.detection.detections import NO_DETECTIONS, ImageDetections
from keras_frcnn.detection.detector import Detector, Key
from keras_frcnn.errors import UserError

SMALLEST_TILE = 32
LARGEST_OVERLAP = 0.9
# Of a part, what lies within a whole box from which it is that object's.
_PART = 0.5
# Pixels from a seam within which a box ends at it.
_AT_SEAM = 2


class TiledDetector(Detector):
    """A detector that sees each image tile by tile.

    Args:
        detector: finds the objects of a tile.
        side: of a tile in pixels of the image; a smaller image is one tile.
        overlap: of neighbouring tiles, as a share of their side.
        iou: above which the worse of two boxes of a class is dropped (recipe 4.8).

    Raises:
        UserError: the side or the overlap is out of range.
    """

    def __init__(self, detector: Detector, side: int, overlap: float = 0.2, *, iou: float = 0.3):
        if side < SMALLEST_TILE or not 0 <= overlap <= LARGEST_OVERLAP:
            raise UserError(
                f"`tile` takes a side of {SMALLEST_TILE} pixels or more and an overlap of 0 to "
                f"{LARGEST_OVERLAP}, such as 1000,0.2; received {side},{overlap:g}."
            )
        self.detector, self.side, self.overlap, self.iou = detector, side, overlap, iou
        self.class_names, self.score_threshold = detector.class_names, detector.score_threshold
        self.source, self.bits = detector.source, detector.bits
        self.mean_per_class = detector.mean_per_class
        self.strictly_greater = detector.strictly_greater

    def find(
        self, images: Sequence[np.ndarray], boxes: Sequence[np.ndarray] | None = None
    ) -> list[ImageDetections]:
        """See :meth:`Detector.find`.

        Raises:
            UserError: there are boxes.
        """
        if boxes is not None:
            raise UserError("Expected images without boxes: in tiles there are no given proposals.")
        return [self._find_in(image) for image in images]

    def _find_in(self, image: np.ndarray) -> ImageDetections:
        parts, cut = [NO_DETECTIONS], [np.zeros(0, bool)]
        height, width = image.shape[:2]
        for y, x in tile_corners(height, width, self.side, self.overlap):
            tile = image[y : y + self.side, x : x + self.side]
            (found,) = self.detector.find([np.ascontiguousarray(tile)])
            offset = np.array([y, x, y, x], found.boxes_image.dtype)
            inner = np.array([y > 0, x > 0, y + self.side < height, x + self.side < width])
            ends = np.array([0, 0, *tile.shape[:2]], np.float32)
            at_seam = (np.abs(found.boxes_image - ends) <= _AT_SEAM) & inner
            cut.append(at_seam.any(axis=1))
            parts.append(ImageDetections(found.boxes_image + offset, found.scores, found.classes))
        every = ImageDetections(
            *(
                np.concatenate([getattr(part, name) for part in parts])
                for name in ("boxes_image", "scores", "classes")
            )
        )
        return every.take(merged(every, np.concatenate(cut), self.iou)).best()

    def about(self) -> dict[str, Any]:
        """See :meth:`Detector.about`."""
        return {**self.detector.about(), "tile": [self.side, self.overlap]}

    def key(self, height: int, width: int) -> Key:
        """See :meth:`Detector.key`: images go one by one."""
        return height, width

    def prepared(self, data: Dataset) -> Dataset:
        """See :meth:`Detector.prepared`."""
        return self.detector.prepared(data)

    def for_evaluation(self) -> Detector:
        """See :meth:`Detector.for_evaluation`."""
        detector = self.detector.for_evaluation()
        return TiledDetector(detector, self.side, self.overlap, iou=self.iou)


def tile_corners(height: int, width: int, side: int, overlap: float) -> Iterator[tuple[int, int]]:
    """(y, x) of the first pixel of each tile, row by row; the last ones end with the image."""
    step = max(1, round(side * (1 - overlap)))
    for y in _starts(height, side, step):
        for x in _starts(width, side, step):
            yield y, x


def _starts(length: int, side: int, step: int) -> list[int]:
    last = max(0, length - side)
    return [*range(0, last, step), last]


def merged(found: ImageDetections, is_cut: np.ndarray, iou: float) -> np.ndarray:
    """(D,) bool: which detections stay, of those that the tiles of an image gave.

    Args:
        found: by all tiles, in pixels of the image.
        is_cut: (D,) bool, whether a box ends at a seam.
        iou: above which the worse of two boxes of a class is dropped.
    """
    boxes = found.boxes_image.astype(np.float64)
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    stays = np.zeros(len(found), bool)
    # Whole boxes first, each kind by falling score.
    for index in np.lexsort((-found.scores, is_cut)):
        others = np.flatnonzero(stays & (found.classes == found.classes[index]))
        low = np.maximum(boxes[others, :2], boxes[index, :2])
        high = np.minimum(boxes[others, 2:], boxes[index, 2:])
        shared = np.prod(np.clip(high - low, 0, None), axis=1)
        drops = shared > iou * (areas[others] + areas[index] - shared)
        if is_cut[index]:
            drops |= shared > _PART * areas[index]
        stays[index] = not drops.any()
    return stays
