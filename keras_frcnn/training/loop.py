"""The loop of one stage: batches in, steps, logs, checkpoints.

Python sees an iteration only to log it; everything between the batch and the losses is inside one
``tf.function`` (:mod:`keras_frcnn.training.step`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import tensorflow as tf

from keras_frcnn.errors import UserError, reason_of
from keras_frcnn.recipes import StageSchedule
from keras_frcnn.run_config import stage_name
from keras_frcnn.stopping import GO_ON, StopRequest, TrainingStopped, signals_noted
from keras_frcnn.training.display import StageDisplay
from keras_frcnn.training.probe import out_of_memory
from keras_frcnn.training.step import TrainingStep
from keras_frcnn.training.window import LOG_EVERY, Window

BETWEEN = "stopped outside of the iterations; all that was finished is kept"


@contextmanager
def stop_on_signal() -> Iterator[StopRequest]:
    """Turns signals into a request that the loop answers after the iteration.

    Raises:
        TrainingStopped: one came after the loop had asked for the last time.
    """
    with signals_noted() as request:
        yield request
    if request.received:
        raise TrainingStopped(request.received, BETWEEN)


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
    save_checkpoint: Callable[[int, dict[str, Any]], None],
    checkpoint_seconds: float,
    state: dict[str, Any],
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
        save_checkpoint: takes the number of finished iterations, and what the next record needs.
        checkpoint_seconds: time between checkpoints.
        state: what the checkpoint of ``first_iteration`` was given; empty without one.

    Raises:
        UserError: a loss is not finite or has exploded, an image cannot be read, or there is not
            enough memory.
        TrainingStopped: after a signal, with a checkpoint written.
    """
    iterator = iter(dataset)
    window = Window(stage, unit_name, state)
    last_checkpoint = time.monotonic()
    with stop_on_signal() as request:
        for iteration in range(first_iteration, schedule.iterations):
            before = time.monotonic()
            try:
                batches = tuple(next(iterator) for _ in range(batches_per_step))
            except tf.errors.ResourceExhaustedError as error:
                raise UserError(
                    f"There is not enough memory to read the images of iteration {iteration + 1} "
                    f"of {stage_name(stage)}; give a lower --short_side and --long_side, or fewer "
                    "--workers."
                ) from error
            except tf.errors.OpError as error:
                # The generator's own exception is only in the text of TensorFlow's.
                reason = reason_of(error)
                raise UserError(
                    f"A training image could not be read at iteration {iteration + 1} of "
                    f"{stage_name(stage)}: {reason}. Mend the file; {GO_ON}."
                ) from error
            waited = time.monotonic() - before
            rate = schedule.rate_at(iteration)
            try:
                metrics = step.run(
                    batches, tf.constant(rate), tf.constant([seed * 8 + stage, iteration])
                )
            except tf.errors.ResourceExhaustedError as error:
                units = [unit_name(int(unit)) for batch in batches for unit in batch["unit"]]
                names = f"the images of iteration {iteration + 1} ({', '.join(units)})"
                raise out_of_memory(stage, names) from error
            window.add([batch["unit"] for batch in batches], metrics, waited)
            done = iteration + 1
            finished = done == schedule.iterations
            due = time.monotonic() - last_checkpoint > checkpoint_seconds
            # At fixed iterations only: a resumed training writes the same records.
            if done % LOG_EVERY == 0 or finished:
                record = window.record(done, rate)
                log(record)
                display.update(done, record, last=finished)
            # At the end, too: what comes before the weights are written may be stopped, or fail.
            if due or finished or request.received:
                save_checkpoint(done, window.state(done))
                last_checkpoint = time.monotonic()
                if request.received:
                    raise TrainingStopped(
                        request.received,
                        f"stopped after iteration {done} of {stage_name(stage)}; a checkpoint is "
                        "written",
                    )
