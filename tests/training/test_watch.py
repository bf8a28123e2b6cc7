"""An exploding loss is told from a hard image, and weights that are not finite are never kept.

Shapes and names
----------------
loss  the objective of one iteration.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from keras_frcnn.runs.folder import RunFolder
from keras_frcnn.training import output
from keras_frcnn.training.checkpoint import Checkpoints
from keras_frcnn.training.log import Log
from keras_frcnn.training.step import TrainingStep
from keras_frcnn.training.watch import (
    ExplosionGuard,
    TrainingDiverged,
    check_weights,
)
from tests.read_weights import read_layers


def first_fault(guard, losses):
    """Position of the first loss that exploded, and the median before it."""
    for position, loss in enumerate(losses):
        if (fault := guard.fault_of(float(loss))) is not None:
            return position, float(fault.rsplit(" ", 1)[1])
    return None


def test_the_first_loss_above_a_hundred_medians():
    guard = ExplosionGuard()
    assert first_fault(guard, [1.0, 2.0, 3.0, 2.0, 2.0]) is None
    assert first_fault(guard, [2.0, 199.0, 201.0, 1e30]) == (2, 2.0)


def test_a_hard_image_after_easy_ones_is_none():
    guard = ExplosionGuard()
    assert first_fault(guard, [0.002] * 100) is None
    assert first_fault(guard, [9.9]) is None
    assert first_fault(guard, [10.1]) == (0, 0.002)


def test_a_few_crowded_images_among_empty_ones_are_none():
    """What they cost does not change by it that the others cost less and less."""
    guard = ExplosionGuard()
    assert first_fault(guard, [3.0] * 5 + [11.7] + [0.5] * 50 + [13.0] + [0.02] * 100) is None
    assert first_fault(guard, [12.8]) is None
    assert first_fault(guard, [0.02] * 5 + [129.0, 131.0]) == (6, 0.02)


@pytest.mark.parametrize("growth", [1.05, 1.1, 1.3, 1.7, 3.0, 20.0])
@pytest.mark.parametrize("before", [50, 200])
def test_a_divergence_does_not_excuse_itself(growth, before):
    losses = [0.5] * before + [0.5 * growth**step for step in range(1, 200)]
    position, _ = first_fault(ExplosionGuard(), losses)
    assert losses[position] < 1e3
    noisy = np.array(losses) * np.exp(np.random.default_rng(before).normal(0, 0.5, len(losses)))
    position, _ = first_fault(ExplosionGuard(), noisy)
    assert noisy[position] < 1e4


def test_a_loss_that_grows_within_the_first_iterations():
    losses = [0.7, 0.7, 0.6, 0.7, 0.8, 5.0, 40.0, 90.0, 1e4, 1e30]
    assert first_fault(ExplosionGuard(), losses)[0] == 7


@pytest.mark.parametrize("seed", range(5))
def test_noise_over_orders_of_magnitude_is_none(seed):
    losses = np.exp(np.random.default_rng(seed).normal(0, 1, 5000))
    assert first_fault(ExplosionGuard(), losses) is None


def test_what_a_training_that_exploded_had_logged():
    # Means of 20 iterations of an RPN whose learning rate was twice too high.
    losses = [0.617, 1.505, 0.901, 0.9, 0.88, 5.488, 1.7e32, 6.0e13, 0.88]
    assert first_fault(ExplosionGuard(), losses) == (6, pytest.approx(0.9005, abs=1e-3))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_weight_that_is_not_finite_is_named(value):
    kernels = [tf.Variable(np.ones((3, 4), "f"), name=f"layer{index}/kernel") for index in (1, 2)]
    check_weights(kernels, 7, 1)
    kernels[1][2, 3].assign(value)
    with pytest.raises(
        TrainingDiverged, match=r"weights layer2/kernel are .* 7 of stage 1"
    ) as told:
        check_weights(kernels, 7, 1)
    assert (told.value.iteration, told.value.stage) == (7, 1)
    kernels[0][0, 0].assign(value)
    with pytest.raises(TrainingDiverged, match="weights layer1/kernel and 1 more are not finite"):
        check_weights(kernels, 7, 1)


@pytest.mark.parametrize(
    ("precision", "hit", "checkpoint_seconds", "kept"),
    [("float32", 3, -1.0, [2, 1]), ("bfloat16", 4, 600.0, [])],
    ids=["before a checkpoint", "in the last iteration"],
)
def test_a_gradient_that_is_not_finite_leaves_the_last_good_checkpoint(
    run_config,
    demo_dataset,
    trainer_of,
    tmp_path,
    monkeypatch,
    precision,
    hit,
    checkpoint_seconds,
    kept,
):
    """The loss of the iteration is finite; only the next one would tell, if there were one."""
    gradients_of = TrainingStep._gradients

    def with_nan(self, batches, seed):
        metrics, gradients = gradients_of(self, batches, seed)
        bad = tf.where(tf.equal(seed[1], hit - 1), np.float32(np.nan), np.float32(0))
        return metrics, [gradients[0] + tf.cast(bad, gradients[0].dtype), *gradients[1:]]

    monkeypatch.setattr(output, "save_curves", lambda *arguments: None)
    config = run_config(stages=(1,), precision=precision)
    run = RunFolder(tmp_path / "run")
    run.create(config, [])
    trainer, _ = trainer_of(config, demo_dataset, run, checkpoint_seconds=checkpoint_seconds)
    with monkeypatch.context() as patch:
        patch.setattr(TrainingStep, "_gradients", with_nan)
        with pytest.raises(TrainingDiverged, match=f"after iteration {hit} of stage 1"):
            trainer.train()
    assert not run.weights_file("stage1").exists()
    files = Checkpoints(run.checkpoints, 1).files()
    assert [int(file.stem.split("-")[1]) for file in files] == kept
    trainer, said = trainer_of(config, demo_dataset, run)
    trainer.train()
    assert ("going on after iteration 2" in said.getvalue()) == bool(kept)
    for layer in read_layers(run.weights_file("stage1")).layers.values():
        assert all(np.isfinite(weight).all() for weight in layer.values())


@pytest.mark.parametrize(("stage", "name"), [(0, "of joint training"), (3, "of stage 3")])
def test_messages_name_joint_training(stage, name):
    log = Log(stage, [SimpleNamespace(key="photo.jpg")], {})
    log.add([tf.constant([0])], {"loss": tf.constant(np.nan)}, 0.0)
    kernel = tf.Variable([np.nan], name="fc6/kernel")
    for diverged in (lambda: log.record(7, 0.1), lambda: check_weights([kernel], 7, stage)):
        with pytest.raises(TrainingDiverged, match=name) as told:
            diverged()
        assert "stage 0" not in str(told.value)
        assert (told.value.iteration, told.value.stage) == (7, stage)
