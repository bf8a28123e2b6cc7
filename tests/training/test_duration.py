"""How long steps and trainings take: the sums and the two points, with times that are known."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from keras_frcnn.network.faster_rcnn import FasterRcnn
from keras_frcnn.recipes import PAPER, StageSchedule
from keras_frcnn.runs.config import RunConfig, source_of
from keras_frcnn.training import duration
from tests.training.test_plan import config_of, dataset


def test_a_step_is_timed_at_two_sizes_and_linear_between(monkeypatch):
    data = dataset(size=(300, 400))
    timed = []

    def stage_seconds(model, stage, example, images):
        timed.extend(image.short_side for image in images)
        return [0.5 + 1e-6 * image.short_side**2 * 4 / 3 for image in images]

    monkeypatch.setattr(duration, "_model", lambda config: None)
    monkeypatch.setattr(duration, "stage_seconds", stage_seconds)
    found = duration.joint_seconds(config_of(data), data, (300, 600, 900))
    assert timed == [300, 600]
    expected = [0.5 + 1e-6 * side**2 * 4 / 3 for side in (300, 600, 900)]
    assert np.allclose(found, expected, rtol=1e-6)


def test_a_training_takes_its_steps_and_its_passes(monkeypatch):
    data = dataset(10)
    lengths = (100, 50, 80, 40)
    stages = tuple(map(StageSchedule.scaled_to, PAPER.stages, lengths))
    recipe = dataclasses.replace(PAPER, stages=stages)
    config = RunConfig(
        network="tiny", precision="float32", mode="alternating", seed=0, flips=True,
        class_names=data.class_names, initial_weights="random", stages=(1, 2, 3, 4),
        data=source_of(data), recipe=recipe,
    )  # fmt: skip
    seconds = {1: 2.0, 2: 3.0, 3: 0.1, 4: 0.2}
    monkeypatch.setattr(duration, "stage_seconds", lambda m, stage, *_: [seconds[stage.number]])
    forward = duration.FORWARD_SHARE * 2.0
    # Proposals after stages 1 and 3, and features for stage 3, of 20 units.
    expected = 100 * 2 + 50 * 3 + 80 * 0.1 + 40 * 0.2 + 3 * 20 * forward
    assert duration.expected_seconds(config, data) == pytest.approx(expected)


def test_the_typical_image_has_objects_and_the_median_ratio():
    data = dataset(3)
    wide = dataclasses.replace(data.examples[0], width=2000)
    empty = dataclasses.replace(
        data.examples[0], boxes_image=np.zeros((0, 4), np.float32),
        classes=np.zeros(0, np.int32), difficult=np.zeros(0, bool), width=481,
    )  # fmt: skip
    assert duration.typical([empty, wide, data.examples[1], data.examples[2]]) is data.examples[2]
    assert duration.typical([empty]) is empty


@pytest.mark.parametrize("mode", ["alternating", "joint"])
def test_every_stage_is_timed_on_the_data_themselves(mode, run_config, demo_dataset):
    stages = (1, 2, 3, 4) if mode == "alternating" else ()
    config = dataclasses.replace(run_config(), mode=mode, stages=stages)
    recipe, network, names = config.recipe, config.network, config.class_names
    model = FasterRcnn(network, names, recipe, precision=config.precision, seed=0)
    example = duration.typical(demo_dataset.examples)
    for stage in config.plan:
        (second,) = duration.stage_seconds(model, stage, example, [recipe.image])
        assert 0 < second < 10
    assert duration.expected_seconds(config, demo_dataset) > 0
