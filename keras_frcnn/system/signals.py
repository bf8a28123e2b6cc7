"""Being told to stop: SIGTERM and SIGHUP are answered as Ctrl-C is, by an exception.

SIGHUP comes where a terminal goes, such as that of a lost ssh. A signal that is ignored when the
program starts, as ``nohup`` has it, stays so.
"""

from __future__ import annotations

import _thread
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

# How the commands that train go on, for errors that any of them may show.
GO_ON = "train_frcnn.py goes on with --resume, paper by the same command"
# Until a stop that was dropped is raised again.
AGAIN_SECONDS = 0.05
# Windows has no SIGHUP.
_ENDING = [signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP has come."""

    def __init__(self, received: signal.Signals = signal.SIGTERM):
        super().__init__(received.name)
        self.received = received


class TrainingStopped(Exception):
    """The user asked to stop (Ctrl-C, SIGTERM, SIGHUP); what was finished is written.

    Args:
        happened: what was stopped and what is kept, for the screen.
        advice: how to go on.
    """

    def __init__(
        self, received: signal.Signals, happened: str, advice: str = "go on with --resume"
    ):
        super().__init__(f"{received.name} received: {happened}, {advice}.")
        self.received = received
        self.happened = happened


@dataclass
class StopRequest:
    """Set by a signal."""

    received: signal.Signals | None = None


@contextmanager
def signals_raise() -> Iterator[None]:
    """While the context lasts, SIGTERM and SIGHUP raise :class:`Terminated` where the program is.

    They and Ctrl-C are not lost where the program is in a callback. Outside of the main thread
    nothing changes.
    """

    def stop(number, frame):
        raise Terminated(signal.Signals(number))

    with _handled(stop, _ENDING), _raised_again_after_callbacks():
        yield


@contextmanager
def signals_noted() -> Iterator[StopRequest]:
    """While the context lasts, Ctrl-C, SIGTERM and SIGHUP are noted and do nothing else.

    Outside of the main thread no request ever comes.
    """
    request = StopRequest()

    def note(number, frame):
        request.received = signal.Signals(number)

    with _handled(note, [signal.SIGINT, *_ENDING]):
        yield request


@contextmanager
def held_back() -> Iterator[None]:
    """Ctrl-C, SIGTERM and SIGHUP come after what is written in the context, not in its midst."""
    with signals_noted() as request:
        yield
    if request.received is not None:
        signal.raise_signal(request.received)


@contextmanager
def _handled(handler: Callable, numbers: list[signal.Signals]) -> Iterator[None]:
    previous = {}
    # Python sets handlers in no other thread.
    if threading.current_thread() is threading.main_thread():
        heard = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
        previous = {number: signal.signal(number, handler) for number in heard}
    try:
        yield
    finally:
        for number, was in previous.items():
            signal.signal(number, was)


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
        # As a signal that comes now; not from here, which is still within the callback.
        number = signal_of(dropped.exc_value)
        timer = threading.Timer(AGAIN_SECONDS, _thread.interrupt_main, (number,))
        timer.daemon = True
        timer.start()

    sys.unraisablehook = again
    try:
        yield
    finally:
        sys.unraisablehook = previous


def signal_of(stop: BaseException | None) -> signal.Signals:
    """The signal that a stop came from; Python's own for Ctrl-C does not say."""
    return getattr(stop, "received", signal.SIGINT)
