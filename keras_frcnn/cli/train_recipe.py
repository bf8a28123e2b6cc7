"""What the flags of ``train_frcnn.py`` change in a recipe, and which of them do not go together."""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from keras_frcnn.cli.common import numbers, output_file
from keras_frcnn.cli.fields import with_flags
from keras_frcnn.data.anchor_files import read_anchors
from keras_frcnn.errors import UserError
from keras_frcnn.recipes import (
    PY_FASTER_RCNN,
    RECIPES,
    AnchorConfig,
    DetectorConfig,
    ImageConfig,
    Recipe,
    StageSchedule,
    stages_on,
)

MOST_ITERATIONS = 10**9

# Images of a step, and whether those without objects are left out.
Pass = tuple[int, bool]

# Footnote 3: the normaliser and the weight that balances the two losses go together.
_BOX_WEIGHTS = {"positions": 10.0, "sampled": 1.0}


def recipe_from(
    arguments: argparse.Namespace, passes_of: Callable[[int, bool], int], sets: Iterable[str] = ()
) -> Recipe:
    """The recipe that the flags ask for.

    Args:
        arguments: of :func:`build_parser`.
        passes_of: ``(images_per_step, with_objects) -> iterations of one pass``, over all images or
            those with objects; used by ``--num_epochs``.
        sets: image sets to train on; some have schedules of their own.

    Raises:
        UserError: flags that contradict each other or are out of range.
    """
    joint = arguments.mode == "joint"
    if joint and arguments.recipe == "paper":
        raise UserError(
            "--mode joint exists in the py-faster-rcnn recipe only; leave --recipe out."
        )
    name = arguments.recipe or (PY_FASTER_RCNN.name if joint else "paper")
    image = image_from(RECIPES[name].image, arguments)
    recipe = with_flags(RECIPES[name], arguments)
    recipe = dataclasses.replace(
        recipe,
        stages=stages_on(recipe, sets),
        image=image,
        anchors=_anchors(recipe.anchors, image, arguments),
        detector=_detector(recipe.detector, arguments),
        joint_rois_per_image=arguments.num_rois or recipe.joint_rois_per_image,
    )
    if arguments.rpn_box_normaliser is not None:
        weight = _BOX_WEIGHTS[arguments.rpn_box_normaliser]
        recipe = dataclasses.replace(recipe, rpn=dataclasses.replace(recipe.rpn, box_weight=weight))
    if recipe.rpn.negative_iou > recipe.rpn.positive_iou:
        raise UserError("--rpn_negative_iou must not exceed --rpn_positive_iou.")
    return _schedules(recipe, arguments, passes_of)


def image_from(image: ImageConfig, arguments: argparse.Namespace) -> ImageConfig:
    """Another size of the input; without a long side of its own it keeps the proportion.

    Raises:
        UserError: the long side is below the short one.
    """
    if arguments.short_side is not None:
        image = image.with_short_side(arguments.short_side)
    image = with_flags(image, arguments)
    if image.long_side < image.short_side:
        raise UserError(
            f"--long_side {image.long_side} must not be below the short side {image.short_side}."
        )
    return image


def _anchors(
    anchors: AnchorConfig, image: ImageConfig, arguments: argparse.Namespace
) -> AnchorConfig:
    if arguments.anchors is None:
        return anchors
    for name in ("anchor_scales", "anchor_ratios"):
        if getattr(arguments, name) is not None:
            raise UserError(
                f"--anchors and --{name} exclude each other: the file holds whole shapes."
            )
    shapes = read_anchors(arguments.anchors, image)
    return AnchorConfig(scales=(), ratios=(), shapes=shapes)


def _detector(detector: DetectorConfig, arguments: argparse.Namespace) -> DetectorConfig:
    if arguments.background_iou is not None:
        low, high = _interval(arguments.background_iou, "--background_iou")
        detector = dataclasses.replace(detector, background_iou_low=low, background_iou_high=high)
    images = 1 if arguments.mode == "joint" else detector.images_per_step
    # Of fewer none would be foreground, and objects never learnt.
    least = math.ceil(0.5 / detector.foreground_fraction)
    if arguments.num_rois is not None and (
        arguments.num_rois % images or arguments.num_rois < images * least
    ):
        several = f" and a multiple of {images}, its images" if images > 1 else ""
        raise UserError(
            f"--num_rois {arguments.num_rois} must be at least {images * least}{several}: a "
            f"share of {detector.foreground_fraction:g} of an image's RoIs is foreground."
        )
    return detector


def _interval(text: str, flag: str) -> tuple[float, float]:
    """``"0.1,0.5"`` to two numbers in 0 to 1, the first below the second."""
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError as error:
        raise UserError(f"{flag} takes LOW,HIGH such as 0.1,0.5, not {text!r}.") from error
    if not 0 <= low < high <= 1:
        raise UserError(f"{flag} takes LOW,HIGH with 0 <= LOW < HIGH <= 1, not {text!r}.")
    return low, high


