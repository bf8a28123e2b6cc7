"""The step before a long stage: on the largest images, and without a trace in the weights.

Shapes and names
----------------
unit  one training image in one orientation.
"""

from __future__ import annotations

import dataclasses
import json
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from keras_frcnn.errors import UserError
from keras_frcnn.recipes import PAPER
from keras_frcnn.runs.stage_table import STAGES
from keras_frcnn.training import preflight, stages
from keras_frcnn.training.preflight import check_memory, largest_units
from keras_frcnn.training.units import training_units


@pytest.fixture
def units(demo_dataset):
    examples = [
        dataclasses.replace(demo_dataset.examples[0], height=height, width=width)
        for height, width in ((375, 500), (500, 334), (333, 500), (100, 500), (50, 60))
    ]
    return training_units(examples, flips=False)


def test_largest_by_hand(units):
    # Inputs: 600x800, 898x600, 601x902 (600 x 901), 200x1000, 600x720.
    assert largest_units(units, range(5), PAPER.image, 2) == [2, 1]
    assert largest_units(units, [0, 3, 4], PAPER.image, 2) == [0, 4]
    assert largest_units(units, [3], PAPER.image, 2) == [3, 3]


class Exhausted:
    def probe(self, batches, seed):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating")


def test_too_little_memory_is_one_sentence_that_names_the_images_and_advises():
    feed = SimpleNamespace(batches=lambda largest: [], units=[SimpleNamespace(key="big.jpg")])
    with pytest.raises(UserError, match=r"Stage 2 .* images \(big.jpg\)\. .*--short_side"):
        check_memory(Exhausted(), feed, [0, 0], 2)


def test_a_probed_run_has_the_weights_of_one_that_was_not(
    trainer_of, run_config, demo_dataset, tmp_path, monkeypatch
):
    from keras_frcnn.runs.folder import RunFolder
    from tests.read_weights import read_layers

    probed, found = [], []

    def counted(*arguments):
        probed.append(arguments[-1])
        check_memory(*arguments)

    monkeypatch.setattr(stages, "check_memory", counted)
    monkeypatch.setattr(preflight, "check_memory", counted)
    logs = []
    for name, least in (("plain", 1000), ("probed", 1)):
        monkeypatch.setattr(stages, "PROBED_ITERATIONS", least)
        monkeypatch.setattr(preflight, "PROBED_ITERATIONS", least)
        run = RunFolder(tmp_path / name)
        config = run_config(stages=(1, 2))
        run.create(config, [])
        trainer_of(config, demo_dataset, run)[0].train()
        found.append(read_layers(run.weights_file("stage2")).layers)
        records = map(json.loads, run.metrics_file.read_text().splitlines())
        logs.append([{k: v for k, v in record.items() if "loss" in k} for record in records])
    assert probed == [2, 1, 2]  # stage 2 before stage 1, too
    assert logs[0] == logs[1]
    for layer, weights in found[0].items():
        for weight, values in weights.items():
            np.testing.assert_array_equal(values, found[1][layer][weight])


def test_stage_2_that_does_not_fit_is_refused_before_stage_1(
    trainer_of, run_config, demo_dataset, tmp_path, monkeypatch
):
    from keras_frcnn.runs.folder import RunFolder
    from keras_frcnn.training.step import TrainingStep

    def exhausted(self, batches, seed):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating")

    monkeypatch.setattr(preflight, "PROBED_ITERATIONS", 1)
    monkeypatch.setattr(TrainingStep, "_probe", exhausted)
    run = RunFolder(tmp_path / "run")
    config = run_config(stages=(1, 2))
    run.create(config, [])
    with pytest.raises(UserError, match="Stage 2 needs more memory"):
        trainer_of(config, demo_dataset, run)[0].train()
    assert not run.metrics_file.exists()
    assert not run.weights_file("stage1").exists()


def test_the_step_ahead_samples_all_its_rois_and_leaves_nothing(
    trainer_of, run_config, demo_dataset, tmp_path, monkeypatch
):
    from keras_frcnn.runs.folder import RunFolder

    run = RunFolder(tmp_path / "run")
    config = run_config(stages=(1, 2))
    recipe = config.recipe
    many = dataclasses.replace(recipe.training_proposals, after_nms=2000)
    config = dataclasses.replace(
        config, recipe=dataclasses.replace(recipe, training_proposals=many)
    )
    run.create(config, [])
    trainer = trainer_of(config, demo_dataset, run)[0]
    model = trainer.new_model()
    before = [layer.get_weights() for layer in model.layers()]
    steps, metrics = [], []

    def watched(step, feed, largest, stage):
        steps.extend((weakref.ref(step), weakref.ref(step.optimizer.velocities[0])))
        (batch,) = feed.batches(largest)
        metrics.append(step.objective(batch, tf.constant([0, 2])))
        check_memory(step, feed, largest, stage)

    monkeypatch.setattr(preflight, "check_memory", watched)
    monkeypatch.setattr(preflight, "PROBED_ITERATIONS", 1)
    preflight.check_memory_ahead(STAGES["alternating"][1], model, trainer.sources)
    rois = metrics[0]["foreground_rois"] + metrics[0]["background_rois"]
    assert float(rois) == recipe.detector.rois_per_step
    assert [reference() for reference in steps] == [None, None]
    for layer, weights in zip(model.layers(), before, strict=True):
        for value, old in zip(layer.get_weights(), weights, strict=True):
            np.testing.assert_array_equal(value, old)


def test_made_up_proposals_by_hand(demo_dataset):
    example = dataclasses.replace(
        demo_dataset.examples[0],
        height=100,
        width=200,
        boxes_image=np.array([[10, 20, 30, 60]], np.float32),
        classes=np.array([1]),
        difficult=np.array([False]),
    )
    (unit,) = training_units([example], flips=False)
    found = preflight.made_up_proposals(unit, 7, 0.25)
    expected = [
        [10, 20, 30, 60],
        [10, 20, 15, 60],
        [25, 20, 30, 60],
        [10, 20, 30, 30],
        [10, 50, 30, 60],
    ]
    np.testing.assert_array_equal(found, [*expected, *expected[:2]])
    empty = dataclasses.replace(
        example,
        boxes_image=np.zeros((0, 4), np.float32),
        classes=np.zeros(0, int),
        difficult=np.zeros(0, bool),
    )
    (unit,) = training_units([empty], flips=False)
    np.testing.assert_array_equal(preflight.made_up_proposals(unit, 1, 0.25), [[0, 0, 100, 200]])
