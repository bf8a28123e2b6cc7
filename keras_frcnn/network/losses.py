"""The loss of boxes that both networks share: smooth L1 (Fast R-CNN, equation 3)."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def smooth_l1(difference: Any, sigma: float) -> tf.Tensor:
    """``0.5 * (sigma * d)^2`` where ``|d| < 1 / sigma^2``, ``|d| - 0.5 / sigma^2`` beyond.

    Fast R-CNN, eq. 3, with the sigma of PY's smooth_L1_loss_layer. Written with the quadratic part
    ``q`` of ``|d|``, so that no branch is computed and thrown away: value and gradient (up to
    ``sign(d)``) are continuous at the corner ``1 / sigma^2``.
    """
    magnitude = tf.abs(tf.cast(difference, tf.float32))
    quadratic = tf.minimum(magnitude, 1.0 / sigma**2)
    return 0.5 * sigma**2 * tf.square(quadratic) + (magnitude - quadratic)


def smooth_l1_sum(
    pred_deltas: Any, target_deltas: Any, counted: tf.Tensor, sigma: float
) -> tf.Tensor:
    """Sum of smooth L1 over the rows (B, 4) where ``counted`` (B,) is true."""
    difference = tf.cast(pred_deltas, tf.float32) - tf.cast(target_deltas, tf.float32)
    return tf.reduce_sum(smooth_l1(tf.where(counted[:, tf.newaxis], difference, 0.0), sigma))
