"""An ONNX model with its base and fully connected layers in 8-bit integers.

Static quantisation with pairs of QuantizeLinear and DequantizeLinear: weights by output channel,
activations by the least and largest value seen on training images. What decides which boxes there
are, the RPN and the detector's two output layers, stays float32.
"""

from __future__ import annotations

import logging
import platform
import re
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

KEPT_FLOAT = ("rpn_conv", "rpn_cls_score", "rpn_bbox_pred", "cls_score", "bbox_pred")
WEIGHTED = ("Conv", "Gemm", "MatMul")
# They pass 8-bit values on as they come.
PASSING = ("Relu", "MaxPool", "Add")
_CPU_INFO = Path("/proc/cpuinfo")


class CalibrationImages(CalibrationDataReader):
    """Images one after the other, as the model's input.

    Args:
        images: read when they are asked for.
    """

    def __init__(self, images: Iterable[np.ndarray]):
        self._images: Iterator[np.ndarray] = iter(images)

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next input, None at the end."""
        image = next(self._images, None)
        return None if image is None else {"input_tensor": image[None]}


def quantise(
    model: onnx.ModelProto, images: Iterable[np.ndarray], *, seven_bit_weights: bool
) -> onnx.ModelProto:
    """The model in int8, with the metadata of the original.

    Args:
        model: of :func:`keras_frcnn.export.onnx.convert.to_onnx`.
        images: to calibrate on, 100 or more of the training set.
        seven_bit_weights: see :func:`needs_seven_bits`.

    Raises:
        ValueError: the layers of :data:`KEPT_FLOAT` are not in the model.
    """
    with tempfile.TemporaryDirectory() as temporary, _quiet():
        source, prepared, target = (Path(temporary) / f"{name}.onnx" for name in "abc")
        onnx.save(model, str(source))
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(target),
            CalibrationImages(images),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=[*WEIGHTED, *PASSING],
            nodes_to_quantize=quantised_nodes(onnx.load(str(prepared)).graph),
            per_channel=True,
            reduce_range=seven_bit_weights,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
        )
        quantised = onnx.load(str(target))
    del quantised.metadata_props[:]
    quantised.metadata_props.extend(model.metadata_props)
    return quantised


@contextmanager
def _quiet() -> Iterator[None]:
    """Holds back warnings of each tensor that has no shape before the model runs."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def quantised_nodes(graph: onnx.GraphProto) -> list[str]:
    """Names of the nodes to quantise: with weights, but not of ``KEPT_FLOAT``, and what follows.

    Raises:
        ValueError: not one node for each of :data:`KEPT_FLOAT`.
    """
    # Nodes and weights are called by their layers, TensorFlow's numbers behind.
    pattern = re.compile(rf"/({'|'.join(KEPT_FLOAT)})(_\d+)?/")
    weights = {tensor.name for tensor in graph.initializer}
    floats: list[str] = []
    chosen: list[str] = []
    outputs: set[str] = set()
    for node in graph.node:
        if node.op_type in WEIGHTED and weights & set(node.input):
            if any(pattern.search(name) for name in (node.name, *node.input)):
                floats.append(node.name)
                continue
        elif node.op_type not in PASSING or not set(node.input) <= outputs:
            continue
        chosen.append(node.name)
        outputs.update(node.output)
    if len(floats) != len(KEPT_FLOAT):
        raise ValueError(f"expected the layers {KEPT_FLOAT}, found {floats}")
    return chosen


def needs_seven_bits() -> bool:
    """Whether weights should have seven bits on this machine.

    x86 processors without VNNI add two products of 8-bit numbers in 16 bits, which overflow.
    """
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    try:
        return "vnni" not in _CPU_INFO.read_text(encoding="utf-8")
    except OSError:
        return True
