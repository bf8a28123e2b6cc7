"""From a detector to an ONNX model, pixels in and detections out.

Input and outputs are those of the SavedModel (:mod:`keras_frcnn.export.saved_model`), for one
image: ``input_tensor`` is (1, H, W, 3).
"""

from __future__ import annotations

import functools
import json
import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import keras
import numpy as np
import onnx
import onnxruntime
import tensorflow as tf
import tf2onnx

from keras_frcnn.detection.exported_model import CLASS_NAMES, INPUT, SCORE_THRESHOLD
from keras_frcnn.detection.network_detector import NetworkDetector
from keras_frcnn.export.onnx.operators import MarkedPooling, roi_pooling, suppression
from keras_frcnn.export.saved_model import normalised_detections
from keras_frcnn.network.faster_rcnn import FasterRcnn
from keras_frcnn.network.roi_pooling import RoiPooling
from keras_frcnn.system.files import written_whole

# NonMaxSuppression, per-channel DequantizeLinear and all else are in it; onnxruntime reads it
# from 1.14 on.
OPSET = 17


def to_onnx(detector: NetworkDetector) -> onnx.ModelProto:
    """Converts a whole detector to one ONNX graph of standard operators.

    Args:
        detector: in float32, at one scale; keeps at most 100 detections an image.

    Raises:
        ValueError: another precision.
    """
    model = detector.detector_model
    if model.precision != "float32":
        raise ValueError(f"expected a network in float32, received {model.precision}")
    weights = _weights(detector)
    # It warns of numbers that it cannot fold, which is no concern of the user.
    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    with _marked_pooling(model) as pooling:
        converted, _ = tf2onnx.convert.from_function(
            _function_of_weights(detector, list(weights.values())),
            [
                tf.TensorSpec((1, None, None, 3), tf.uint8, name=INPUT),
                [tf.TensorSpec(weight.shape, name=name) for name, weight in weights.items()],
            ],
            opset=OPSET,
            custom_op_handlers=handlers(pooling),
        )
    _fill_in(converted, weights)
    onnx.checker.check_model(converted)
    converted = _simplified(converted)
    about = {CLASS_NAMES: list(detector.class_names), SCORE_THRESHOLD: detector.score_threshold}
    onnx.helper.set_model_props(
        converted, {name: json.dumps(value) for name, value in about.items()}
    )
    return converted


def _weights(detector: NetworkDetector) -> dict[str, keras.Variable]:
    """Every weight by a name that holds its layer's: ``0/conv1_1/kernel``."""
    models = dict.fromkeys((detector.model, detector.detector_model))
    return {
        f"{index}/{layer.name}/{weight.name}": weight
        for index, model in enumerate(models)
        for layer in model.layers()
        for weight in layer.weights
    }


def _function_of_weights(detector: NetworkDetector, variables: Sequence[keras.Variable]):
    """``(input_tensor, weights) -> outputs``, to be traced while the pooling is marked.

    Weights are inputs: tf2onnx copies its graph for every pass over it, and with the weights inside
    forty times their size was in memory.
    """
    # Its own function, which has not been traced with the pooling itself.
    traced = NetworkDetector(
        detector.model,
        detector.detection_filter,
        proposals=detector.proposals,
        detector_model=detector.detector_model,
    )

    @tf.function(autograph=False)
    def detect(input_tensor: tf.Tensor, weights: Sequence[tf.Tensor]) -> dict[str, tf.Tensor]:
        with keras.StatelessScope(state_mapping=zip(variables, weights, strict=True)):
            return normalised_detections(traced, input_tensor)

    return detect


def _fill_in(model: onnx.ModelProto, weights: Mapping[str, keras.Variable]) -> None:
    """Makes constants of the inputs that are weights; those that nothing reads are dropped."""
    graph = model.graph
    read = {name for node in graph.node for name in node.input}
    for entry in list(graph.input):
        if entry.name == INPUT:
            continue
        graph.input.remove(entry)
        if entry.name in read:
            values = np.asarray(weights[entry.name])
            graph.initializer.append(onnx.numpy_helper.from_array(values, entry.name))


def _simplified(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with everything computed that depends on weights alone."""
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary) / "model.onnx"
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(file)
        options.log_severity_level = 4
        onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        return onnx.load(str(file))


def handlers(pooling: RoiPooling) -> dict[str, tuple]:
    """What tf2onnx does with the operations that it does not know, where this pooling is marked."""
    return {
        "CropAndResize": (functools.partial(roi_pooling, pooling), []),
        "CombinedNonMaxSuppression": (suppression, []),
    }


@contextmanager
def _marked_pooling(model: FasterRcnn) -> Iterator[RoiPooling]:
    """Puts :class:`MarkedPooling` in place of the detector's RoI pooling, which it gives."""

    def layer_of_copy(layer: keras.layers.Layer) -> keras.layers.Layer:
        return MarkedPooling(layer, name=layer.name) if layer is pooling else layer

    original = model.detector
    (pooling,) = (layer for layer in original.layers if isinstance(layer, RoiPooling))
    model.detector = keras.models.clone_model(original, clone_function=layer_of_copy)
    try:
        yield pooling
    finally:
        model.detector = original


def write_onnx(model: onnx.ModelProto, file: Path) -> None:
    """Writes a model; a file of that name is replaced at once."""
    with written_whole(file) as partial:
        onnx.save(model, str(partial), format="protobuf")
