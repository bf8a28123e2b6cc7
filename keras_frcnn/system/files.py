"""Files that are written whole or not at all, and files of others that are read with a bound."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
import stat
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from keras_frcnn.errors import UserError, reading
from keras_frcnn.system.signals import held_back

PARTIAL = ".partial"
BLOCK_BYTES = 1 << 20
# What a spreadsheet takes for the beginning of a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\n")
# Surrogates that are no byte of a file's name: nothing can be written of them.
_LONE_SURROGATE = re.compile("[\ud800-\udc7f\udd00-\udfff]")
_PARTIAL_NAME = re.compile(r"\..+\.\d+" + re.escape(PARTIAL))


def user_path(text: Path | str) -> Path:
    """A path from a flag or a file of settings; ``~`` and ``~name`` are the homes of users.

    Raises:
        UserError: there is no such user, or no file can have this name.
    """
    with reading(text, "a path", "write it in full, without ~NAME and control characters"):
        if b"\0" in os.fsencode(text):
            raise ValueError("it holds the character 0")
        return Path(text).expanduser()


def check_inside(path: Path, folder: Path) -> None:
    """Makes sure that what is written to a path in a folder lands there, and that it can be read.

    Raises:
        UserError: a link leads out of the folder, or a pipe or a device lies at the path.
    """
    target = os.path.realpath(path)
    if not Path(target).is_relative_to(os.path.realpath(folder)):
        raise UserError(
            f"{path} is or lies behind a link that leads out of {folder}, to {target}. Nothing is "
            "written through it: remove the link, or name another folder."
        )
    if os.path.exists(target) and not (os.path.isfile(target) or os.path.isdir(target)):
        raise UserError(
            f"{path} is a pipe or a device, expected a file or a folder: remove it, or name "
            "another folder."
        )


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """An OSError in the context names the file: a full disk and a descriptor name none."""
    try:
        yield
    except OSError as error:
        error.filename = str(path)
        raise


def open_in_place(path: Path | str, flags: int) -> int:
    """``os.open`` for files that are not written whole: follows no link, waits for no pipe."""
    flags |= os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    return os.open(path, flags, 0o666)


@contextmanager
def written_whole(path: Path | str) -> Iterator[Path]:
    """Gives a partial file to write; on leaving it is on the disk and takes the name ``path``.

    Where writing fails the partial file goes and what was at ``path`` stays. Missing folders are
    made. The partial file lies beside ``path``, so that the renaming stays within one file system.
    Signals wait meanwhile.

    Raises:
        OSError: the folder cannot be written, or the disk is full. It names ``path``, by which the
            command line tells the user.
    """
    path = Path(path)
    with held_back():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL}")
        partial.unlink(missing_ok=True)  # nothing is written through what lies there
        try:
            yield partial
            # Windows flushes no file that is open to read only.
            with open(partial, "r+b") as stream:
                os.fsync(stream.fileno())
            os.replace(partial, path)
            _flush_folder(path.parent)
        except OSError as error:
            # A full disk names no file, most others the partial one.
            if error.errno is not None and str(error.filename or partial) == str(partial):
                error.filename, error.filename2 = str(path), None
            raise
        finally:
            partial.unlink(missing_ok=True)


def _flush_folder(folder: Path) -> None:
    """Brings the new name to the disk, too: a power cut must not bring back the old file.

    As far as the system can: Windows opens no folders, some network file systems flush none.
    """
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def is_partial(path: Path) -> bool:
    """Whether the name is that of a file which :func:`written_whole` had not finished."""
    return _PARTIAL_NAME.fullmatch(path.name) is not None


def write_text(path: Path | str, text: str) -> None:
    """Writes a UTF-8 text file whole, line ends as they are.

    Names of files that are not UTF-8 come from the system as surrogates and go out as the bytes
    that they were."""
    with _text_file(path) as stream:
        stream.write(_writable(text))


def write_table(path: Path | str, rows: Iterable[Sequence[Any]]) -> None:
    """Writes a CSV file whole; what a spreadsheet would take for a formula gets an apostrophe."""
    with _text_file(path) as stream:
        csv.writer(stream, lineterminator="\n").writerows([*map(_cell, row)] for row in rows)


@contextmanager
def _text_file(path: Path | str) -> Iterator[TextIO]:
    with (
        written_whole(path) as partial,
        open(partial, "w", encoding="utf-8", errors="surrogateescape", newline="") as stream,
    ):
        yield stream


def _cell(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    text = value.replace("\r", "\\r")  # the writer would not quote it, and readers end a line there
    return _writable(f"'{text}" if text.startswith(_FORMULA) else text)


def _writable(text: str) -> str:
    return _LONE_SURROGATE.sub(lambda found: ascii(found[0])[1:-1], text)


def reserve(path: Path, size: int) -> None:
    """Makes a file whose room on the disk is truly taken.

    A mapped file takes its room when it is written to, and where there is none the system kills the
    process without a word.

    Raises:
        OSError: the disk is full, say; it names the file, which is gone again.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with naming(path), open(path, "wb", opener=open_in_place) as stream:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(stream.fileno(), 0, max(size, 1))
            elif sys.platform == "win32":  # takes the room at once
                stream.truncate(max(size, 1))
            else:  # macOS, say, where a truncated file is sparse
                for start in range(0, max(size, 1), BLOCK_BYTES):
                    stream.write(bytes(min(max(size, 1) - start, BLOCK_BYTES)))
    except OSError:
        path.unlink(missing_ok=True)
        raise


def digest_of(paths: Sequence[Path], digest: Any = None) -> str:
    """Hexadecimal digest of the contents of files, by which a run knows them again.

    Args:
        digest: of ``hashlib``; default: BLAKE2b with 16 bytes.
    """
    digest = digest or hashlib.blake2b(digest_size=16)
    for path in paths:
        with open(path, "rb") as stream:
            while block := stream.read(BLOCK_BYTES):
                digest.update(block)
    return digest.hexdigest()


def check_bounded(path: Path | str, most: int) -> None:
    """Makes sure that reading a file comes to an end: a pipe or a device may have none.

    Raises:
        OSError: there is no such file, or it may not be looked at.
        ValueError: it is neither a regular file nor a folder, or has more than ``most`` bytes.
    """
    status = os.stat(path)
    if stat.S_ISDIR(status.st_mode):
        return  # opening it says so
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("it is no regular file")
    if status.st_size > most:
        raise ValueError(f"it has {status.st_size} bytes, {most} at most are read")


def read_bounded(path: Path | str, most: int) -> bytes:
    """The contents of a file.

    Raises:
        OSError, ValueError: as :func:`check_bounded`, or it cannot be read.
    """
    check_bounded(path, most)
    return Path(path).read_bytes()


def read_text_bounded(path: Path | str, most: int) -> str:
    """The contents of a UTF-8 text file, without a byte-order mark, every line end a ``\\n``.

    Raises:
        OSError, ValueError: as :func:`check_bounded`, or it is no UTF-8.
    """
    return io.TextIOWrapper(io.BytesIO(read_bounded(path, most)), encoding="utf-8-sig").read()


def parse_json(text: str | bytes) -> Any:
    """``json.loads`` for texts from anywhere.

    Raises:
        ValueError: the text is no JSON, no UTF-8, or nested deeper than Python can follow.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("its lists and objects are nested too deeply") from error
