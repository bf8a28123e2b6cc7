"""Anchors: reference boxes of several sizes and shapes at every position (section 3.1.1).

The RPN says of each anchor whether it is an object, and how to move it onto that object.

Shapes and names
----------------
k  anchors of one position: scales times ratios, 9 in the paper, or a list of shapes.
h, w  height and width of the feature map.
stride  pixels of the network input per cell of the feature map (16).
base_anchors  (k, 4) float32, half-open (y1, x1, y2, x2), those of the cell (0, 0).
anchors  (h*w*k, 4) float32 in pixels of the network input, order (row, column, anchor).
PY, ML  the two published codes, see :mod:`keras_frcnn.recipes`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_frcnn.errors import UserError
from keras_frcnn.recipes import AnchorConfig


def base_anchors(
    base_size: int = 16,
    scales: Sequence[float] = (8.0, 16.0, 32.0),
    ratios: Sequence[float] = (0.5, 1.0, 2.0),
) -> np.ndarray:
    """The anchors of the cell (0, 0), one for each ratio and scale, all around one centre.

    For a ratio r = height / width the base box becomes ``w = round(sqrt(base_size^2 / r))`` by
    ``h = round(w * r)``, then it is multiplied by each scale (PY generate_anchors.py:37-97; ML
    proposal_generate_anchors.m:44-72). Rounding to whole pixels comes before scaling, so "128^2,
    2:1" is really 184 pixels wide and 96 high. Halves round up, as in MATLAB.

    Args:
        base_size: side in pixels of the base box. The centre is at half of it, (8, 8) for 16; PY,
            whose corners are inclusive, calls that 7.5.
        scales: multiples of the base box, above 0; 8, 16, 32 are 128, 256, 512 pixels.
        ratios: height / width, above 0.

    Returns:
        (k, 4) float32, ratio-major: all scales of the first ratio come first.

    Raises:
        UserError: a ratio leaves an empty base box.
    """
    scales_column, ratios_row = np.asarray(scales, np.float64), np.asarray(ratios, np.float64)
    widths = np.floor(np.sqrt(base_size * base_size / ratios_row) + 0.5)
    heights = np.floor(widths * ratios_row + 0.5)
    if np.any(widths < 1) or np.any(heights < 1):
        raise UserError(
            f"Each anchor ratio must leave a box of at least one pixel, but of the ratios "
            f"{list(ratios)} one makes a side of 0 from the base size {base_size}: choose ratios "
            f"(height / width) nearer to 1."
        )
    sides = [np.outer(side, scales_column).reshape(-1) for side in (heights, widths)]
    return shaped_anchors(np.stack(sides, axis=1), base_size)


def shaped_anchors(shapes: Any, base_size: int = 16) -> np.ndarray:
    """Base anchors of given heights and widths (k, 2) in pixels, centred as the published ones."""
    half_sides = 0.5 * np.asarray(shapes, np.float64).reshape(-1, 2)
    centre = 0.5 * base_size
    return np.concatenate([centre - half_sides, centre + half_sides], axis=1).astype(np.float32)


def configured_anchors(config: AnchorConfig) -> np.ndarray:
    """The base anchors that a recipe asks for: of scales and ratios, or of shapes of one's own."""
    if config.shapes is not None:
        return shaped_anchors(config.shapes, config.base_size)
    return base_anchors(config.base_size, config.scales, config.ratios)


def anchor_grid(
    base_anchors: Any, feature_height: Any, feature_width: Any, stride: int = 16
) -> tf.Tensor:
    """All ``anchors`` of a feature map, not clipped: the base anchors moved to every cell.

    Cell (row, column) shifts them by (row * stride, column * stride) pixels
    (PY anchor_target_layer.py:93-106).

    Args:
        feature_height, feature_width: h and w, numbers or scalar integer tensors.
    """
    base_anchors = tf.cast(base_anchors, tf.float32)
    shift_y = tf.cast(tf.range(feature_height) * stride, tf.float32)
    shift_x = tf.cast(tf.range(feature_width) * stride, tf.float32)
    shift_y, shift_x = tf.meshgrid(shift_y, shift_x, indexing="ij")
    shifts = tf.stack([shift_y, shift_x, shift_y, shift_x], axis=-1)
    return tf.reshape(shifts[:, :, tf.newaxis, :] + base_anchors, [-1, 4])


def inside_image(anchors: Any, height: Any, width: Any) -> tf.Tensor:
    """(...,) bool: which anchors (..., 4) do not cross the border of the image (section 3.3).

    The published codes ask for ``x2 < width`` of inclusive corners, which is ``x2 <= width`` of
    half-open ones (PY anchor_target_layer.py:110-115; ML proposal_prepare_image_roidb.m:132-136).

    Args:
        height, width: of the network input, without the padding of a batch.
    """
    y1, x1, y2, x2 = tf.unstack(tf.cast(anchors, tf.float32), axis=-1)
    height = tf.cast(height, tf.float32)
    width = tf.cast(width, tf.float32)
    return (y1 >= 0.0) & (x1 >= 0.0) & (y2 <= height) & (x2 <= width)
