"""The loop of one stage: batches in, steps, logs, checkpoints.

Python sees an iteration only to log it; everything between the batch and the losses is inside one
``tf.function`` (:mod:`keras_frcnn.training.step`).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import tensorflow as tf

from keras_frcnn.errors import UserError, reason_of
from keras_frcnn.recipes import StageSchedule
from keras_frcnn.runs.stage_table import stage_name
from keras_frcnn.system.signals import GO_ON, StopRequest, TrainingStopped, signals_noted
from keras_frcnn.training.log import LOG_EVERY, Log
from keras_frcnn.training.output import StageOutput
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
    output: StageOutput,
    *,
    seed: int,
    first: int,
) -> int:
    """Runs iterations ``first`` to ``schedule.iterations`` of a stage.

    A record is written every :data:`LOG_EVERY` of them. There, where nothing measured is left, a
    callback's wish to stop is answered.

    Args:
        batches: from iteration ``first`` on.
        seed: with the stage it keys the randomness of each iteration.

    Returns:
        The iterations that are done.

    Raises:
        UserError: a loss is not finite or has exploded, an image cannot be read, there is not
            enough memory, or a callback changes the learning rate.
        TrainingStopped: after a signal, with a checkpoint written.
    """
    if first == schedule.iterations:
        output.draw_curves()
        return first
    iterator = iter(batches)
    with stop_on_signal() as request:
        output.callbacks.begin()
        for iteration in range(first, schedule.iterations):
            done, rate = iteration + 1, schedule.rate_at(iteration)
            output.callbacks.before_batch(iteration)
            before = time.monotonic()
            found = _next_batches(iterator, step.batches_per_step, log.stage, done)
            waited = time.monotonic() - before
            units = [batch["unit"] for batch in found]
            try:
                metrics = step.run(
                    found, tf.constant(rate), tf.constant([seed * 8 + log.stage, iteration])
                )
            except tf.errors.ResourceExhaustedError as error:
                images = f"the images of iteration {done} ({log.names(units)})"
                raise out_of_memory(log.stage, images) from error
            log.add(units, metrics, waited)
            output.callbacks.after_batch(iteration, metrics)
            finished = done == schedule.iterations
            # At fixed iterations only: a resumed training writes the same records.
            if done % LOG_EVERY == 0 or finished:
                output.record(log.record(done, rate), is_last=finished)
                finished = finished or output.callbacks.ask_to_stop
            # At the end, too: what comes before the weights are written may be stopped, or fail.
            if finished or request.received or output.checkpoint_is_due:
                output.checkpoint(done, log.state(done))
                if request.received:
                    raise TrainingStopped(
                        request.received,
                        f"stopped after iteration {done} of {stage_name(log.stage)}; a checkpoint "
                        "is written",
                    )
            if finished:
                break
        output.callbacks.end()
    return done


def _next_batches(
    iterator: Iterator[dict[str, tf.Tensor]], number: int, stage: int, done: int
) -> tuple[dict[str, tf.Tensor], ...]:
    """The batches of an iteration.

    Raises:
        UserError: an image cannot be read, or there is no memory for it.
    """
    try:
        return tuple(next(iterator) for _ in range(number))
    except tf.errors.ResourceExhaustedError as error:
        raise UserError(
            f"There is not enough memory to read the images of iteration {done} of "
            f"{stage_name(stage)}; give a lower --short_side and --long_side, or fewer --workers."
        ) from error
    except tf.errors.OpError as error:
        # The generator's own exception is only in the text of TensorFlow's.
        raise UserError(
            f"A training image could not be read at iteration {done} of {stage_name(stage)}: "
            f"{reason_of(error)}. Mend the file; {GO_ON}."
        ) from error
