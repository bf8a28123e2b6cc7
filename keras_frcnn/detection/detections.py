"""What a detector found in one image."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_frcnn.errors import UserError

if TYPE_CHECKING:
    import supervision
    from PIL import Image


@dataclass(frozen=True, eq=False)
class ImageDetections:
    """What a detector found in one image, in any order.

    Attributes:
        boxes_image: (D, 4) float32; float64 where a file was read, so that nothing is rounded.
        scores: (D,) float32; float64 where a file was read, so that no new ties arise.
        classes: (D,) int32, 1-based positions in the class list; 0 is background, never stored.

    Raises:
        ValueError: the three do not have the same length, or boxes are not (D, 4).
    """

    boxes_image: np.ndarray
    scores: np.ndarray
    classes: np.ndarray

    def __post_init__(self) -> None:
        count = len(self.scores)
        shapes = (self.boxes_image.shape, self.scores.shape, self.classes.shape)
        if shapes != ((count, 4), (count,), (count,)):
            raise ValueError(f"expected shapes (D, 4), (D,) and (D,), received {shapes}")

    def __len__(self) -> int:
        return len(self.scores)

    @classmethod
    def from_numbers(cls, numbers: Sequence[float]) -> ImageDetections:
        """The detections of ``y1, x1, y2, x2, score, class``, one after the other; float64."""
        values = np.asarray(numbers, np.float64).reshape(-1, 6)
        return cls(values[:, :4], values[:, 4], values[:, 5].astype(np.int32))

    def take(self, rows: np.ndarray | slice) -> ImageDetections:
        """Those of some positions, or of a mask (D,) bool."""
        return ImageDetections(self.boxes_image[rows], self.scores[rows], self.classes[rows])

    def at_least(self, score: float) -> ImageDetections:
        """Those that reach a score."""
        return self.take(self.scores >= score)

    def best(self, count: int | None = None) -> ImageDetections:
        """The first ``count`` by falling score, or all; ties in their order."""
        return self.take(np.argsort(-self.scores, kind="stable")[:count])


NO_DETECTIONS = ImageDetections(
    np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int32)
)


@dataclass(frozen=True, eq=False)
class Detections:
    """What :meth:`Detector.detect` found in one image, best first.

    In a notebook it shows itself as a picture.

    Attributes:
        boxes: (D, 4) float32 (y1, x1, y2, x2) in pixels of the image, half-open.
        scores: (D,) float32 in 0..1.
        classes: (D,) int32, 1-based positions in ``known_classes``.
        known_classes: every class of the detector, in order.
        image: (H, W, 3) uint8, what was looked at.
    """

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    known_classes: tuple[str, ...]
    image: np.ndarray

    def __len__(self) -> int:
        return len(self.scores)

    def __repr__(self) -> str:
        height, width = self.image.shape[:2]
        pairs = list(zip(self.class_names, self.scores, strict=True))
        best = ", ".join(f"{name} {score:.2f}" for name, score in pairs[:5])
        more = ", ..." if len(pairs) > 5 else ""
        return f"<{len(self)} detections in {width} x {height} pixels: {best or 'none'}{more}>"

    @property
    def class_names(self) -> list[str]:
        """The name of each detection's class."""
        return [self.known_classes[index - 1] for index in self.classes]

    def at_least(self, score: float) -> Detections:
        """Those that reach a score."""
        keep = self.scores >= score
        parts = (self.boxes[keep], self.scores[keep], self.classes[keep])
        return Detections(*parts, self.known_classes, self.image)

    def to_dict(self) -> dict[str, list[Any]]:
        """``boxes`` as [y1, x1, y2, x2], ``scores`` and ``class_names``, as JSON takes them."""
        return {
            "boxes": self.boxes.tolist(),
            "scores": self.scores.tolist(),
            "class_names": self.class_names,
        }

    def to_supervision(self) -> supervision.Detections:
        """For the package supervision, whose boxes are (x1, y1, x2, y2) and classes 0-based.

        Raises:
            UserError: it is not installed.
        """
        try:
            import supervision
        except ImportError as error:
            raise UserError(
                "to_supervision needs the package supervision: pip install supervision."
            ) from error
        return supervision.Detections(
            xyxy=self.boxes[:, [1, 0, 3, 2]],
            confidence=self.scores,
            class_id=self.classes - 1,
            data={"class_name": np.array(self.class_names, dtype=str)},
        )

    def draw(self) -> Image.Image:
        """The image with boxes, names and scores."""
        from keras_frcnn.visualize import class_colour, draw_detections

        colours = [class_colour(int(index)) for index in self.classes]
        scores = self.scores.tolist()
        return draw_detections(self.image, self.boxes, self.class_names, scores, colours)

    def _repr_png_(self) -> bytes:
        stream = io.BytesIO()
        self.draw().save(stream, "PNG")
        return stream.getvalue()
