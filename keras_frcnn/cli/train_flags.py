"""The flags of ``train_frcnn.py``, what they change in a recipe, which do not go together."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

from keras_frcnn.cli import flags
from keras_frcnn.cli.common import output_file
from keras_frcnn.data.anchor_files import read_anchors
from keras_frcnn.errors import UserError
from keras_frcnn.recipes import (
    BOX_WEIGHTS,
    NETWORKS,
    PY_FASTER_RCNN,
    RECIPES,
    AnchorConfig,
    DetectorConfig,
    ImageConfig,
    OptimizerConfig,
    ProposalConfig,
    Recipe,
    RpnConfig,
    stages_on,
)
from keras_frcnn.runs.config import LARGEST_SEED
from keras_frcnn.training.options import TrainingOptions

MOST_ITERATIONS = 10**9
StageNumber = Literal[1, 2, 3, 4]

EPILOG = f"""\
the two recipes (all numbers with their sources: keras_frcnn/recipes.py):
  paper           backgrounds at IoU 0.1 to 0.5, RPN box targets normalised
  py-faster-rcnn  backgrounds at IoU 0 to 0.5, RPN smooth L1 with sigma 3,
                  also as --mode joint

{flags.ORIGINS}
examples:
  train_frcnn.py -p pictures --minutes 20
  train_frcnn.py -p VOCdevkit
  train_frcnn.py -p VOCdevkit --train_set 07+12 --name voc0712
  train_frcnn.py -p boxes.txt -o simple --num_epochs 2 --short_side 400
  train_frcnn.py -p VOCdevkit --proposals voc_2007_trainval.mat --name fast-rcnn
  train_frcnn.py -p VOCdevkit --resume
