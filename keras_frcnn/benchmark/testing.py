"""The parts of testing one image, each a call to time.

Shapes and names
----------------
decode      JPEG to the network input: Pillow's decoder, TensorFlow's resize.
conv        the base.
rpn         the RPN head.
proposals   decoding, clipping, suppression.
pooling     RoI pooling of all proposals.
fc          the head on what was pooled: fc6, fc7, both outputs.
detections  softmax, decoding, suppression within classes.
bare        conv, rpn and fc in one function and nothing else.
whole       uint8 pixels to detections in original pixels, what test_frcnn.py runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import tensorflow as tf

from keras_frcnn.benchmark.operations import count_operations
from keras_frcnn.benchmark.setting import jpeg_of, random_photo
from keras_frcnn.data.images import read_image
from keras_frcnn.detection.network_detector import NetworkDetector
from keras_frcnn.network.detector import select_detections
from keras_frcnn.network.faster_rcnn import FasterRcnn
from keras_frcnn.network.network_input import Frames, network_input
from keras_frcnn.network.roi_pooling import RoiPooling
from keras_frcnn.network.rpn import RpnOutputs
from keras_frcnn.system.timing import Call

PARTS = ("decode", "conv", "rpn", "proposals", "pooling", "fc", "detections")
ALL = (*PARTS, "bare", "whole")
# Parts that have operations to count.
WITH_WEIGHTS = ("conv", "rpn", "fc", "bare")


@dataclass(frozen=True, eq=False)
class Part:
    """One part, ready to be timed.

    Attributes:
        call: runs it and waits for the result.
        count: counts the operations of its convolutions and matrix products; 0: none, or unknown.
        images: that one call sees.
    """

    call: Call
    count: Callable[[], int] = lambda: 0
    images: int = 1

    @cached_property
    def operations(self) -> int:
        """Counted when first asked for: a process that measures memory never asks."""
        return self.count()


def parts_of_testing(model: FasterRcnn, names: Sequence[str] = ALL) -> dict[str, Part]:
    """Some parts of :data:`ALL` on one random image."""
    config = model.recipe.image
    photo = random_photo(config)
    images = tf.constant(photo[None])
    parts = {}
    if "decode" in names:
        jpeg, prepare = jpeg_of(photo), tf.function(lambda pixels: network_input(pixels, config)[0])
        parts["decode"] = Part(lambda: prepare(read_image(jpeg)[None])[0, 0, 0, 0].numpy())
    if "whole" in names:
        predictor = NetworkDetector(model, model.recipe.test_filter)
        parts["whole"] = Part(
            lambda: predictor.predict(images).count.numpy(), lambda: _operations_of_whole(model)
        )
    if set(names) - set(parts):
        parts |= _inner_parts(model, network_input(images, config)[0])
    return {name: parts[name] for name in names}


def _operations_of_whole(model: FasterRcnn) -> int:
    """Those of conv, rpn and fc, with as many RoIs as there may be."""
    config, backbone = model.recipe.image, model.backbone
    sides = (config.short_side, config.long_side)
    cells = (backbone.roi_size, backbone.roi_size, backbone.channels)
    return count_operations(
        _functions(model, tf.constant([sides]))["bare"],
        tf.TensorSpec((1, *sides, 3)),
        tf.TensorSpec((model.recipe.test_proposals.after_nms, *cells)),
    )


def _inner_parts(model: FasterRcnn, inputs: tf.Tensor) -> dict[str, Part]:
    """The parts between the network's input and its detections, each on results of the last."""
    functions = _functions(model, tf.shape(inputs)[None, 1:3])
    features = functions["conv"](inputs)
    outputs = functions["rpn"](features)
    rois = functions["proposals"](*outputs)[0]
    pooled = functions["pooling"](features, rois)
    scores = functions["fc"](pooled)
    arguments = {
        "conv": (inputs,),
        "rpn": (features,),
        "proposals": outputs,
        "pooling": (features, rois),
        "fc": (pooled,),
        "detections": (*scores, rois),
        "bare": (inputs, pooled),
    }
    parts = {}
    for name, values in arguments.items():
        function = functions[name]
        count = partial(count_operations, function, *values) if name in WITH_WEIGHTS else int
        parts[name] = Part(waiting(function, values), count)
    return parts


def _functions(model: FasterRcnn, sizes: tf.Tensor) -> dict[str, Callable]:
    recipe, backbone = model.recipe, model.backbone
    pool = RoiPooling(recipe.detector.roi_pooling, backbone.roi_size)
    output_layers = (model.cls_score, model.bbox_pred)
    cells = [backbone.feature_size(int(side)) for side in sizes[0]]

    def conv(inputs):
        return model.features(inputs)

    def rpn(features):
        return tuple(model.rpn_head(features))

    def proposals(logits, deltas):
        outputs = RpnOutputs(logits, deltas, model.anchors(*cells))
        frames = Frames(sizes, tf.ones((1, 2)))
        return model.proposals(outputs, frames, recipe.test_proposals).boxes_input

    def pooling(features, rois):
        return pool([features, rois, tf.zeros(rois.shape[:1], tf.int32)])

    def fc(pooled):
        hidden = backbone.head(pooled)
        return tuple(layer(hidden) for layer in output_layers)

    def detections(logits, deltas, rois):
        count = tf.fill((1,), rois.shape[0])
        found = select_detections(
            logits[None], deltas[None], rois[None], count, sizes, recipe.test_filter
        )
        return found.scores

    def bare(inputs, pooled):
        return (*rpn(conv(inputs)), *fc(pooled))

    functions = (conv, rpn, proposals, pooling, fc, detections, bare)
    return {function.__name__: tf.function(function) for function in functions}


def waiting(function: Callable, arguments: Sequence) -> Call:
    """A call that ends when a value of the last result can be read.

    Reading waits for the device; one value is enough and costs no copy of the features.
    """

    def call():
        results = tf.nest.flatten(function(*arguments))
        return tf.reshape(results[-1], (-1,))[:1].numpy()

    return call
