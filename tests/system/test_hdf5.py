"""One rule for arrays of every HDF5 file: compressed copies are read, false claims are not."""

from __future__ import annotations

import errno
import os
import signal

import h5py
import numpy as np
import pytest

from keras_frcnn.errors import UserError
from keras_frcnn.network.weights import write_arrays
from keras_frcnn.proposals.files import read_proposals, write_proposals
from keras_frcnn.proposals.given import GivenProposals, ScoredBoxes
from keras_frcnn.system.files import written_whole
from keras_frcnn.system.hdf5 import MAX_COMPRESSION, find_array, find_member, new_hdf5
from keras_frcnn.system.signals import Terminated, signals_raise
from keras_frcnn.training.proposal_store import ProposalStore
from tests.limits import file_size_limit
from tests.read_weights import read_layers

BOXES = np.tile(np.array([[1, 2, 30, 40]], np.float32), (5000, 1))
SCORES = np.linspace(1, 0, 5000, dtype=np.float32)
WEIGHTS = {"fc6": {"kernel": np.zeros((500, 100), np.float32), "bias": np.ones(100, np.float32)}}


def given(path):
    write_proposals(path, GivenProposals({"a": ScoredBoxes(BOXES, SCORES)}, "rpn", {}, "here"))


def of_a_stage(path):
    ProposalStore({"a": ScoredBoxes(BOXES, SCORES)}).save(path)


def weights(path):
    write_arrays(path, WEIGHTS, {"stage": 1})


@pytest.mark.parametrize("write", [given, of_a_stage, weights])
def test_a_full_disk_at_any_place_is_one_error(tmp_path, write):
    """HDF5 raised others in its place, of many lines, and ended the process at the second."""
    path = tmp_path / "file.h5"
    write(path)
    whole = path.read_bytes()
    for limit in range(0, len(whole), max(1, len(whole) // 150)):
        with file_size_limit(limit), pytest.raises(OSError) as error:
            write(path)
        assert (error.value.errno, error.value.filename) == (errno.EFBIG, str(path))
        assert error.value.strerror == os.strerror(errno.EFBIG)
        assert path.read_bytes() == whole and list(tmp_path.iterdir()) == [path]
    with file_size_limit(2 * len(whole)):
        write(path)
    assert path.read_bytes() == whole


def test_a_signal_waits_until_the_file_is_whole(tmp_path):
    """Raised within HDF5, which calls Python to write, it would be an error of the disk."""
    path = tmp_path / "file.h5"
    stopped = pytest.raises(Terminated)
    with stopped, signals_raise(), written_whole(path) as partial, new_hdf5(partial) as file:
        signal.raise_signal(signal.SIGTERM)
        file["a"] = SCORES
    with h5py.File(path) as file:
        assert np.array_equal(file["a"], SCORES)


def compress(path, **options):
    """What h5repack does: every array in chunks through a filter."""
    with h5py.File(path, "r+") as file:
        names = []
        file.visit(names.append)
        for name in (name for name in names if isinstance(file[name], h5py.Dataset)):
            values = file[name][()]
            del file[name]
            file.create_dataset(name, data=values, chunks=True, **options)
    copy = path.with_suffix(".copy")
    with h5py.File(path) as file, h5py.File(copy, "w") as smaller:  # deleting frees no room
        for name in file:
            file.copy(name, smaller)
        smaller.attrs.update(file.attrs)
    copy.replace(path)


@pytest.mark.parametrize(
    "options",
    [{"compression": "gzip", "compression_opts": 9}, {"compression": "lzf", "shuffle": True}],
    ids=["gzip", "lzf"],
)
@pytest.mark.parametrize("write", [given, of_a_stage, weights])
def test_a_compressed_copy_is_read(tmp_path, write, options):
    path = tmp_path / "file.h5"
    write(path)
    before = path.stat().st_size
    compress(path, **options)
    assert path.stat().st_size < min(before, BOXES.nbytes), "so large a copy passes any rule"
    if write is given:
        boxes, scores = read_proposals(path).entries["a"]
    elif write is of_a_stage:
        boxes, scores = ProposalStore.load(path, ["a"]).entries["a"]
    else:
        read = read_layers(path)
        assert read.metadata == {"stage": 1}
        for name, values in WEIGHTS["fc6"].items():
            np.testing.assert_array_equal(read.layers["fc6"][name], values)
        return
    np.testing.assert_array_equal(boxes, BOXES)
    np.testing.assert_array_equal(scores, SCORES)


def claim_more(path, name):
    """One chunk is stored, of so many that no compression could have made them so small."""
    with h5py.File(path, "r+") as file:
        shape = file[name].shape
        values = np.random.default_rng(0).random((64, *shape[1:]), np.float32)
        del file[name]
        rows = 64 * 2 * MAX_COMPRESSION
        array = file.create_dataset(
            name, (rows, *shape[1:]), "f4", chunks=values.shape, compression="gzip"
        )
        array[:64] = values


@pytest.mark.parametrize(
    ("write", "name", "read"),
    [
        (given, "boxes", read_proposals),
        (of_a_stage, "boxes", lambda path: ProposalStore.load(path, ["a"])),
        (weights, "fc6/fc6/kernel:0", read_layers),
    ],
)
def test_more_than_compression_can_hold_is_refused(tmp_path, write, name, read):
    path = tmp_path / "file.h5"
    write(path)
    claim_more(path, name)
    with pytest.raises(UserError, match=rf"{name} claims \d+ bytes of which \d+ are stored"):
        read(path)


def test_members_below_groups(tmp_path):
    path = tmp_path / "file.h5"
    weights(path)
    with h5py.File(path, "r+") as file:
        file["other"] = h5py.SoftLink("/fc6")
        assert find_member(file, "fc6/fc6", "group") == file["fc6/fc6"]
        assert find_array(path, file, "fc6/fc6/bias:0", "f", 1).shape == (100,)
        for name in ("absent", "fc6/absent", "fc6/fc6/bias:0/below"):
            with pytest.raises(ValueError, match=f"it has no {name}"):
                find_member(file, name, "group")
        with pytest.raises(ValueError, match="does not hold the array other/fc6/bias:0 itself"):
            find_array(path, file, "other/fc6/bias:0", "f", 1)
