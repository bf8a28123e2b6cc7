"""The step before a long stage: on the largest images, and without a trace in the weights.

Shapes and names
----------------
unit  one training image in one orientation.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from keras_frcnn.errors import UserError
from keras_frcnn.recipes import PAPER
from keras_frcnn.training import fitting, probe
from keras_frcnn.training.probe import check_memory, largest_units
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
    with pytest.raises(UserError, match="Stage 2 needs more memory .*big.jpg.*--short_side"):
        check_memory(Exhausted(), lambda found: [], [7, 7], ["big.jpg", "big.jpg"], 2)


def test_a_probed_run_has_the_weights_of_one_that_was_not(
    trainer_of, run_config, demo_dataset, tmp_path, monkeypatch
):
    from keras_frcnn.network.weights import read_layers
    from keras_frcnn.runs import RunFolder

    probed, found = [], []

    def counted(*arguments):
        probed.append(arguments[-1])
        check_memory(*arguments)

    monkeypatch.setattr(fitting, "check_memory", counted)
    for name, least in (("plain", 1000), ("probed", 1)):
        monkeypatch.setattr(fitting, "PROBED_ITERATIONS", least)
        run = RunFolder(tmp_path / name)
        config = run_config(stages=(1, 2))
        run.create(config, [])
        trainer_of(config, demo_dataset, run)[0].train()
        found.append(read_layers(run.weights_file("stage2")).layers)
    assert probed == [1, 2]
    for layer, weights in found[0].items():
        for weight, values in weights.items():
            np.testing.assert_array_equal(values, found[1][layer][weight])
    assert probe.PROBED_ITERATIONS == 1000
