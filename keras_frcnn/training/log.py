"""The log of a stage: means of its iterations, and what a checkpoint keeps of them.

A record is written at fixed iterations, whenever the training was stopped and resumed: what the
iterations since the last one have measured goes into the checkpoint.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence, Set
from typing import Any

import numpy as np
import tensorflow as tf

from keras_frcnn.runs.stage_table import stage_name
from keras_frcnn.training.units import TrainingUnit
from keras_frcnn.training.watch import ExplosionGuard, TrainingDiverged

LOG_EVERY = 20


def check_state(state: Any, metrics: Set[str], done: int, iterations: int) -> None:
    """Makes sure that what a checkpoint keeps is what :meth:`Log.state` gives.

    Args:
        metrics: names of those of the stage.
        done: iteration of the checkpoint, of ``iterations`` of the stage.

    Raises:
        ValueError: it is something else.
    """
    if done > iterations:
        raise ValueError(f"its iteration {done} is beyond the {iterations} of the stage")
    since_record = 0 if done == iterations else done % LOG_EVERY
    lists = {"last_losses": _is_number, "values": _is_metrics}
    numbers = ("images", "waited", "seconds")
    sound = (
        isinstance(state, dict)
        and set(state) == {*lists, *numbers}
        and all(_is_number(state[name]) for name in numbers)
        and all(
            isinstance(state[name], list) and all(map(is_entry, state[name]))
            for name, is_entry in lists.items()
        )
        and all(set(entry) == metrics for entry in state["values"])
        and len(state["values"]) == since_record
    )
    if not sound:
        raise ValueError(f"its window is none: {state!r:.80}")


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < math.inf


def _is_metrics(entry: Any) -> bool:
    return isinstance(entry, dict) and all(map(_is_number, entry.values()))


class Log:
    """Metrics since the last record of a stage; read from the device only when they are needed.

    Args:
        units: of the run, for messages.
        state: of :meth:`state`, from a checkpoint; empty at the start of a stage.
    """

    def __init__(self, stage: int, units: Sequence[TrainingUnit], state: dict[str, Any]):
        self.stage = stage
        self.units = units
        self._guard = ExplosionGuard(state.get("last_losses", ()))
        self._values: list[dict[str, float]] = list(state.get("values", ()))
        self._images: int = state.get("images", 0)
        self._waited: float = state.get("waited", 0.0)
        self._start = time.monotonic() - state.get("seconds", 0.0)
        self._unread: list[tuple[list[tf.Tensor], dict[str, tf.Tensor]]] = []

    def add(self, units: list[tf.Tensor], metrics: dict[str, tf.Tensor], waited: float) -> None:
        """Takes one iteration: the units of its batches, its metrics, seconds without data."""
        self._unread.append((units, metrics))
        self._waited += waited

    def state(self, done: int) -> dict[str, Any]:
        """What goes into the checkpoint after ``done`` iterations, in types of JSON.

        Raises:
            TrainingDiverged: as :meth:`record`.
        """
        self._read(done)
        return {
            "last_losses": self._guard.last,
            "values": list(self._values),
            "images": self._images,
            "waited": self._waited,
            "seconds": time.monotonic() - self._start,
        }

    def names(self, units: list[tf.Tensor]) -> str:
        """The images of some batches, by their units."""
        return ", ".join(self.units[int(unit)].key for batch in units for unit in batch)

    def record(self, done: int, rate: float) -> dict[str, Any]:
        """The means of the iterations since the last record, after ``done`` iterations.

        Raises:
            TrainingDiverged: a loss is not finite or has exploded; the message names the images.
        """
        self._read(done)
        names = list(self._values[0])
        means = np.array([list(entry.values()) for entry in self._values]).mean(axis=0)
        seconds = time.monotonic() - self._start
        record = {
            "stage": self.stage,
            "iteration": done,
            "learning_rate": rate,
            **{name: float(mean) for name, mean in zip(names, means, strict=True)},
            "images_per_second": self._images / seconds,
            "waiting": self._waited / seconds,
        }
        self._values, self._images, self._waited = [], 0, 0.0
        self._start = time.monotonic()
        return record

    def _read(self, done: int) -> None:
        """Reads what the device has measured, and checks it in the order of the iterations."""
        unread, self._unread = self._unread, []
        for before, (units, metrics) in zip(range(len(unread), 0, -1), unread, strict=True):
            values = {name: float(value) for name, value in metrics.items()}
            sound = np.isfinite(list(values.values())).all()
            # What comes before a loss that is not finite may have exploded already.
            fault = self._guard.fault_of(values["loss"]) if sound else "is not finite"
            if fault is not None:
                iteration, names = done - before + 1, self.names(units)
                raise TrainingDiverged(
                    f"The loss {fault} at iteration {iteration} of {stage_name(self.stage)}: "
                    f"{values}. Images of this iteration: {names}. Look at their boxes in "
                    "data_report.txt; else start again with a lower --learning_rate or with "
                    "--clip_gradients.",
                    f"its loss {fault}",
                    iteration,
                    self.stage,
                )
            self._values.append(values)
            self._images += sum(len(batch) for batch in units)
