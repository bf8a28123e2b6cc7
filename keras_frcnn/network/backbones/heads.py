"""The layers between RoI pooling and the two outputs, and how every layer of a network starts.

A head is a list of layers and the order in which they are called. It is not a model: training,
inference and export call the same layers on their own inputs, so they share the weights by
reference.

Shapes and names
----------------
R  RoIs of a batch; p  side of a pooled RoI in cells; F  channels of the feature map.
D  length of the feature vector that the class and box layers see (4096, 2048 or 256).
pooled  (R, p, p, F) float32, what RoI pooling emits; the layers cast it to their own precision.
seed  (an argument of builders)  an int, from which each layer draws its own initial weights; None
    gives zeros, for a network whose weights are to be loaded: drawing 138 million numbers takes
    longer than reading them.
dropout_seed  (2,) int32 tensor, one per training step.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Protocol

import keras
import tensorflow as tf

# Of the layers that see the image, in every precision. In bfloat16 a pixel of 150 is off by up to
# half a grey level: a fifth of the error of VGG-16's features, for 1 % of their time.
IMAGE_POLICY = "float32"


def halved_four_times(side: int) -> int:
    """Cells of the feature map along a side of the image, each halving rounded up."""
    return -(-side // 16)


def layer_seed(seed: int | None, layer_name: str) -> int | None:
    """A seed of its own for each layer, independent of the order in which layers are made."""
    if seed is None:
        return None
    return zlib.crc32(f"{seed}/{layer_name}".encode()) & 0x7FFFFFFF


def he_normal(
    seed: int | None, layer_name: str, gain: float = 1.0
) -> keras.initializers.Initializer:
    """He's initialiser (fan in, truncated normal) with its variance multiplied by ``gain``."""
    if seed is None:
        return keras.initializers.Zeros()
    return keras.initializers.VarianceScaling(
        scale=2.0 * gain,
        mode="fan_in",
        distribution="truncated_normal",
        seed=layer_seed(seed, layer_name),
    )


def random_normal(seed: int | None, offset: int, stddev: float) -> keras.initializers.Initializer:
    """N(0, stddev), the initialiser of the Caffe networks, drawn from ``seed + offset``."""
    if seed is None:
        return keras.initializers.Zeros()
    return keras.initializers.RandomNormal(stddev=stddev, seed=seed + offset)


@keras.saving.register_keras_serializable(package="keras_frcnn")
class StatelessDropout(keras.layers.Layer):
    """Dropout whose mask is a pure function of a seed tensor.

    A resumed run then draws the masks that an uninterrupted run would have drawn.

    Args:
        rate: share of the values set to 0; the others are multiplied by ``1 / (1 - rate)``.
        index: number of this layer within its head. It is folded into the seed, so that two layers
            given one seed draw different masks.
    """

    def __init__(self, rate: float, index: int = 0, **kwargs):
        super().__init__(**kwargs)
        self.rate = rate
        self.index = index

    def call(self, x: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Drop values of x (any shape) by the mask of ``seed`` ((2,) int32)."""
        own_seed = tf.random.experimental.stateless_fold_in(seed, self.index)
        return tf.nn.experimental.stateless_dropout(x, self.rate, seed=own_seed)

    def get_config(self) -> dict:
        return {**super().get_config(), "rate": self.rate, "index": self.index}


class RoiHead(Protocol):
    """The layers between RoI pooling and the two outputs.

    Attributes:
        layers: those with weights, in order; every call uses the same.
    """

    layers: list[keras.layers.Layer]

    def __call__(self, pooled: tf.Tensor, dropout_seed: tf.Tensor | None = None) -> tf.Tensor:
        """(R, D) of pooled (R, p, p, F), with dropout only where a ``dropout_seed`` is given."""


class FullyConnectedHead:
    """fc6 and fc7 with ReLU, each followed by dropout in training (VGG-16, ZF and tiny).

    Args:
        width: units of each of the two layers.
        kernel_initializers: of fc6 and fc7; biases start at 0.
        dropout_rate: 0 leaves dropout out.
    """

    def __init__(
        self,
        width: int,
        kernel_initializers: Sequence[keras.initializers.Initializer],
        dropout_rate: float,
        policy: str,
    ):
        # Rows of fc6 run (row, column, channel), as in keras.applications; Caffe flattens
        # (channel, row, column), so a converted caffemodel has to be permuted.
        self._flatten = keras.layers.Flatten(name="roi_flatten", dtype=policy)
        self.layers = [
            keras.layers.Dense(
                width, activation="relu", kernel_initializer=initializer, name=name, dtype=policy
            )
            for name, initializer in zip(("fc6", "fc7"), kernel_initializers, strict=True)
        ]
        self._dropouts = [
            StatelessDropout(dropout_rate, index, name=name, dtype=policy)
            for index, name in enumerate(("drop6", "drop7"))
            if dropout_rate > 0
        ]

    def __call__(self, pooled: tf.Tensor, dropout_seed: tf.Tensor | None = None) -> tf.Tensor:
        """See :class:`RoiHead`."""
        features = self._flatten(pooled)
        for index, layer in enumerate(self.layers):
            features = layer(features)
            if dropout_seed is not None and self._dropouts:
                features = self._dropouts[index](features, dropout_seed)
        return features


def caffe_head(policy: str, seed: int | None, dropout: float) -> FullyConnectedHead:
    """fc6 and fc7 of VGG-16 and ZF, 4096 wide, each followed by dropout.

    They are meant to be loaded from ImageNet. Where they are not, N(0, 0.005) keeps the first
    cross-entropy near ln(classes): on ImageNet features of VOC images it is about 3.2, with
    ln 21 = 3.04, while N(0, 0.01) starts at 4.4 to 5.9.
    """
    initializers = [random_normal(layer_seed(seed, name), 0, 0.005) for name in ("fc6", "fc7")]
    return FullyConnectedHead(4096, initializers, dropout_rate=dropout, policy=policy)


class CompressedHead(FullyConnectedHead):
    """fc6 and fc7 as two layers each, the first linear and without a bias (Fast R-CNN 3.1).

    Layer names are those of compress_net.py (PY). It is made by truncated SVD of a trained head
    (:mod:`keras_frcnn.network.compression`) and loaded: its weights start at 0, without dropout.

    Args:
        width, ranks: units of fc6 and fc7, and their ranks.
    """

    def __init__(self, width: int, ranks: Sequence[int], policy: str):
        self._flatten = keras.layers.Flatten(name="roi_flatten", dtype=policy)
        self.layers, self._dropouts = [], []
        for name, rank in zip(("fc6", "fc7"), ranks, strict=True):
            common = {"kernel_initializer": "zeros", "dtype": policy}
            self.layers += [
                keras.layers.Dense(rank, use_bias=False, name=f"{name}_L", **common),
                keras.layers.Dense(width, activation="relu", name=f"{name}_U", **common),
            ]
