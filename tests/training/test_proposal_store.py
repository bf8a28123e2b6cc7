"""Proposals of the training images: round trip through their file, and refusals.

Shapes and names
----------------
P  proposals of one unit.
"""

from __future__ import annotations

import numpy as np
import pytest

from keras_frcnn.errors import UserError
from keras_frcnn.proposals.given import ScoredBoxes, ranked
from keras_frcnn.training.proposal_store import ProposalStore

KEYS = ("VOC2007/000005", "VOC2007/000007", "list/größe.png flipped")


@pytest.fixture
def store():
    rng = np.random.default_rng(0)
    boxes = [rng.uniform(0, 9, (count, 4)) + (0, 0, 9, 9) for count in (3, 0, 2)]
    found = [ScoredBoxes(entry.astype("f"), rng.random(len(entry), np.float32)) for entry in boxes]
    return ProposalStore(dict(zip(KEYS, found, strict=True)))


def test_round_trip(store, tmp_path):
    store.save(tmp_path / "stage1.h5", {"run": "a"})
    again = ProposalStore.load(tmp_path / "stage1.h5", KEYS)
    assert tuple(again.entries) == KEYS
    assert again.record == {"run": "a", "proposals": 5}
    assert [len(again.boxes_of(index)) for index in range(3)] == [3, 0, 2]
    for index in range(3):
        np.testing.assert_array_equal(again.boxes_of(index), store.boxes_of(index))
    for key, entry in again.entries.items():
        np.testing.assert_array_equal(entry.scores, store.entries[key].scores)
        assert entry.boxes_image.dtype == entry.scores.dtype == np.float32
    assert [path.name for path in tmp_path.iterdir()] == ["stage1.h5"]


def test_no_proposals_at_all(tmp_path):
    empty = ProposalStore({KEYS[0]: ranked([])})
    empty.save(tmp_path / "stage1.h5")
    assert ProposalStore.load(tmp_path / "stage1.h5", KEYS[:1]).boxes_of(0).shape == (0, 4)


def test_a_file_of_other_images_is_refused(store, tmp_path):
    path = tmp_path / "stage1.h5"
    store.save(path)
    for keys in (KEYS[::-1], KEYS[:2], (*KEYS[:2], "VOC2007/000009")):
        with pytest.raises(UserError, match=r"stage1\.h5 holds proposals of .*delete it"):
            ProposalStore.load(path, keys)
