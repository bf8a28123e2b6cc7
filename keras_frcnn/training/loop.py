"""The loop of one stage: batches in, steps, logs, checkpoints.

Python sees an iteration only to log it; everything between the batch and the losses is inside one
``tf.function`` (:mod:`keras_frcnn.training.step`).

Shapes and names
----------------
iteration  0-based; ``done`` counts finished ones.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from keras_frcnn.errors import UserError
from keras_frcnn.recipes import StageSchedule
from keras_frcnn.training.display import StageDisplay
from keras_frcnn.training.explosion import FACTOR, ExplosionGuard
from keras_frcnn.training.step import TrainingStep

LOG_EVERY = 20


class TrainingStopped(Exception):
    """The user asked to stop (Ctrl-C or SIGTERM); a checkpoint has been written."""


@dataclass
class StopRequest:
    """Set by a signal, read after each iteration."""

    signal_name: str = ""


@contextmanager
def stop_on_signal() -> Iterator[StopRequest]:
    """Turns Ctrl-C and SIGTERM into a request that the loop answers after the iteration."""
    request = StopRequest()

    def note(number, frame):
        request.signal_name = signal.Signals(number).name

    previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@dataclass
class _Pending:
    """Iterations whose metrics have not been read from the device yet."""

    units: list = field(default_factory=list)
    metrics: list = field(default_factory=list)
    waited: float = 0.0
    start: float = field(default_factory=time.monotonic)


def run_stage(
    step: TrainingStep,
    dataset: tf.data.Dataset,
    schedule: StageSchedule,
    *,
    stage: int,
    seed: int,
    first_iteration: int,
    batches_per_step: int,
    unit_name: Callable[[int], str],
    display: StageDisplay,
    log: Callable[[dict[str, Any]], None],
    save_checkpoint: Callable[[int], None],
    checkpoint_seconds: float,
) -> None:
    """Runs iterations ``first_iteration`` to ``schedule.iterations``.

    Args:
        step: what one iteration does.
        dataset: batches from ``first_iteration`` on.
        schedule: number of iterations and learning rate.
        stage, seed: key the randomness of each iteration.
        first_iteration: where a resumed stage goes on.
        batches_per_step: batches that each iteration takes.
        unit_name: names a training unit in messages.
        display: the progress line.
        log: takes one record every :data:`LOG_EVERY` iterations.
        save_checkpoint: takes the number of finished iterations.
        checkpoint_seconds: time between checkpoints.

    Raises:
        UserError: a loss is not finite or has exploded; the message names the image.
        TrainingStopped: after Ctrl-C or SIGTERM, with a checkpoint written.
    """
    iterator = iter(dataset)
    guard = ExplosionGuard()
    last_checkpoint = time.monotonic()
    pending = _Pending()
    with stop_on_signal() as request:
        for iteration in range(first_iteration, schedule.iterations):
            before = time.monotonic()
            try:
                batches = tuple(next(iterator) for _ in range(batches_per_step))
            except tf.errors.OpError as error:
                # The generator's own exception is only in the text of TensorFlow's.
                reason = str(error.message).strip().splitlines()[0]
                raise UserError(
                    f"A training image could not be read at iteration {iteration + 1} of stage "
                    f"{stage}: {reason}. Mend the file and go on with --resume."
                ) from error
            pending.waited += time.monotonic() - before
            rate = schedule.rate_at(iteration)
            metrics = step.run(
                batches, tf.constant(rate), tf.constant([seed * 8 + stage, iteration])
            )
            pending.units.append([batch["unit"] for batch in batches])
            pending.metrics.append(metrics)
            done = iteration + 1
            finished = done == schedule.iterations
            due = time.monotonic() - last_checkpoint > checkpoint_seconds
            stopping = bool(request.signal_name)
            if done % LOG_EVERY == 0 or finished or due or stopping:
                record = _record(pending, stage, done, rate, unit_name, guard)
                log(record)
                display.update(done, record, last=finished)
                pending = _Pending()
            if (due and not finished) or stopping:
                save_checkpoint(done)
                last_checkpoint = time.monotonic()
            if stopping:
                raise TrainingStopped(
                    f"{request.signal_name} received: stopped after iteration {done} of stage "
                    f"{stage}; a checkpoint is written, go on with --resume."
                )


def _record(
    pending: _Pending,
    stage: int,
    done: int,
    rate: float,
    unit_name: Callable[[int], str],
    guard: ExplosionGuard,
) -> dict[str, Any]:
    names = list(pending.metrics[0])
    values = np.array([[float(entry[name]) for name in names] for entry in pending.metrics])

    def stop(position: int, what: str) -> None:
        units = [int(unit) for batch in pending.units[position] for unit in batch.numpy()]
        raise UserError(
            f"The loss {what} at iteration {done - len(values) + position + 1} of stage {stage}: "
            f"{dict(zip(names, values[position].tolist(), strict=True))}. Images of this "
            f"iteration: {', '.join(unit_name(unit) for unit in units)}. Look at their boxes in "
            "data_report.txt; else start again with a lower --learning_rate or with "
            "--clip_gradients."
        )

    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    # What came before a loss that is not finite may have exploded already.
    sound = values[: bad[0]] if len(bad) else values
    exploded = guard.first_explosion(sound[:, names.index("loss")])
    if exploded is not None:
        stop(exploded[0], f"is more than {FACTOR:g} times its median of {exploded[1]:.3g}")
    if len(bad):
        stop(int(bad[0]), "is not finite")
    seconds = time.monotonic() - pending.start
    images = sum(len(batch) for batches in pending.units for batch in batches)
    return {
        "stage": stage,
        "iteration": done,
        "learning_rate": rate,
        **{name: float(value) for name, value in zip(names, values.mean(axis=0), strict=True)},
        "images_per_second": images / seconds,
        "waiting": pending.waited / seconds,
    }
