"""Decoded images: read once, kept as they are, in memory or in a file that goes away.

Shapes and names
----------------
pixels  (H, W, 3) uint8 of a file.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keras_frcnn.data import dataset
from keras_frcnn.data.dataset import Example
from keras_frcnn.data.images import read_image
from keras_frcnn.errors import UserError
from keras_frcnn.training.caches import ImageCache

SIZES = ((20, 30), (40, 10), (1, 1))


@pytest.fixture
def examples(tmp_path):
    generator = np.random.default_rng(0)
    found = []
    for index, (height, width) in enumerate(SIZES):
        path = tmp_path / f"{index}.png"
        Image.fromarray(generator.integers(0, 256, (height, width, 3), np.uint8)).save(path)
        found.append(
            Example(
                image_id=str(index),
                source="VOC2007",
                path=path,
                height=height,
                width=width,
                boxes_image=np.zeros((0, 4), np.float32),
                classes=np.zeros(0, np.int32),
                difficult=np.zeros(0, bool),
            )
        )
    return found


@pytest.fixture
def reads(monkeypatch):
    """The files that were decoded, in order."""
    names = []

    def counted(path: Path, bits: int) -> np.ndarray:
        names.append(path.name)
        return read_image(path, bits)

    monkeypatch.setattr(dataset, "read_image", counted)
    return names


@pytest.mark.parametrize("place", ["memory", "disk"])
def test_each_file_is_decoded_once(examples, reads, tmp_path, place):
    file = tmp_path / "images.bin" if place == "disk" else None
    cache = ImageCache(examples, file)
    for _ in range(3):
        for example in examples[::-1]:
            np.testing.assert_array_equal(cache.read(example), read_image(example.path))
    assert reads == ["2.png", "1.png", "0.png"]
    if file is not None:
        assert file.stat().st_size == ImageCache.size_of(examples) == 3 * (600 + 400 + 1)
    cache.close()
    assert file is None or not file.exists()


def test_both_orientations_share_one_image(examples):
    assert ImageCache.size_of([*examples, *examples]) == ImageCache.size_of(examples)


def test_an_unreadable_file_is_named_and_read_again_when_it_is_back(examples, reads):
    cache = ImageCache(examples, None)
    path = examples[0].path
    kept = path.read_bytes()
    path.write_bytes(b"no image")
    with pytest.raises(UserError, match="0.png"):
        cache.read(examples[0])
    path.write_bytes(kept)
    np.testing.assert_array_equal(cache.read(examples[0]), read_image(path))
    assert reads == ["0.png", "0.png"]


def test_a_file_that_was_exchanged_is_not_kept(examples, reads):
    cache = ImageCache(examples, None)
    Image.fromarray(np.zeros((5, 6, 3), np.uint8)).save(examples[0].path)
    for _ in range(2):
        assert cache.read(examples[0]).shape == (5, 6, 3)
    assert reads == ["0.png", "0.png"]
