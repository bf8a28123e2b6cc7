"""The order of the data is that of the lists and names, not that in which the disk gives them.

Shapes and names
----------------
shuffled  what the system says lies in a folder, in another order.
"""

from __future__ import annotations

import os
import random

import pytest

from keras_frcnn.data.images import find_images
from keras_frcnn.data.voc import load_voc
from keras_frcnn.demo.devkit import write_demo_devkit
from keras_frcnn.training.units import training_units, unit_order


@pytest.fixture(scope="module")
def devkit(tmp_path_factory):
    folder = tmp_path_factory.mktemp("devkit")
    write_demo_devkit(folder, seed=1, train_images=8, test_images=2, size=(200, 220))
    return folder


@pytest.fixture
def shuffle(monkeypatch):
    """``shuffle(seed)``: from now on folders are listed in another order."""
    listdir, scandir = os.listdir, os.scandir

    def change(seed):
        rng = random.Random(seed)

        def shuffled_listdir(*arguments):
            names = listdir(*arguments)
            rng.shuffle(names)
            return names

        class Entries:
            """What ``os.scandir`` returns: an iterator and a context manager."""

            def __init__(self, entries):
                self.entries = iter(entries)

            def __iter__(self):
                return self

            def __next__(self):
                return next(self.entries)

            def __enter__(self):
                return self

            def __exit__(self, *exception):
                return None

            def close(self):
                return None

        def shuffled_scandir(*arguments):
            with scandir(*arguments) as found:
                entries = list(found)
            rng.shuffle(entries)
            return Entries(entries)

        monkeypatch.setattr(os, "listdir", shuffled_listdir)
        monkeypatch.setattr(os, "scandir", shuffled_scandir)

    return change


def seen(devkit):
    """Classes, images, and the units of the first iterations."""
    dataset = load_voc(devkit, None)
    units = training_units(dataset.examples, flips=True)
    order = unit_order(units, 2, seed=3, stage=1, first_iteration=0, iterations=20)
    photos = [path.name for path in find_images(devkit / "VOC2007" / "JPEGImages")[0]]
    return dataset.class_names, [units[index].key for index in order], photos


def test_shuffling_is_seen(devkit, shuffle):
    folder = devkit / "VOC2007" / "JPEGImages"
    before = os.listdir(folder)
    shuffle(1)
    assert os.listdir(folder) != before and sorted(os.listdir(folder)) == sorted(before)
    with os.scandir(folder) as entries:
        assert sorted(entry.name for entry in entries) == sorted(before)


@pytest.mark.parametrize("seed", range(5))
def test_the_order_in_which_folders_are_listed_changes_nothing(devkit, shuffle, seed):
    expected = seen(devkit)
    shuffle(seed)
    assert seen(devkit) == expected
