"""Checkpoints: bit-exact, whole or not at all, and never another network's.

Shapes and names
----------------
iteration  solver iterations already done.
"""

from __future__ import annotations

import json
import os
import zlib

import h5py
import numpy as np
import pytest
import tensorflow as tf

from keras_frcnn.errors import UserError
from keras_frcnn.recipes import OptimizerConfig
from keras_frcnn.training.checkpoint import Checkpoints
from keras_frcnn.training.log import check_state
from keras_frcnn.training.optimizer import LossScale, MomentumOptimizer
from tests.limits import file_size_limit


def optimizer_of(*shapes, seed=0):
    """Variables and velocities with random values."""
    rng = np.random.default_rng(seed)
    variables = [tf.Variable(rng.normal(size=shape).astype("f")) for shape in shapes]
    optimizer = MomentumOptimizer(variables, OptimizerConfig())
    for velocity in optimizer.velocities:
        velocity.assign(rng.normal(size=velocity.shape))
    return optimizer


def values(optimizer):
    held = (*optimizer.variables_trained, *optimizer.velocities)
    return [variable.numpy() for variable in held]


def assert_same(one, other):
    for left, right in zip(values(one), values(other), strict=True):
        np.testing.assert_array_equal(left, right)


def sound_window(**changes):
    state = {"last_losses": [0.5], "values": [], "images": 2}
    return {**state, "waited": 0.1, "seconds": 1.5, **changes}


def check(done, window):
    check_state(window, {"loss"}, done, 100)


def anything(done, window):
    """Does without a window."""


@pytest.fixture
def saved(tmp_path):
    """Checkpoints of iterations 10 and 20, and the optimizers as they were."""
    checkpoints = Checkpoints(tmp_path / "checkpoints", 2)
    optimizers = {}
    for iteration in (10, 20):
        scale = LossScale(dynamic=True)
        scale.scale.assign(2.0**iteration)
        scale.good_steps.assign(iteration)
        optimizers[iteration] = optimizer_of((3, 4), (4,), seed=iteration)
        checkpoints.save(
            iteration,
            optimizers[iteration],
            scale,
            sound_window(waited=0.1 + iteration, values=(iteration % 20) * [{"loss": 0.5}]),
        )
    return checkpoints, optimizers


def test_restores_the_newest_bit_by_bit(saved):
    checkpoints, optimizers = saved
    optimizer, scale = optimizer_of((3, 4), (4,)), LossScale(dynamic=True)
    assert checkpoints.restore(optimizer, scale, anything) == (20, sound_window(waited=20.1), [])
    assert_same(optimizer, optimizers[20])
    assert (float(scale.scale), int(scale.good_steps)) == (2.0**20, 20)


def test_nothing_to_restore(tmp_path):
    optimizer = optimizer_of((3,))
    before = values(optimizer)
    checkpoints = Checkpoints(tmp_path / "none", 1)
    assert checkpoints.restore(optimizer, LossScale(dynamic=False), anything) == (0, {}, [])
    np.testing.assert_array_equal(values(optimizer)[0], before[0])


def test_only_the_newest_two_of_the_own_stage_are_kept(saved):
    checkpoints, optimizers = saved
    other = Checkpoints(checkpoints.folder, 1)
    other.save(5, optimizers[10], LossScale(dynamic=False), {})
    checkpoints.save(100_000, optimizers[20], LossScale(dynamic=False), {})
    names = sorted(path.name for path in checkpoints.folder.iterdir())
    assert names == ["stage1-00000005.h5", "stage2-00000020.h5", "stage2-00100000.h5"]
    assert checkpoints.files()[0].name == "stage2-00100000.h5"
    checkpoints.clear()
    assert [path.name for path in checkpoints.folder.iterdir()] == ["stage1-00000005.h5"]


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def garbage(path):
    path.write_bytes(b"nothing of use")


def empty(path):
    path.write_bytes(b"")


def head_only(path):
    path.write_bytes(path.read_bytes()[:512])


def one_bit(path):
    with h5py.File(path, "r+") as file:
        file["0000/weight"][0, 0] *= 2


def other_program(path):
    path.write_bytes(path.read_bytes().replace(b"keras_frcnn", b"frcnn_keras"))


