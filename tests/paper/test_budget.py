"""What a budget makes of the paper's recipe, and that its caption says so.

Shapes and names
----------------
fraction  of the iterations.
"""

from __future__ import annotations

import dataclasses

import pytest

from keras_frcnn.paper.budget import Budget
from keras_frcnn.recipes import PAPER, AnchorConfig, StageSchedule


def test_the_whole_budget_is_the_papers_recipe():
    budget = Budget()
    assert budget.recipe() == PAPER
    assert budget.network_or("zf") == "zf"
    assert budget.caption() == (
        "The paper's full setting: 1 of the paper's schedule (80,000/40,000/80,000/40,000 "
        "iterations), short side 600, float32, 1 run."
    )


def test_everything_can_be_replaced():
    anchors = AnchorConfig(scales=(2.0, 4.0), ratios=(1.0,))
    budget = Budget(
        fraction=0.001,
        images=7,
        detect_images=5,
        seeds=3,
        network="tiny",
        short_side=300,
        anchors=anchors,
        learning_rate=0.01,
        dropout=0.0,
        precision="bfloat16",
    )
    recipe = budget.recipe()
    assert [stage.iterations for stage in recipe.stages] == [80, 40, 80, 40]
    assert [stage.drop_at for stage in recipe.stages] == [60, 30, 60, 30]
    assert {stage.learning_rate for stage in recipe.stages} == {0.01}
    assert (recipe.image.short_side, recipe.image.long_side) == (300, 500)
    assert (recipe.anchors, recipe.detector.dropout) == (anchors, 0.0)
    assert budget.network_or("zf") == "tiny"
    caption = budget.caption(seeds=budget.seeds)
    assert caption.startswith("Not a reproduction: 0.001 of the paper's schedule (80/40/80/40 ")
    for part in (
        "tiny in place",
        "short side 300",
        "first 7 images",
        "first 5 test",
        "2 other anchors",
        "0.01",
    ):
        assert part in caption
    assert "dropout 0" in caption
    assert "bfloat16, 3 runs each." in caption


def test_no_stage_loses_its_last_iteration():
    assert [s.iterations for s in Budget(fraction=1e-9).recipe().stages] == [1, 1, 1, 1]


@pytest.mark.parametrize("changed", [{"dropout": 0.0}, {"precision": "bfloat16"}, {"images": 7}])
def test_whatever_is_changed_is_no_reproduction(changed):
    assert Budget(**changed).caption().startswith("Not a reproduction: 1 of the paper's schedule")


def test_other_data_or_weights_are_no_reproduction():
    assert Budget(seeds=3).caption().endswith("1 run.")  # of an experiment that repeats nothing
    assert Budget(seeds=3).caption(seeds=3).endswith("3 runs each.")
    assert Budget().caption(reproduces=False).startswith("Not a reproduction")


def test_a_runs_recipe_is_kept_but_for_the_lengths():
    """So that what is trained beside it differs in what the table says only."""
    rates = (0.002, 0.003, 0.003, 0.003)
    run = dataclasses.replace(
        PAPER,
        detector=dataclasses.replace(PAPER.detector, background_iou_low=0.0, dropout=0.0),
        stages=tuple(StageSchedule(1600, 800, rate) for rate in rates),
    )
    recipe = Budget(fraction=0.0025, base=run).recipe()
    assert recipe.detector == run.detector
    assert [(s.iterations, s.drop_at, s.learning_rate) for s in recipe.stages] == [
        (200, 150, 0.002),
        (100, 75, 0.003),
        (200, 150, 0.003),
        (100, 75, 0.003),
    ]
    caption = Budget(fraction=0.0025, base=run).caption()
    assert "learning rate 0.002/0.003/0.003/0.003, background_iou_low 0, dropout 0," in caption
    assert Budget(base=run, dropout=0.5).recipe().detector.dropout == 0.5


def test_detectors_see_the_larger_sets_for_longer():
    larger = Budget(fraction=0.01).recipe(("2007:trainval", "2012:trainval"))
    assert [(s.iterations, s.drop_at) for s in larger.stages] == [
        (800, 600), (600, 300), (800, 600), (600, 300),
    ]  # fmt: skip
