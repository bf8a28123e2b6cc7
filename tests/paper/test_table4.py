"""Rows of table 4: sums and shares.

Shapes and names
----------------
times  part to median and spread in milliseconds.
"""

from __future__ import annotations

import numpy as np
import pytest

from keras_frcnn.paper.table4 import _fields, _milliseconds, _row
from keras_frcnn.system.timing import Timing

NO_SHARES = (None,) * 4


def test_a_row():
    row = _row("ours", "ours", {"conv": (60, 2), "proposal": (10, 0.4), "region-wise": (30, None)})
    assert row == ("ours", "ours", "60 +- 2", "10 +- 0", "30", 100, 10.0, 60.0, 10.0, 30.0)


def test_without_proposals_there_are_no_shares():
    seconds = {"conv": np.array([0.1, 0.2, 0.3]), "region-wise": np.array([0.4, 0.4, 0.4])}
    timings = {part: Timing(wall, wall) for part, wall in seconds.items()}
    row = _row("SVD", "ours", _milliseconds(timings))
    assert row == ("SVD", "ours", "200 +- 50", "-", "400 +- 0", pytest.approx(600), *NO_SHARES)
    assert _row("absent", "ours", {}) == ("absent", "ours", "-", "-", "-", None, *NO_SHARES)


def test_the_receptive_fields_are_those_of_the_paper():
    assert [text.split("sees ")[1] for text in _fields()] == [
        "228 pixels of the input (paper: 228).",
        "171 pixels of the input (paper: 171).",
    ]
