"""Which operations of each compiled function have no GPU kernel, so that they run on the host.

Run from the project root: ``python -m benchmarks.gpu_kernels``. No GPU is needed: TensorFlow's
Linux wheel knows the kernels of both devices. The functions are traced as on a machine with a GPU.

Shapes and names
----------------
function  of testing, or a step of training, traced for any size of image.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from unittest import mock

import tensorflow as tf
from rich.console import Console
from rich.table import Table
from tensorflow.python.framework import kernels

from keras_frcnn.benchmark.setting import Setting, random_batch, random_model
from keras_frcnn.benchmark.training import step_on
from keras_frcnn.detection.network_detector import NetworkDetector
from keras_frcnn.network import suppression

# What moves nothing: names, shapes, control flow, reports of errors.
HOUSEKEEPING = {"Assert", "NoOp", "Placeholder", "Arg", "Retval"}


def operations(graph_def) -> Iterator[tuple[str, str]]:
    """(type, name) of every operation of a graph and of the functions that it calls."""
    for node in graph_def.node:
        yield node.op, node.name
    for function in graph_def.library.function:
        for node in function.node_def:
            yield node.op, node.name


def without_gpu_kernel(graph_def) -> Counter:
    """How often each type of operation without a GPU kernel occurs."""
    types = Counter(kind for kind, _ in operations(graph_def) if kind not in HOUSEKEEPING)
    return Counter({kind: count for kind, count in types.items() if not has_gpu_kernel(kind)})


def has_gpu_kernel(kind: str) -> bool:
    """Whether TensorFlow registers a GPU kernel; what is no kernel at all counts as one."""
    found = kernels.get_registered_kernels_for_op(kind).kernel
    return not found or any(kernel.device_type in ("GPU", "DEFAULT") for kernel in found)


def main() -> None:
    """Prints a table."""
    model = random_model(Setting("tiny", 96, 128, 20), "float32")
    batches = {count: random_batch(model.recipe.image, count) for count in (1, 2)}
    # A function does not keep the object alive that it is a method of.
    owners = {
        "testing": NetworkDetector(model, model.recipe.test_filter),
        "stage 1": step_on(model, "stage1", batches[1]),
        "stage 2": step_on(model, "stage2", batches[2]),
        "joint": step_on(model, "joint", batches[1]),
    }
    with mock.patch.object(suppression, "gpu_present", return_value=True):
        graphs = {
            name: (owner.predict if name == "testing" else owner.run).get_concrete_function()
            for name, owner in owners.items()
        }
    table = Table("function", "operations", "without a GPU kernel")
    for name, function in graphs.items():
        definition = function.graph.as_graph_def()
        found = without_gpu_kernel(definition)
        table.add_row(
            name,
            str(sum(1 for _ in operations(definition))),
            ", ".join(f"{kind} x {count}" for kind, count in sorted(found.items())) or "none",
        )
    Console(width=110).print(table)


if __name__ == "__main__":
    tf.get_logger().setLevel("ERROR")
    main()
