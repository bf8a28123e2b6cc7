"""The proposal file: round trip, whole or not at all, and refusals.

Shapes and names
----------------
P  proposals of one unit.
"""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from keras_frcnn.errors import UserError
from keras_frcnn.training.proposal_store import ProposalStore

KEYS = ("VOC2007/000005", "VOC2007/000007", "list/größe.png flipped")


@pytest.fixture
def store():
    rng = np.random.default_rng(0)
    boxes = [rng.uniform(0, 9, (count, 4)) for count in (3, 0, 2)]
    return ProposalStore.from_lists(KEYS, boxes, [rng.uniform(0, 1, len(entry)) for entry in boxes])


def test_round_trip(store, tmp_path):
    store.save(tmp_path / "stage1.h5")
    again = ProposalStore.load(tmp_path / "stage1.h5", KEYS)
    assert again.keys == KEYS
    assert [len(again.boxes_of(index)) for index in range(3)] == [3, 0, 2]
    for index in range(3):
        np.testing.assert_array_equal(again.boxes_of(index), store.boxes_of(index))
    np.testing.assert_array_equal(again.scores, store.scores)
    assert again.boxes_image.dtype == again.scores.dtype == np.float32
    assert [path.name for path in tmp_path.iterdir()] == ["stage1.h5"]


def test_no_proposals_at_all(tmp_path):
    empty = ProposalStore.from_lists(KEYS[:1], [np.zeros((0, 4))], [np.zeros(0)])
    empty.save(tmp_path / "stage1.h5")
    assert ProposalStore.load(tmp_path / "stage1.h5", KEYS[:1]).boxes_of(0).shape == (0, 4)


def test_a_file_of_other_images_is_refused(store, tmp_path):
    path = tmp_path / "stage1.h5"
    store.save(path)
    for keys in (KEYS[::-1], KEYS[:2], (*KEYS[:2], "VOC2007/000009")):
        with pytest.raises(UserError, match=r"stage1\.h5 holds proposals of .*delete it"):
            ProposalStore.load(path, keys)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(b"no HDF5"),
        lambda path: path.write_bytes(path.read_bytes()[:900]),
    ],
)
def test_an_unreadable_file_is_refused(store, tmp_path, damage):
    path = tmp_path / "stage1.h5"
    store.save(path)
    damage(path)
    with pytest.raises(UserError, match=r"stage1\.h5"):
        ProposalStore.load(path, KEYS)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("offsets", [0, 3, 3, 6]),
        ("offsets", [0, 3, 2, 5]),
        ("offsets", [1, 3, 3, 5]),
        ("boxes", np.zeros((5, 5), "f")),
        ("scores", np.zeros(4, "f")),
    ],
)
def test_an_inconsistent_file_is_refused(store, tmp_path, name, values):
    path = tmp_path / "stage1.h5"
    store.save(path)
    with h5py.File(path, "r+") as file:
        del file[name]
        file[name] = values
    with pytest.raises(UserError, match="inconsistent"):
        ProposalStore.load(path, KEYS)


def test_another_format_is_refused(store, tmp_path):
    path = tmp_path / "stage1.h5"
    store.save(path)
    with h5py.File(path, "r+") as file:
        file.attrs["format"] = "keras_frcnn proposals 99"
    with pytest.raises(UserError, match="proposals 99"):
        ProposalStore.load(path, KEYS)


def outside(content):
    content["boxes"] = h5py.ExternalLink("secret.h5", "boxes")


def around(content):
    content["boxes"] = h5py.SoftLink("/boxes")


def by_name_only(content):
    content.create_dataset("boxes", (5, 4), "f", external=[("secret", 0, 80)])


def claimed(content):
    content.create_dataset("boxes", (10**12, 4), "f", chunks=(1024, 4), compression="gzip")


def whole_numbers(content):
    content["boxes"] = np.ones((5, 4), np.int64)


def a_group(content):
    content.create_group("boxes")


def nothing(content):
    pass


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (outside, "does not hold the array boxes itself"),
        (around, "does not hold the array boxes itself"),
        (by_name_only, "does not hold the array boxes itself"),
        (claimed, "boxes claims 16000000000000 bytes"),
        (whole_numbers, "boxes is int64"),
        (a_group, "does not hold the array boxes itself"),
        (nothing, "it has no boxes"),
    ],
)
def test_nothing_is_read_that_the_file_does_not_hold(store, tmp_path, change, reason):
    path = tmp_path / "stage1.h5"
    store.save(path)
    with h5py.File(path, "r+") as content:
        del content["boxes"]
        change(content)
    with pytest.raises(UserError, match=rf"stage1\.h5 cannot be read .*{reason}"):
        ProposalStore.load(path, KEYS)


def test_names_that_are_no_utf_8_are_refused(store, tmp_path):
    path = tmp_path / "stage1.h5"
    store.save(path)
    with h5py.File(path, "r+") as content:
        content["keys"][0] = b"\xff"
    with pytest.raises(UserError, match="cannot be read .*utf-8"):
        ProposalStore.load(path, KEYS)
