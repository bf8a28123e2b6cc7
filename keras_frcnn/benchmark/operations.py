"""Floating-point operations of a function, and how many of them this machine does in a second.

Shapes and names
----------------
operations  multiplications and additions, two for each weight that a value meets. Of a training
            step, by layer: as many forward; once more for the gradient toward its weights where
            they are trained; once more for that toward its input where a layer below is trained.
            Neglected: biases, activations, normalisation, pooling, selection, sampling, losses and
            the update of the weights. The border of a convolution counts as its middle.
rate        operations a second of a large matrix product, all threads.
"""

from __future__ import annotations

import time

import numpy as np
import tensorflow as tf

MATRIX_SIDE = 3072


def count_operations(function, *arguments: tf.Tensor | tf.TensorSpec) -> int:
    """Operations of the convolutions and matrix products of a ``tf.function``.

    What it calls as further functions is not counted, nor what has no shape before it runs.

    Args:
        function: traced for the whole shapes of the arguments.
        arguments: tensors, or what has their shapes and types.
    """
    specs = [tf.TensorSpec(value.shape, value.dtype) for value in arguments]
    graph = function.get_concrete_function(*specs).graph
    return sum(_operations(node) for node in _executed(graph))


def _executed(graph) -> list[tf.Operation]:
    """What the results and effects of a graph need; the rest is never run.

    The gradient of a convolution is written down toward its input even where nobody asks for it.
    """
    found = {}
    left = [*(tensor.op for tensor in graph.outputs), *graph.control_outputs]
    while left:
        node = left.pop()
        if node.name not in found:
            found[node.name] = node
            left += [*(tensor.op for tensor in node.inputs), *node.control_inputs]
    return list(found.values())


def _operations(node: tf.Operation) -> int:
    """Two for each weight and each place where a convolution, or a gradient of one, applies it.

    Places are those of the output also of a gradient: the padding of an input costs nothing.
    """
    if node.type == "MatMul":
        left, product = node.inputs[0].shape, node.outputs[0].shape
        inner = left[0 if node.get_attr("transpose_a") else 1]
        return 2 * (product.num_elements() or 0) * (inner or 0)
    if node.type == "Conv2D":
        kernel, output = node.inputs[1], node.outputs[0]
    elif node.type == "Conv2DBackpropInput":
        kernel, output = node.inputs[1], node.inputs[2]
    elif node.type == "Conv2DBackpropFilter":
        kernel, output = node.outputs[0], node.inputs[2]
    else:
        return 0
    return 2 * (kernel.shape.num_elements() or 0) * (output.shape[:3].num_elements() or 0)


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
