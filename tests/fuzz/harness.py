"""What every fuzz case must survive, and the damage that all kinds of files can take.

Shapes and names
----------------
case  one bad input: the test of it fails on a traceback, a hang, memory above a bound, a file
    touched, or something left out without a word.
rng  ``numpy.random.Generator``, seeded by the case, so that every run has the same cases.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from keras_frcnn.data.checks import report_text
from keras_frcnn.data.dataset import Dataset

# Generous: a busy machine is no hang.
SECONDS = 30
# Above what the process had before; the largest image that is read here takes 2 MB.
MEMORY_BYTES = 300 * 2**20


def peak_memory() -> int:
    """The most bytes that this process has held since :func:`reset_peak`; 0 where none can say."""
    try:
        text = Path("/proc/self/status").read_text()
    except OSError:
        return 0
    return int(text.split("VmHWM:")[1].split()[0]) * 1024


def reset_peak() -> None:
    """Starts the count anew, on Linux."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def snapshot(folder: Path) -> dict[str, tuple]:
    """Names, kinds, sizes and times of change of everything below a folder."""
    found = {}
    for directory, folders, files in os.walk(os.fsencode(folder)):
        for name in (b".", *folders, *files):
            status = os.lstat(os.path.join(directory, name))
            key = os.fsdecode(os.path.join(directory, name))
            found[key] = (status.st_mode, status.st_size, status.st_mtime_ns)
    return found


@contextmanager
def watched(folder: Path) -> Iterator[None]:
    """Fails if the block takes too long or too much memory, or changes anything in ``folder``."""

    def hang(number, frame):
        raise TimeoutError(f"a case took more than {SECONDS} seconds")

    before = snapshot(folder)
    previous = signal.signal(signal.SIGALRM, hang)
    reset_peak()
    at_start = peak_memory()
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)
    grown = peak_memory() - at_start
    assert grown < MEMORY_BYTES, f"a case took {grown / 2**20:.0f} MiB"
    assert snapshot(folder) == before, "a case touched the data"


def is_reported(dataset: Dataset, *names: str) -> bool:
    """Whether the report has a line that names one of these files or places."""
    return any(name in report_text(dataset.problems) for name in names)


def flip_bytes(data: bytes, rng: np.random.Generator) -> bytes:
    """Some bytes become others."""
    hurt = bytearray(data)
    for position in rng.integers(0, max(len(data), 1), int(rng.integers(1, 12))):
        if len(hurt):
            hurt[position] = int(rng.integers(0, 256))
    return bytes(hurt)


def cut(data: bytes, rng: np.random.Generator) -> bytes:
    """The end is missing."""
    return data[: int(rng.integers(0, max(len(data), 1)))]


def lose_middle(data: bytes, rng: np.random.Generator) -> bytes:
    """A slice is missing."""
    start, end = sorted(int(place) for place in rng.integers(0, len(data) + 1, 2))
    return data[:start] + data[end:]


def repeat_slice(data: bytes, rng: np.random.Generator) -> bytes:
    """A slice comes twice, or a hundred times."""
    start, end = sorted(int(place) for place in rng.integers(0, len(data) + 1, 2))
    return data[:end] + data[start:end] * int(rng.choice([1, 2, 100])) + data[end:]


def insert_noise(data: bytes, rng: np.random.Generator) -> bytes:
    """Random bytes are put in."""
    place = int(rng.integers(0, len(data) + 1))
    return data[:place] + rng.bytes(int(rng.integers(1, 300))) + data[place:]


def zero_slice(data: bytes, rng: np.random.Generator) -> bytes:
    """A slice is zeros, as a lost block of a disk is."""
    start, end = sorted(int(place) for place in rng.integers(0, len(data) + 1, 2))
    return data[:start] + bytes(end - start) + data[end:]


def swap_halves(data: bytes, rng: np.random.Generator) -> bytes:
    """The two parts of the file in the wrong order."""
    place = int(rng.integers(0, len(data) + 1))
    return data[place:] + data[:place]


BYTE_DAMAGE: tuple[Callable[[bytes, np.random.Generator], bytes], ...] = (
    *(flip_bytes, cut, lose_middle, repeat_slice),
    *(insert_noise, zero_slice, swap_halves),
)


def damaged(data: bytes, rng: np.random.Generator, most: int = 3) -> bytes:
    """One to ``most`` of :data:`BYTE_DAMAGE`, one after the other."""
    for index in rng.integers(0, len(BYTE_DAMAGE), int(rng.integers(1, most + 1))):
        data = BYTE_DAMAGE[index](data, rng)
    return data
