"""The flags of ``train_frcnn.py`` and the recipe that they make."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from keras_frcnn.cli import train
from keras_frcnn.cli.train_flags import (
    build_parser,
    check_flags,
    mode_from,
    recipe_from,
    stages_from,
)
from keras_frcnn.data.dataset import Dataset, Example
from keras_frcnn.errors import UserError


def parse(*flags: object):
    return build_parser().parse_args(["-p", "data", *map(str, flags)])


def recipe(*flags: object, units: int = 20):
    """The recipe of some flags for a data set of so many images and mirror images."""
    return recipe_from(parse(*flags), lambda images, with_objects: -(-units // images))


def lengths(*flags: object, units: int = 20) -> list[tuple[int, int]]:
    return [(stage.iterations, stage.drop_at) for stage in recipe(*flags, units=units).stages]


# --- flags and what they mean ------------------------------------------------------------------


def test_every_flag_of_the_lineage_is_taken():
    arguments = parse(
        *("-o", "simple", "-n", 32, "--network", "vgg", "--hf", "--num_epochs", 2000),
        *("--config_filename", "config.pickle", "--output_weight_path", "./model_frcnn.hdf5"),
        *("--input_weight_path", "vgg16_weights_tf_dim_ordering_tf_kernels.h5"),
    )
    assert (arguments.parser, arguments.num_rois, arguments.num_epochs) == ("simple", 32, 2000.0)
    assert arguments.network == "vgg"
    assert arguments.flips is True
    check_flags(arguments)
    long_names = parse("--path", "b.txt", "--parser", "simple", "--num_rois", "4")
    assert (long_names.path, long_names.parser, long_names.num_rois) == ("b.txt", "simple", 4)


def test_defaults_are_the_papers():
    arguments = parse()
    assert (arguments.network, arguments.parser, arguments.flips) == ("vgg16", None, True)
    assert mode_from(arguments) == "alternating"
    assert parse("--no-hf").flips is False
    paper = recipe()
    assert paper.name == "paper"
    assert paper.detector.rois_per_step == 128
    assert lengths() == [(80000, 60000), (40000, 30000), (80000, 60000), (40000, 30000)]
    assert stages_from(None) == (1, 2, 3, 4)


def test_num_rois_is_the_minibatch_of_both_modes():
    assert recipe("-n", 64).detector.rois_per_step == 64
    joint = recipe("-n", 64, "--mode", "joint")
    assert (joint.name, joint.joint_rois_per_image) == ("py-faster-rcnn", 64)


@pytest.mark.parametrize(
    ("epochs", "units", "expected"),
    [
        # One image a step in stages 1 and 3, two in 2 and 4; the drop after three quarters.
        (2, 20, [(40, 30), (20, 15), (40, 30), (20, 15)]),
        (0.5, 20, [(10, 8), (5, 4), (10, 8), (5, 4)]),
        (1, 7, [(7, 5), (4, 3), (7, 5), (4, 3)]),
        # VOC 2007: 5011 images and their mirror images, about the paper's 80k and 40k.
        (8, 10022, [(80176, 60132), (40088, 30066), (80176, 60132), (40088, 30066)]),
    ],
)
def test_num_epochs_scales_every_stage_and_its_drop(epochs, units, expected):
    assert lengths("--num_epochs", epochs, units=units) == expected


def dataset_of(difficult: list[list[bool]]) -> Dataset:
    """An image for each entry, with as many objects."""
    examples = [
        Example(
            image_id=str(number),
            source="VOC2007",
            path=Path(f"{number}.jpg"),
            height=40,
            width=60,
            boxes_image=np.tile(np.float32([0, 0, 9, 9]), (len(flags), 1)),
            classes=np.ones(len(flags), np.int32),
            difficult=np.array(flags, bool),
        )
        for number, flags in enumerate(difficult)
    ]
    return Dataset(("disc",), tuple(examples), ("2007:trainval",))


@pytest.mark.parametrize(("flag", "orientations"), [("--hf", 2), ("--no-hf", 1)])
@pytest.mark.parametrize(
    ("recipe_name", "detected"),
    [("paper", 6), ("py-faster-rcnn", 10)],  # images without objects give the paper no RoI
)
def test_num_epochs_counts_the_images_that_a_stage_sees(flag, orientations, recipe_name, detected):
    data = dataset_of([[False]] * 5 + [[True, False], [True], [], [], []])
    kind = ("--mode", "alternating", "--precision", "float32")
    arguments = parse("--num_epochs", 1, flag, "--recipe", recipe_name, *kind)
    stages = train.run_config(arguments, data, None).recipe.stages
    found = [stage.iterations for stage in stages]
    assert found == [10 * orientations, detected * orientations // 2] * 2
    arguments = parse("--num_epochs", 1, flag, "--mode", "joint", "--precision", "float32")
    joint = train.run_config(arguments, data, None).recipe
    assert joint.joint.iterations == 10 * orientations // joint.joint_images_per_step


def test_joint_training_has_one_schedule_of_two_images_a_step():
    joint = recipe("--mode", "joint", "--num_epochs", 7, units=20).joint
    assert (joint.iterations, joint.drop_at) == (70, 50)
    joint = recipe("--mode", "joint", "--iterations", 14).joint
    assert (joint.iterations, joint.drop_at, joint.learning_rate) == (14, 10, 0.001)


def test_iterations_and_learning_rates_of_each_stage():
    stages = recipe("--iterations", "8,4,100,1", "--learning_rate", "1,2,3,0.5").stages
    assert [(s.iterations, s.drop_at, s.learning_rate) for s in stages] == [
        (8, 6, 1.0), (4, 3, 2.0), (100, 75, 3.0), (1, 1, 0.5),
    ]  # fmt: skip
    assert {s.learning_rate for s in recipe("--learning_rate", "0.01").stages} == {0.01}


def test_every_rule_can_be_changed():
    changed = recipe(
        *("--short_side", 300, "--anchor_scales", "2,4", "--anchor_ratios", "1"),
        *("--rpn_positive_iou", 0.6, "--rpn_negative_iou", 0.2, "--rpn_minibatch", 64),
        *("--foreground_iou", 0.55, "--background_iou", "0.2,0.4", "--min_size", 3),
        *("--momentum", 0.8, "--weight_decay", 0, "--roi_pooling", "align"),
        *("--dropout", 0.25, "--objectness", "logistic", "--keep_cross_boundary"),
        *("--rpn_box_normaliser", "sampled"),
    )
    assert (changed.image.short_side, changed.image.long_side) == (300, 500)
    assert (changed.anchors.scales, changed.anchors.ratios) == ((2.0, 4.0), (1.0,))
    rpn, detector = changed.rpn, changed.detector
    assert (rpn.positive_iou, rpn.negative_iou, rpn.minibatch_size) == (0.6, 0.2, 64)
    assert (rpn.objectness, rpn.keep_cross_boundary) == ("logistic", True)
    assert (rpn.box_normaliser, rpn.box_weight) == ("sampled", 1.0)
    assert detector.foreground_iou == 0.55
    assert (detector.background_iou_low, detector.background_iou_high) == (0.2, 0.4)
    assert (detector.roi_pooling, detector.dropout) == ("align", 0.25)
    assert (changed.optimizer.momentum, changed.optimizer.weight_decay) == (0.8, 0)
    for part in (changed.training_proposals, changed.joint_proposals, changed.test_proposals):
        assert part.min_size_image == 3
    assert recipe("--short_side", 300, "--long_side", 400).image.long_side == 400


def test_check_flags_needs_no_data():
    with pytest.raises(UserError, match="exclude each other"):
        check_flags(parse("--num_epochs", 1, "--iterations", "1,1,1,1"))


def test_the_larger_sets_have_the_papers_longer_schedules():
    sets = ("2007:trainval", "2012:trainval")
    found = recipe_from(parse(), lambda images, with_objects: 10, sets).stages
    assert [(s.iterations, s.drop_at) for s in found[:2]] == [(80_000, 60_000), (60_000, 30_000)]
    shorter = recipe_from(
        parse("--iterations", "8,4,8,4"), lambda images, with_objects: 10, sets
    ).stages
    assert [(s.iterations, s.drop_at) for s in shorter[:2]] == [(8, 6), (4, 2)]
