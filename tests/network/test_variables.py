"""The variables of layers; writing some rows of one leaves it as cheap to read as it was.

Shapes and names
----------------
read  a tensor of the variable's value; on the CPU it is the variable's own memory or a copy.
"""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_frcnn.network.variables import assign_rows, trained_variables


def test_the_trained_variables_of_layers_in_their_order():
    layers = [keras.layers.Dense(2), keras.layers.BatchNormalization(), keras.layers.Dense(1)]
    layers[2].trainable = False
    for layer in layers:
        layer.build((None, 3))
    found = trained_variables(layers)
    assert all(isinstance(variable, tf.Variable) for variable in found)
    # Kernel and bias; gamma and beta, not the moving mean and variance; nothing of a frozen layer.
    assert [tuple(variable.shape) for variable in found] == [(3, 2), (2,), (3,), (3,)]


@pytest.fixture
def variable():
    with tf.device("CPU:0"):
        return tf.Variable(tf.zeros((6, 2)))


def test_rows_are_overwritten_and_the_others_kept(variable):
    assign_rows(variable, 2, np.array([[1, 2], [3, 4]], np.float32))
    expected = [[0, 0], [0, 0], [1, 2], [3, 4], [0, 0], [0, 0]]
    np.testing.assert_array_equal(variable.numpy(), expected)


def test_reading_copies_nothing_afterwards(variable):
    assign_rows(variable, 2, np.ones((2, 2), np.float32))
    reads = [variable.read_value() for _ in range(2)]
    first, second = (np.asarray(read) for read in reads)
    assert np.shares_memory(first, second)


def test_what_was_read_before_is_not_overwritten(variable):
    before = variable.read_value()
    assign_rows(variable, 0, np.ones((2, 2), np.float32))
    assert not before.numpy().any()
    assert variable.numpy()[:2].all()
