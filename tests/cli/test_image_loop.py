"""Pictures grouped by size, each exactly once, never too many waiting.

Shapes and names
----------------
picture  a position and pixels of some size.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from keras_frcnn.cli.image_loop import BATCHES_WAITING, Picture, in_batches


def pictures(sizes):
    for position, (height, width) in enumerate(sizes):
        yield Picture(position, Path(f"{position}.jpg"), np.zeros((height, width, 3), np.uint8))


def positions(groups):
    return [[picture.position for picture in group] for group in groups]


def test_one_by_one_in_order():
    assert positions(in_batches(pictures([(2, 3), (4, 5), (2, 3)]), 1)) == [[0], [1], [2]]


def test_a_group_goes_when_it_is_full_and_the_rest_at_the_end():
    sizes = [(2, 3), (4, 5), (2, 3), (2, 3), (4, 5), (4, 5)]
    assert positions(in_batches(pictures(sizes), 2)) == [[0, 2], [1, 4], [3], [5]]


def test_height_and_width_are_not_exchanged():
    assert positions(in_batches(pictures([(2, 3), (3, 2)]), 2)) == [[0], [1]]


@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_every_picture_once_and_few_in_memory(size):
    generator = np.random.default_rng(0)
    sizes = [tuple(pair) for pair in generator.integers(1, 4, (100, 2))]
    read, given, waiting = 0, [], 0

    def counted():
        nonlocal read
        for picture in pictures(sizes):
            read += 1
            yield picture

    for group in in_batches(counted(), size):
        waiting = max(waiting, read - len(given))
        given += group
        assert len({picture.pixels.shape for picture in group}) == 1
        assert len(group) <= size
    assert sorted(picture.position for picture in given) == list(range(100))
    assert waiting <= BATCHES_WAITING * size
