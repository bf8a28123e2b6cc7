"""The two recipes' numbers, the schedules, and recipes as JSON.

Shapes and names
----------------
iterations  solver iterations.
"""

from __future__ import annotations

import copy
import dataclasses
import json

import pytest

from keras_frcnn.errors import UserError
from keras_frcnn.recipes import (
    PAPER,
    PY_FASTER_RCNN,
    RECIPES,
    AnchorConfig,
    DetectionFilter,
    DetectorConfig,
    ImageConfig,
    ProposalConfig,
    Recipe,
    RpnConfig,
    StageSchedule,
    stages_on,
)
from keras_frcnn.system.settings import from_json


def read(values, kind=Recipe):
    return from_json(values, kind, "recipe")


def test_the_recipes_differ_where_their_sources_do():
    differences = {}

    def compare(one, other, name):
        if dataclasses.is_dataclass(one):
            for field in dataclasses.fields(one):
                compare(
                    getattr(one, field.name), getattr(other, field.name), f"{name}{field.name}."
                )
        elif one != other:
            differences[name[:-1]] = (one, other)

    compare(PAPER, PY_FASTER_RCNN, "")
    assert differences == {
        "name": ("paper", "py-faster-rcnn"),
        "image.pixel_means_rgb": ((123.68, 116.779, 103.939), (122.7717, 115.9465, 102.9801)),
        "rpn.sigma": (1.0, 3.0),
        "rpn.box_normaliser": ("positions", "sampled"),
        "rpn.box_weight": (10.0, 1.0),
        "rpn.normalise_targets": (True, False),
        "detector.background_iou_low": (0.1, 0.0),
        "evaluation_filter.score_threshold": (0.0, 0.05),
        "evaluation_filter.per_class_before_nms": (100, None),
        "evaluation_filter.per_image": (None, 100),
        "evaluation_filter.mean_per_class": (40, None),
        "evaluation_strictly_greater": (False, True),
    }
    assert RECIPES == {"paper": PAPER, "py-faster-rcnn": PY_FASTER_RCNN}


def test_numbers_of_the_paper():
    recipe = PAPER
    assert (recipe.image.short_side, recipe.image.long_side) == (600, 1000)
    assert recipe.anchors.per_position == 9
    rpn = recipe.rpn
    assert (rpn.positive_iou, rpn.negative_iou) == (0.7, 0.3)
    assert (rpn.minibatch_size, rpn.positive_fraction, rpn.images_per_step) == (256, 0.5, 1)
    proposals = (recipe.training_proposals, recipe.joint_proposals, recipe.test_proposals)
    assert [part.before_nms for part in proposals] == [None, 12000, 6000]
    assert [part.after_nms for part in proposals] == [2000, 2000, 300]
    assert {(part.nms_iou, part.min_size_image) for part in proposals} == {(0.7, 16.0)}
    detector = recipe.detector
    assert (detector.rois_per_step, detector.images_per_step) == (128, 2)
    assert (detector.foreground_fraction, detector.foreground_iou) == (0.25, 0.5)
    assert (detector.background_iou_high, detector.sigma) == (0.5, 1.0)
    optimizer = dataclasses.astuple(recipe.optimizer)
    assert optimizer == (0.9, 0.0005, 2.0, None)
    schedules = [dataclasses.astuple(schedule) for schedule in (*recipe.stages, recipe.joint)]
    rpn_stage, detector_stage = (80_000, 60_000, 0.001), (40_000, 30_000, 0.001)
    assert schedules == [rpn_stage, detector_stage] * 2 + [(70_000, 50_000, 0.001)]
    assert (recipe.joint_images_per_step, recipe.joint_rois_per_image) == (2, 128)


def test_the_rate_drops_to_a_tenth():
    schedule = StageSchedule(80_000, 60_000)
    rates = [schedule.rate_at(iteration) for iteration in (0, 59_999, 60_000, 79_999)]
    assert rates == pytest.approx([0.001, 0.001, 0.0001, 0.0001])


