"""What every fuzz case must survive, and the damage that all kinds of files can take.

Shapes and names
----------------
case  one bad input: the test of it fails on a traceback, a hang, memory above a bound, a file
    touched, or something left out without a word.
rng  ``numpy.random.Generator``, seeded by the case, so that every run has the same cases.
touched  a path that Python opened for writing, made, moved, removed or changed, wherever it is;
    what C libraries do is seen by :func:`snapshot` only.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
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

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# The paths among the arguments of Python's audit events that change a file system.
_CHANGES = {
    **dict.fromkeys(("os.mkdir", "os.remove", "os.rmdir", "os.truncate", "os.chmod"), 1),
    **dict.fromkeys(("os.utime", "os.chown", "os.setxattr", "os.removexattr"), 1),
    **dict.fromkeys(("os.rename", "os.link", "os.symlink"), 2),
}
# Of the blocks under way: audit hooks cannot be removed.
_listeners: list[list[str]] = []


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


def _listen(event: str, arguments: tuple) -> None:
    if not _listeners:
        return
    if event == "open":
        paths = arguments[:1] if arguments[2] & _WRITING else ()
    else:
        paths = arguments[: _CHANGES.get(event, 0)]
    for path in paths:
        if isinstance(path, (str, bytes, os.PathLike)):  # a number is a file that is open already
            for listener in _listeners:
                listener.append(os.path.abspath(os.fsdecode(path)))


sys.addaudithook(_listen)


@contextmanager
def only_touched(*places: Path) -> Iterator[None]:
    """Fails if the block touches a path that is not below one of ``places``."""
    touched: list[str] = []
    _listeners.append(touched)
    try:
        yield
    finally:
        # Not by equality: two lists without an entry are equal.
        _listeners[:] = [listener for listener in _listeners if listener is not touched]
    allowed = tuple(os.path.join(os.path.abspath(place), "") for place in places)
    # The null device, what :func:`reset_peak` writes, and TensorFlow's files of traced functions.
    temporary = os.path.abspath(tempfile.gettempdir())
    harmless = (os.devnull, "/proc/self/clear_refs", temporary)
    traced = os.path.join(temporary, "__autograph_generated_file")
    others = [
        path
        for path in touched
        if path not in harmless
        and not os.path.join(path, "").startswith((*allowed, traced))
        and "__pycache__" not in path.split(os.sep)  # a module imported for the first time
    ]
    assert not others, f"a case touched {others}"


@contextmanager
def limited(seconds: int, memory_bytes: int) -> Iterator[None]:
    """Fails if the block takes longer, or if its process then held that much more at any time."""
    hung = f"a case took more than {seconds} seconds"
    hangs = []

    def hang(number, frame):
        hangs.append(number)
        raise TimeoutError(hung)

    previous = signal.signal(signal.SIGALRM, hang)
    reset_peak()
    at_start = peak_memory()
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)
    # A command makes a sentence of it, as of every error of the system.
    assert not hangs, hung
    grown = peak_memory() - at_start
    assert grown < memory_bytes, f"a case took {grown / 2**20:.0f} MiB"


@contextmanager
def watched(folder: Path) -> Iterator[None]:
    """Fails if the block takes too long or too much memory, changes anything in ``folder`` or
    touches any file elsewhere."""
    before = snapshot(folder)
    with limited(SECONDS, MEMORY_BYTES), only_touched():
        yield
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