"""


def build_parser() -> argparse.ArgumentParser:
    """The parser with its groups; every default is named with its origin."""
    parser = flags.HelpfulParser(
        prog="train_frcnn.py",
        usage="train_frcnn.py -p PATH [flags]",
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
    flags.add_path(group)
    flags.add_training_set(group)
    group.add_argument(
        "--hf",
        dest="flips",
        action="store_true",
        default=True,
        help="see every image mirrored, too\ndefault: on (imdb.py:102-117; off in the lineage)",
    )
    group.add_argument(
        "--no-hf",
        dest="flips",
        action="store_false",
        help="see images only as they are\ndefault: off (imdb.py:102-117)",
    )
    flags.add_fields(group, ImageConfig)
    flags.add(group, "strict")


def _add_model(group) -> None:
    flags.add(
        group,
        "network",
        default="vgg16",
        choices=(*NETWORKS, "vgg"),
        help="vgg16 (or vgg), zf, resnet50; tiny is for demos and tests\n"
        "default: vgg16 (section 4.1; resnet50 in the lineage)",
    )
    group.add_argument(
        "--weights",
        metavar="KIND",
        choices=("imagenet", "random"),
        help="imagenet or random: what to start from without --input_weight_path\n"
        "default: imagenet (section 3.1); random of tiny",
    )
    flags.add(
        group,
        "input_weight_path",
        help="start from a Keras HDF5 file, a .weights.h5 of this package or a run folder\n"
        "default: none, see --weights",
    )
    group.add_argument(
        "--output_weight_path",
        metavar="FILE",
        help="copy the final weights there too, any suffix\n"
        "default: only in the run folder (ours; ./model_frcnn.hdf5 in the lineage)",
    )
    flags.add(
        group,
        "precision",
        help="of convolutions and fc layers: float32, bfloat16, float16, or auto: what is measured "
        "fastest here; losses and boxes are always float32\n"
        "default: float32 (Caffe's); auto with --minutes",
    )
    flags.add_fields(group, DetectorConfig, "roi_pooling")


def _add_schedule(group) -> None:
    minutes = flags.number(0, 10**6, above=True)
    group.add_argument(
        "--minutes",
        type=minutes,
        metavar="M",
        help="plan a training that takes so long here: size, anchors, rate and iterations are "
        "chosen by your data and this machine, and each is told with its reason\n"
        "default: none, the recipe's schedule",
    )
    group.add_argument(
        "--hours",
        dest="minutes",
        type=lambda text: 60 * minutes(text),
        metavar="H",
        help="the same in hours\ndefault: none",
    )
    group.add_argument(
        "--recipe",
        metavar="NAME",
        choices=tuple(RECIPES),
        help="paper or py-faster-rcnn, see below\ndefault: paper; py-faster-rcnn with --mode joint",
    )
    group.add_argument(
        "--mode",
        metavar="MODE",
        choices=("alternating", "joint"),
        help="alternating: the four steps; joint: approximate joint training\n"
        "default: alternating (section 3.2); joint with --minutes",
    )
    group.add_argument(
        "--proposals",
        nargs="+",
        metavar="FILE",
        help="train Fast R-CNN alone, stage 2, on these: files of python -m keras_frcnn proposals, "
        "or .mat files of Selective Search; all boxes as they are, mirrored for mirrored images "
        "unless the file has theirs\n"
        "default: none, the RPN's",
    )
    group.add_argument(
        "--stages",
        metavar="1,2",
        help="stop early; 1,2 is the unshared variant; --resume with more goes on\n"
        "default: 1,2,3,4 (section 3.2)",
    )
    group.add_argument(
        "--iterations",
        metavar="A,B,C,D",
        help="of the four stages, the drop of the learning rate at the same fraction\n"
        "default: 80000,40000,80000,40000 (train_faster_rcnn_alt_opt.py:80), of the detector "
        "60000 on 07+12 (VGG16_for_Faster_RCNN_VOC0712.m:20) and 100000 on 07++12; joint: 70000 "
        "(faster_rcnn_end2end.sh); one number with --proposals, 40000",
    )
    group.add_argument(
        "--num_epochs",
        type=flags.number(0, above=True),
        metavar="E",
        help="scale every stage to E passes instead; a pass is every image that the stage sees "
        "once in each orientation\n"
        "default: see --iterations, about 8 on VOC 2007 (2000 of 1000 iterations in the lineage)",
    )
    group.add_argument(
        "--learning_rate",
        metavar="LR[,LR...]",
        help="one, or one for each stage; a tenth of it in the last quarter (joint: 2/7, detector "
        "on 07+12: half, on 07++12: 3/5)\n"
        "default: 0.001 (stage1_rpn_solver60k80k.pt:3-10)",
    )
    flags.add_fields(group, OptimizerConfig)


def _add_rules(group) -> None:
    flags.add_fields(group, AnchorConfig)
    group.add_argument(
        "--anchors",
        metavar="FILE",
        help="anchor shapes (JSON) of python -m keras_frcnn anchors, instead of scales and ratios\n"
        "default: none, see --anchor_scales",
    )
    flags.add_fields(group, RpnConfig)
    flags.add_fields(group, DetectorConfig, "foreground_iou")
    group.add_argument(
        "--background_iou",
        metavar="LOW,HIGH",
        help="between which it is background\n"
        "default: 0.1,0.5 (fast_rcnn_config.m:31-32); 0,0.5 with py-faster-rcnn "
        "(faster_rcnn_alt_opt.yml)",
    )
    flags.add_fields(group, DetectorConfig, "rois_per_step", "dropout")
    flags.add_fields(group, ProposalConfig, "min_size_image")


def _add_run(group) -> None:
    group.add_argument(
        "--name",
        help="run folder runs/NAME, with the next number where it exists\n"
        "default: the network's name (ours)",
    )
    group.add_argument(
        "--out", metavar="DIR", help="run folder\ndefault: the next free runs/NAME (ours)"
    )
    group.add_argument(
        "--config_filename",
        metavar="FILE",
        help="write the configuration (JSON) there too; test_frcnn.py takes it\n"
        "default: only in the run folder (ours; config.pickle in the lineage)",
    )
    flags.add_switch(
        group,
        "--resume",
        "go on where the same command stopped\ndefault: off, a new run (ours)",
    )
    flags.add(
        group,
        "seed",
        type=flags.whole_number(0, LARGEST_SEED),
        default=0,
        help="of everything random\ndefault: 0 (ours; config.py:184 has 3)",
    )
    flags.add(group, "jit", "gpu")
    flags.add_switch(
        group,
        "--deterministic",
        "repeatable kernels on GPUs too, with --roi_pooling max, as crop's gradient has none "
        "there; same seed, data and machine: same weights, bit for bit. On the CPU it is always "
        "so\n"
        "default: off, they are slower and max takes several times crop's time (ours)",
    )
    flags.add_fields(group, TrainingOptions, "feature_cache", "image_cache", "cache_budget")
    group.add_argument(
        "--checkpoint_minutes",
        type=flags.number(0, above=True),
        default=10.0,
        metavar="MIN",
        help="between checkpoints\ndefault: 10 (ours)",
    )
    flags.add_fields(group, TrainingOptions, "workers")


def recipe_from(
    arguments: argparse.Namespace, passes_of: Callable[[int, bool], int], sets: Iterable[str] = ()
) -> Recipe:
    """The recipe that the flags ask for.

    Args:
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
    base = RECIPES[arguments.recipe or (PY_FASTER_RCNN.name if joint else "paper")]
    image = image_from(base.image, arguments)
    recipe = flags.with_flags(dataclasses.replace(base, image=image), arguments)
    rpn, detector = recipe.rpn, recipe.detector
    if arguments.rpn_box_normaliser is not None:
        rpn = dataclasses.replace(rpn, box_weight=BOX_WEIGHTS[rpn.box_normaliser])
    if arguments.background_iou is not None:
        low, high = _interval(arguments.background_iou, "--background_iou")
        detector = dataclasses.replace(detector, background_iou_low=low, background_iou_high=high)
    if arguments.num_rois is not None:
        detector.check_rois(arguments.num_rois, 1 if joint else detector.images_per_step)
    recipe = dataclasses.replace(
        recipe,
        stages=stages_on(recipe, sets),
        anchors=_anchors(recipe.anchors, image, arguments),
        rpn=rpn,
        detector=detector,
        joint_rois_per_image=arguments.num_rois or recipe.joint_rois_per_image,
    )
    return _scheduled(recipe, arguments, passes_of)


