"""A detector that was exported, read again: ONNX files, and what SavedModels share with them.

:mod:`keras_frcnn.export.saved_model` says what an export gives. Nothing here needs TensorFlow.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from keras_frcnn.detection.detections import ImageDetections
from keras_frcnn.detection.detector import Detector
from keras_frcnn.errors import UserError, check_installed, reading
from keras_frcnn.runs.config import checked_class_names
from keras_frcnn.system.files import check_bounded, digest_of, parse_json

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
# Of ONNX files: the input, the entries of the metadata, and the most that the format holds.
INPUT = "input_tensor"
CLASS_NAMES, SCORE_THRESHOLD = "class_names", "score_threshold"
_MOST_ONNX_BYTES = 1 << 31
_WHOLE = ("num_detections", "detection_classes")
# Of outputs that are computed in another order.
_ROUNDING = 1e-4
# Letters of patterns, for which TensorFlow takes the path of weights, and names that are no UTF-8.
_NO_PATH = re.compile(r"[\[*?\\\ud800-\udfff]")


class ExportedModel(Detector):
    """A detector that was exported.

    Args:
        path: its folder or file.
        outputs: from (N, H, W, 3) images to the arrays of :data:`OUTPUTS`, by name.
        about: the contents of its ``ASSETS``.
        most: images that it takes at once; None: any number.

    Raises:
        ValueError: what it says of itself is damaged.
    """

    def __init__(
        self,
        path: Path | str,
        outputs: Callable[[np.ndarray], Mapping[str, np.ndarray]],
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
        if boxes is not None:
            raise UserError(f"{self.source} makes its own proposals; boxes need a run folder.")
        size = self._most or max(len(images), 1)
        found: list[ImageDetections] = []
        for start in range(0, len(images), size):
            batch = np.stack(images[start : start + size])
            with reading(self.source, f"a detector of {batch.shape[1:3]} pixels", AGAIN):
                found += found_in_outputs(self._outputs(batch), batch.shape, len(self.class_names))
        return [each.at_least(self.score_threshold) for each in found]


class OnnxDetector(ExportedModel):
    """An export to ONNX, run on the CPU by onnxruntime.

    Args:
        model: the file, or its contents.

    Raises:
        UserError: it cannot be read, was not exported by this package, or onnxruntime is missing.
    """

    def __init__(self, model: Path | bytes):
        check_installed("ONNX files", ["onnxruntime"], "onnx")
        import onnxruntime

        name = "The ONNX model" if isinstance(model, bytes) else str(model)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = os.cpu_count() or 1
        # Errors come as exceptions.
        options.log_severity_level = 4
        # Waiting threads would take the processor from what runs beside them.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        with reading(name, "an ONNX file of keras_frcnn", AGAIN):
            if not isinstance(model, bytes):
                check_bounded(model, _MOST_ONNX_BYTES)
            self._session = onnxruntime.InferenceSession(
                model if isinstance(model, bytes) else str(model),
                options,
                providers=["CPUExecutionProvider"],
                enable_fallback=False,
            )
            metadata = self._session.get_modelmeta().custom_metadata_map
            inputs = tuple(tensor.name for tensor in self._session.get_inputs())
            outputs = {tensor.name for tensor in self._session.get_outputs()}
            if inputs != (INPUT,) or not outputs >= set(OUTPUTS):
                expected = f"input {INPUT} and the outputs {', '.join(OUTPUTS)}"
                raise ValueError(f"it should have the {expected}")
            about = [metadata[name] for name in (CLASS_NAMES, SCORE_THRESHOLD)]
            super().__init__(name, self.outputs, about, most=1)

    def outputs(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """The tensors of the file for one image, by the names of ``OUTPUTS``."""
        names = list(OUTPUTS)
        return dict(zip(names, self._session.run(names, {INPUT: images}), strict=True))


def found_in_outputs(
    outputs: Mapping[str, np.ndarray], shape: tuple[int, ...], number_of_classes: int
) -> list[ImageDetections]:
    """What the outputs of an export say of each image, in pixels.

    Args:
        outputs: by the names of :data:`OUTPUTS`.
        shape: N, H, W, 3 of the images.
        number_of_classes: without background.

    Raises:
        KeyError, ValueError: naming an output that is not as an export gives it.
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
    """Digest of the files that belong together; the weights' index holds their checksums."""
    names = (MODEL_FILE, "variables/variables.index", *(f"assets/{name}" for name in ASSETS))
    return digest_of([folder / name for name in names])


def check_path(folder: Path) -> None:
    """Makes sure that TensorFlow can read weights in a folder.

    Raises:
        UserError: naming the letter in its path that prevents it.
    """
    if letter := _NO_PATH.search(folder.as_posix()):
        raise UserError(
            f"TensorFlow reads no weights at a path with {letter[0]!r}, as {folder} has; "
            "rename the folder or give another."
        )
