"""Counted operations against counts by hand."""

from __future__ import annotations

import tensorflow as tf

from keras_frcnn.benchmark.operations import count_operations, matrix_rate


def test_operations_of_a_convolution_its_gradients_and_a_product():
    kernel, matrix = tf.Variable(tf.zeros((3, 3, 8, 16))), tf.Variable(tf.zeros((10, 20)))

    @tf.function
    def forward(images, rows):
        return tf.reduce_sum(tf.nn.conv2d(images, kernel, 2, "SAME")) + (rows @ matrix)[0, 0]

    @tf.function
    def gradients(images, rows):
        with tf.GradientTape() as tape:
            tape.watch(images)
            total = forward.python_function(images, rows)
        return total, tape.gradient(total, [images, kernel])

    images, rows = tf.zeros((1, 20, 30, 8)), tf.zeros((4, 10))
    convolution = 2 * 3 * 3 * 8 * 16 * (10 * 15)
    product = 2 * 4 * 10 * 20
    assert count_operations(forward, images, rows) == convolution + product
    assert count_operations(gradients, images, rows) == 3 * convolution + product


def test_operations_that_are_never_run_are_not_counted():
    frozen, trained = tf.Variable(tf.zeros((3, 3, 8, 16))), tf.Variable(tf.zeros((3, 3, 16, 4)))
    matrix = tf.Variable(tf.zeros((6 * 10 * 4, 5)))

    @tf.function
    def step(images):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([trained, matrix])
            features = tf.nn.conv2d(images, frozen, 1, "SAME")
            features = tf.nn.conv2d(features, trained, 2, "SAME")
            outputs = tf.reshape(features, (1, -1)) @ matrix
        gradients = tape.gradient(outputs, [trained, matrix])
        matrix.assign_sub(gradients[1])  # an effect, not a result
        return outputs, gradients[0]

    first, second, third = 2 * 9 * 8 * 16 * (12 * 20), 2 * 9 * 16 * 4 * (6 * 10), 2 * 240 * 5
    # Nothing below the second layer is trained: no gradient toward its input.
    expected = first + 2 * second + 3 * third
    assert count_operations(step, tf.TensorSpec((1, 12, 20, 8))) == expected


def test_the_rate_of_this_machine_is_one():
    rate = matrix_rate(tf.float32, side=256, repetitions=2)
    assert 1e8 < rate < 1e14
