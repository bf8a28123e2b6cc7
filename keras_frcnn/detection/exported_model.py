"""A detector that was exported, read again: what SavedModels and ONNX files have in common.

:mod:`keras_frcnn.export.saved_model` says what an export gives. Nothing here needs TensorFlow.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from keras_frcnn.detection.detections import ImageDetections
from keras_frcnn.detection.detector import Detector, check_no_boxes
from keras_frcnn.errors import UserError, reading
from keras_frcnn.runs.config import checked_class_names
from keras_frcnn.system.files import digest_of, parse_json

MODEL_FILE = "saved_model.pb"
ASSETS = ("class_names.json", "score_threshold.json")
# Beside what TensorFlow reads, where the format of SavedModels leaves room for it.
DIGEST_FILE = Path("assets.extra", "digest")
AGAIN = "export the run again"
DETECTIONS = 100
# Sizes of what is of one image.
OUTPUTS = {
    "detection_boxes": (DETECTIONS, 4),
    "detection_scores": (DETECTIONS,),
    "detection_classes": (DETECTIONS,),
    "num_detections": (),
}
MOST_TEXT = 1 << 24
_WHOLE = ("num_detections", "detection_classes")
# Of outputs that are computed in another order.
_ROUNDING = 1e-4
# Letters of patterns, for which TensorFlow takes the path of weights, and names that are no UTF-8.
_NO_PATH = re.compile(r"[\[*?\\\ud800-\udfff]")


class ExportedModel(Detector):
    """A detector that was exported.

    Args:
        path: its folder or file.
        outputs: ``images -> outputs``, these by name.
        about: the contents of its ``ASSETS``.
        most: images that it takes at once.

    Raises:
        ValueError: what it says of itself is damaged.
    """

    def __init__(
        self,
        path: Path | str,
        outputs: Callable,
        about: Sequence[str],
        most: int | None = None,
    ):
        self.source, self._outputs, self._most = str(path), outputs, most
        names, least = map(parse_json, about)
        self.class_names = checked_class_names(names, f"{path}: class_names")
        if not (type(least) in (int, float) and 0 <= least <= 1):
            raise ValueError(f"its score_threshold should lie from 0 to 1, not {least!r:.80}")
        self.score_threshold = least

    def find(
        self, images: Sequence[np.ndarray], boxes: Sequence[np.ndarray] | None = None
    ) -> list[ImageDetections]:
        """See :meth:`Detector.find`.

        Raises:
            UserError: the model fails on the images, or there are boxes.
        """
        check_no_boxes(boxes, self.source)
        size = self._most or max(len(images), 1)
        found: list[ImageDetections] = []
        for start in range(0, len(images), size):
            batch = np.stack(images[start : start + size])
            with reading(self.source, f"a detector of {batch.shape[1:3]} pixels", AGAIN):
                found += found_in_outputs(self._outputs(batch), batch.shape, len(self.class_names))
        return [each.at_least(self.score_threshold) for each in found]


def found_in_outputs(
    outputs: Mapping[str, np.ndarray], shape: tuple[int, ...], number_of_classes: int
) -> list[ImageDetections]:
    """What the outputs of an export say of each image, in pixels.

    Args:
        outputs: by name.
        shape: N, H, W, 3 of the images.
        number_of_classes: without background.

    Raises:
        KeyError, ValueError: they are not as an export gives them; names the output.
    """

    def checked(name: str, least: int, most: int, real=...) -> np.ndarray:
        values, expected = outputs[name], (shape[0], *OUTPUTS[name])
        if values.dtype != np.float32 or values.shape != expected:
            received = f"{values.dtype} {values.shape}"
            raise ValueError(f"{name} should be float32 {expected}, it is {received}")
        known = values[real]
        within = (known >= least - _ROUNDING) & (known <= most + _ROUNDING)  # never of NaN
        if name in _WHOLE:
            within &= known == np.round(known)
        if not within.all():
            received = known[~within][0]
            raise ValueError(f"{name} should lie from {least} to {most}, there is {received:g}")
        return values

    counts = checked("num_detections", 0, DETECTIONS).astype(int)
    real = np.arange(DETECTIONS) < counts[:, None]
    scores = checked("detection_scores", 0, 1, real)
    classes = checked("detection_classes", 1, number_of_classes, real).astype(np.int32)
    boxes = checked("detection_boxes", 0, 1, real)
    if (boxes[real][:, :2] > boxes[real][:, 2:]).any():
        raise ValueError("detection_boxes should be ymin, xmin, ymax, xmax; a minimum is higher")
    boxes = np.clip(boxes, 0, 1) * np.tile(np.array(shape[1:3], np.float32), 2)
    return [
        ImageDetections(*(each[index, :count] for each in (boxes, scores, classes)))
        for index, count in enumerate(counts)
    ]


def digest_of_export(folder: Path) -> str:
    """Of the files that belong together; the index of the weights holds their checksums."""
    names = (MODEL_FILE, "variables/variables.index", *(f"assets/{name}" for name in ASSETS))
    return digest_of([folder / name for name in names])


def check_path(folder: Path) -> None:
    """Makes sure that TensorFlow can read weights in a folder.

    Raises:
        UserError: naming the letter of its path that prevents it.
    """
    if letter := _NO_PATH.search(folder.as_posix()):
        raise UserError(
            f"TensorFlow reads no weights at a path with {letter[0]!r}, as {folder} has; "
            "rename the folder or give another."
        )
