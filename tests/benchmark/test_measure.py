"""Timing in turns and counting operations, against clocks and counts by hand.

Shapes and names
----------------
call  sleeps or works for a known time.
"""

from __future__ import annotations

import time

import numpy as np
import pytest
import tensorflow as tf

from keras_frcnn.benchmark.measure import Timing, in_turns
from keras_frcnn.benchmark.operations import count_operations, matrix_rate


def test_calls_take_turns_and_the_first_rounds_do_not_count():
    order, told = [], []
    calls = {name: lambda name=name: order.append(name) for name in "ab"}
    timings = in_turns(calls, repetitions=3, warm_up=2, report=told.append)
    assert "".join(order) == "ab" * 5
    assert told == list(range(1, 11))
    assert {name: len(timing.wall) for name, timing in timings.items()} == {"a": 3, "b": 3}


def test_sleeping_takes_time_but_no_processor():
    timing = in_turns({"sleep": lambda: time.sleep(0.05)}, repetitions=3, warm_up=0)["sleep"]
    assert timing.median_wall >= 0.05
    assert timing.median_cpu < 0.03


def test_median_and_half_the_distance_of_the_quartiles():
    timing = Timing(np.array([1.0, 2.0, 3.0, 4.0, 100.0]), np.array([5.0, 1.0, 3.0]))
    assert (timing.median_wall, timing.median_cpu, timing.spread) == (3.0, 3.0, 1.0)
    assert timing.to_json()["wall"] == [1.0, 2.0, 3.0, 4.0, 100.0]


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
        return tape.gradient(total, [images, kernel])

    images, rows = tf.zeros((1, 20, 30, 8)), tf.zeros((4, 10))
    convolution = 2 * 3 * 3 * 8 * 16 * (10 * 15)
    product = 2 * 4 * 10 * 20
    # Sums, comparisons and the like are counted too: less than one in a hundred.
    assert count_operations(forward, images, rows) == pytest.approx(convolution + product, rel=0.01)
    both = count_operations(gradients, images, rows)
    assert both == pytest.approx(3 * convolution + product, rel=0.02)


def test_the_rate_of_this_machine_is_one():
    rate = matrix_rate(tf.float32, side=256, repetitions=2)
    assert 1e8 < rate < 1e14
