"""The head of the region proposal network (section 3.1, figure 1 left).

Shapes and names
----------------
N  images, h, w  feature map, F  its channels, A  anchors per position.
features  (N, h, w, F).
logits    (N, h*w*A, 2) float32: background, object of every anchor, anchor fastest.
logistic  one output k an anchor instead of two (footnote 2): the pair (0, k), of which the softmax
          is the logistic function of k, so that losses and proposals need not know.
deltas    (N, h*w*A, 4) float32: (ty, tx, th, tw) against the anchor.
"""

from __future__ import annotations

import keras
import tensorflow as tf

from keras_frcnn.network.backbones.heads import random_normal


@keras.utils.register_keras_serializable(package="keras_frcnn")
class AnchorLayout(keras.layers.Layer):
    """Turns the channels of a 1x1 convolution into one row per anchor.

    Args:
        values: numbers per anchor (2 logits or 4 deltas).
        value_major: ``True`` where the channels run (value, anchor), as the released code lays out
            objectness: first all backgrounds, then all objects (proposal_layer.py:70-72).
    """

    def __init__(self, values: int, value_major: bool, **kwargs):
        super().__init__(dtype="float32", **kwargs)
        self.values = values
        self.value_major = value_major

    def call(self, inputs):
        shape = tf.shape(inputs)
        per_position = inputs.shape[-1] // self.values
        if self.value_major:
            grid = tf.reshape(inputs, (shape[0], shape[1], shape[2], self.values, per_position))
            inputs = tf.transpose(grid, (0, 1, 2, 4, 3))
        return tf.reshape(inputs, (shape[0], shape[1] * shape[2] * per_position, self.values))

    def compute_output_shape(self, input_shape):
        return (input_shape[0], None, self.values)

    def get_config(self):
        config = super().get_config()
        config.pop("dtype", None)
        return {**config, "values": self.values, "value_major": self.value_major}


@keras.utils.register_keras_serializable(package="keras_frcnn")
class ZeroBackground(keras.layers.Layer):
    """(N, A, 1) logits of the object to (N, A, 2), the background's being 0."""

    def call(self, logits: tf.Tensor) -> tf.Tensor:
        """See the class."""
        return tf.concat((tf.zeros_like(logits), logits), axis=-1)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], 2)


def build_rpn_head(
    feature_channels: int,
    rpn_channels: int,
    anchors_per_position: int,
    *,
    objectness: str = "softmax",
    feature_dtype: str,
    precision_policy: str,
    seed: int | None,
) -> keras.Model:
    """The 3x3 convolution and its two sibling 1x1 convolutions as a functional model.

    All weights start from N(0, 0.01), biases from 0 (stage1_rpn_train.pt VGG:373-414). The output
    layers compute in float32 whatever the precision: half-precision objectness makes ties.

    Args:
        objectness: ``"softmax"`` of two logits an anchor, or ``"logistic"``: one (footnote 2).

    Returns:
        A model ``features -> [logits, deltas]`` with the shapes of the module's head.
    """
    features = keras.Input((None, None, feature_channels), dtype=feature_dtype, name="features")

    def normal(offset: int) -> keras.initializers.Initializer:
        return random_normal(None if seed is None else seed + offset, 0.01)

    hidden = keras.layers.Conv2D(
        rpn_channels,
        3,
        padding="same",
        activation="relu",
        kernel_initializer=normal(0),
        dtype=precision_policy,
        name="rpn_conv",
    )(features)
    logits_per_anchor = 2 if objectness == "softmax" else 1
    class_map = keras.layers.Conv2D(
        logits_per_anchor * anchors_per_position,
        1,
        kernel_initializer=normal(1),
        dtype="float32",
        name="rpn_cls_score",
    )(hidden)
    delta_map = keras.layers.Conv2D(
        4 * anchors_per_position,
        1,
        kernel_initializer=normal(2),
        dtype="float32",
        name="rpn_bbox_pred",
    )(hidden)
    logits = AnchorLayout(logits_per_anchor, value_major=True, name="rpn_logits")(class_map)
    if objectness == "logistic":
        logits = ZeroBackground(dtype="float32", name="rpn_zero_background")(logits)
    deltas = AnchorLayout(4, value_major=False, name="rpn_deltas")(delta_map)
    return keras.Model(features, [logits, deltas], name="rpn_head")
