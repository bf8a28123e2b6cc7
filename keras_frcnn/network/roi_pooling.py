"""RoI pooling: a feature map and boxes in, one small map of fixed size per box out.

One layer with three rules:

- ``crop``: 2x2 bilinear samples in every bin, their maximum (the default).
- ``max``: exactly the RoI max pooling of Fast R-CNN, coordinates rounded to whole cells.
- ``align``: RoIAlign (He et al., Mask R-CNN, section 3), the mean of such samples.

``crop`` and ``align`` sample at the same places and differ in taking the maximum or the mean. Pixel
``y`` of the input lies at ``y / stride - 0.5`` in cells, cell centres having whole coordinates
("half-pixel", ``aligned=True`` in torchvision). Samples up to one cell outside the centres of the
border cells take the border's value, samples farther out are 0.

Gradients go to the features only; RoIs are constants (as in the released codes, where joint
training ignores the derivative towards the coordinates).

Shapes and names
----------------
N  images.  H, W  size of the feature map in cells.  F  channels.
R  RoIs; R = 0 is fine.  P  ``size``, bins per side (7; 6 for ZF).
features  (N, H, W, F), any float type, ``stride`` pixels of the input per cell.
rois_input  (R, 4) float32, half-open (y1, x1, y2, x2) in pixels of the network input.
roi_image  (R,) int32, for each RoI the image that it lies in, 0 to N - 1.
pooled  (R, P, P, F) float32.
C  ``crop``, samples per side of a box, 2 P.
corners  (R, 4) float32, first and last sample (y, x, y, x) in units of the map's size less 1.
starts, ends  (R, P) int32, half-open ranges of cells, one per bin, along one axis.
level  k of a window of 2**k cells along one axis.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf
from tensorflow.python.framework.config import is_op_determinism_enabled  # as Keras imports it

from keras_frcnn.errors import UserError
from keras_frcnn.network import suppression
from keras_frcnn.recipes import Pooling
from keras_frcnn.system.settings import Count, checked


@keras.saving.register_keras_serializable(package="keras_frcnn")
class RoiPooling(keras.layers.Layer):
    """RoI pooling by one rule: ``[features, rois_input, roi_image]`` to ``pooled``.

    Args:
        kind: name of the rule, see ``RULES``.
        size: P.
        stride: input pixels per cell.

    Raises:
        UserError: another kind, or a size or stride that is no whole number above 0.
    """

    def __init__(self, kind: str, size: int, stride: int = 16, **kwargs):
        # A half-precision policy must not reach the RoIs: bfloat16 has 8 bits, a box at 803 pixels
        # would move to 804. So this layer computes in float32 whatever the policy.
        kwargs["dtype"] = "float32"
        super().__init__(**kwargs)
        self.kind = checked(kind, Pooling, "`roi_pooling`")
        self.size = checked(size, Count, "RoiPooling.size")
        self.stride = checked(stride, Count, "RoiPooling.stride")

    def call(self, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
        features, rois_input, roi_image = inputs
        pooled = RULES[self.kind](
            tf.cast(features, tf.float32),
            tf.stop_gradient(tf.cast(rois_input, tf.float32)),
            tf.cast(roi_image, tf.int32),
            self.size,
            self.stride,
        )
        return tf.ensure_shape(pooled, (None, self.size, self.size, features.shape[-1]))

    def compute_output_shape(self, input_shape):
        features_shape, rois_shape, _ = input_shape
        return (rois_shape[0], self.size, self.size, features_shape[-1])

    def get_config(self) -> dict:
        settings = {"kind": self.kind, "size": self.size, "stride": self.stride}
        return {**super().get_config(), **settings}


def _crop(
    features: tf.Tensor, rois_input: tf.Tensor, roi_image: tf.Tensor, size: int, stride: int
) -> tf.Tensor:
    """Maximum of 2x2 bilinear samples per bin, the usual TensorFlow form of RoI pooling.

    Fastest of the three (one ``crop_and_resize``); bins lie exactly where the box puts them. Where
    samples of a bin are equal the gradient goes to one of them, as in ``tf.nn.max_pool2d``.

    Deterministic where no GPU is visible; on a GPU op determinism refuses this gradient (the same
    holds for ``_align``).
    """
    # The gradient of an empty max_pool2d aborts the process (oneDNN, tensorflow issue 126128):
    # where there is no RoI, pool one and drop it.
    count = tf.shape(rois_input)[0]
    missing = tf.maximum(1 - count, 0)
    rois_input = tf.pad(rois_input, [[0, missing], [0, 0]])
    roi_image = tf.pad(roi_image, [[0, missing]])
    samples = _bilinear_samples(features, rois_input / stride, roi_image, 2 * size)
    return tf.nn.max_pool2d(samples, 2, 2, "VALID")[:count]


def _align(
    features: tf.Tensor, rois_input: tf.Tensor, roi_image: tf.Tensor, size: int, stride: int
) -> tf.Tensor:
    """RoIAlign: mean of 2x2 bilinear samples per bin; equals torchvision's ``aligned=True``."""
    samples = _bilinear_samples(features, rois_input / stride, roi_image, 2 * size)
    return tf.nn.avg_pool2d(samples, 2, 2, "VALID")


