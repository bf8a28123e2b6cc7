"""Selective Search (Uijlings et al., IJCV 2013) by OpenCV, as for Fast R-CNN's data."""

from __future__ import annotations

import ctypes
from dataclasses import asdict, dataclass

import numpy as np

from keras_frcnn.proposals.given import ScoredBoxes, ranked
from keras_frcnn.proposals.opencv import load_opencv


@dataclass(frozen=True)
class SelectiveSearch:
    """Fast mode: two colour spaces, two thresholds, two ways to merge.

    The order is drawn by C's ``rand()``, which is set anew for every image: the same boxes in the
    same order, whichever process computes them. Two images must not be computed at once in one
    process.

    Attributes:
        most: proposals kept of an image; ``None``: all.
        width: to which every image is resized first (selective_search_boxes.m of R-CNN with
            ``im_width``).
        most_height: of the resized image; a higher one is made narrower, so that a strip does not
            take all memory. Ours: photographs do not come near.
        least_side: boxes below it on either side, in the resized image, are dropped (minBoxWidth).
        seed: of ``rand()``.
    """

    most: int | None = 2000
    width: int = 500
    most_height: int = 1500
    least_side: int = 20
    seed: int = 1

    name = "selective-search"

    def settings(self) -> dict:
        """What the boxes depend on."""
        return {**asdict(self), "mode": "fast", "opencv": load_opencv().__version__}

    def __call__(self, image: np.ndarray) -> ScoredBoxes:
        """Proposals of one (H, W, 3) uint8 RGB image.

        Raises:
            UserError: OpenCV is not there.
        """
        cv2 = load_opencv()
        height, width = image.shape[:2]
        factor = min(self.width / width, self.most_height / height)
        size = (max(1, round(width * factor)), max(1, round(height * factor)))
        kind = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
        resized = cv2.resize(np.ascontiguousarray(image[..., ::-1]), size, interpolation=kind)
        search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
        search.setBaseImage(resized)
        search.switchToSelectiveSearchFast()
        ctypes.CDLL(None).srand(self.seed)
        found = np.asarray(search.process(), np.float64).reshape(-1, 4)  # x, y, width, height
        found = found[found[:, 2:].min(axis=1, initial=np.inf) >= self.least_side]
        _, first = np.unique(found, axis=0, return_index=True)
        x, y, box_width, box_height = found[np.sort(first)[: self.most]].T
        boxes = np.stack((y, x, y + box_height, x + box_width), axis=1)
        scale = np.array((height / size[1], width / size[0]) * 2)
        return ranked(boxes * scale)
