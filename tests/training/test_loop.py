"""The loop of a stage: records, checkpoints, stopping, a loss that is not finite.

Shapes and names
----------------
done  finished iterations.
"""

from __future__ import annotations

import json
import signal
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from keras_frcnn.errors import UserError
from keras_frcnn.recipes import StageSchedule
from keras_frcnn.system.signals import TrainingStopped
from keras_frcnn.training.log import LOG_EVERY, Log, check_state
from keras_frcnn.training.loop import run_iterations, stop_on_signal


class FakeStep:
    """Returns a loss that counts iterations; ``bad`` maps a call to its loss."""

    def __init__(self, bad=None, at=None, batches_per_step=1):
        self.bad = bad or {}
        self.batches_per_step = batches_per_step
        self.at = at or {}
        self.calls = []

    def run(self, batches, rate, seed):
        self.calls.append((float(rate), seed.numpy().tolist()))
        number = len(self.calls)
        self.at.get(number, lambda: None)()
        return {"loss": tf.constant(self.bad.get(number, float(number))), "rois": tf.constant(2.0)}


UNITS = [SimpleNamespace(key=f"image-{index}") for index in range(1000)]


class FakeOutput:
    """Keeps the records, and ``{done: state}`` of the checkpoints.

    Args:
        seconds: time between checkpoints.
        stop_at: an iteration with a record where a callback asks to stop.
    """

    def __init__(self, seconds=1e9, stop_at=None):
        self.records, self.saved, self.last = [], {}, []
        self.checkpoint_is_due = seconds < 0
        self.stop_at = stop_at
        self.callbacks = SimpleNamespace(
            begin=lambda: None,
            before_batch=lambda iteration: None,
            after_batch=lambda iteration, metrics: None,
            end=lambda: None,
            ask_to_stop=False,
        )

    def record(self, record, *, is_last):
        self.records.append(record)
        self.last.append(is_last)
        self.callbacks.ask_to_stop = record["iteration"] == self.stop_at

    def checkpoint(self, done, state):
        self.saved[done] = state


def run(step, *, iterations=50, first=0, images=1, state=None, dataset=None, stage=3, **others):
    """Records, and ``{done: state}`` of the checkpoints."""
    units = tf.data.Dataset.range(1000).map(lambda unit: {"unit": tf.cast(unit, tf.int32)})
    output = FakeOutput(**others)
    done = run_iterations(
        step,
        dataset or units.skip(first * images * step.batches_per_step).batch(images),
        StageSchedule(iterations, 30, 0.1),
        Log(stage, UNITS, json.loads(json.dumps(state or {}))),
        output,
        seed=7,
        first=first,
    )
    assert done == others.get("stop_at", iterations)
    return output.records, output.saved


def test_records_are_means_over_their_iterations():
    records, saved = run(FakeStep())
    assert [record["iteration"] for record in records] == [20, 40, 50]
    assert [record["loss"] for record in records] == [10.5, 30.5, 45.5]
    assert [record["stage"] for record in records] == [3, 3, 3]
    assert list(saved) == [50]
    assert all(0 <= record["waiting"] <= 1 for record in records)
    assert all(record["images_per_second"] > 0 for record in records)


def no_memory():
    raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")


def test_a_step_without_memory_is_told_with_its_images():
    words = r"Stage 3 needs more memory .* iteration 3 \(image-2\)\. Give a lower --short"
    with pytest.raises(UserError, match=words):
        run(FakeStep(at={3: no_memory}))
    with pytest.raises(UserError, match=r"iteration 2 \(image-4, image-5, image-6, image-7\)"):
        run(FakeStep(at={2: no_memory}, batches_per_step=2), images=2)


def test_an_image_that_finds_no_memory_is_not_called_unreadable():
    class Batches:
        def __iter__(self):
            yield {"unit": tf.constant([0])}
            no_memory()

    with pytest.raises(UserError, match="memory to read the images of iteration 2 of stage 3"):
        run(FakeStep(), dataset=Batches())


def test_rate_and_seed_are_functions_of_the_iteration():
    whole, resumed = FakeStep(), FakeStep()
    run(whole)
    run(resumed, first=20)
    assert resumed.calls == whole.calls[20:]
    rates = [rate for rate, _ in whole.calls]
    np.testing.assert_allclose(rates, [0.1] * 30 + [0.01] * 20)
    seeds = [tuple(seed) for _, seed in whole.calls]
    assert len(set(seeds)) == 50
    assert seeds[0] == (7 * 8 + 3, 0)


def test_checkpoints_are_written_when_due_and_at_the_end():
    _, saved = run(FakeStep(), iterations=4, seconds=-1.0)
    assert list(saved) == [1, 2, 3, 4]


