"""RoI pooling and suppression of many classes in ONNX's operators.

tf2onnx knows neither: it makes a loop over the RoIs of ``crop_and_resize``, and refuses
``combined_non_max_suppression`` where every class has its own boxes.

Shapes and names
----------------
context  the graph of tf2onnx that is being made; node  the operation to replace.
B  boxes, Q  classes.
"""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf
from onnx import TensorProto

from keras_frcnn.network.roi_pooling import RoiPooling


class MarkedPooling(keras.layers.Layer):
    """Stands for a RoI pooling in a graph to convert; it computes something else.

    It is a ``crop_and_resize`` with the inputs that ONNX's operators take and the same shape of
    output, so that :func:`roi_pooling` only replaces the operation.
    """

    def __init__(self, pooling: RoiPooling, **kwargs):
        super().__init__(dtype="float32", **kwargs)
        self.size, self.inclusive = pooling.size, pooling.kind == "max"

    def call(self, inputs):
        features, rois_input, roi_image = inputs
        y1, x1, y2, x2 = tf.unstack(rois_input, axis=1)
        if self.inclusive:
            # MaxRoiPool is Caffe's layer, with Caffe's inclusive corners.
            x2, y2 = x2 - 1.0, y2 - 1.0
        corners = tf.stack((x1, y1, x2, y2), axis=1)
        return tf.image.crop_and_resize(features, corners, roi_image, (self.size, self.size))

    def compute_output_shape(self, input_shape):
        features_shape, rois_shape, _ = input_shape
        return (rois_shape[0], self.size, self.size, features_shape[-1])


def roi_pooling(pooling: RoiPooling, context, node, name: str, _) -> None:
    """CropAndResize of :class:`MarkedPooling` becomes the pooling rule in ONNX, equal to rounding.

    ``max`` is MaxRoiPool. ``align`` is RoiAlign with 2x2 samples a bin. ``crop`` is RoiAlign with
    one sample in each of twice as many bins a side, and the maximum of 2x2 of them; RoiAlign's own
    mode ``max`` is something else.
    """
    features, corners, roi_image, _ = node.input
    build = _Builder(context, name)
    features = build.node("Transpose", [features], perm=[0, 3, 1, 2])
    size, scale = pooling.size, 1.0 / pooling.stride
    if pooling.kind == "max":
        image = build.node("Cast", [roi_image], to=TensorProto.FLOAT)
        image = build.node("Unsqueeze", [image, build.constant([1])])
        rois = build.node("Concat", [image, corners], axis=1)
        pooled = build.node(
            "MaxRoiPool", [features, rois], pooled_shape=[size, size], spatial_scale=scale
        )
    else:
        bins, samples = (2 * size, 1) if pooling.kind == "crop" else (size, 2)
        pooled = build.node(
            "RoiAlign",
            [features, corners, build.node("Cast", [roi_image], to=TensorProto.INT64)],
            coordinate_transformation_mode="half_pixel",
            output_height=bins,
            output_width=bins,
            sampling_ratio=samples,
            spatial_scale=scale,
        )
        if pooling.kind == "crop":
            pooled = build.node("MaxPool", [pooled], kernel_shape=[2, 2], strides=[2, 2])
    build.replace(node, ["Transpose"], [pooled], perm=[0, 2, 3, 1])


def suppression(context, node, name: str, _) -> None:
    """CombinedNonMaxSuppression of one image becomes one NonMaxSuppression.

    In ONNX the classes of an image share its boxes, so each class is an image of its own here.
    """
    boxes, scores, per_class, in_total, iou_threshold, score_threshold = node.input
    build = _Builder(context, name)
    zero, one = build.constant([0]), build.constant([1])
    boxes = build.node("Transpose", [build.node("Squeeze", [boxes, zero])], perm=[1, 0, 2])
    scores = build.node("Transpose", [scores], perm=[2, 0, 1])  # (Q, 1, B)
    per_class, in_total = (
        build.node("Reshape", [build.node("Cast", [limit], to=TensorProto.INT64), one])
        for limit in (per_class, in_total)
    )
    thresholds = [build.node("Reshape", [value, one]) for value in (iou_threshold, score_threshold)]
    kept = build.node("NonMaxSuppression", [boxes, scores, per_class, *thresholds])
    values = build.node("GatherND", [scores, kept])
    count = build.node("Min", [build.node("Shape", [values]), in_total])
    values, order = build.nodes("TopK", [values, count], 2, axis=0)
    kept = build.node("Gather", [kept, order], axis=0)  # (count, 3): class, 0, box
    classes = build.node("Gather", [kept, build.constant(0)], axis=1)
    place = build.node("Gather", [kept, build.constant([0, 2])], axis=1)
    missing = build.node("Sub", [in_total, count])

    def padded(tensor: str, axes: int) -> str:
        pads = build.node("Concat", [build.constant([0] * axes), missing], axis=0)
        if axes == 2:
            pads = build.node("Concat", [pads, zero], axis=0)
        return build.node("Unsqueeze", [build.node("Pad", [tensor, pads]), zero])

    # In the order of the operation's outputs: boxes, scores, classes, count.
    results = [
        padded(build.node("GatherND", [boxes, place]), 2),
        padded(values, 1),
        padded(build.node("Cast", [classes], to=TensorProto.FLOAT), 1),
        build.node("Cast", [count], to=TensorProto.INT32),
    ]
    build.replace(node, ["Identity"] * 4, results)


class _Builder:
    """Adds nodes to a graph of tf2onnx, with names below that of the replaced operation."""

    def __init__(self, context, name: str):
        self.context, self.name = context, name

    def nodes(self, kind: str, inputs: list[str], outputs: int, **attributes) -> list[str]:
        """Adds a node; returns the names of its outputs."""
        node = self.context.make_node(
            kind, inputs, attr=attributes, output_count=outputs, op_name_scope=self.name
        )
        return node.output

    def node(self, kind: str, inputs: list[str], **attributes) -> str:
        """Adds a node with one output; returns its name."""
        return self.nodes(kind, inputs, 1, **attributes)[0]

    def constant(self, values) -> str:
        """An int64 tensor."""
        from tf2onnx.utils import make_name

        return self.context.make_const(make_name(self.name), np.array(values, np.int64)).output[0]

    def replace(self, node, kinds: list[str], inputs: list[str], **attributes) -> None:
        """Puts a node of one input in place of each output of a node."""
        shapes, dtypes, outputs = node.output_shapes, node.output_dtypes, node.output
        self.context.remove_node(node.name)
        for kind, tensor, output, shape, dtype in zip(
            kinds, inputs, outputs, shapes, dtypes, strict=True
        ):
            self.context.make_node(
                kind, [tensor], attr=attributes, outputs=[output], shapes=[shape], dtypes=[dtype]
            )
