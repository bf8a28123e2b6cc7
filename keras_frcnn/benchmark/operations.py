"""Floating-point operations of a function, and how many of them this machine does in a second.

Shapes and names
----------------
operations  multiplications and additions, two for each weight that a value meets.
rate        operations a second of a large matrix product, all threads.
"""

from __future__ import annotations

import time

import numpy as np
import tensorflow as tf

MATRIX_SIDE = 3072


def count_operations(function, *arguments: tf.Tensor) -> int:
    """Operations of a ``tf.function``, as TensorFlow's profiler counts them.

    What it calls as further functions is not counted, nor what has no shape before it runs.

    Args:
        function: traced for the whole shapes of the arguments.
        arguments: tensors.
    """
    specs = [tf.TensorSpec(value.shape, value.dtype) for value in arguments]
    options = tf.compat.v1.profiler.ProfileOptionBuilder
    counted = options(options.float_operation()).with_empty_output().build()
    graph = function.get_concrete_function(*specs).graph
    return tf.compat.v1.profiler.profile(graph, options=counted).total_float_ops


def matrix_rate(dtype: tf.DType, *, side: int = MATRIX_SIDE, repetitions: int = 5) -> float:
    """Operations a second of a product of two square matrices, the fastest of some."""
    generator = np.random.default_rng(0)
    left, right = (
        tf.cast(generator.standard_normal((side, side), np.float32), dtype) for _ in range(2)
    )
    seconds = []
    for _ in range(repetitions + 1):
        start = time.perf_counter()
        tf.matmul(left, right)[0, 0].numpy()
        seconds.append(time.perf_counter() - start)
    return 2 * side**3 / min(seconds[1:])