@pytest.mark.parametrize(
    "damage",
    [truncate, garbage, empty, head_only, one_bit, other_program],
)
def test_a_damaged_newest_falls_back_to_the_one_before(saved, damage):
    checkpoints, optimizers = saved
    damage(checkpoints.files()[0])
    optimizer = optimizer_of((3, 4), (4,))
    iteration, _, notes = checkpoints.restore(optimizer, LossScale(dynamic=True), anything)
    assert iteration == 10
    assert_same(optimizer, optimizers[10])
    (note,) = notes
    assert "stage2-00000020.h5 is damaged (" in note
    assert note.endswith("stage2-00000010.h5 is used.")


def test_a_newer_format_is_refused_and_not_taken_for_damage(saved):
    checkpoints, _ = saved
    newest = checkpoints.files()[0]
    newest.write_bytes(newest.read_bytes().replace(b"checkpoint 1", b"checkpoint 9"))
    with pytest.raises(UserError, match=r"checkpoint format 9, this .* reads 1; update"):
        checkpoints.restore(optimizer_of((3, 4), (4,)), LossScale(dynamic=True), anything)


def spoil(path, change):
    """Lets ``change`` work on the open file and puts the right checksum on it, as a foe would."""
    with h5py.File(path, "r+") as file:
        change(file)
    with open(path, "r+b") as stream:
        stream.seek(512)
        checksum = zlib.crc32(stream.read())
        stream.seek(0)
        stream.write(f"keras_frcnn checkpoint 1 {checksum:08x}\n".encode())


def set_header(**changes):
    def change(file):
        header = json.loads(file.attrs["header"])
        file.attrs["header"] = json.dumps({**header, **changes})

    return change


def without(name):
    def change(file):
        header = json.loads(file.attrs["header"])
        del header[name]
        file.attrs["header"] = json.dumps(header)

    return change


def replace_weight(**options):
    def change(file):
        del file["0000/weight"]
        file["0000"].create_dataset("weight", **options)

    return change


def link_weight(link):
    def change(file):
        del file["0000/weight"]
        file["0000/weight"] = link

    return change


def no_header(file):
    del file.attrs["header"]


def no_velocity(file):
    del file["0000/velocity"]


def group_elsewhere(file):
    del file["0000"]
    file["0000"] = h5py.ExternalLink("secret.h5", "0000")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (replace_weight(shape=(10**6, 10**6), dtype="f4"), "weight claims 4000000000000 bytes"),
        (
            replace_weight(shape=(10**6, 10**6), dtype="f4", chunks=(64, 64), compression="gzip"),
            "weight claims 4000000000000 bytes",
        ),
        (replace_weight(data=np.ones((3, 4), np.int32)), "weight is int32 of shape"),
        (replace_weight(data=b"text"), "not what the format says"),
        (
            replace_weight(shape=(3, 4), dtype="f4", external=[("secret", 0, 48)]),
            "does not hold the array weight itself",
        ),
        (link_weight(h5py.ExternalLink("secret.h5", "weight")), "does not hold the array weight"),
        (link_weight(h5py.SoftLink("/0000/weight")), "does not hold the array weight itself"),
        (group_elsewhere, "does not hold the group 0000 itself"),
        (no_velocity, "has no velocity"),
        (no_header, "lacks what a checkpoint holds"),
        (set_header(iteration=-1), "are no counts"),
        (set_header(iteration="20"), "are no counts"),
        (set_header(good_steps=1e300), "are no counts"),
        (set_header(window=[]), "its window is none"),
        (set_header(window=sound_window(values=[{"loss": "1"}])), "its window is none"),
        (set_header(window=sound_window(values=[{"a": 1.0}, {"b": 1.0}])), "its window is none"),
        (set_header(window=sound_window(images=None)), "its window is none"),
        (set_header(window=sound_window(last_losses=[float("inf")])), "its window is none"),
        (set_header(loss_scale=float("nan")), "no number above 0"),
        (set_header(loss_scale=None), "no number above 0"),
        (set_header(run=["a"]), "of another run"),
        (set_header(run=None), "of another run"),
        (set_header(window={}), "its window is none"),
        (set_header(window=sound_window(values=[{}])), "its window is none"),
        (set_header(window=sound_window(values=[{"loss": 0.5}])), "its window is none"),
        (set_header(window=sound_window(values=[{"loss": 10**400}])), "its window is none"),
        (without("window"), "lacks what a checkpoint holds"),
        (without("run"), "lacks what a checkpoint holds"),
        (set_header(iteration=10), "its name is not that of iteration 10"),
        (set_header(iteration=10**6), "its name is not that of iteration 1000000"),
        (replace_weight(data=np.full((3, 4), np.nan, "f4")), "are not finite"),
    ],
)
def test_a_hostile_one_with_the_right_checksum_is_passed_over(saved, change, reason):
    checkpoints, optimizers = saved
    spoil(checkpoints.files()[0], change)
    optimizer = optimizer_of((3, 4), (4,))
    iteration, _, notes = checkpoints.restore(optimizer, LossScale(dynamic=True), check)
    assert iteration == 10
    assert_same(optimizer, optimizers[10])
    assert reason in notes[0]


