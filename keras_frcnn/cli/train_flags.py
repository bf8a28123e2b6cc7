"""The flags of ``train_frcnn.py`` and what they change in a recipe.

Shapes and names
----------------
arguments  the parsed flags; ``None`` where the recipe's own value stands.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence

from keras_frcnn.cli.common import HelpfulParser, numbers
from keras_frcnn.errors import UserError
from keras_frcnn.recipes import (
    PY_FASTER_RCNN,
    RECIPES,
    DetectorConfig,
    Recipe,
    RpnConfig,
)

EPILOG = """\
Defaults are the paper's (MATLAB code) unless the flag says otherwise; the two recipes differ:
  paper           backgrounds at IoU 0.1 to 0.5, RPN targets normalised, lambda 10 over positions
  py-faster-rcnn  backgrounds at IoU 0 to 0.5, RPN smooth L1 with sigma 3; the only one for --mode joint

examples:
  train_frcnn.py -p VOCdevkit
  train_frcnn.py -p VOCdevkit --train_set 2007:trainval+2012:trainval --name voc0712
  train_frcnn.py -p boxes.txt -o simple --num_epochs 2 --short_side 400
  train_frcnn.py -p VOCdevkit --resume
"""


def build_parser() -> argparse.ArgumentParser:
    """The parser with its groups; every default is named with its origin."""
    parser = HelpfulParser(
        prog="train_frcnn.py",
        description="Train Faster R-CNN by the paper's four alternating steps, or jointly.",
        epilog=EPILOG,
    )
    _add_data(parser.add_argument_group("data"))
    _add_model(parser.add_argument_group("network and weights"))
    _add_schedule(parser.add_argument_group("schedule"))
    _add_rules(parser.add_argument_group("rules of the paper"))
    _add_run(parser.add_argument_group("run folder and machine"))
    return parser


def _add_data(group) -> None:
    group.add_argument(
        "-p",
        "--path",
        required=True,
        metavar="PATH",
        help="VOCdevkit folder (with VOC2007 and/or VOC2012), or the text file of -o simple",
    )
    group.add_argument(
        "-o",
        "--parser",
        choices=("pascal_voc", "simple"),
        default="pascal_voc",
        help="layout of the data (default: pascal_voc)",
    )
    group.add_argument(
        "--train_set",
        metavar="SETS",
        help='such as 2007:trainval+2012:trainval, or "07", "12", "07+12", "07++12" '
        "(default: every trainval that exists)",
    )
    group.add_argument(
        "--hf",
        dest="flips",
        action="store_true",
        default=True,
        help="also see every image mirrored (default: on, imdb.py:102-117; the "
        "lineage's default was off)",
    )
    group.add_argument(
        "--no-hf",
        dest="flips",
        action="store_false",
        help="see images as they are only",
    )
    group.add_argument(
        "--short_side",
        type=int,
        metavar="PX",
        help="input's short side (default: 600, config.py:38)",
    )
    group.add_argument(
        "--long_side",
        type=int,
        metavar="PX",
        help="input's longest long side (default: 1000, config.py:41; with another "
        "--short_side in proportion)",
    )
    group.add_argument(
        "--strict",
        action="store_true",
        help="stop at any problem in the data (default: report and go on)",
    )


def _add_model(group) -> None:
    group.add_argument(
        "--network",
        default="vgg16",
        choices=("vgg16", "vgg", "zf", "resnet50", "tiny"),
        help="default: vgg16, the paper's (the lineage's was resnet50); tiny is for demos and tests",
    )
    group.add_argument(
        "--weights",
        choices=("imagenet", "random"),
        default="imagenet",
        help="what to start from without --input_weight_path (default: imagenet)",
    )
    group.add_argument(
        "--input_weight_path",
        metavar="FILE",
        help="Keras HDF5 file, .weights.h5 of this package, or a run folder",
    )
    group.add_argument(
        "--output_weight_path",
        metavar="FILE",
        help="also copy the final weights there, any suffix",
    )
    group.add_argument(
        "--precision",
        choices=("float32", "bfloat16", "float16"),
        default="float32",
        help="of convolutions and fc layers (default: float32; losses and boxes always are)",
    )
    group.add_argument(
        "--roi_pooling",
        choices=("crop", "max", "align"),
        default="crop",
        help="crop: crop_and_resize and max (default: ours, fastest); max: exactly Caffe's; align: RoIAlign",
    )


def _add_schedule(group) -> None:
    group.add_argument(
        "--recipe",
        choices=tuple(RECIPES),
        help="default: paper; py-faster-rcnn with --mode joint",
    )
    group.add_argument(
        "--mode",
        choices=("alternating", "joint"),
        default="alternating",
        help="the four steps of section 3.2 (default), or approximate joint training",
    )
    group.add_argument(
        "--stages",
        metavar="1,2",
        default="1,2,3,4",
        help="stop early: 1,2 is the unshared variant (default: all)",
    )
    group.add_argument(
        "--iterations",
        metavar="A,B,C,D",
        help="of each stage (default: 80000,40000,80000,40000; joint: 70000), the drop at the same fraction",
    )
    group.add_argument(
        "--num_epochs",
        type=float,
        metavar="E",
        help="scale every stage to E passes; a pass is every image once in each orientation "
        "(the paper's schedules are about 8; the lineage's epoch was 1000 iterations)",
    )
    group.add_argument(
        "--learning_rate",
        metavar="LR[,LR...]",
        help="one, or one for each stage (default: 0.001)",
    )
    group.add_argument("--momentum", type=float, help="default: 0.9 (solver files)")
    group.add_argument(
        "--weight_decay", type=float, help="default: 0.0005, biases too (solver files)"
    )


def _add_rules(group) -> None:
    rpn, detector = RpnConfig(), DetectorConfig()
    group.add_argument(
        "--anchor_scales",
        metavar="S,S,...",
        help="in units of 16 px (default: 8,16,32)",
    )
    group.add_argument(
        "--anchor_ratios", metavar="R,R,...", help="height / width (default: 0.5,1,2)"
    )
    group.add_argument(
        "--rpn_positive_iou",
        type=float,
        help=f"default: {rpn.positive_iou} (anchor_target_layer.py:137)",
    )
    group.add_argument(
        "--rpn_negative_iou",
        type=float,
        help=f"default: {rpn.negative_iou} (anchor_target_layer.py:142)",
    )
    group.add_argument(
        "--rpn_minibatch",
        type=int,
        help=f"anchors of an image (default: {rpn.minibatch_size}, config.py:108)",
    )
    group.add_argument(
        "--foreground_iou",
        type=float,
        help=f"of RoIs (default: {detector.foreground_iou}, config.py:53)",
    )
    group.add_argument(
        "--background_iou",
        metavar="LOW,HIGH",
        help="of RoIs (default: 0.1,0.5 paper, fast_rcnn_config.m:31; 0,0.5 py-faster-rcnn)",
    )
    group.add_argument(
        "-n",
        "--num_rois",
        type=int,
        help=f"RoIs of a step over its {detector.images_per_step} images (default: "
        f"{detector.rois_per_step}, config.py:50; the lineage's was 32)",
    )
    group.add_argument(
        "--min_size",
        type=float,
        metavar="PX",
        help="smallest side of a proposal in original pixels (default: 16, config.py:118)",
    )


def _add_run(group) -> None:
    group.add_argument(
        "--name",
        help="run folder runs/NAME, next number if taken (default: the network)",
    )
    group.add_argument("--out", metavar="DIR", help="run folder, instead of runs/NAME")
    group.add_argument(
        "--config_filename",
        metavar="FILE",
        help="also write the configuration there (JSON; the lineage's was a pickle)",
    )
    group.add_argument("--resume", action="store_true", help="go on where the same command stopped")
    group.add_argument("--seed", type=int, default=0, help="of everything random (default: 0)")
    group.add_argument("--gpu", metavar="N,N|-1", help="devices to use (default: all; -1: none)")
    group.add_argument(
        "--deterministic",
        action="store_true",
        help="repeatable kernels on GPUs too (on the CPU they always are)",
    )
    group.add_argument(
        "--feature_cache",
        choices=("auto", "memory", "disk", "off"),
        default="auto",
        help="where stages 3 and 4 keep the frozen base's features (default: auto: "
        "memory, else disk, else computed at each step)",
    )
    group.add_argument(
        "--cache_budget",
        type=float,
        metavar="GIB",
        help="for the feature cache (default: half of free memory, 80%% of free disk)",
    )
    group.add_argument(
        "--checkpoint_minutes",
        type=float,
        default=10.0,
        help="between checkpoints (default: 10, ours)",
    )
    group.add_argument("--workers", type=int, default=2, help="decoding threads (default: 2, ours)")


def recipe_from(arguments: argparse.Namespace, passes_of) -> Recipe:
    """The recipe that the flags ask for.

    Args:
        arguments: of :func:`build_parser`.
        passes_of: ``images_per_step -> iterations of one pass``; used by ``--num_epochs``.

    Raises:
        UserError: flags that contradict each other or are out of range.
    """
    joint = arguments.mode == "joint"
    if joint and arguments.recipe == "paper":
        raise UserError(
            "--mode joint exists in the py-faster-rcnn recipe only; leave --recipe out."
        )
    name = arguments.recipe or (PY_FASTER_RCNN.name if joint else "paper")
    recipe = RECIPES[name]
    recipe = dataclasses.replace(
        recipe,
        image=_image(recipe, arguments),
        anchors=_anchors(recipe, arguments),
        rpn=_with(
            recipe.rpn,
            positive_iou=_share(arguments.rpn_positive_iou, "--rpn_positive_iou"),
            negative_iou=_share(arguments.rpn_negative_iou, "--rpn_negative_iou"),
            minibatch_size=_positive(arguments.rpn_minibatch, "--rpn_minibatch"),
        ),
        detector=_detector(recipe, arguments),
        optimizer=_with(
            recipe.optimizer,
            momentum=arguments.momentum,
            weight_decay=arguments.weight_decay,
        ),
        joint_rois_per_image=arguments.num_rois or recipe.joint_rois_per_image,
        **{
            part: _with(getattr(recipe, part), min_size_image=arguments.min_size)
            for part in ("training_proposals", "joint_proposals", "test_proposals")
        },
    )
    if recipe.rpn.negative_iou > recipe.rpn.positive_iou:
        raise UserError("--rpn_negative_iou must not exceed --rpn_positive_iou.")
    return _schedules(recipe, arguments, joint, passes_of)


def _with(part, **changes):
    given = {name: value for name, value in changes.items() if value is not None}
    return dataclasses.replace(part, **given)


def _positive(value, flag: str):
    if value is not None and value <= 0:
        raise UserError(f"{flag} must be above 0, not {value}.")
    return value


def _share(value: float | None, flag: str) -> float | None:
    if value is not None and not 0 <= value <= 1:
        raise UserError(f"{flag} is an IoU and must lie in 0 to 1, not {value}.")
    return value


def _image(recipe: Recipe, arguments: argparse.Namespace):
    short = _positive(arguments.short_side, "--short_side") or recipe.image.short_side
    proportional = round(recipe.image.long_side * short / recipe.image.short_side)
    long = _positive(arguments.long_side, "--long_side") or proportional
    if long < short:
        raise UserError(f"--long_side {long} must not be below the short side {short}.")
    return _with(recipe.image, short_side=short, long_side=long)


def _anchors(recipe: Recipe, arguments: argparse.Namespace):
    changes = {}
    for name, flag in (
        ("anchor_scales", "--anchor_scales"),
        ("anchor_ratios", "--anchor_ratios"),
    ):
        text = getattr(arguments, name)
        if text is not None:
            changes[name.removeprefix("anchor_")] = numbers(text, float, flag)
    return dataclasses.replace(recipe.anchors, **changes)


def _detector(recipe: Recipe, arguments: argparse.Namespace):
    low = high = None
    if arguments.background_iou is not None:
        try:
            low, high = (float(part) for part in arguments.background_iou.split(","))
        except ValueError as error:
            raise UserError(
                f"--background_iou takes LOW,HIGH, not {arguments.background_iou!r}."
            ) from error
    detector = _with(
        recipe.detector,
        foreground_iou=_share(arguments.foreground_iou, "--foreground_iou"),
        background_iou_low=_share(low, "--background_iou"),
        background_iou_high=_share(high, "--background_iou"),
        rois_per_step=_positive(arguments.num_rois, "--num_rois"),
        roi_pooling=arguments.roi_pooling,
    )
    if detector.rois_per_step < detector.images_per_step:
        raise UserError(f"--num_rois must be at least {detector.images_per_step}, one an image.")
    return detector


def _schedules(recipe: Recipe, arguments, joint: bool, passes_of) -> Recipe:
    schedules = (recipe.joint,) if joint else recipe.stages
    lengths = [schedule.iterations for schedule in schedules]
    if arguments.iterations is not None and arguments.num_epochs is not None:
        raise UserError("--iterations and --num_epochs exclude each other; give one of them.")
    if arguments.iterations is not None:
        lengths = numbers(arguments.iterations, int, "--iterations", len(schedules))
    elif arguments.num_epochs is not None:
        _positive(arguments.num_epochs, "--num_epochs")
        per_step = (
            [recipe.joint_images_per_step]
            if joint
            else [
                recipe.rpn.images_per_step,
                recipe.detector.images_per_step,
            ]
            * 2
        )
        lengths = [max(1, round(arguments.num_epochs * passes_of(count))) for count in per_step]
    rates = [schedule.learning_rate for schedule in schedules]
    if arguments.learning_rate is not None:
        rates = numbers(arguments.learning_rate, float, "--learning_rate")
        if len(rates) == 1:
            rates = rates * len(schedules)
        if len(rates) != len(schedules):
            raise UserError(
                f"--learning_rate takes 1 or {len(schedules)} numbers, not {len(rates)}."
            )
    scaled = tuple(
        dataclasses.replace(schedule.scaled_to(length), learning_rate=rate)
        for schedule, length, rate in zip(schedules, lengths, rates, strict=True)
    )
    if joint:
        return dataclasses.replace(recipe, joint=scaled[0])
    return dataclasses.replace(recipe, stages=scaled)


def stages_from(text: str) -> tuple[int, ...]:
    """``"1,2"`` to ``(1, 2)``.

    Raises:
        UserError: anything but the first stages in order.
    """
    stages: Sequence[int] = numbers(text, int, "--stages")
    if tuple(stages) != tuple(range(1, len(stages) + 1)) or len(stages) > 4:
        raise UserError(f"--stages takes 1, 1,2, 1,2,3 or 1,2,3,4, not {text!r}.")
    return tuple(stages)
