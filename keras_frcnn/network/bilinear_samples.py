"""Bilinear samples of a feature map on a grid in every box, with their gradient.

The forward pass is ``tf.image.crop_and_resize``. TensorFlow's gradient of it is taken on a GPU and
where op determinism is enabled, as the command lines do on the processor. Elsewhere its kernel for
processors is wrong: it spreads the boxes over threads, which add to the same cells without a lock,
and what two add at one moment is lost (at 128 boxes on 38 x 50 cells in every third step, up to a
third of the largest gradient). There a product with the sparse matrix of the bilinear weights takes
its place, right with any number of threads, but slower (0.08 s in place of 0.01 at 128 boxes of
512 channels).

Shapes and names
----------------
N  images.  H, W  size of the feature map in cells.  F  channels.
R  RoIs.  C  ``crop``, samples per side of a box.
rois_feature  (R, 4) float32, half-open (y1, x1, y2, x2) in cells (input pixels / stride).
roi_image     (R,) int32, for each RoI the image that it lies in, 0 to N - 1.
corners       (R, 4) float32, first and last sample (y, x, y, x) in units of the map's size less 1.
"""

from __future__ import annotations

import tensorflow as tf
from tensorflow.python.framework.config import is_op_determinism_enabled  # as Keras imports it

from keras_frcnn.network import suppression


def bilinear_samples(
    features: tf.Tensor, rois_feature: tf.Tensor, roi_image: tf.Tensor, crop: int
) -> tf.Tensor:
    """Bilinear samples at the centres of ``crop`` x ``crop`` equal parts of each box.

    ``crop_and_resize`` puts its first and last sample on the corners of its box, in units of the
    map's size less one. The map is padded by one cell first (border repeated): that makes samples
    in the outer half of border cells right, and that size never 0 (a map of height 1).

    Returns:
        (R, C, C, F) float32; its gradient goes to the features only.
    """
    padded = tf.pad(features, [[0, 0], [1, 1], [1, 1], [0, 0]], "SYMMETRIC")
    corner1, corner2 = rois_feature[:, :2], rois_feature[:, 2:]
    half_part = (corner2 - corner1) / (2 * crop)
    last_cell = tf.cast(tf.shape(padded)[1:3] - 1, tf.float32)
    # -0.5: from edges of cells to their centres; +1: the padding.
    first_sample = (corner1 + half_part - 0.5 + 1.0) / last_cell
    last_sample = (corner2 - half_part - 0.5 + 1.0) / last_cell
    corners = tf.concat([first_sample, last_sample], axis=1)

    if suppression.gpu_present() or is_op_determinism_enabled():
        return tf.image.crop_and_resize(padded, corners, roi_image, [crop, crop])

    @tf.custom_gradient
    def samples(values: tf.Tensor):
        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            return _gradient_of_samples(upstream, corners, roi_image, tf.shape(values), crop)

        return tf.image.crop_and_resize(values, corners, roi_image, [crop, crop]), gradient

    return samples(padded)


def _gradient_of_samples(
    upstream: tf.Tensor, corners: tf.Tensor, roi_image: tf.Tensor, shape: tf.Tensor, crop: int
) -> tf.Tensor:
    """(N, H, W, F) gradient, each sample's (R, C, C, F) spread over its four cells by weights."""
    channels = shape[3]
    images, height, width = tf.unstack(tf.cast(shape[:3], tf.int64))
    rows, row_weights = _cells_along(corners[:, 0], corners[:, 2], height, crop)
    columns, column_weights = _cells_along(corners[:, 1], corners[:, 3], width, crop)
    rows += tf.cast(roi_image, tf.int64)[:, None, None] * height
    # (R, C, C, 2, 2): sample (i, j) of a box, its cell (k, l).
    cells = rows[:, :, None, :, None] * width + columns[:, None, :, None, :]
    weights = row_weights[:, :, None, :, None] * column_weights[:, None, :, None, :]
    count = tf.size(upstream, tf.int64) // tf.cast(channels, tf.int64)
    matrix = tf.SparseTensor(
        tf.stack([tf.reshape(cells, [-1]), tf.repeat(tf.range(count), 4)], axis=1),
        tf.reshape(weights, [-1]),
        [images * height * width, count],
    )
    summed = tf.sparse.sparse_dense_matmul(matrix, tf.reshape(upstream, [-1, channels]))
    return tf.reshape(summed, shape)


def _cells_along(
    first: tf.Tensor, last: tf.Tensor, extent: tf.Tensor, crop: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """The two cells of each sample along one axis, and their weights.

    Positions by the arithmetic of ``crop_and_resize``; samples outside the map have weights of 0,
    as they are 0 there.

    Args:
        first, last: (R,) float32, the outermost samples in units of ``extent - 1``.
        extent: scalar int64, H or W.

    Returns:
        cells (R, C, 2) int64, weights (R, C, 2) float32.
    """
    last_cell = tf.cast(extent - 1, tf.float32)
    step = (last - first) * last_cell / (crop - 1)
    position = (first * last_cell)[:, None] + tf.range(crop, dtype=tf.float32) * step[:, None]
    inside = tf.cast((position >= 0) & (position <= last_cell), tf.float32)
    position = tf.clip_by_value(position, 0.0, last_cell)
    low = tf.floor(position)
    part = position - low
    cells = tf.cast(tf.stack([low, tf.math.ceil(position)], axis=-1), tf.int64)
    return cells, tf.stack([1 - part, part], axis=-1) * inside[..., None]