@pytest.mark.parametrize("renamed_to", [None, 120])
def test_one_beyond_the_end_of_the_stage_is_passed_over(saved, renamed_to):
    checkpoints, optimizers = saved
    newest = checkpoints.files()[0]
    spoil(newest, set_header(iteration=120))
    if renamed_to is not None:
        newest.rename(newest.with_name(f"stage2-{renamed_to:08d}.h5"))
    optimizer = optimizer_of((3, 4), (4,))
    iteration, _, notes = checkpoints.restore(optimizer, LossScale(dynamic=True), check)
    assert (iteration, len(notes)) == (10, 1)
    assert_same(optimizer, optimizers[10])


@pytest.mark.parametrize("make", ["folder", "pipe", "link"])
def test_what_is_no_file_is_neither_read_nor_in_the_way(saved, make):
    checkpoints, optimizers = saved
    odd = checkpoints.folder / "stage2-00000050.h5"
    if make == "folder":
        odd.mkdir()
    elif make == "pipe":
        os.mkfifo(odd)
    else:
        odd.symlink_to("/dev/zero")
    optimizer = optimizer_of((3, 4), (4,))
    assert checkpoints.restore(optimizer, LossScale(dynamic=True), check)[0] == 20
    assert_same(optimizer, optimizers[20])
    checkpoints.save(60, optimizer, LossScale(dynamic=True), sound_window())
    checkpoints.save(80, optimizer, LossScale(dynamic=True), sound_window())
    checkpoints.clear()


def test_the_same_array_under_many_names_is_not_read_again_and_again(saved):
    checkpoints, _ = saved

    def many(file):
        for index in range(1000):
            file[f"9{index:04d}"] = file["0000"]

    spoil(checkpoints.files()[0], many)
    _, _, notes = checkpoints.restore(optimizer_of((3, 4), (4,)), LossScale(dynamic=True), anything)
    assert "is of another run (it holds 1002 variables, this stage trains 2)" in notes[0]


def test_any_flipped_byte_is_survived(saved):
    """Neither wrong numbers nor the endless loops of the HDF5 library in a damaged file."""
    checkpoints, optimizers = saved
    newest = checkpoints.files()[0]
    whole = newest.read_bytes()
    optimizer = optimizer_of((3, 4), (4,))
    rng = np.random.default_rng(0)
    for _ in range(50):
        hurt = bytearray(whole)
        for position in rng.integers(0, len(whole), 3):
            hurt[position] ^= int(rng.integers(1, 256))
        newest.write_bytes(bytes(hurt))
        iteration, _, notes = checkpoints.restore(optimizer, LossScale(dynamic=True), anything)
        assert (iteration, len(notes)) == (10, 1)
        assert_same(optimizer, optimizers[10])


