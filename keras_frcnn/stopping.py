"""Being told to stop: SIGTERM is answered as Ctrl-C is, by an exception in the main thread.

Shapes and names
----------------
stop  a ``KeyboardInterrupt``, so that no ``except Exception`` on the way takes it for an error.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# How the commands that train go on, for errors that any of them may show.
GO_ON = "train_frcnn.py goes on with --resume, paper by the same command"


class Terminated(KeyboardInterrupt):
    """SIGTERM has come."""


class TrainingStopped(Exception):
    """The user asked to stop (Ctrl-C or SIGTERM); what was finished is written.

    Args:
        received: the signal.
        happened: what was stopped and what is kept, for the screen.
        advice: how to go on.
    """

    def __init__(
        self, received: signal.Signals, happened: str, advice: str = "go on with --resume"
    ):
        super().__init__(f"{received.name} received: {happened}, {advice}.")
        self.received = received
        self.happened = happened


def can_handle_signals() -> bool:
    """Whether this is the main thread: Python sets handlers in no other."""
    return threading.current_thread() is threading.main_thread()


@contextmanager
def sigterm_raises() -> Iterator[None]:
    """While the context lasts, SIGTERM raises :class:`Terminated` where the program is.

    Outside of the main thread nothing changes.
    """
    if not can_handle_signals():
        yield
        return

    def stop(number, frame):
        raise Terminated

    previous = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def signal_of(stop: KeyboardInterrupt) -> signal.Signals:
    """The signal that a stop came from."""
    return signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT


def exit_code(number: signal.Signals) -> int:
    """What a program returns that a signal has ended: 130 for Ctrl-C, 143 for SIGTERM."""
    return 128 + number
