"""Variables behind the weights of Keras layers."""

from __future__ import annotations

from collections.abc import Iterable

import keras
import tensorflow as tf


def trained_variables(layers: Iterable[keras.layers.Layer]) -> list[tf.Variable]:
    """The ``tf.Variable`` of every trainable weight of some layers, in their order."""
    return [weight.value for layer in layers for weight in layer.trainable_weights]


def assign_rows(variable: tf.Variable, start: int, rows) -> None:
    """Overwrites some rows of a variable where they are.

    ``variable[a:b].assign`` would read the whole variable first, and so copy it at every call. And
    every operation on rows leaves a variable to be copied whenever it is read or updated later,
    0.4 GB in each step for fc6; this one ends that again.

    Args:
        start: the first row.
        rows: array or tensor of the variable's type, (number of rows, ...).
    """
    tf.raw_ops.ResourceStridedSliceAssign(
        ref=variable.handle, begin=[start], end=[start + len(rows)], strides=[1], value=rows
    )
    tf.raw_ops.DisableCopyOnRead(resource=variable.handle)