def _max(
    features: tf.Tensor, rois_input: tf.Tensor, roi_image: tf.Tensor, size: int, stride: int
) -> tf.Tensor:
    """RoI max pooling of Fast R-CNN, cell for cell (caffe-fast-rcnn, roi_pooling_layer.cpp).

    A box covers the cells ``round(x1 / stride)`` to ``round((x2 - 1) / stride)``, both included and
    at least one; its P bins round outwards, so neighbours may share a cell; bins are clipped to the
    map and an empty one gives 0. The gradient of a bin goes to its largest cell, among equal ones
    to the first in row order, as in Caffe.

    Bins are maxima of four overlapping windows of 2**a x 2**b cells, looked up in tables of all
    such windows: time and memory do not grow with the boxes. Deterministic on the CPU.
    """
    height, width = tf.shape(features)[1], tf.shape(features)[2]
    y1, x1, y2, x2 = tf.unstack(rois_input, axis=1)
    rows = _integer_bins(y1, y2, size, stride, height)
    columns = _integer_bins(x1, x2, size, stride, width)
    return _bin_maxima(features, rows, columns, roi_image)


RULES = {"crop": _crop, "max": _max, "align": _align}


def repeatable_rule(asked: str | None) -> str | None:
    """The rule of a training that must be repeatable; ``None`` is the recipe's own.

    On a GPU the gradient of ``crop_and_resize`` adds in any order, and TensorFlow refuses it.

    Raises:
        UserError: another rule than ``max`` was asked for there.
    """
    if not tf.config.get_visible_devices("GPU"):
        return asked
    if asked not in (None, "max"):
        raise UserError(
            f"`deterministic` cannot be had with `detector.roi_pooling` {asked} on a GPU: its "
            "gradient is not repeatable there. Leave `detector.roi_pooling` out (max is taken), or "
            "train with `gpu` -1."
        )
    return "max"


def _bilinear_samples(
    features: tf.Tensor, rois_feature: tf.Tensor, roi_image: tf.Tensor, crop: int
) -> tf.Tensor:
    """(R, C, C, F) bilinear samples at the centres of ``crop`` x ``crop`` equal parts of each box.

    ``crop_and_resize`` puts its first and last sample on the corners of its box, in units of the
    map's size less one. The map is padded by one cell first (border repeated): that makes samples
    in the outer half of border cells right, and that size never 0 (a map of height 1).

    TensorFlow's gradient of it is taken on a GPU and where op determinism is enabled, as the
    command lines do on the processor. Elsewhere its kernel for processors is wrong: it spreads the
    boxes over threads, which add to the same cells without a lock, and what two add at one moment
    is lost (at 128 boxes on 38 x 50 cells in every third step, up to a third of the largest
    gradient). There a product with the sparse matrix of the bilinear weights takes its place, right
    with any number of threads, but slower (0.08 s in place of 0.01 at 128 boxes of 512 channels).

    Args:
        rois_feature: (R, 4) in cells: input pixels / stride.
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


def _round_half_away(values: tf.Tensor) -> tf.Tensor:
    """C's ``round``, int32: ``tf.round`` takes halves to the even neighbour."""
    magnitude = tf.abs(values)
    whole = tf.floor(magnitude)
    rounded = whole + tf.cast(magnitude - whole >= 0.5, tf.float32)
    return tf.cast(tf.sign(values) * rounded, tf.int32)


