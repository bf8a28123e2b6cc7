"""The "fast" Zeiler-Fergus network (ZF) as a Faster R-CNN backbone: conv1 to conv5, fc6 and fc7.

Nobody offers ImageNet weights of ZF in Keras' layout: a run starts from a converted caffemodel or
from random weights. ZF's own Caffe dropout is unscaled in training and halves at test time; the
dropout here scales in training, so a converter has to halve fc7's and the outputs' kernels.
"""

from __future__ import annotations

import keras
import tensorflow as tf

from keras_frcnn.network.backbones.heads import IMAGE_POLICY, caffe_head, he_normal

CHANNELS = 256
RPN_CHANNELS = 256
ROI_SIZE = 6
FROZEN = ()  # stage1_rpn_train.pt:22-153 of ZF trains every layer
build_head = caffe_head  # stage1_fast_rcnn_train.pt:193-235 of ZF
DROPOUT = 0.5


@keras.saving.register_keras_serializable(package="keras_frcnn")
class WithinChannelNormalization(keras.layers.Layer):
    """Caffe's local response normalisation WITHIN_CHANNEL (ZF stage1_rpn_train.pt:39-47).

    ``x * (1 + alpha * s / size^2) ** -beta``, where s is the sum of ``x^2`` over the size x size
    neighbours of the same channel, cells beyond the border counting as 0. ``tf.nn.lrn`` sums over
    channels instead, and a "same" average pool divides by fewer cells at the border.

    Make it with ``dtype="float32"`` whatever the precision of the network: ``1 + alpha * ...`` is
    1 in half precision for most inputs.
    """

    def __init__(self, size: int = 3, alpha: float = 5e-5, beta: float = 0.75, **kwargs):
        super().__init__(**kwargs)
        self.size = size
        self.alpha = alpha
        self.beta = beta

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Normalise x (N, H, W, F)."""
        border = [self.size // 2, (self.size - 1) // 2]
        squares = tf.pad(tf.square(x), [[0, 0], border, border, [0, 0]])
        mean = tf.nn.avg_pool2d(squares, self.size, 1, "VALID")
        return x * tf.pow(1.0 + self.alpha * mean, -self.beta)

    def get_config(self) -> dict:
        own = {"size": self.size, "alpha": self.alpha, "beta": self.beta}
        return {**super().get_config(), **own}


def feature_size(side: int) -> int:
    """Cells of the feature map along a side of the image: 600 -> 39, 800 -> 51, 1000 -> 64."""
    return _pool_size(_convolution_size(_pool_size(_convolution_size(side))))


def _convolution_size(side: int) -> int:
    """Stride 2, padded by half the kernel."""
    return (side - 1) // 2 + 1


def _pool_size(side: int) -> int:
    """3x3, stride 2, padded by 1, rounded up: ceil((side + 2 - 3) / 2) + 1."""
    return side // 2 + 1


def build_base(policy: str, seed: int | None) -> keras.Model:
    """Build conv1 to conv5 (ZF stage1_fast_rcnn_train.pt:28-161) with random weights."""
    image = keras.Input((None, None, 3), name="image")
    # Pixels have a standard deviation of about 64; with this gain features start near unit size.
    initializer = he_normal(seed, "conv1", 1 / 64**2)
    x = _padded_convolution(image, 96, 7, 2, "conv1", IMAGE_POLICY, initializer)
    x = WithinChannelNormalization(name="norm1", dtype="float32")(x)
    x = _ceil_pool(x, "pool1", policy)
    x = _padded_convolution(x, 256, 5, 2, "conv2", policy, he_normal(seed, "conv2"))
    x = WithinChannelNormalization(name="norm2", dtype="float32")(x)
    x = _ceil_pool(x, "pool2", policy)
    for name, filters in (("conv3", 384), ("conv4", 384), ("conv5", 256)):
        x = _padded_convolution(x, filters, 3, 1, name, policy, he_normal(seed, name))
    return keras.Model(image, x, name="zf")


def _padded_convolution(x, filters, kernel_size, strides, name, policy, initializer):
    """Padded by half the kernel on all four sides as in Caffe: "same" depends on the size."""
    x = keras.layers.ZeroPadding2D(kernel_size // 2, name=f"{name}_pad", dtype=policy)(x)
    return keras.layers.Conv2D(
        filters,
        kernel_size,
        strides=strides,
        activation="relu",
        kernel_initializer=initializer,
        name=name,
        dtype=policy,
    )(x)


def _ceil_pool(x, name, policy):
    """3x3, stride 2 max pooling, padded by 1, the size rounded up.

    One more cell at the far side rounds up for every size. Zeros serve as Caffe's -inf because the
    input has passed a ReLU and every window has a real cell in it.
    """
    x = keras.layers.ZeroPadding2D(((1, 2), (1, 2)), name=f"{name}_pad", dtype=policy)(x)
    return keras.layers.MaxPooling2D(3, strides=2, name=name, dtype=policy)(x)
