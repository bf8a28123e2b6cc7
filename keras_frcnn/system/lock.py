"""One training at a time in a run folder; readers are never kept out.

The lock is the operating system's (``flock``; on Windows a locked byte), so it goes with the
process, however that ends: a lock file that lies there is no lock. On NFS it holds between machines
where the server has locks (Linux since 2.6.12); where it has none, nothing can be locked and the
caller is told so.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from keras_frcnn.errors import UserError
from keras_frcnn.system.files import check_inside, is_partial, naming, open_in_place

LOCK_FILE = "training.lock"
# What is said where another process holds the lock: by ``flock``, by Windows.
_IN_USE = {errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK}
# What ``flock`` says where the file system has no locks; ENOTSUP is a number of its own on macOS.
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL}
# Windows keeps others from reading what is locked: a byte far behind the holder's name.
_WINDOWS_BYTE = 2**20


# Written by trainings alone; evaluations write beside them.
OWN_FOLDERS = ("weights", "proposals", "checkpoints", "samples")
OWN_FILES = (
    *(
        "config.json",
        "metrics.jsonl",
        "features.txt",
        "training_images.txt",
        "data_report.txt",
        "split.json",
        "anchors.json",
    ),
    *("curves.png", "labels.png"),
)
CACHE_FILES = ("images.bin", "features.bin")


@contextmanager
def claimed_folder(folder: Path) -> Iterator[str | None]:
    """Makes a run folder where it is not there and holds it for one training.

    What trainings that were killed left half-written goes.

    Yields:
        As :func:`training_lock`.

    Raises:
        UserError: as :func:`training_lock`, or a link leads out of the folder, or a pipe, a device
            or a folder lies where a file is expected.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _check_contents(folder)
    with training_lock(folder) as note:
        hidden = [path for name in OWN_FILES for path in folder.glob(f".{name}.*")]
        hidden += [path for name in OWN_FOLDERS for path in (folder / name).glob(".*")]
        partial = [path for path in hidden if is_partial(path)]
        for path in (*partial, *(folder / name for name in CACHE_FILES)):
            path.unlink(missing_ok=True)
        yield note


def _check_contents(folder: Path) -> None:
    """Before anything is written: the folder may come from anywhere, an archive say."""
    for name in (*OWN_FOLDERS, "tensorboard"):
        check_inside(folder / name, folder)
    files = [folder / name for name in (LOCK_FILE, *OWN_FILES, *CACHE_FILES)]
    files += [path for name in OWN_FOLDERS for path in (folder / name).glob("*.h5")]
    for path in files:
        check_inside(path, folder)
        if path.is_dir():
            raise UserError(f"{path} is a folder, expected a file: take it out of the run folder.")


@contextmanager
def training_lock(folder: Path) -> Iterator[str | None]:
    """Keeps other trainings out of an existing folder while the context lasts.

    Yields:
        ``None``, or one sentence where the file system has no locks.

    Raises:
        UserError: another process trains there; the message names it.
        OSError: the lock file cannot be written or locked; it is named.
    """
    file = folder / LOCK_FILE
    descriptor = open_in_place(file, os.O_RDWR)
    try:
        note = None
        try:
            with naming(file):
                _lock(descriptor)
        except OSError as error:
            if error.errno in _IN_USE:
                text = file.read_text(encoding="utf-8", errors="replace").strip()
                holder = text or "a process that has just begun"
                raise UserError(
                    f"The run folder {folder} is in use: {holder} trains in it. Wait for "
                    "its end or stop it (SIGTERM, it writes a checkpoint), then go on with "
                    "--resume; or give another --out or --name."
                ) from error
            if error.errno not in _NO_LOCKS:
                raise
            note = f"The file system of {folder} has no locks: keep other trainings out of it."
        with naming(file):
            os.ftruncate(descriptor, 0)
            os.lseek(descriptor, 0, os.SEEK_SET)
            os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        yield note
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> None:
    """Takes the lock at once or raises OSError."""
    if sys.platform == "win32":
        import msvcrt

        os.lseek(descriptor, _WINDOWS_BYTE, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
