"""The loop of one stage: batches in, steps, logs, checkpoints.

Python sees an iteration only to log it; everything between the batch and the losses is inside one
``tf.function`` (:mod:`keras_frcnn.training.step`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import tensorflow as tf

from keras_frcnn.errors import UserError, reason_of
from keras_frcnn.recipes import StageSchedule
from keras_frcnn.runs.stage_table import stage_name
from keras_frcnn.system.signals import GO_ON, StopRequest, TrainingStopped, signals_noted
from keras_frcnn.training.log import LOG_EVERY, Log
from keras_frcnn.training.preflight import out_of_memory
from keras_frcnn.training.step import TrainingStep

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


def run_iterations(
    step: TrainingStep,
    batches: Iterable[dict[str, tf.Tensor]],
    schedule: StageSchedule,
    log: Log,
    save_checkpoint: Callable[[int, dict[str, Any]], None],
    *,
    seed: int,
    first: int,
    checkpoint_seconds: float,
) -> None:
    """Runs iterations ``first`` to ``schedule.iterations`` of a stage.

    Args:
        step: what one iteration does.
        batches: from iteration ``first`` on.
        schedule: number of iterations and learning rate.
        log: takes what an iteration measures; a record every :data:`LOG_EVERY` of them.
        save_checkpoint: takes the number of finished iterations, and the state of the log.
        seed: with the log's stage it keys the randomness of each iteration.
        first: where a resumed stage goes on.
        checkpoint_seconds: time between checkpoints.

    Raises:
        UserError: a loss is not finite or has exploded, an image cannot be read, or there is not
            enough memory.
        TrainingStopped: after a signal, with a checkpoint written.
    """
    iterator, stage = iter(batches), stage_name(log.stage)
    last_checkpoint = time.monotonic()
    with stop_on_signal() as request:
        for iteration in range(first, schedule.iterations):
            done = iteration + 1
            before = time.monotonic()
            try:
                found = tuple(next(iterator) for _ in range(step.batches_per_step))
            except tf.errors.ResourceExhaustedError as error:
                raise UserError(
                    f"There is not enough memory to read the images of iteration {done} of "
                    f"{stage}; give a lower --short_side and --long_side, or fewer --workers."
                ) from error
            except tf.errors.OpError as error:
                # The generator's own exception is only in the text of TensorFlow's.
                raise UserError(
                    f"A training image could not be read at iteration {done} of {stage}: "
                    f"{reason_of(error)}. Mend the file; {GO_ON}."
                ) from error
            waited = time.monotonic() - before
            units = [batch["unit"] for batch in found]
            rate = schedule.rate_at(iteration)
            try:
                metrics = step.run(
                    found, tf.constant(rate), tf.constant([seed * 8 + log.stage, iteration])
                )
            except tf.errors.ResourceExhaustedError as error:
                images = f"the images of iteration {done} ({log.names(units)})"
                raise out_of_memory(log.stage, images) from error
            log.add(units, metrics, waited)
            finished = done == schedule.iterations
            due = time.monotonic() - last_checkpoint > checkpoint_seconds
            # At fixed iterations only: a resumed training writes the same records.
            if done % LOG_EVERY == 0 or finished:
                log.record(done, rate)
            # At the end, too: what comes before the weights are written may be stopped, or fail.
            if due or finished or request.received:
                save_checkpoint(done, log.state(done))
                last_checkpoint = time.monotonic()
                if request.received:
                    raise TrainingStopped(
                        request.received,
                        f"stopped after iteration {done} of {stage}; a checkpoint is written",
                    )