def test_all_damaged_starts_the_stage_again(saved):
    checkpoints, _ = saved
    for path in checkpoints.files():
        garbage(path)
    optimizer = optimizer_of((3, 4), (4,))
    before = values(optimizer)
    iteration, _, notes = checkpoints.restore(optimizer, LossScale(dynamic=True), anything)
    assert (iteration, len(notes)) == (0, 2)
    assert notes[-1].endswith("the stage starts again.")
    for old, new in zip(before, values(optimizer), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((3, 4), (5,)), r"has the shape \(4,\), expected \(5,\).*another network"),
        (((3, 4),), r"holds 2 variables, this stage trains 1.*another network"),
    ],
)
def test_another_network_is_refused_and_nothing_assigned(saved, shapes, message):
    checkpoints, _ = saved
    optimizer = optimizer_of(*shapes)
    before = values(optimizer)
    with pytest.raises(UserError, match=message):
        checkpoints.restore(optimizer, LossScale(dynamic=True), anything)
    for old, new in zip(before, values(optimizer), strict=True):
        np.testing.assert_array_equal(old, new)


def checkpoint_of(folder, identity, iteration, *shapes, seed=0):
    """Writes a checkpoint of a run; returns the optimizer as it was."""
    optimizer = optimizer_of(*shapes, seed=seed)
    scale = LossScale(dynamic=False)
    Checkpoints(folder, 2, identity).save(iteration, optimizer, scale, {})
    return optimizer


def test_one_of_another_run_is_passed_over_for_an_older_one_of_this(tmp_path):
    """The network is the same, so that only the configuration tells them apart."""
    own = checkpoint_of(tmp_path, "own", 10, (3, 4), seed=1)
    checkpoint_of(tmp_path, "other", 20, (3, 4), seed=2)
    optimizer = optimizer_of((3, 4))
    found = Checkpoints(tmp_path, 2, "own").restore(optimizer, LossScale(dynamic=False), anything)
    assert found[:2] == (10, {})
    assert_same(optimizer, own)
    (note,) = found[2]
    assert "00000020.h5 is of another run (it was written with another configuration" in note
    assert note.endswith("stage2-00000010.h5 is used.")


def test_one_of_another_network_is_passed_over_for_an_older_one_of_this(tmp_path):
    own = checkpoint_of(tmp_path, "own", 10, (3, 4), seed=1)
    checkpoint_of(tmp_path, "other", 20, (3, 5))
    optimizer = optimizer_of((3, 4))
    iteration, _, notes = Checkpoints(tmp_path, 2, "own").restore(
        optimizer, LossScale(dynamic=False), anything
    )
    assert (iteration, len(notes)) == (10, 1)
    assert_same(optimizer, own)
    assert "has the shape (3, 5), expected (3, 4)" in notes[0]


@pytest.mark.parametrize("older", [None, "foreign", "damaged"])
def test_nothing_but_another_runs_is_refused_and_nothing_assigned(tmp_path, older):
    if older is not None:
        checkpoint_of(tmp_path, "third", 10, (3, 4), seed=1)
    if older == "damaged":
        truncate(tmp_path / "stage2-00000010.h5")
    checkpoint_of(tmp_path, "other", 20, (3, 4), seed=2)
    optimizer = optimizer_of((3, 4))
    before = values(optimizer)
    with pytest.raises(UserError, match=r"00000020\.h5 was written with another conf.*Take it out"):
        Checkpoints(tmp_path, 2, "own").restore(optimizer, LossScale(dynamic=False), anything)
    for old, new in zip(before, values(optimizer), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_save_that_fails_leaves_the_older_ones(saved, monkeypatch):
    checkpoints, optimizers = saved

    def no_room(*arguments):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "replace", no_room)
    with pytest.raises(OSError, match="No space left"):
        checkpoints.save(30, optimizers[10], LossScale(dynamic=True), {})
    optimizer = optimizer_of((3, 4), (4,))
    assert checkpoints.restore(optimizer, LossScale(dynamic=True), anything)[0] == 20
    assert_same(optimizer, optimizers[20])


def test_a_full_disk_at_any_place_keeps_the_older_checkpoints(saved, tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints", 2)
    before = {path: path.read_bytes() for path in checkpoints.files()}
    size = max(map(len, before.values()))
    for limit in range(0, size, size // 40):
        with file_size_limit(limit), pytest.raises(OSError) as error:
            checkpoints.save(30, optimizer_of((3, 4), (4,)), LossScale(True), sound_window())
        assert error.value.filename == str(checkpoints.folder / "stage2-00000030.h5")
        assert {path: path.read_bytes() for path in checkpoints.folder.iterdir()} == before