def _schedules(recipe: Recipe, arguments, passes_of) -> Recipe:
    schedules, per_step = _trained(recipe, arguments.mode)
    lengths = [schedule.iterations for schedule in schedules]
    if arguments.iterations is not None and arguments.num_epochs is not None:
        raise UserError("--iterations and --num_epochs exclude each other; give one of them.")
    if arguments.iterations is not None:
        lengths = numbers(arguments.iterations, int, "--iterations", len(schedules))
    elif arguments.num_epochs is not None:
        lengths = [
            max(1, round(arguments.num_epochs * passes_of(count, with_objects)))
            for count, with_objects in per_step
        ]
    rates = [schedule.learning_rate for schedule in schedules]
    if arguments.learning_rate is not None:
        rates = numbers(arguments.learning_rate, float, "--learning_rate")
        if len(rates) == 1:
            rates = rates * len(schedules)
        if len(rates) != len(schedules):
            raise UserError(
                f"--learning_rate takes 1 or {len(schedules)} numbers, not {len(rates)}."
            )
    if max(lengths) > MOST_ITERATIONS:
        flag = "--iterations" if arguments.num_epochs is None else "--num_epochs"
        raise UserError(f"{flag} asks for more than {MOST_ITERATIONS:,} iterations of a stage.")
    scaled = tuple(
        dataclasses.replace(schedule.scaled_to(length), learning_rate=rate)
        for schedule, length, rate in zip(schedules, lengths, rates, strict=True)
    )
    if arguments.mode == "joint":
        return dataclasses.replace(recipe, joint=scaled[0])
    if arguments.mode == "fast-rcnn":
        scaled = (recipe.stages[0], *scaled, *recipe.stages[2:])
    return dataclasses.replace(recipe, stages=scaled)


def _trained(recipe: Recipe, mode: str) -> tuple[tuple[StageSchedule, ...], list[Pass]]:
    """The schedules of a mode, and what a pass of each is."""
    if mode == "joint":
        return (recipe.joint,), [(recipe.joint_images_per_step, False)]
    detector = (recipe.detector.images_per_step, recipe.detector.needs_objects)
    if mode == "fast-rcnn":
        return recipe.stages[1:2], [detector]
    return recipe.stages, [(recipe.rpn.images_per_step, False), detector] * 2


def stages_from(text: str | None) -> tuple[int, ...]:
    """``"1,2"`` to ``(1, 2)``; ``None`` to all four.

    Raises:
        UserError: anything but the first stages in order.
    """
    if text is None:
        return (1, 2, 3, 4)
    stages: Sequence[int] = numbers(text, int, "--stages")
    if tuple(stages) != tuple(range(1, len(stages) + 1)) or len(stages) > 4:
        raise UserError(f"--stages takes 1, 1,2, 1,2,3 or 1,2,3,4, not {text!r}.")
    return tuple(stages)


def mode_from(arguments: argparse.Namespace) -> str:
    """``alternating``, ``joint``, or, with ``--proposals``, ``fast-rcnn``.

    Raises:
        UserError: ``--proposals`` with what trains an RPN.
    """
    if arguments.proposals is None:
        return arguments.mode
    if arguments.mode == "joint" or arguments.stages is not None:
        flag = "--stages" if arguments.stages is not None else "--mode joint"
        raise UserError(
            f"--proposals trains Fast R-CNN alone, on boxes that are given, and {flag} trains an "
            "RPN, too; give one of them."
        )
    return "fast-rcnn"


def is_plain_name(name: str) -> bool:
    """Whether a folder of this name lies in ``runs/`` itself."""
    return Path(name).name == name and name not in ("", ".", "..")


def stages_of(arguments: argparse.Namespace) -> tuple[int, ...]:
    """Stages of a run: none of joint training, the second of Fast R-CNN alone."""
    if arguments.mode == "alternating":
        return stages_from(arguments.stages)
    return (2,) if arguments.mode == "fast-rcnn" else ()


def check_flags(arguments: argparse.Namespace) -> None:
    """Refuses what can be seen to be wrong without the data.

    Raises:
        UserError: flags that contradict each other, are out of range, or name files that cannot be
            written.
    """
    recipe_from(arguments, lambda images, with_objects: 1)
    stages = stages_from(arguments.stages)
    if arguments.mode == "joint" and arguments.stages is not None:
        raise UserError("--stages belongs to --mode alternating; --mode joint has one stage.")
    if arguments.weights is not None and arguments.input_weight_path is not None:
        raise UserError("--weights and --input_weight_path exclude each other; give one of them.")
    if arguments.name is not None and arguments.out is not None:
        raise UserError("--name and --out exclude each other; give one of them.")
    if arguments.name is not None and not is_plain_name(arguments.name):
        raise UserError(f"--name {arguments.name} is no plain name; a folder elsewhere is --out.")
    if arguments.output_weight_path is not None:
        output_file(arguments.output_weight_path, "--output_weight_path")
        if arguments.mode == "fast-rcnn":
            raise UserError(
                "--output_weight_path takes the weights of RPN and detector, and --proposals "
                "trains the detector alone: weights/stage2.weights.h5 of the run folder."
            )
        if 4 not in stages:
            raise UserError(
                "--output_weight_path takes the final weights, which come after stage 4; leave it "
                "or --stages out."
            )
    if arguments.config_filename is not None:
        output_file(arguments.config_filename, "--config_filename")
