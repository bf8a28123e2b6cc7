"""Files that are written whole or not at all.

Shapes and names
----------------
partial  the file while it is being written, beside its final place and hidden.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_whole(path: Path | str) -> Iterator[Path]:
    """Gives a partial file to write; on leaving it is on the disk and takes the name ``path``.

    Where writing fails the partial file goes and what was at ``path`` stays. Missing folders are
    made. The partial file lies beside ``path``, so that the renaming stays within one file system.

    Raises:
        OSError: the folder cannot be written, or the disk is full. It names ``path``, by which the
            command line tells the user.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        with open(partial, "r+b") as stream:  # Windows flushes no file that is open to read only
            os.fsync(stream.fileno())
        os.replace(partial, path)
    except OSError as error:
        # A full disk names no file, most others the partial one.
        if error.errno is not None and str(error.filename or partial) == str(partial):
            error.filename, error.filename2 = str(path), None
        raise
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path | str, text: str) -> None:
    """Writes a UTF-8 text file whole, line ends as they are.

    Names of files that are not UTF-8 come from the system as surrogates and go out as the bytes
    that they were.

    Raises:
        OSError: as :func:`written_whole`.
    """
    with (
        written_whole(path) as partial,
        open(partial, "w", encoding="utf-8", errors="surrogateescape", newline="") as stream,
    ):
        stream.write(text)
