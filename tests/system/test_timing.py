"""Timing in turns, against clocks.

Shapes and names
----------------
call  sleeps or works for a known time.
"""

from __future__ import annotations

import time

import numpy as np

from keras_frcnn.system.timing import Timing, in_turns


def test_calls_take_turns_and_the_first_rounds_do_not_count():
    order, told = [], []
    calls = {name: lambda name=name: order.append(name) for name in "ab"}
    timings = in_turns(calls, repetitions=3, warm_up=2, report=told.append)
    assert "".join(order) == "ab" * 5
    assert told == list(range(1, 11))
    assert {name: len(timing.wall) for name, timing in timings.items()} == {"a": 3, "b": 3}


def test_sleeping_takes_time_but_no_processor():
    timing = in_turns({"sleep": lambda: time.sleep(0.05)}, repetitions=3, warm_up=0)["sleep"]
    assert timing.median_wall >= 0.05
    assert timing.median_cpu < 0.03


def test_median_and_half_the_distance_of_the_quartiles():
    timing = Timing(np.array([1.0, 2.0, 3.0, 4.0, 100.0]), np.array([5.0, 1.0, 3.0]))
    assert (timing.median_wall, timing.median_cpu, timing.spread) == (3.0, 3.0, 1.0)
    assert timing.to_json()["wall"] == [1.0, 2.0, 3.0, 4.0, 100.0]
