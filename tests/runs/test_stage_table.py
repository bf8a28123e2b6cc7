"""The table of stages: what each file is made from, and who reads whose proposals.

Shapes and names
----------------
plan  the stages of a run.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

from keras_frcnn.runs.stage_table import (
    FINAL,
    STAGES,
    made_from,
    parts_in,
    planned,
    reader_of,
    stage_title,
)


def test_what_each_file_is_made_from():
    assert made_from("alternating") == {
        "stage1": (),
        "proposals1": ("stage1",),
        "stage2": ("proposals1",),
        "stage3": ("stage2",),
        "proposals3": ("stage2", "stage3"),
        "stage4": ("stage2", "proposals3"),
        FINAL: ("stage2", "stage3", "stage4"),
    }
    assert made_from("joint") == {FINAL: ()}
    assert made_from("fast-rcnn") == {"given": (), "stage2": ("given",)}


def test_every_source_is_trained_before():
    for stages in STAGES.values():
        finished = {"initial", "new"}
        for stage in stages:
            assert set(stage.starts.values()) <= finished
            assert set(stage.trains) <= set(stage.starts)
            finished.add(stage.weights)


def test_who_reads_proposals():
    plan = planned("alternating", (1, 2, 3))
    readers = [reader_of(stage, plan) for stage in plan]
    assert readers == [plan[1], None, None]
    assert reader_of(STAGES["alternating"][2], STAGES["alternating"]).number == 4
    assert [stage.number for stage in planned("joint", ())] == [0]
    assert [stage.number for stage in planned("fast-rcnn", (2,))] == [2]


@pytest.mark.parametrize(
    ("weights", "parts"),
    [("stage2", ("base", "head")), ("stage3", ("rpn",)), (FINAL, ("base", "rpn", "head"))],
)
def test_parts_of_a_file(weights, parts):
    assert parts_in(weights) == parts


def test_titles():
    assert stage_title(1, "alternating") == "stage 1/4, RPN"
    assert stage_title(2, "fast-rcnn") == "Fast R-CNN on given proposals"
    assert stage_title(0, "joint") == "joint training"


def test_the_table_needs_no_tensorflow():
    code = "import sys, keras_frcnn.runs.stage_table; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
