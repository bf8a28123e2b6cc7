"""The doubled list and the order of iterations.

Shapes and names
----------------
U  units; a batch is a row of unit indices.
"""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from keras_frcnn.data.dataset import Example
from keras_frcnn.training.units import (
    epoch_batches,
    steps_of_pass,
    steps_per_epoch,
    training_units,
    unit_order,
)


def example(index, height=100, width=150, difficult=(False, True)):
    boxes = np.array([[10, 20, 30, 50], [0, 0, 100, 60]], np.float32)[: len(difficult)]
    return Example(
        f"{index:06d}",
        "VOC2007",
        Path(f"{index}.jpg"),
        height,
        width,
        boxes,
        np.arange(1, len(difficult) + 1, dtype=np.int32),
        np.array(difficult, bool),
    )


def mixed(landscape, portrait):
    """Units of so many wide and so many high images, without flips."""
    wide = [example(index) for index in range(landscape)]
    high = [example(100 + index, 150, 100) for index in range(portrait)]
    return training_units([*wide, *high], flips=False)


def test_each_image_once_in_each_orientation():
    units = training_units([example(1), example(2)], flips=True)
    assert [unit.key for unit in units] == [
        "VOC2007/000001",
        "VOC2007/000002",
        "VOC2007/000001 flipped",
        "VOC2007/000002 flipped",
    ]
    assert len(training_units([example(1)], flips=False)) == 1


def test_difficult_objects_are_left_out_and_boxes_mirrored():
    plain, flipped = training_units([example(1)], flips=True)
    np.testing.assert_array_equal(plain.boxes_image, [[10, 20, 30, 50]])
    np.testing.assert_array_equal(plain.example.classes, [1])
    # x1' = 150 - 50, x2' = 150 - 20.
    np.testing.assert_array_equal(flipped.boxes_image, [[10, 100, 30, 130]])
    assert flipped.boxes_image.dtype == np.float32
    (empty,) = training_units([example(1, difficult=(True,))], flips=False)
    assert empty.boxes_image.shape == (0, 4)


@pytest.mark.parametrize(("units", "images", "steps"), [(10, 1, 10), (10, 2, 5), (11, 2, 6)])
def test_steps_of_an_epoch(units, images, steps):
    assert steps_per_epoch(units, images) == steps


def test_a_pass_leaves_out_what_gives_nothing():
    examples = [*map(example, range(5)), example(5, difficult=(True,)), example(6, difficult=())]
    assert steps_of_pass(examples, True, 1, needs_objects=False) == 14
    assert steps_of_pass(examples, True, 2, needs_objects=True) == 5
    assert steps_of_pass(examples, False, 2, needs_objects=True) == 3


@pytest.mark.parametrize("images_per_step", [1, 2, 3])
def test_every_unit_once_an_epoch(images_per_step):
    landscape = np.arange(17) % 3 > 0
    batches = epoch_batches(landscape, images_per_step, seed=1, stage=2, epoch=0)
    seen = batches.ravel().tolist()
    assert set(seen) == set(range(17))
    # A short last batch is filled with units that are then seen twice, once more at most.
    filled = -17 % images_per_step
    assert len(seen) == 17 + filled
    assert max(seen.count(unit) for unit in seen) <= 2


def test_batches_are_of_one_orientation():
    for epoch in range(10):
        landscape = np.arange(40) % 4 > 0  # 30 and 10: both even
        batches = epoch_batches(landscape, 2, seed=1, stage=2, epoch=epoch)
        kinds = landscape[batches]
        assert np.all(kinds[:, 0] == kinds[:, 1])
        # The kinds come mixed, not one after the other.
        assert np.count_nonzero(np.diff(kinds[:, 0].astype(int))) > 1
        odd = np.arange(40) % 40 > 8  # 31 and 9: one pair has to be mixed
        kinds = odd[epoch_batches(odd, 2, seed=1, stage=2, epoch=epoch)]
        assert np.count_nonzero(kinds[:, 0] != kinds[:, 1]) == 1


def test_the_order_is_a_pure_function_of_seed_stage_and_epoch():
    landscape = np.arange(30) % 2 == 0

    def order(**changes):
        keys = {"seed": 1, "stage": 2, "epoch": 3, **changes}
        return epoch_batches(landscape, 2, **keys).tolist()

    np.random.seed(5)
    first = order()
    np.random.seed(6)
    assert order() == first
    assert len({str(order(**change)) for change in ({}, {"seed": 2}, {"stage": 1})}) == 3
    assert order(epoch=4) != first


def test_resuming_gives_the_same_continuation():
    units = mixed(7, 4)

    def order(first):
        return list(unit_order(units, 2, seed=3, stage=1, first_iteration=first, iterations=20))

    whole = order(0)
    assert len(whole) == 40  # more than three epochs of 6 steps
    for first in (1, 5, 6, 7, 13, 19, 20):
        assert order(first) == whole[2 * first :]
    # Another length of the stage does not change what comes before.
    short = unit_order(units, 2, seed=3, stage=1, first_iteration=0, iterations=9)
    assert list(short) == whole[:18]
    endless = unit_order(units, 2, seed=3, stage=1, first_iteration=0, iterations=10**9)
    assert list(islice(endless, 40)) == whole


def test_grouping_uses_the_orientation_of_the_image():
    units = mixed(6, 4)
    order = list(unit_order(units, 2, seed=3, stage=1, first_iteration=0, iterations=5))
    wide = [units[index].example.width > units[index].example.height for index in order]
    assert wide[::2] == wide[1::2]
