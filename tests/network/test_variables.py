"""Writing some rows of a variable leaves it as cheap to read as it was.

Shapes and names
----------------
read  a tensor of the variable's value; on the CPU it is the variable's own memory or a copy.
"""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from keras_frcnn.network.variables import assign_rows


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
