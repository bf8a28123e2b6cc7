"""What a benchmark measures, and in which order."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from keras_frcnn.benchmark.memory import peak_memory
from keras_frcnn.benchmark.operations import matrix_rate
from keras_frcnn.benchmark.peers import onnx_parts, torchvision_parts
from keras_frcnn.benchmark.report import COMPRESSED, Measured
from keras_frcnn.benchmark.setting import Setting, random_model
from keras_frcnn.benchmark.testing import Part, parts_of_testing
from keras_frcnn.benchmark.training import parts_of_training
from keras_frcnn.recipes import PRECISIONS, Compression
from keras_frcnn.runs.config import command_line, versions
from keras_frcnn.system.timing import in_turns

# Memory is that of the whole work, not of a part of it.
MEMORY_OF = {"whole": "testing", "stage1": "stage1", "stage2": "stage2", "joint": "joint"}


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        work: ``testing``, ``training`` or both.
        compressed: test with truncated SVD, too.
        onnx: test by onnxruntime, too.
        peer: time torchvision's network, too.
        repetitions: measured rounds.
        memory: measure peak memory, too.
    """

    setting: Setting
    work: tuple[str, ...]
    precisions: tuple[str, ...]
    compressed: bool
    onnx: bool
    peer: bool
    repetitions: int
    memory: bool


def measured(
    plan: Plan,
    doing: Callable[[str], AbstractContextManager],
    counting: Callable[[str, int], AbstractContextManager[Callable[[int], None]]],
) -> Measured:
    """Times all parts in turns, then measures memory and counts operations.

    Args:
        doing: shows what is done for as long as it takes.
        counting: shows what is done, of how many; gives what hears how many are done.
    """
    parts = _parts(plan)
    if plan.onnx:
        with doing("converting to ONNX ..."):
            parts |= onnx_parts(plan.setting)
    if plan.peer:
        parts |= torchvision_parts(plan.setting)
    with counting("timing", len(parts) * (plan.repetitions + 2)) as report:
        timings = in_turns(
            {key: part.call for key, part in parts.items()},
            repetitions=plan.repetitions,
            report=report,
        )
    rates = {precision: matrix_rate(tf.dtypes.as_dtype(precision)) for precision in plan.precisions}
    memory = {}
    if plan.memory:
        with doing("memory ..."):
            for key in parts:
                precision, _, name = key.partition("/")
                if name in MEMORY_OF and precision in PRECISIONS:
                    memory[key] = peak_memory(MEMORY_OF[name], plan.setting, precision)
    with doing("counting operations ..."):
        operations = {key: part.operations for key, part in parts.items()}
    images = {key: part.images for key, part in parts.items()}
    return Measured(timings, operations, rates, memory, images)


def _parts(plan: Plan) -> dict[str, Part]:
    parts: dict[str, Part] = {}
    for precision in plan.precisions:
        own: dict[str, Part] = {}
        model = None
        if "testing" in plan.work:
            model = random_model(plan.setting, precision, half_weights=True)
            own |= parts_of_testing(model)
        if "training" in plan.work:
            if model is None or precision != "float32":  # in float32 there is no half
                model = random_model(plan.setting, precision)
            own |= parts_of_training(model)
        parts |= {f"{precision}/{name}": part for name, part in own.items()}
        if plan.compressed:
            model = random_model(plan.setting, precision, Compression(), half_weights=True)
            found = parts_of_testing(model, ("fc", "bare", "whole"))
            parts |= {f"{precision}+{COMPRESSED}/{name}": part for name, part in found.items()}
    return parts


def machine(device: str) -> dict[str, Any]:
    """What the figures depend on beside the plan: the command, the machine, the versions."""
    return {
        "command": command_line(),
        "device": device,
        "processor": processor(),
        "cores": os.cpu_count(),
        "versions": versions(),
    }


def processor() -> str:
    """The name of the processor, where the system tells it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [
                line.split(":", 1)[1].strip() for line in file if line.startswith("model name")
            ]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()
