"""A trained detector, whatever it was loaded from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_frcnn.data.dataset import Dataset
from keras_frcnn.detection.detections import Detections, ImageDetections
from keras_frcnn.detection.pixels import pixels_of
from keras_frcnn.errors import UserError, reading
from keras_frcnn.proposals.given import fit_to_image

Key = tuple[int, ...]


class Detector(ABC):
    """Finds objects in images: a run, an exported SavedModel or an ONNX file.

    Attributes:
        class_names: foreground classes in order.
        score_threshold: the lowest score that it returns.
        source: where it was loaded from, for messages.
        bits: how many the 16-bit images of its training used; 0: not known.
        mean_per_class: when it is evaluated, this many times the number of images are kept of each
            class; None: all (recipe 4.8).
        strictly_greater: whether its recipe's evaluation asks for more than the IoU threshold.
    """

    class_names: tuple[str, ...]
    score_threshold: float
    source: str
    bits: int = 0
    mean_per_class: int | None = None
    strictly_greater: bool = False

    def detect(self, images: Any, boxes: Any = None) -> Any:
        """Finds the objects in an image, or in each of several.

        Args:
            images: a path, a PIL image or an array, see :func:`pixels_of`; or a list of these, of
                any sizes.
            boxes: proposals to classify in place of the network's own: (R, 4) (y1, x1, y2, x2) in
                pixels of the image; a list of these for a list of images.

        Returns:
            :class:`Detections`, or a list of these for a list.

        Raises:
            UserError: an image cannot be read or is of another kind, or an export is given boxes.
        """
        if not isinstance(images, (list, tuple)):
            return self.detect([images], None if boxes is None else [boxes])[0]
        if boxes is not None and len(boxes) != len(images):
            raise UserError(
                f"Expected boxes for each of the {len(images)} images, received {len(boxes)}."
            )
        arrays = [pixels_of(image, self.bits or 16) for image in images]
        found: list[Detections] = []
        for index, pixels in enumerate(arrays):
            given = None if boxes is None else [_boxes_of(boxes[index], pixels)]
            own = self.find([pixels], given)[0].best()
            parts = (own.boxes_image, own.scores, own.classes)
            found.append(Detections(*parts, self.class_names, pixels))
        return found

    def key(self, height: int, width: int) -> Key:
        """What images need in common to go into :meth:`find` together."""
        return height, width

    @abstractmethod
    def find(
        self, images: Sequence[np.ndarray], boxes: Sequence[np.ndarray] | None = None
    ) -> list[ImageDetections]:
        """Detections of each of some images with one :meth:`key`.

        Args:
            images: (H, W, 3) uint8 RGB.
            boxes: (R, 4) of each, in pixels of the image, R may be 0; None: the network's own.
        """

    def about(self) -> dict[str, Any]:
        """What it is, for the record of an evaluation."""
        return {"detector": self.source}

    def prepared(self, data: Dataset) -> Dataset:
        """Prepares test images as those of its training were.

        Raises:
            UserError: it was trained on one of them.
        """
        return data

    def for_evaluation(self) -> Detector:
        """The detector with its recipe's filter for evaluation; an export has just one filter."""
        return self


def _boxes_of(boxes: Any, pixels: np.ndarray) -> np.ndarray:
    """(R, 4) float32 boxes within an image."""
    with reading("The boxes", "an array", "give (R, 4) numbers (y1, x1, y2, x2)"):
        array = np.asarray(boxes, np.float32)
        array = array.reshape(0, 4) if array.size == 0 else array
        if array.ndim != 2 or array.shape[1] != 4 or not np.isfinite(array).all():
            raise ValueError(f"finite numbers of shape (R, 4) were expected, not {array.shape}")
    height, width = pixels.shape[:2]
    return fit_to_image(array, height, width, "an image")