def test_a_callback_stops_a_stage_at_a_record_with_a_checkpoint_that_goes_on():
    records, saved = run(FakeStep(), stop_at=40)
    assert [record["iteration"] for record in records] == [20, 40]
    assert list(saved) == [40] and saved[40]["values"] == []
    check_state(saved[40], {"loss", "rois"}, 40, 50)
    rest, _ = run(FakeStep(), first=40, state=saved[40])
    assert [record["iteration"] for record in rest] == [50]


def without_times(records):
    times = ("images_per_second", "waiting")
    return [
        {name: value for name, value in record.items() if name not in times} for record in records
    ]


@pytest.mark.parametrize("stopped", [1, 7, 19, 20, 21, 33, 40, 49])
def test_records_are_the_same_wherever_a_training_stopped(stopped):
    losses = {number: 1 / number for number in range(1, 51)}
    whole, saved = run(FakeStep(losses), seconds=-1.0)
    rest = {number: losses[number + stopped] for number in range(1, 51 - stopped)}
    resumed, _ = run(FakeStep(rest), first=stopped, state=saved[stopped])
    before = [record for record in whole if record["iteration"] <= stopped]
    assert without_times(before + resumed) == without_times(whole)
    assert [record["iteration"] for record in whole] == [20, 40, 50]


def test_an_explosion_after_a_stop_is_told_by_the_losses_before_it():
    _, saved = run(FakeStep(dict.fromkeys(range(1, 51), 1.0)), iterations=30, seconds=-1.0)
    with pytest.raises(UserError, match="its median of 1 at iteration 31 "):
        run(FakeStep({1: 101.0}), first=30, state=saved[30])
    run(FakeStep({1: 101.0}), first=30)  # without them nothing is known yet


def test_a_signal_after_the_last_iteration_is_not_lost():
    with (
        pytest.raises(TrainingStopped, match="SIGTERM received: stopped outside of the iterations"),
        stop_on_signal(),
    ):
        signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_and_names_the_images(loss):
    with pytest.raises(UserError) as error:
        run(FakeStep(bad={23: loss}, batches_per_step=2), images=2)
    # Iteration 23 sees units 88 to 91.
    message = str(error.value)
    assert "at iteration 23 of stage 3" in message
    assert "Images of this iteration: image-88, image-89, image-90, image-91." in message


def test_a_loss_that_explodes_stops_names_the_images_and_advises():
    step = FakeStep(bad={33: 5000.0})
    with pytest.raises(UserError) as caught:
        run(step)
    text = str(caught.value)
    assert "more than 100 times its median of 16.5 at iteration 33 of stage 3" in text
    assert "image-32" in text
    assert "--learning_rate" in text
    assert "--clip_gradients" in text


def test_the_explosion_is_named_and_not_the_infinity_after_it():
    with pytest.raises(UserError, match="median of 13 at iteration 26 "):
        run(FakeStep(bad={26: 1e30, 27: float("inf")}))


def test_no_checkpoint_of_a_loss_that_is_not_finite():
    step = FakeStep(bad={3: float("nan")})
    with pytest.raises(UserError, match="iteration 3"):
        run(step, iterations=9, seconds=-1.0)
    assert len(step.calls) == 3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("at", [2, 5])
def test_a_signal_stops_after_the_iteration_with_a_checkpoint(number, at):
    """In the last iteration too, so that the next stage does not begin."""
    step = FakeStep(at={at: lambda: signal.raise_signal(number)})
    handlers = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    output = FakeOutput()
    with pytest.raises(TrainingStopped) as stopped:
        run_iterations(
            step,
            tf.data.Dataset.range(9).map(lambda unit: {"unit": [unit]}),
            StageSchedule(5, 3, 0.1),
            Log(1, UNITS, {}),
            output,
            seed=0,
            first=0,
        )
    assert len(step.calls) == at
    assert list(output.saved) == [at]
    assert f"stopped after iteration {at} of stage 1" in str(stopped.value)
    assert "--resume" in str(stopped.value)
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == handlers


def test_handlers_come_back_after_an_error():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyError), stop_on_signal():
        assert signal.getsignal(signal.SIGTERM) is not before
        raise KeyError
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_training_in_a_thread_of_its_own():
    """Python sets handlers in the main thread only: signals are then another's affair."""
    with ThreadPoolExecutor(1) as pool:
        records, saved = pool.submit(run, FakeStep(), iterations=20).result()
    assert [record["iteration"] for record in records] == [20]
    assert list(saved) == [20]


def test_a_file_that_went_missing_is_one_sentence():
    def units():
        yield {"unit": [0]}
        raise UserError("photo.jpg cannot be read.")

    signature = {"unit": tf.TensorSpec((1,), tf.int32)}
    dataset = tf.data.Dataset.from_generator(units, output_signature=signature)
    with pytest.raises(UserError, match=r"iteration 2 of stage 1: .*photo\.jpg cannot be read"):
        run(FakeStep(), iterations=5, dataset=dataset, stage=1)


def test_log_interval():
    assert LOG_EVERY == 20