def test_another_length_keeps_the_drops_fraction():
    schedule = StageSchedule(80_000, 60_000, 0.002)
    assert schedule.scaled_to(1000) == StageSchedule(1000, 750, 0.002)
    assert StageSchedule(70_000, 50_000).scaled_to(700) == StageSchedule(700, 500)
    assert schedule.scaled_to(80_000) == schedule
    assert schedule.scaled_to(1).iterations == 1


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES.keys())
def test_round_trip_through_json(recipe):
    stages = 4 * (StageSchedule(1, 2, 0.5),)
    for one in (recipe, dataclasses.replace(recipe, stages=stages, name="own")):
        assert read(json.loads(json.dumps(dataclasses.asdict(one)))) == one


def test_a_whole_number_serves_as_a_float():
    values = dataclasses.asdict(PAPER)
    values["rpn"]["sigma"] = 3
    values["anchors"]["scales"] = [4, 8]
    recipe = read(values)
    assert isinstance(recipe.rpn.sigma, float)
    assert recipe.anchors.scales == (4.0, 8.0)
    assert all(isinstance(scale, float) for scale in recipe.anchors.scales)


def changed(path, value):
    values = copy.deepcopy(json.loads(json.dumps(dataclasses.asdict(PAPER))))
    *parents, name = path
    place = values
    for parent in parents:
        place = place[parent]
    place[name] = value
    return values


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("learning_rat",), 1, r"recipe has the unknown field 'learning_rat'; known are name, "),
        (("rpn", "sigmoid"), 1, r"recipe\.rpn has the unknown field 'sigmoid'"),
        (("rpn", "sigma"), "3", r"recipe\.rpn\.sigma should be of type float, not '3'"),
        (("rpn", "sigma"), True, r"recipe\.rpn\.sigma should be of type float, not True"),
        (("rpn", "sigma"), None, r"recipe\.rpn\.sigma should be of type float, not None"),
        (("rpn", "minibatch_size"), 25.5, r"recipe\.rpn\.minibatch_size should be of type int"),
        (("rpn", "minibatch_size"), True, r"recipe\.rpn\.minibatch_size should be of type int"),
        (("rpn", "normalise_targets"), 1, r"recipe\.rpn\.normalise_targets .* type bool, not 1"),
        (("rpn",), [], r"recipe\.rpn should be an object with named fields, not \[\]"),
        (("rpn", "sigma"), float("nan"), r"recipe\.rpn\.sigma should be a finite number, not nan"),
        (("rpn", "minibatch_size"), 10**30, r"recipe\.rpn\.minibatch_size .* finite number"),
        (("anchors", "scales"), 8, r"recipe\.anchors\.scales should be a list, not 8"),
        (("anchors", "scales"), [8, "x"], r"recipe\.anchors\.scales\[1\] should be of type float"),
        (("image", "pixel_means_rgb"), [1, 2], r"pixel_means_rgb should have 3 entries, not 2"),
        (("stages", 1), {"iterations": 5}, r"recipe\.stages\[1\] lacks the field 'drop_at'"),
        (("test_filter", "per_image"), "all", r"recipe\.test_filter\.per_image .* int, not 'all'"),
    ],
)
def test_a_wrong_field_is_refused_by_name(path, value, message):
    with pytest.raises(UserError, match=message):
        read(changed(path, value))


def test_a_missing_field_is_refused_by_name():
    values = dataclasses.asdict(PAPER)
    del values["detector"]["sigma"]
    with pytest.raises(UserError, match=r"recipe\.detector lacks the field 'sigma'"):
        read(values)
    with pytest.raises(UserError, match="recipe should be an object"):
        read("paper")


def test_shapes_of_anchors_take_the_place_of_scales_and_ratios():
    shapes = ((20.5, 32.0), (7.0, 5.0))
    anchors = AnchorConfig(scales=(), ratios=(), shapes=shapes)
    recipe = dataclasses.replace(PAPER, anchors=anchors)
    assert read(json.loads(json.dumps(dataclasses.asdict(recipe)))) == recipe
    with pytest.raises(UserError, match="takes the place of anchors.scales"):
        AnchorConfig(shapes=shapes)
    with pytest.raises(UserError, match=r"anchors\.shapes\[0\] should have 2 entries, not 3"):
        read(changed(("anchors", "shapes"), [[1, 2, 3]]))


