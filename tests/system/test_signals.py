"""A stop that comes while Python runs a callback, whose exceptions it drops.

Shapes and names
----------------
number  a signal.
"""

from __future__ import annotations

import signal
import sys
import time
import weakref

import pytest

from keras_frcnn.system.signals import (
    Terminated,
    held_back,
    signal_of,
    signals_noted,
    signals_raise,
)


class Freed:
    """Something whose release calls back."""


def stopped_in_a_callback(number):
    """Has the signal come while something is released, and goes on for a while."""
    freed = Freed()
    watched = weakref.ref(freed, lambda _: signal.raise_signal(number))
    del freed
    assert watched() is None
    for _ in range(200):
        time.sleep(0.01)
    return "went on"


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (signal.SIGTERM, Terminated),
        (signal.SIGHUP, Terminated),
        (signal.SIGINT, KeyboardInterrupt),
    ],
)
def test_it_is_raised_a_little_later(number, kind):
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    hook = sys.unraisablehook
    try:
        with pytest.raises(kind) as stop, signals_raise():
            stopped_in_a_callback(number)
    finally:
        signal.signal(signal.SIGINT, handler)
    assert signal_of(stop.value) == number
    assert sys.unraisablehook is hook


def test_other_exceptions_of_callbacks_are_told_as_ever(monkeypatch):
    told = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)
    with signals_raise():
        freed = Freed()
        watched = weakref.ref(freed, lambda _: 1 / 0)
        del freed
    assert watched() is None
    assert [dropped.exc_type for dropped in told] == [ZeroDivisionError]


STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.mark.parametrize("number", STOPS)
def test_an_ignored_signal_stays_ignored(number):
    """As ``nohup`` starts a program, and a shell its background jobs."""
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with signals_raise(), signals_noted() as request, held_back():
            signal.raise_signal(number)
        assert request.received is None
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize("number", STOPS)
def test_what_is_being_written_is_not_stopped_in_its_midst(number):
    done = []
    with pytest.raises(KeyboardInterrupt) as stop, signals_raise():
        with held_back():
            signal.raise_signal(number)
            signal.raise_signal(number)
            done.append("written")
        done.append("went on")
    assert (done, signal_of(stop.value)) == (["written"], number)


def test_a_stop_that_is_held_back_in_a_loop_is_the_loops():
    with signals_raise(), signals_noted() as request:
        with held_back():
            signal.raise_signal(signal.SIGHUP)
            assert request.received is None
        assert request.received is signal.SIGHUP
