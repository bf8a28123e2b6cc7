"""Being told to stop: SIGTERM is answered as Ctrl-C is, by an exception in the main thread."""

from __future__ import annotations

import _thread
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# How the commands that train go on, for errors that any of them may show.
GO_ON = "train_frcnn.py goes on with --resume, paper by the same command"
# Until a stop that was dropped is raised again.
AGAIN_SECONDS = 0.05


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

    That and Ctrl-C are not lost where the program is in a callback. Outside of the main thread
    nothing changes.
    """
    if not can_handle_signals():
        yield
        return

    def stop(number, frame):
        raise Terminated

    previous = signal.signal(signal.SIGTERM, stop)
    try:
        with _raised_again_after_callbacks():
            yield
    finally:
        signal.signal(signal.SIGTERM, previous)


@contextmanager
def _raised_again_after_callbacks() -> Iterator[None]:
    """While the context lasts, a stop that Python drops is raised once more a little later.

    What a callback of a weak reference or a ``__del__`` raises is printed and dropped, and
    TensorFlow frees the graph of a pass over all images, which takes long, through thousands of
    them: the program would go on as if no signal had come.
    """
    previous = sys.unraisablehook

    def again(dropped) -> None:
        if not issubclass(dropped.exc_type, KeyboardInterrupt):
            previous(dropped)
            return
        number = signal.SIGTERM if issubclass(dropped.exc_type, Terminated) else signal.SIGINT
        # As a signal that comes now; not from here, which is still within the callback.
        timer = threading.Timer(AGAIN_SECONDS, _thread.interrupt_main, (number,))
        timer.daemon = True
        timer.start()

    sys.unraisablehook = again
    try:
        yield
    finally:
        sys.unraisablehook = previous


def signal_of(stop: KeyboardInterrupt) -> signal.Signals:
    """The signal that a stop came from."""
    return signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT


def exit_code(number: signal.Signals) -> int:
    """What a program returns that a signal has ended: 130 for Ctrl-C, 143 for SIGTERM."""
    return 128 + number
