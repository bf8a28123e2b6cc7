"""The progress of a stage on a screen that is no terminal.

Shapes and names
----------------
record  as in ``metrics.jsonl``.
"""

from __future__ import annotations

import io

from rich.console import Console

from keras_frcnn.training.display import StageDisplay, TrainingDisplay


def test_the_last_record_is_always_shown():
    said = io.StringIO()
    display = TrainingDisplay(Console(file=said, width=200), [(1, 50)])
    with StageDisplay(display, 1, "stage 1/4, RPN", 50, 0) as line:
        for done in (20, 40, 50):  # within half a minute
            line.update({"iteration": done, "loss": 1.0, "images_per_second": 2.0, "waiting": 0.0})
    lines = said.getvalue().splitlines()
    assert lines[0] == "stage 1/4, RPN: 50 iterations"
    assert lines[-1].startswith("stage 1/4, RPN 50/50  loss 1.000")
    assert not any(" 40/50 " in text for text in lines)
