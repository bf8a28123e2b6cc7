"""The harness of the fuzz suite fails where it should: a case that does wrong, on purpose."""

import os
import time
from contextlib import suppress

import numpy as np
import pytest

from tests.fuzz import harness
from tests.fuzz.harness import damaged, only_touched, watched


def test_a_case_that_reads_passes(tmp_path):
    (tmp_path / "a").write_text("x")
    with watched(tmp_path):
        assert (tmp_path / "a").read_text() == "x"


def append(folder):
    with open(folder / "a", "a") as stream:
        stream.write("y")


def by_descriptor(folder):
    os.close(os.open(folder / "b", os.O_WRONLY | os.O_CREAT))


WRONGS = {
    "append": append,
    "by descriptor": by_descriptor,
    "make": lambda folder: (folder / "b").mkdir(),
    "remove": lambda folder: (folder / "a").unlink(),
    "move": lambda folder: (folder / "a").rename(folder / "b"),
    "link": lambda folder: (folder / "b").symlink_to(folder / "a"),
    "change": lambda folder: (folder / "a").chmod(0o600),
    "time": lambda folder: os.utime(folder / "a", (1, 1)),
}


@pytest.mark.parametrize("wrong", WRONGS.values(), ids=WRONGS.keys())
@pytest.mark.parametrize("place", ["data", "elsewhere"])
def test_a_touched_file_fails(place, wrong, tmp_path):
    for name in ("data", "elsewhere"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a").write_text("x")
    with pytest.raises(AssertionError, match="touched"), watched(tmp_path / "data"):
        wrong(tmp_path / place)


def test_what_changes_without_python_is_seen_in_the_data(tmp_path):
    with pytest.raises(AssertionError, match="touched the data"), watched(tmp_path):
        os.system(f"touch {tmp_path}/b")  # a process of its own


def test_a_hang_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(harness, "SECONDS", 1)
    with pytest.raises(TimeoutError, match="more than 1 seconds"), watched(tmp_path):
        time.sleep(20)


def test_a_hang_that_is_taken_for_another_error_fails():
    hung = pytest.raises(AssertionError, match="more than 1 seconds")
    with hung, harness.limited(1, 2**40), suppress(OSError):
        time.sleep(20)


@pytest.mark.skipif(harness.peak_memory() == 0, reason="no /proc/self/status with VmHWM")
def test_memory_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(harness, "MEMORY_BYTES", 20 * 2**20)
    with pytest.raises(AssertionError, match="MiB"), watched(tmp_path):
        np.ones(40 * 2**20, np.uint8)


def test_the_output_folder_may_be_written(tmp_path):
    with only_touched(tmp_path / "out"):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "a").write_text("x")
    with pytest.raises(AssertionError, match="outside"), only_touched(tmp_path / "out"):
        (tmp_path / "outside").write_text("x")


def test_the_same_case_is_damaged_in_the_same_way():
    data = bytes(range(256)) * 4
    first, second = (damaged(data, np.random.default_rng(7)) for _ in range(2))
    assert first == second != data
