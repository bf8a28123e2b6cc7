"""An ONNX file, used as a predictor is.

Shapes and names
----------------
image  (H, W, 3) uint8 RGB; a file takes one at a time.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as errors

from keras_frcnn.errors import UserError, reason_of
from keras_frcnn.export import found_in_outputs, read_class_names, read_score_threshold
from keras_frcnn.files import user_path
from keras_frcnn.inference import Found

INPUT = "input_tensor"
CLASS_NAMES, SCORE_THRESHOLD = "class_names", "score_threshold"  # of the metadata
OUTPUTS = ("detection_boxes", "detection_scores", "detection_classes", "num_detections")
_UNREADABLE = (
    *(errors.Fail, errors.InvalidArgument, errors.InvalidGraph, errors.InvalidProtobuf),
    *(errors.NoModel, errors.NoSuchFile, errors.NotImplemented, errors.RuntimeException),
)


class OnnxDetector:
    """A file of :mod:`keras_frcnn.onnx_format.convert`, run on the CPU by onnxruntime.

    Args:
        model: the file, or its contents.

    Attributes:
        class_names, score_threshold: as of :class:`keras_frcnn.export.LoadedDetector`.

    Raises:
        UserError: it cannot be read, or was not exported by this package.
    """

    def __init__(self, model: Path | bytes):
        name = "The ONNX model" if isinstance(model, bytes) else str(model)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = os.cpu_count() or 1
        # Errors come as exceptions.
        options.log_severity_level = 4
        # Waiting threads would take the processor from what runs beside them.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(
                model if isinstance(model, bytes) else str(model),
                options,
                providers=["CPUExecutionProvider"],
            )
        except _UNREADABLE as error:
            reason = reason_of(error)
            raise UserError(f"{name} cannot be read by onnxruntime: {reason}.") from error
        metadata = self._session.get_modelmeta().custom_metadata_map
        inputs = tuple(tensor.name for tensor in self._session.get_inputs())
        outputs = {tensor.name for tensor in self._session.get_outputs()}
        if CLASS_NAMES not in metadata or inputs != (INPUT,) or not outputs >= set(OUTPUTS):
            raise UserError(
                f"{name} was not exported by keras_frcnn: it should have the input {INPUT}, the "
                f"outputs {', '.join(OUTPUTS)} and {CLASS_NAMES} in its metadata."
            )
        self.class_names = read_class_names(metadata[CLASS_NAMES], name)
        self.score_threshold = read_score_threshold(metadata.get(SCORE_THRESHOLD), name)

    def outputs(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """The tensors of the file for one (H, W, 3) uint8 image, by the names of ``OUTPUTS``."""
        values = self._session.run(OUTPUTS, {INPUT: image[None]})
        return dict(zip(OUTPUTS, values, strict=True))

    def detect(self, image: np.ndarray) -> Found:
        """Detections of one (H, W, 3) uint8 image; see :func:`found_in_outputs`."""
        return found_in_outputs(self.outputs(image), image.shape[:2], len(self.class_names))[0]


def load_onnx(path: Path | str) -> OnnxDetector:
    """Reads an ONNX file.

    Raises:
        UserError: there is none, or as :class:`OnnxDetector`.
    """
    file = user_path(path)
    if not file.is_file():
        raise UserError(f"{path} is no file: --onnx takes what export --out FILE.onnx wrote.")
    return OnnxDetector(file)
