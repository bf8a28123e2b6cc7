"""Rounding of weights to half precision whose errors cancel over neighbouring cells.

Rounded to nearest, every weight is off by itself, and the errors of a kernel add up by chance. What
a kernel sees in neighbouring cells is alike, so here the error of one cell is taken off the weight
of the next one (error feedback, as in the dithering of pictures): the sum over the cells is right,
and of VGG-16's features on photographs half of the error that the weights make is gone, at no cost
in testing. Weights in training are rounded to nearest.

Shapes and names
----------------
cell  a place of a kernel: 3 x 3 of a convolution, 7 x 7 of fc6, which sees pooled RoIs.
tap  the weights of one cell, of any shape, float32.
dtype  of half precision.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import tensorflow as tf


def serpentine(rows: int, columns: int) -> list[int]:
    """Indices of all cells of a map, each a neighbour of the one before: every other row backwards.

    >>> serpentine(2, 3)
    [0, 1, 2, 5, 4, 3]
    """
    return [
        row * columns + (columns - 1 - column if row % 2 else column)
        for row in range(rows)
        for column in range(columns)
    ]


def rounded_taps(taps: Iterable[tf.Tensor], dtype: tf.DType) -> Iterator[tf.Tensor]:
    """Taps in ``dtype``, each rounded with the error of the one before taken off.

    Any number of them together is off by no more than half a unit in the last place of the last.

    Args:
        taps: of one shape, in an order in which neighbours follow each other.
    """
    error = 0.0
    for tap in taps:
        wanted = tap + error
        rounded = tf.cast(wanted, dtype)
        error = wanted - tf.cast(rounded, tf.float32)
        yield rounded
