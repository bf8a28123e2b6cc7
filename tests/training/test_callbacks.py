"""Keras callbacks in a training: what they are told, what they may do, and that no bit moves.

Shapes and names
----------------
epoch  a record of ``metrics.jsonl``, counted over all stages.
"""

from __future__ import annotations

import csv
import dataclasses
import signal

import keras
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import keras_frcnn as frcnn
from keras_frcnn.errors import UserError
from keras_frcnn.recipes import StageSchedule
from keras_frcnn.runs.folder import RunFolder
from keras_frcnn.runs.metrics import read_records
from keras_frcnn.system.signals import TrainingStopped
from keras_frcnn.training import output
from tests.training.runs import file_weights, interrupt, losses_of, same

ITERATIONS = 50


class Notes(keras.callbacks.Callback):
    """Notes every call; ``stop_at`` is an epoch after which the stage is to end."""

    def __init__(self, stop_at=None):
        super().__init__()
        self.calls, self.logs, self.weights = [], [], []
        self.stop_at = stop_at

    def on_train_begin(self, logs=None):
        self.calls.append("begin")

    def on_train_end(self, logs=None):
        self.calls.append("end")
        self.logs.append(logs)
        self.weights.append({layer.name for layer in self.model.layers if layer.weights})

    def on_epoch_begin(self, epoch, logs=None):
        self.calls.append(("epoch", epoch))

    def on_epoch_end(self, epoch, logs=None):
        self.calls.append(("record", epoch))
        self.logs.append(logs)
        if epoch == self.stop_at:
            self.model.stop_training = True


class Batches(keras.callbacks.Callback):
    """Notes every batch."""

    def __init__(self):
        super().__init__()
        self.begun, self.ended = [], []

    def on_train_batch_begin(self, batch, logs=None):
        self.begun.append(batch)

    def on_train_batch_end(self, batch, logs=None):
        self.ended.append((batch, logs))
        optimizer = self.model.optimizer  # MLflow's callback looks there
        assert int(optimizer.iterations) == logs["iteration"]
        rate = 0.01 if logs["iteration"] <= 30 else 0.001
        assert float(optimizer.learning_rate) == np.float32(rate)


@pytest.fixture(autouse=True)
def no_curves(monkeypatch):
    monkeypatch.setattr(output, "save_curves", lambda *arguments: None)


@pytest.fixture(scope="module")
def config(run_config, tiny_recipe):
    """Three records a stage, at 20, 40 and 50 iterations; joint training has two, at 20 and 30."""
    stages = tuple(StageSchedule(ITERATIONS, 30, 0.01) for _ in range(4))
    joint = StageSchedule(30, 25, 0.01)
    return run_config(recipe=dataclasses.replace(tiny_recipe, stages=stages, joint=joint))


@pytest.fixture
def train(config, demo_dataset, trainer_of, tmp_path):
    """``train(*callbacks, name=, **changes)``: the folder of a run, begun or gone on with."""

    def run_of(*callbacks, name="run", **changes):
        run, changed = RunFolder(tmp_path / name), dataclasses.replace(config, **changes)
        if not run.config_file.exists():
            run.create(changed, [])
        trainer, said = trainer_of(changed, demo_dataset, run, callbacks=callbacks)
        trainer.train()
        return run, said.getvalue()

    return run_of


def test_what_callbacks_are_told(train):
    notes = Notes()
    run, _ = train(notes, stages=(1, 2))
    stage = [[("epoch", epoch), ("record", epoch)] for epoch in range(6)]
    first, second = sum(stage[:3], []), sum(stage[3:], [])
    assert notes.calls == ["begin", *first, "end", "begin", *second, "end"]
    records = read_records(run.metrics_file)
    of_records = [notes.logs[index] for index in (0, 1, 2, 4, 5, 6)]
    assert of_records == [{k: float(v) for k, v in record.items()} for record in records]
    assert all(type(value) is float for logs in of_records for value in logs.values())
    assert notes.logs[3] == of_records[2] and notes.logs[7] == of_records[5]
    assert notes.params == {"epochs": 6, "steps": 20, "verbose": 0}
    # The RPN's stage has no detector, the detector's no RPN.
    assert "rpn_head" in notes.weights[0] - notes.weights[1]
    assert "detector" in notes.weights[1] - notes.weights[0]


def test_the_model_of_a_stage_is_what_is_trained(train):
    shown = []

    def show(epoch, logs):
        model = notes.model
        kernel = model.get_layer("conv4").kernel.numpy().copy()
        optimizer = model.optimizer
        shown.append((kernel, float(optimizer.learning_rate), int(optimizer.iterations)))

    notes = Notes()
    run, _ = train(
        notes, keras.callbacks.LambdaCallback(on_epoch_end=show), mode="joint", stages=()
    )
    assert [entry[1:] for entry in shown] == [(np.float32(0.01), 20), (np.float32(0.001), 30)]
    assert (shown[0][0] != shown[1][0]).any()
    np.testing.assert_array_equal(shown[1][0], file_weights(run, "final")["conv4"][0])
    config = notes.model.optimizer.get_config()  # MLflow's callback keeps it
    assert config["momentum"] == np.float32(0.9) or config["momentum"] == 0.9