def _integer_bins(
    low: tf.Tensor, high: tf.Tensor, size: int, stride: int, extent: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Starts and ends of the bins along one axis, clipped to ``[0, extent]``.

    In integers, as floor and ceil of a float32 multiple of ``1 / size`` are wrong for some sizes.

    Args:
        low, high: (R,) float32, half-open side of the boxes in input pixels.
    """
    first = _round_half_away(low / stride)[:, None]
    last = _round_half_away((high - 1.0) / stride)[:, None]  # inclusive, as Caffe's boxes are
    length = tf.maximum(last - first + 1, 1)
    index = tf.range(size)[None]
    starts = first + (index * length) // size
    ends = first + ((index + 1) * length + size - 1) // size
    return tf.clip_by_value(starts, 0, extent), tf.clip_by_value(ends, 0, extent)


def _bin_maxima(
    features: tf.Tensor,
    rows: tuple[tf.Tensor, tf.Tensor],
    columns: tuple[tf.Tensor, tf.Tensor],
    roi_image: tf.Tensor,
) -> tf.Tensor:
    """(R, P, P, F) maximum of every bin, 0 where it is empty, with a gradient to one cell of each.

    The gradient has its own rule because autodiff through the lookup scatters into every table:
    twice as slow, and it splits ties by window.
    """
    filled = ((rows[1] > rows[0])[:, :, None] & (columns[1] > columns[0])[:, None, :])[..., None]

    @tf.custom_gradient
    def maxima(values: tf.Tensor):
        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            keys = _window_lookup(_sortable_keys(values), rows, columns, roi_image)
            element = _element_of_keys(keys, tf.shape(values))
            upstream = tf.where(filled, upstream, 0.0)
            summed = tf.math.unsorted_segment_sum(upstream, element, tf.size(values))
            return tf.reshape(summed, tf.shape(values))

        return tf.where(filled, _window_lookup(values, rows, columns, roi_image), 0.0), gradient

    return maxima(features)


def _window_lookup(
    values: tf.Tensor,
    rows: tuple[tf.Tensor, tf.Tensor],
    columns: tuple[tf.Tensor, tf.Tensor],
    roi_image: tf.Tensor,
) -> tf.Tensor:
    """(R, P, P, F) maximum of every bin (anything where it is empty), from a range-maximum table.

    A range of n cells is the union of two ranges of 2**k cells, k = floor(log2 n): one at its start
    and one at its end. In two dimensions that is four lookups for bins of any size. The values are
    (N, H, W, F) float32 or int64.
    """
    shape = tf.shape(values)
    row_level, column_level = _level(rows), _level(columns)
    row_levels, column_levels = _count(row_level), _count(column_level)
    table = _window_maxima(values, 1, row_levels)  # (a, N, H, W, F)
    table = _window_maxima(table, 3, column_levels)  # (b, a, N, H, W, F)
    table = tf.reshape(table, [-1, shape[3]])
    page = column_level[:, None, :] * row_levels + row_level[:, :, None]  # (R, P, P)
    page = page * shape[0] + roi_image[:, None, None]

    def corners(bins, level, extent):
        starts, ends = bins
        second = ends - tf.bitwise.left_shift(1, level)
        return [tf.clip_by_value(corner, 0, extent - 1) for corner in (starts, second)]

    best = None
    for row in corners(rows, row_level, shape[1]):
        for column in corners(columns, column_level, shape[2]):
            cell = (page * shape[1] + row[:, :, None]) * shape[2] + column[:, None, :]
            found = tf.gather(table, cell)
            best = found if best is None else tf.maximum(best, found)
    return best


def _level(bins: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
    """floor(log2(length)) of every bin, 0 for empty ones; in integers, log2(8) being 2.9999..."""
    length = (bins[1] - bins[0])[..., None]
    return tf.reduce_sum(tf.cast(length >= 2 ** tf.range(1, 30), tf.int32), axis=-1)


def _count(level: tf.Tensor) -> tf.Tensor:
    """Number of levels in use, at least 1 (also without RoIs)."""
    return tf.reduce_max(tf.concat([[0], tf.reshape(level, [-1])], axis=0)) + 1


def _window_maxima(values: tf.Tensor, axis: int, levels: tf.Tensor) -> tf.Tensor:
    """(levels, ...) maxima over 2**k cells from each cell on along ``axis``, k below ``levels``.

    Windows that overhang the end wrap around; no bin asks for them.
    """
    table = tf.TensorArray(values.dtype, size=levels, element_shape=values.shape)

    def double(level, current, table):
        shifted = tf.roll(current, -tf.bitwise.left_shift(1, level - 1), axis)
        current = tf.maximum(current, shifted)
        return level + 1, current, table.write(level, current)

    start = (tf.constant(1), values, table.write(0, values))
    return tf.while_loop(lambda level, *_: level < levels, double, start)[2].stack()


def _sortable_keys(values: tf.Tensor) -> tf.Tensor:
    """(N, H, W, F) int64 that order like the values and, among equals, earlier cells higher.

    High word: the float's bits, made to order like the float. Low word: cells counted from the end.
    """
    bits = tf.where(values == 0.0, 0, tf.bitcast(values, tf.int32))  # -0.0 equals 0.0
    high = tf.where(bits < 0, tf.bitwise.bitwise_xor(bits, 0x7FFFFFFF), bits)
    shape = tf.shape(values)
    from_end = tf.reshape(tf.range(tf.reduce_prod(shape[:3]))[::-1], [*tf.unstack(shape[:3]), 1])
    return tf.bitcast(tf.stack([tf.broadcast_to(from_end, shape), high], axis=-1), tf.int64)


def _element_of_keys(keys: tf.Tensor, shape: tf.Tensor) -> tf.Tensor:
    """Position in the flattened (N, H, W, F) values of each (R, P, P, F) key."""
    cell = tf.reduce_prod(shape[:3]) - 1 - tf.bitcast(keys, tf.int32)[..., 0]
    return cell * shape[3] + tf.range(shape[3])
