"""Timing several calls in turns, so that another load of the machine falls on each of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

Call = Callable[[], object]


@dataclass(frozen=True, eq=False)
class Timing:
    """Repetitions of one call.

    Attributes:
        wall: (repetitions,) seconds by the clock.
        cpu: (repetitions,) seconds of all threads of the process together.
    """

    wall: np.ndarray
    cpu: np.ndarray

    @property
    def median_wall(self) -> float:
        """Median seconds by the clock."""
        return float(np.median(self.wall))

    @property
    def median_cpu(self) -> float:
        """Median CPU seconds: what a busy machine changes least."""
        return float(np.median(self.cpu))

    @property
    def spread(self) -> float:
        """Half the distance between the quartiles of the seconds by the clock."""
        low, high = np.quantile(self.wall, (0.25, 0.75))
        return float(high - low) / 2

    def to_json(self) -> dict:
        """Medians, spread and every repetition."""
        return {
            "median_wall": self.median_wall,
            "median_cpu": self.median_cpu,
            "spread": self.spread,
            "wall": self.wall.tolist(),
            "cpu": self.cpu.tolist(),
        }


def in_turns(
    calls: Mapping[str, Call],
    *,
    repetitions: int,
    warm_up: int = 2,
    report: Callable[[int], None] = lambda done: None,
) -> dict[str, Timing]:
    """Every call once, then every call again, and so on.

    Args:
        warm_up: rounds before them: tracing, first allocations.
        report: is told how many calls are done.
    """
    wall: dict[str, list[float]] = {name: [] for name in calls}
    cpu: dict[str, list[float]] = {name: [] for name in calls}
    done = 0
    for repetition in range(-warm_up, repetitions):
        for name, call in calls.items():
            wall_start, cpu_start = time.perf_counter(), time.process_time()
            call()
            wall_end, cpu_end = time.perf_counter(), time.process_time()
            if repetition >= 0:
                wall[name].append(wall_end - wall_start)
                cpu[name].append(cpu_end - cpu_start)
            done += 1
            report(done)
    return {name: Timing(np.array(wall[name]), np.array(cpu[name])) for name in calls}
