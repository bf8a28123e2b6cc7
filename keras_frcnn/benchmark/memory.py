"""Peak memory of one kind of work, measured in a process that does nothing else."""

from __future__ import annotations

import dataclasses
import json
import resource
import subprocess
import sys
from pathlib import Path

from keras_frcnn.benchmark.setting import Setting

REPETITIONS = 3


def peak_memory(work: str, setting: Setting, precision: str) -> float:
    """GB (1e9 bytes) that a process of its own needs at most, TensorFlow included.

    Raises:
        RuntimeError: the process failed; the message ends with what it said.
    """
    task = json.dumps([work, dataclasses.asdict(setting), precision])
    command = [sys.executable, "-m", "keras_frcnn.benchmark.memory", task]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"Measuring the memory of {work} failed: {done.stderr[-2000:]}")
    return float(done.stdout.split()[-1])


def work_here(work: str, setting: Setting, precision: str) -> float:
    """Does the work a few times in this process; returns its peak, GB.

    The peak of a process counts from its start, so this one must have done nothing else.
    """
    from keras_frcnn.benchmark.setting import random_model
    from keras_frcnn.benchmark.testing import parts_of_testing
    from keras_frcnn.benchmark.training import parts_of_training

    model = random_model(setting, precision, half_weights=work == "testing")
    if work == "testing":
        part = parts_of_testing(model, ("whole",))["whole"]
    else:
        part = parts_of_training(model, (work,))[work]
    for _ in range(REPETITIONS):
        part.call()
    return peak_of_this_process()


def peak_of_this_process() -> float:
    """The most memory that this process has had at once, GB."""
    # On Linux ru_maxrss starts at the memory of the process that started this one.
    status = Path("/proc/self/status")
    if status.exists():
        fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(fields["VmHWM"].split()[0]) * 1024 / 1e9
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e9


if __name__ == "__main__":
    _work, _setting, _precision = json.loads(sys.argv[1])
    print(work_here(_work, Setting(**_setting), _precision))
