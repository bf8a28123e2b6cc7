"""From a predictor to an ONNX model, pixels in and detections out.

The file has the inputs and outputs of the SavedModel (:mod:`keras_frcnn.export`), for one image.

Shapes and names
----------------
input_tensor  (1, H, W, 3) uint8 RGB, any H and W from 1.
detection_boxes  (1, 100, 4), detection_scores and detection_classes  (1, 100), num_detections
    (1,): all float32.
"""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import keras
import onnx
import tensorflow as tf
import tf2onnx

from keras_frcnn.export import normalised_detections
from keras_frcnn.files import written_whole
from keras_frcnn.inference import Predictor
from keras_frcnn.network.faster_rcnn import FasterRcnn
from keras_frcnn.network.roi_pooling import RoiPooling
from keras_frcnn.onnx_format.operators import MarkedPooling, roi_pooling, suppression

# NonMaxSuppression, per-channel DequantizeLinear and all else are in it; onnxruntime reads it
# from 1.14 on.
OPSET = 17
CLASS_NAMES = "class_names"


def to_onnx(predictor: Predictor) -> onnx.ModelProto:
    """The whole of a predictor as one ONNX graph of standard operators.

    Args:
        predictor: in float32, at one scale; keeps at most 100 detections an image.

    Raises:
        ValueError: another precision.
    """
    model = predictor.detector_model
    if model.precision != "float32":
        raise ValueError(f"expected a network in float32, received {model.precision}")

    @tf.function
    def detect(input_tensor: tf.Tensor) -> dict[str, tf.Tensor]:
        return normalised_detections(traced, input_tensor)

    # It warns of numbers that it cannot fold, which is no concern of the user.
    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    with _marked_pooling(model) as pooling:
        # Its own function is traced while the pooling is marked.
        traced = Predictor(
            predictor.model,
            predictor.detection_filter,
            proposals=predictor.proposals,
            detector_model=model,
        )
        converted, _ = tf2onnx.convert.from_function(
            detect,
            [tf.TensorSpec((1, None, None, 3), tf.uint8, name="input_tensor")],
            opset=OPSET,
            custom_op_handlers=handlers(pooling),
        )
    onnx.checker.check_model(converted)
    onnx.helper.set_model_props(converted, {CLASS_NAMES: json.dumps(list(predictor.class_names))})
    return converted


def handlers(pooling: RoiPooling) -> dict[str, tuple]:
    """What tf2onnx is to do with the operations that it does not know.

    Args:
        pooling: the layer that is marked in the graph.
    """
    return {
        "CropAndResize": (functools.partial(roi_pooling, pooling), []),
        "CombinedNonMaxSuppression": (suppression, []),
    }


@contextmanager
def _marked_pooling(model: FasterRcnn) -> Iterator[RoiPooling]:
    """The detector with :class:`MarkedPooling` for its RoI pooling, which is given.

    All other layers of it are the same.
    """

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
    """Writes a model; a file of that name is replaced at once.

    Raises:
        OSError: the file cannot be written.
    """
    with written_whole(file) as partial:
        onnx.save(model, str(partial), format="protobuf")
