"""The input's rate is measured on whole passes, from files and from the cache.

Shapes and names
----------------
read  the images that the pipeline took.
"""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

from benchmarks.input_rate import time_pass
from keras_frcnn.data.voc import load_voc
from keras_frcnn.demo.devkit import write_demo_devkit
from keras_frcnn.recipes import PAPER
from keras_frcnn.training.units import training_units


def test_every_unit_is_read_once(tmp_path):
    devkit = tmp_path / "VOCdevkit"
    write_demo_devkit(devkit, seed=1, train_images=3, test_images=1, size=(200, 240))
    units = training_units(load_voc(devkit, "2007:trainval").examples, flips=True)
    read = []

    def noted(example):
        read.append(example)
        return example.pixels()

    config = dataclasses.replace(PAPER.image, short_side=60, long_side=100)
    wall, cpu = time_pass(units, config, SimpleNamespace(read=noted), workers=1)
    assert read == [unit.example for unit in units]
    assert len(read) == 6
    assert wall > 0
    assert cpu > 0
