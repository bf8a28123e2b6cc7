"""A training that is killed over and over ends as one that was left alone, bit for bit.

Processes of ``train_frcnn.py`` are killed at seeded random moments of every stage and of what lies
between the stages, then started again with ``--resume``.

Shapes and names
----------------
moment  something seen in the run folder or on the screen, and the seconds to wait after it.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pytest

from keras_frcnn.demo.devkit import write_demo_devkit
from keras_frcnn.runs.folder import RunFolder
from keras_frcnn.runs.metrics import read_records

ROOT = Path(__file__).parents[2]
ITERATIONS = 24
FLAGS = (
    *("--network", "tiny", "--weights", "random", "--short_side", "48", "--long_side", "80"),
    *("--anchor_scales", "1,2", "--anchor_ratios", "1", "--min_size", "4", "--seed", "3"),
    *("--iterations", ",".join([str(ITERATIONS)] * 4), "--learning_rate", "0.01"),
    *("--dropout", "0.5", "--gpu", "-1"),
)
# A checkpoint after every iteration, nearly: a kill must find one to go on from.
OFTEN = ("--checkpoint_minutes", "0.0005")
PATIENCE = 240.0

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked"),
]


@dataclass(frozen=True)
class Moment:
    """When to kill, and how.

    Attributes:
        where: what the training does then.
        seen: ``(run, screen) -> bool``, asked over and over.
        delay: seconds from then to the kill.
        how: the signal.
    """

    where: str
    seen: Callable[[RunFolder, str], bool]
    delay: float
    how: signal.Signals


def iteration_of(run: RunFolder, stage: int) -> int:
    """Iterations of the newest checkpoint of a stage."""
    names = [path.stem for path in run.checkpoints.glob(f"stage{stage}-*.h5")]
    return max((int(name.split("-")[1]) for name in names), default=0)


def moments(rng: random.Random) -> list[Moment]:
    """In the order in which a training meets them; how it is killed is drawn as when."""
    found = []

    def add(where: str, seen, longest: float) -> None:
        soft = len(found) % 5 == 4
        how = rng.choice([signal.SIGTERM, signal.SIGINT]) if soft else signal.SIGKILL
        found.append(Moment(where, seen, rng.uniform(0, longest), how))

    # What is written in a millisecond may be missed: then the kill comes right after it.
    def iterating(stage: int, low: int, high: int) -> None:
        least = rng.randint(low, high)
        written = weights(stage)
        add(
            f"iterations of stage {stage}",
            lambda run, screen: iteration_of(run, stage) >= least or written(run, screen),
            0.2,
        )

    def weights(stage: int):
        return lambda run, screen: run.weights_file(f"stage{stage}").exists()

    def started_after(stage: int):
        written = weights(stage)
        return lambda run, screen: "run folder" in screen and written(run, screen)

    def writing(file: Callable[[RunFolder], Path]):
        return lambda run, screen: (
            file(run).exists() or any(file(run).parent.glob(f".{file(run).name}.*.partial"))
        )

    def writing_checkpoint(stage: int):
        written = weights(stage)
        return lambda run, screen: (
            any(run.checkpoints.glob(f".stage{stage}*.partial")) or written(run, screen)
        )

    add("start", lambda run, screen: "run folder" in screen, 0.5)
    for stage in (1, 2, 3, 4):
        if stage == 3:
            add("features", lambda run, screen: "feature cache:" in screen, 0.6)
        iterating(stage, 1, 7)
        add(f"writing a checkpoint of stage {stage}", writing_checkpoint(stage), 0.0)
        iterating(stage, 9, 17)
        name = f"stage{stage}"
        add(f"writing the weights of {name}", writing(lambda run, n=name: run.weights_file(n)), 0.0)
        add(f"gap after {name}", started_after(stage), 1.0 if stage in (1, 3) else 0.05)
        if stage in (1, 3):
            add(
                f"writing the proposals of {name}",
                writing(lambda run, n=stage: run.proposals_file(n)),
                0.0,
            )
    return found


class ForkServer:
    """Trainings, one at a time, of a process that has imported TensorFlow."""

    def __init__(self):
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("fork_server.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"},
        )

    def start(self, flags, log: Path) -> int:
        """Starts one; returns its process number."""
        order = {"flags": [str(flag) for flag in flags], "log": str(log)}
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def end(self) -> str:
        """Waits for the end of the one that runs: ``exit 0``, ``signal 9``."""
        return self.process.stdout.readline().strip()

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


@pytest.fixture
def server():
    server = ForkServer()
    yield server
    server.close()


def wait_for(moment: Moment, run: RunFolder, log: Path) -> None:
    """Returns when it is time to kill."""
    give_up = time.monotonic() + PATIENCE
    # Not before it has a log: a file half-written by the one before may look like the moment.
    while not (log.exists() and moment.seen(run, log.read_text())):
        assert time.monotonic() < give_up, f"{moment.where} never came, see {log}"
        time.sleep(0.001)
    time.sleep(moment.delay)


def arrays(file: Path) -> dict[str, np.ndarray]:
    """Every data set of an HDF5 file."""
    found = {}
    with h5py.File(file, "r") as opened:
        opened.visititems(
            lambda name, item: found.update(
                {name: item[()]} if isinstance(item, h5py.Dataset) else {}
            )
        )
    return found


def without_times(run: RunFolder) -> list[dict]:
    times = ("images_per_second", "waiting")
    records = [json.loads(line) for line in run.metrics_file.read_text().splitlines()]
    return [{name: record[name] for name in record if name not in times} for record in records]


def assert_same_run(one: RunFolder, other: RunFolder) -> None:
    names = [f"stage{stage}" for stage in (1, 2, 3, 4)] + ["final"]
    files = [run_file for name in names for run_file in [("weights_file", name)]]
    files += [("proposals_file", 1), ("proposals_file", 3)]
    for kind, name in files:
        expected, found = arrays(getattr(one, kind)(name)), arrays(getattr(other, kind)(name))
        assert expected.keys() == found.keys() and expected
        for key in expected:
            np.testing.assert_array_equal(expected[key], found[key], f"{key} of {name}")
    assert without_times(one) == without_times(other)


def test_killed_at_random_moments_of_all_stages(server, tmp_path):
    devkit = tmp_path / "VOCdevkit"
    write_demo_devkit(devkit, seed=3, train_images=5, test_images=1, size=(200, 220))
    whole, killed = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "killed")
    flags = ("-p", devkit, *FLAGS)
    # A process of its own, without a fork and with other checkpoints.
    command = [sys.executable, "train_frcnn.py", *map(str, flags), "--out", str(whole.path)]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)

    kills, went_on = Counter(), Counter()
    plan = moments(random.Random(5))
    for number, moment in enumerate([*plan, None]):
        log = tmp_path / f"{number}.log"
        again = ("--resume",) if killed.config_file.exists() else ()
        pid = server.start([*flags, *OFTEN, "--out", killed.path, *again], log)
        if moment is None:
            assert server.end() == "exit 0", log.read_text()
        else:
            wait_for(moment, killed, log)
            os.kill(pid, moment.how)
            end, said = server.end(), log.read_text()
            if moment.how == signal.SIGKILL:
                assert end == f"signal {signal.SIGKILL:d}", (moment.where, said)
            else:
                assert end == f"exit {128 + moment.how}", (moment.where, said)
                assert f"{moment.how.name} received: stopped" in said
            assert "Traceback" not in said, said
            kills[moment.where] += 1
        stage = re.search(r"going on after iteration [1-9](?:.*\n)+?stage (\d)/4", log.read_text())
        if stage:
            went_on[int(stage[1])] += 1
        if killed.metrics_file.exists():
            read_records(killed.metrics_file)
    assert sum(kills.values()) >= 20
    # Most of the kills fell into iterations, and the next process went on from a checkpoint.
    assert all(went_on[stage] >= 2 for stage in (1, 2, 3, 4)), went_on
    print(dict(kills), dict(went_on))
    assert_same_run(whole, killed)
    assert not list(killed.path.rglob("*.partial"))
    assert not list(killed.checkpoints.iterdir())