def test_batches_are_told_only_to_those_who_listen(train, monkeypatch):
    batches = Batches()
    run, _ = train(batches, stages=(1,))
    assert batches.begun == [*range(20), *range(20), *range(10)]
    assert [batch for batch, _ in batches.ended] == batches.begun
    logs = [logs for _, logs in batches.ended]
    assert [entry["iteration"] for entry in logs] == list(range(1, ITERATIONS + 1))
    mean = np.mean([entry["loss"] for entry in logs[:20]])
    np.testing.assert_allclose(mean, read_records(run.metrics_file)[0]["loss"], rtol=1e-6)
    for name in ("on_train_batch_begin", "on_train_batch_end"):
        monkeypatch.setattr(keras.callbacks.CallbackList, name, None)
    train(Notes(), stages=(1,), name="other")


def test_a_training_with_callbacks_stopped_and_resumed_has_the_bits_of_one_without(train, tmp_path):
    whole, _ = train(name="whole", stages=(1, 2))
    for stage, done in ((1, 7), (2, 33)):
        with pytest.MonkeyPatch.context() as patch, pytest.raises(TrainingStopped):
            interrupt(patch, stage, done, signal.SIGTERM)
            board = keras.callbacks.TensorBoard(tmp_path / "board")
            train(Notes(), Batches(), board, stages=(1, 2))
    notes = Notes()
    run, _ = train(notes, keras.callbacks.EarlyStopping("loss", patience=10), stages=(1, 2))
    for name in ("stage1", "stage2"):
        assert run.weights_file(name).read_bytes() == whole.weights_file(name).read_bytes()
    assert losses_of(run) == losses_of(whole)
    # It went on in stage 2 after its first record, the fourth of all.
    assert notes.calls == [
        "begin",
        *(("epoch", 4), ("record", 4), ("epoch", 5), ("record", 5)),
        "end",
    ]


def test_early_stopping_ends_each_stage_by_its_own_losses(train):
    """No loss gets better by a million: each stage ends with its second record."""
    stop = keras.callbacks.EarlyStopping("loss", min_delta=1e6, patience=1)
    run, said = train(stop, stages=(1, 2))
    ends = [(record["stage"], record["iteration"]) for record in read_records(run.metrics_file)]
    assert ends == [(stage, done) for stage in (1, 2) for done in (20, 40)]
    assert "stage 2 ends after iteration 40 of 50: a callback asked to stop" in said
    written = [run.weights_file(name).stat().st_mtime_ns for name in ("stage1", "stage2")]
    train(stop, stages=(1, 2))  # they are finished
    now = [run.weights_file(name).stat().st_mtime_ns for name in ("stage1", "stage2")]
    assert now == written
    assert len(read_records(run.metrics_file)) == len(ends)


def test_a_stage_that_a_callback_ended_goes_on_where_its_weights_were_not_written(train):
    """A kill after it: the stage goes on from there, and ends as if nobody had asked."""
    whole, _ = train(name="whole", stages=(1,))
    with pytest.MonkeyPatch.context() as patch, pytest.raises(OSError, match="killed"):
        interrupt(patch, 1, 40, "after saving")
        train(Notes(stop_at=1), stages=(1,))
    run, said = train(stages=(1,))
    assert "going on after iteration 40" in said
    one, other = file_weights(run, "stage1"), file_weights(whole, "stage1")
    assert all(same(one[layer], other[layer]) for layer in one)
    assert losses_of(run) == losses_of(whole)


def test_the_best_weights_are_those_that_are_kept(train):
    best = keras.callbacks.EarlyStopping(
        "loss", min_delta=1e6, patience=1, restore_best_weights=True
    )
    first = []
    keep = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: first.append(best.model.get_layer("conv4").get_weights())
    )
    run, _ = train(best, keep, mode="joint", stages=())
    assert same(first[0], file_weights(run, "final")["conv4"])
    assert not same(first[0], first[1])


def test_a_table_and_the_events_of_joint_training(train, tmp_path):
    table, board = tmp_path / "log.csv", tmp_path / "board"
    run, _ = train(
        keras.callbacks.CSVLogger(str(table)),
        keras.callbacks.TensorBoard(
            board, histogram_freq=1, update_freq="batch", write_steps_per_second=True
        ),
        mode="joint",
        stages=(),
    )
    records = read_records(run.metrics_file)
    with open(table, encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [int(row["epoch"]) for row in rows] == [0, 1]
    assert [float(row["iteration"]) for row in rows] == [20.0, 30.0]
    for name in ("loss", "rpn_class_loss", "detector_box_loss"):
        assert [float(row[name]) for row in rows] == [record[name] for record in records]
    events = EventAccumulator(str(board / "train"), size_guidance={"tensors": 0}).Reload()
    assert [event.step for event in events.Tensors("epoch_loss")] == [0, 1]
    assert [event.step for event in events.Tensors("batch_loss")] == list(range(1, 31))
    assert any(tag.endswith("/histogram") for tag in events.Tags()["tensors"])


@pytest.mark.parametrize("told", ["on_epoch_begin", "on_epoch_end"])
def test_a_rate_that_a_callback_sets_is_refused(train, told):
    """The recipe's would hold all the same, and nobody would know."""

    def lower(epoch, logs):
        lowering.model.optimizer.learning_rate = 1e-5

    lowering = keras.callbacks.LambdaCallback(**{told: lower})
    with pytest.raises(UserError, match=r"learning rate .*`callbacks`"):
        train(lowering, stages=(1,))


def test_what_is_no_callback_is_refused(demo_dataset, tmp_path):
    with pytest.raises(UserError, match=r"`callbacks` should be .* not <function"):
        frcnn.train(demo_dataset, tmp_path / "run", weights="random", callbacks=[lambda: None])
    assert not (tmp_path / "run").exists()