def test_an_optional_field_may_be_null_and_a_part_may_be_read_alone():
    assert (
        read(dataclasses.asdict(DetectionFilter(per_image=None)), DetectionFilter).per_image is None
    )
    assert read(changed(("training_proposals", "before_nms"), 7)).training_proposals.before_nms == 7


def test_recipes_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        PAPER.name = "other"
    assert isinstance(PAPER, Recipe)
    hash(PAPER)


def test_schedules_of_the_larger_sets():
    """Recipe 4.1: the detector of 07+12 is trained for 60k, of 07++12 for 100k iterations."""
    rpn = (80_000, 60_000)
    for sets, detector in (
        (("2007:trainval",), (40_000, 30_000)),
        (("2012:trainval",), (40_000, 30_000)),
        (("2012:trainval", "2007:trainval"), (60_000, 30_000)),
        (("2007:trainval", "2007:test", "2012:trainval"), (100_000, 40_000)),
    ):
        stages = stages_on(PAPER, sets)
        assert [(s.iterations, s.drop_at) for s in stages] == [rpn, detector, rpn, detector]
        assert {s.learning_rate for s in stages} == {0.001}


def test_values_that_do_not_go_together_are_refused():
    with pytest.raises(UserError, match="`image.long_side` 300 must not be below the short side 6"):
        ImageConfig(long_side=300)
    with pytest.raises(UserError, match="`rpn.negative_iou` must not exceed `rpn.positive_iou`"):
        RpnConfig(positive_iou=0.2)
    assert RpnConfig(positive_iou=0.3).negative_iou == 0.3
    assert ImageConfig(600, 600).long_side == 600


@pytest.mark.parametrize(
    ("number", "images", "words"),
    [
        (3, 1, None),
        (2, 1, None),
        (1, 1, "1 must be at least 2: a share of 0.25"),
        (2, 2, "2 must be at least 4 and a multiple of 2, its images"),
        (5, 2, "5 must be at least 4 and a multiple of 2"),
        (6, 2, None),
    ],
)
def test_every_image_has_a_foreground_roi(number, images, words):
    """A quarter of 2 RoIs is rounded to one, that of 1 to none."""
    if words is None:
        DetectorConfig().check_rois(number, images)
    else:
        with pytest.raises(UserError, match=f"`detector.rois_per_step` {words}"):
            DetectorConfig().check_rois(number, images)


@pytest.mark.parametrize(
    ("own", "number", "asked", "before"),
    [
        (6000, 300, None, 6000),
        (6000, 8000, None, 8000),
        (6000, 300, 400, 400),
        (6000, 300, 0, None),
        (None, 300, None, None),
    ],
)
def test_as_many_proposals_as_asked_for_go_into_the_suppression(own, number, asked, before):
    config = ProposalConfig(before_nms=own).at_most(number, asked)
    assert (config.before_nms, config.after_nms) == (before, number)


def test_each_mode_has_its_schedules():
    four = [StageSchedule(count, 0) for count in (1, 2, 3, 4)]
    joint, alone = StageSchedule(5, 0), StageSchedule(6, 0)
    recipe = PAPER.with_schedules("alternating", four).with_schedules("joint", [joint])
    assert recipe.schedules("alternating") == tuple(four)
    assert recipe.schedules("joint") == (joint,)
    assert recipe.schedules("fast-rcnn") == (four[1],)
    recipe = recipe.with_schedules("fast-rcnn", [alone])
    assert [stage.iterations for stage in recipe.stages] == [1, 6, 3, 4]


def test_what_a_pass_of_each_stage_is():
    """The paper's background rule gives no RoI without objects; PY's does."""
    assert PAPER.passes("alternating") == ((1, False), (2, True), (1, False), (2, True))
    assert PAPER.passes("fast-rcnn") == ((2, True),)
    assert PY_FASTER_RCNN.passes("fast-rcnn") == ((2, False),)
    assert PY_FASTER_RCNN.passes("joint") == ((2, False),)
