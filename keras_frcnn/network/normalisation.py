"""Box targets of mean 0 and variance 1, and layers that are stored without them.

Networks are trained on normalised deltas and stored so that they give plain ones: ``w <- w * std``
and ``b <- b * std + mean`` (train.py:55-91; proposal_train.m:262-288).

Shapes and names
----------------
C  classes, background included, k  anchors per position, F  inputs of a layer.
deltas  (ty, tx, th, tw).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf


class Normalisation(NamedTuple):
    """Mean and standard deviation of deltas.

    Attributes:
        mean, std: (4,) float32, shared by all anchors (proposal_prepare_image_roidb.m:70-104), or
            (C, 4), a row for each class (fast_rcnn_prepare_image_roidb.m:58-96).
    """

    mean: np.ndarray
    std: np.ndarray

    @classmethod
    def identity(cls, *shape: int) -> Normalisation:
        """Mean 0 and deviation 1: deltas stay as they are."""
        return cls(np.zeros(shape, np.float32), np.ones(shape, np.float32))

    def normalised(self, deltas: tf.Tensor, rows: tf.Tensor | None = None) -> tf.Tensor:
        """(K, 4) deltas of mean 0 and variance 1.

        Args:
            rows: (K,) int32, the class of each where there is a row for each class.
        """
        mean, std = tf.cast(self.mean, tf.float32), tf.cast(self.std, tf.float32)
        if rows is not None:
            mean, std = tf.gather(mean, rows), tf.gather(std, rows)
        return (deltas - mean) / std

    def make_plain(self, layer: keras.layers.Layer) -> None:
        """Makes a layer that gives normalised deltas give plain ones, in place.

        Args:
            layer: ``rpn_bbox_pred`` (1, 1, F, 4 * k) or ``bbox_pred`` (F, 4 * C).
        """
        kernel, bias = layer.get_weights()
        mean, std = self._repeated(bias.shape)
        layer.set_weights([kernel * std, bias * std + mean])

    def make_normalised(self, layer: keras.layers.Layer) -> None:
        """The inverse of :meth:`make_plain`: training goes on from stored weights as never stored.

        The MATLAB code skips this in stage 4 and lets the layer re-learn its scale; that is a slip
        without a purpose and costs a short schedule dearly.
        """
        kernel, bias = layer.get_weights()
        mean, std = self._repeated(bias.shape)
        layer.set_weights([kernel / std, (bias - mean) / std])

    def _repeated(self, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        return np.resize(np.ravel(self.mean), shape), np.resize(np.ravel(self.std), shape)


class DeltaSums(NamedTuple):
    """Sums over the deltas of one image.

    Attributes:
        count: () or (C,) int32, how many deltas.
        delta_sum: (4,) or (C, 4) float32.
        sum_of_squares: (4,) or (C, 4) float32.
    """

    count: tf.Tensor
    delta_sum: tf.Tensor
    sum_of_squares: tf.Tensor


def mean_and_std(
    count: Any, delta_sum: Any, sum_of_squares: Any, *, epsilon: float
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and (population) standard deviation from sums over the data set.

    The sources start their counts at eps (fast_rcnn_prepare_image_roidb.m:58-96, roidb.py:67-105),
    so that a row without samples gets mean 0 and standard deviation 0, and they never normalise
    with it. Here such a row gets mean 0 and standard deviation 1: it is left as it is. A component
    whose samples are all equal (a class with one RoI, or with none but its own gt boxes) has the
    standard deviation 1 too: a tiny one would blow the rounding of its deltas up to any size.

    Args:
        count, delta_sum, sum_of_squares: as of :class:`DeltaSums`.
        epsilon: a standard deviation not above it counts as none. The rounding of float32 sums
            leaves up to 1e-3 times the mean where there is none, so take about 1e-3.

    Returns:
        mean and std, each (4,) or (C, 4) float64; std is above ``epsilon``.
    """
    count = np.asarray(count, np.float64)[..., np.newaxis]
    divisor = np.maximum(count, 1.0)
    mean = np.where(count > 0, np.asarray(delta_sum, np.float64) / divisor, 0.0)
    # Rounding can leave a variance a little below 0.
    variance = np.maximum(np.asarray(sum_of_squares, np.float64) / divisor - mean**2, 0.0)
    std = np.sqrt(variance)
    return mean, np.where(std > epsilon, std, 1.0)