def image_from(image: ImageConfig, arguments: argparse.Namespace) -> ImageConfig:
    """Another size of the input; without a long side of its own it keeps the proportion."""
    if arguments.short_side is not None:
        image = image.with_short_side(arguments.short_side)
    return flags.with_flags(image, arguments)


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


def _interval(text: str, flag: str) -> tuple[float, float]:
    """``"0.1,0.5"`` to two numbers in 0 to 1, the first below the second."""
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError as error:
        raise UserError(f"{flag} takes LOW,HIGH such as 0.1,0.5, not {text!r}.") from error
    if not 0 <= low < high <= 1:
        raise UserError(f"{flag} takes LOW,HIGH with 0 <= LOW < HIGH <= 1, not {text!r}.")
    return low, high


def _scheduled(recipe: Recipe, arguments: argparse.Namespace, passes_of) -> Recipe:
    """With the lengths and rates of the flags."""
    schedules, passes = recipe.schedules(arguments.mode), recipe.passes(arguments.mode)
    lengths = [schedule.iterations for schedule in schedules]
    rates = [schedule.learning_rate for schedule in schedules]
    if arguments.iterations is not None and arguments.num_epochs is not None:
        raise UserError("--iterations and --num_epochs exclude each other; give one of them.")
    if arguments.iterations is not None:
        lengths = list(flags.numbers(arguments.iterations, int, "--iterations", len(schedules)))
    elif arguments.num_epochs is not None:
        lengths = [max(1, round(arguments.num_epochs * passes_of(*each))) for each in passes]
    if arguments.learning_rate is not None:
        rates = list(flags.numbers(arguments.learning_rate, float, "--learning_rate"))
        if len(rates) not in (1, len(schedules)):
            raise UserError(
                f"--learning_rate takes 1 or {len(schedules)} numbers, not {len(rates)}."
            )
        rates *= len(schedules) // len(rates)
    if max(lengths) > MOST_ITERATIONS:
        flag = "--iterations" if arguments.num_epochs is None else "--num_epochs"
        raise UserError(f"{flag} asks for more than {MOST_ITERATIONS:,} iterations of a stage.")
    scaled = [
        dataclasses.replace(schedule.scaled_to(length), learning_rate=rate)
        for schedule, length, rate in zip(schedules, lengths, rates, strict=True)
    ]
    return recipe.with_schedules(arguments.mode, scaled)


def stages_from(text: str | None) -> tuple[StageNumber, ...]:
    """``"1,2"`` to ``(1, 2)``; ``None`` to all four.

    Raises:
        UserError: anything but the first stages in order.
    """
    if text is None:
        return (1, 2, 3, 4)
    stages = flags.numbers(text, int, "--stages")
    if stages != tuple(range(1, len(stages) + 1)) or len(stages) > 4:
        raise UserError(f"--stages takes 1, 1,2, 1,2,3 or 1,2,3,4, not {text!r}.")
    return stages


def stages_of(arguments: argparse.Namespace) -> tuple[StageNumber, ...]:
    """Stages of a run: none of joint training, the second of Fast R-CNN alone."""
    if arguments.mode == "alternating":
        return stages_from(arguments.stages)
    return (2,) if arguments.mode == "fast-rcnn" else ()


def mode_from(arguments: argparse.Namespace) -> str:
    """``alternating``, ``joint``, or, with ``--proposals``, ``fast-rcnn``.

    Raises:
        UserError: ``--proposals`` with what trains an RPN.
    """
    if arguments.proposals is None:
        if arguments.minutes is not None and arguments.mode == "alternating":
            raise UserError(
                "--minutes plans joint training, which learns most in a short time: leave --mode "
                "alternating out."
            )
        return arguments.mode or ("alternating" if arguments.minutes is None else "joint")
    if arguments.minutes is not None:
        raise UserError("--minutes plans joint training, and --proposals is Fast R-CNN alone.")
    if arguments.mode == "joint" or arguments.stages is not None:
        flag = "--stages" if arguments.stages is not None else "--mode joint"
        raise UserError(
            f"--proposals trains Fast R-CNN alone, on boxes that are given, and {flag} trains an "
            "RPN, too; give one of them."
        )
    return "fast-rcnn"


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
    for one, other in (("weights", "input_weight_path"), ("name", "out")):
        if None not in (getattr(arguments, one), getattr(arguments, other)):
            raise UserError(f"--{one} and --{other} exclude each other; give one of them.")
    name = arguments.name
    if name is not None and (Path(name).name != name or name in ("", ".", "..")):
        raise UserError(f"--name {name} is no plain name; a folder elsewhere is --out.")
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
