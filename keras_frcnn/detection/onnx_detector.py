"""An ONNX file as a detector."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnxruntime

from keras_frcnn.detection.exported_model import AGAIN, OUTPUTS, ExportedModel
from keras_frcnn.errors import reading
from keras_frcnn.system.files import check_bounded

INPUT = "input_tensor"
CLASS_NAMES, SCORE_THRESHOLD = "class_names", "score_threshold"  # of the metadata
_MOST_BYTES = 1 << 31  # of the format


class OnnxDetector(ExportedModel):
    """A file of :mod:`keras_frcnn.export.onnx.convert`, run on the CPU by onnxruntime.

    Args:
        model: the file, or its contents.

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
        with reading(name, "an ONNX file of keras_frcnn", AGAIN):
            if not isinstance(model, bytes):
                check_bounded(model, _MOST_BYTES)
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
