"""The one way from an image to the network's input: its size, its pixels and its scale.

Shapes and names
----------------
N  images of one batch; as inputs they are of one size.
H, W  height and width of an image in its own pixels.
h, w  height and width of the network input that is made of it.
image  (H, W, 3) uint8, RGB, or (N, H, W, 3) of one size.
image_input  (h, w, 3) or (N, h, w, 3) float32, RGB minus the recipe's means.
scale  (2,) float32, (h / H, w / W): boxes_input = boxes_image * (scale_y, scale_x, ...).
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from keras_frcnn.recipes import ImageConfig


class Frames(NamedTuple):
    """How the images of a batch were rescaled, and boxes from one frame to the other.

    Corners scale as ``x * scale``: 100 px at 1.6 are 160, where the published codes, which scale
    inclusive corners, give 159.4 (PY) or 159.5 (ML).

    Attributes:
        sizes_input: (N, 2) int32, heights and widths of the network's input, without padding.
        scales: (N, 2) float32, input / original.
        sizes_image: (N, 2) int32, of the originals; None where nobody needs them.
    """

    sizes_input: tf.Tensor
    scales: tf.Tensor
    sizes_image: tf.Tensor | None = None

    def to_input(self, boxes_image: tf.Tensor) -> tf.Tensor:
        """(N, K, 4) boxes in pixels of the network's input, from those in original pixels."""
        return boxes_image * tf.tile(self.scales, (1, 2))[:, None]

    def to_image(self, boxes_input: tf.Tensor) -> tf.Tensor:
        """(N, K, 4) boxes in original pixels, from those in pixels of the network's input.

        Division may leave the border by a rounding error: it is kept where the sizes are known.
        """
        boxes_image = boxes_input / tf.tile(self.scales, (1, 2))[:, None]
        if self.sizes_image is None:
            return boxes_image
        border = tf.tile(tf.cast(self.sizes_image, tf.float32), (1, 2))[:, None]
        return tf.minimum(boxes_image, border)


def input_size(height: int, width: int, short_side: int, long_side: int) -> tuple[int, int]:
    """Height and width of the network input that ``prepare_image`` makes, as Python integers.

    The factor is ``short_side / short``, unless the long side, rounded, would then exceed
    ``long_side``: then ``long_side / long`` (blob.py:38-43 PY, prep_im_for_blob_size.m ML). Each
    side is ``floor(side * factor + 0.5)``, at least 1. The factor is kept as a fraction, so that
    nothing is ever rounded twice: this function and the TensorFlow one agree on every size.
    """
    short, long = min(height, width), max(height, width)
    numerator, denominator = short_side, short
    if _scaled_side(long, numerator, denominator) > long_side:
        numerator, denominator = long_side, long
    return (
        max(_scaled_side(height, numerator, denominator), 1),
        max(_scaled_side(width, numerator, denominator), 1),
    )


def prepare_image(
    image: tf.Tensor, config: ImageConfig, *, on_host: bool = False
) -> tuple[tf.Tensor, tf.Tensor]:
    """Resize an image, or a batch of one size, to the network's input and subtract the means.

    Training, testing and the export all come through here; TensorFlow operations only. Bilinear
    without antialiasing, as in the sources (prep_im_for_blob.m:14 ML, blob.py:34-43 PY). The means
    are subtracted after the resize in float32, which for constant means equals before.

    Args:
        image: H and W may be unknown when traced.
        on_host: whether this runs on the CPU for certain, which resizes bytes as they are, to the
            same values: a large image is then not held as float32, four times its size. GPUs have
            no such kernel, and would leave the resize to the CPU.

    Returns:
        ``image_input`` and ``scale``.
    """
    size = tf.shape(image, out_type=tf.int64)[-3:-1]
    size_input = _input_size_tensor(size, config.short_side, config.long_side)
    pixels = image if on_host else tf.cast(image, tf.float32)
    resized = tf.image.resize(pixels, tf.cast(size_input, tf.int32), method="bilinear")
    # Where nothing is to be resized TensorFlow may give the bytes back.
    means = tf.constant(config.pixel_means_rgb, tf.float32, shape=(3,))
    image_input = tf.cast(resized, tf.float32) - means
    return image_input, tf.cast(size_input, tf.float32) / tf.cast(size, tf.float32)


def network_input(images: tf.Tensor, config: ImageConfig) -> tuple[tf.Tensor, Frames]:
    """Inputs (N, h, w, 3) float32 of (N, H, W, 3) uint8 images, and their frames."""
    inputs, _ = prepare_image(images, config)
    sizes_image = tf.tile(tf.shape(images)[None, 1:3], (tf.shape(images)[0], 1))
    return inputs, frames_of(inputs, sizes_image)


def frames_of(inputs: tf.Tensor, sizes_image: tf.Tensor) -> Frames:
    """Frames of (N, h, w, 3) inputs of images whose (N, 2) int32 sizes are given."""
    sizes_input = tf.tile(tf.shape(inputs)[None, 1:3], (tf.shape(inputs)[0], 1))
    scales = tf.cast(sizes_input, tf.float32) / tf.cast(sizes_image, tf.float32)
    return Frames(sizes_input, scales, sizes_image)


def _input_size_tensor(size: tf.Tensor, short_side: int, long_side: int) -> tf.Tensor:
    """``input_size`` on a (2,) int64 tensor (height, width)."""
    short, long = tf.reduce_min(size), tf.reduce_max(size)
    short_side = tf.constant(short_side, tf.int64)
    long_side = tf.constant(long_side, tf.int64)
    too_long = _scaled_side(long, short_side, short) > long_side
    numerator = tf.where(too_long, long_side, short_side)
    denominator = tf.where(too_long, long, short)
    return tf.maximum(_scaled_side(size, numerator, denominator), tf.constant(1, tf.int64))


def _scaled_side(side, numerator, denominator):
    """floor(side * numerator / denominator + 1/2) in whole numbers, Python's or a tensor's."""
    return (2 * side * numerator + denominator) // (2 * denominator)
