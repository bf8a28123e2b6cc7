"""Variables behind the weights of Keras layers.

Shapes and names
----------------
variable  a weight of a layer as Keras 2 or Keras 3 has it.
"""

from __future__ import annotations

import tensorflow as tf


def tensorflow_variable(variable) -> tf.Variable:
    """The ``tf.Variable`` behind a weight of Keras 2 (itself) or Keras 3 (its ``value``)."""
    return variable if isinstance(variable, tf.Variable) else variable.value
