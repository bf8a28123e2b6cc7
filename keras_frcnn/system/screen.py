"""The screen of a command: it may fail at any time, and work goes on all the same."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO


class Screen(io.TextIOBase):
    """A text stream that never raises: what cannot be written is lost, and nothing else.

    Letters that the screen does not know are shown as ``\\u4e2d``. A stream that failed once (a
    closed pipe, a full disk, a terminal that is gone) is not tried again.

    Args:
        stream: ``None`` where the process has none.
    """

    def __init__(self, stream: TextIO | None):
        super().__init__()
        self._stream = stream
        self.failure: str | None = None
        if isinstance(stream, io.TextIOWrapper):
            with suppress(ValueError, OSError):
                stream.reconfigure(errors="backslashreplace")

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return getattr(self._stream, "encoding", None) or "utf-8"

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return bool(self._try("isatty"))

    def fileno(self) -> int:
        """Of the stream.

        Raises:
            OSError: it has none.
        """
        if self._stream is None:
            raise io.UnsupportedOperation("fileno")
        return self._stream.fileno()

    def write(self, text: str) -> int:
        self._try("write", text)
        return len(text)

    def flush(self) -> None:
        self._try("flush")

    def _try(self, method: str, *arguments: str) -> object:
        if self._stream is None or self.failure is not None:
            return None
        try:
            return getattr(self._stream, method)(*arguments)
        # OSError: the file behind it. ValueError: it is closed. AttributeError: a made-up stream.
        except (OSError, ValueError, AttributeError) as error:
            self.failure = str(error)
            return None


@contextmanager
def lasting_screen() -> Iterator[None]:
    """While the context lasts, nothing that is printed can end the program.

    Also where the process was started without standard output: the next file that is opened would
    else take its number, and what a C++ library prints would be written into that file.
    """
    _open_missing_descriptors()
    previous = sys.stdout, sys.stderr
    screens = Screen(previous[0]), Screen(previous[1])
    sys.stdout, sys.stderr = screens
    try:
        yield
        screens[0].flush()
        if screens[0].failure is not None:
            print(f"The screen is gone ({screens[0].failure}).", file=sys.stderr)
    finally:
        for screen in screens:
            screen.flush()
        sys.stdout, sys.stderr = previous
        _drop_unwritten(screens)


def _open_missing_descriptors() -> None:
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one


def _drop_unwritten(screens: tuple[Screen, ...]) -> None:
    """Python flushes once more at its end, and would say that it could not."""
    for screen in screens:
        if screen.failure is not None:
            with suppress(OSError, ValueError):
                target = os.open(os.devnull, os.O_WRONLY)
                os.dup2(target, screen.fileno())
                os.close(target)
