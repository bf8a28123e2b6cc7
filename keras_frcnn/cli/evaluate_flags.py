"""The flags of ``python -m keras_frcnn evaluate``."""

from __future__ import annotations

import argparse
import math

from keras_frcnn.cli.common import (
    ORIGINS,
    HelpfulParser,
    existing_path,
    number,
    whole_number,
)
from keras_frcnn.cli.detectors import (
    add_detector_flags,
    add_proposals_flag,
    add_stage_flag,
    place_of,
)
from keras_frcnn.cli.shared_flags import (
    add_first_images_flag,
    add_gpu_flag,
    add_path_flags,
    add_precision_flag,
    add_scales_flag,
    add_strict_flag,
    add_test_set_flag,
    short_sides,
)
from keras_frcnn.errors import UserError
from keras_frcnn.files import user_path
from keras_frcnn.recipes import RECIPES

SHOWN_SCORE = 0.5
WRITABLE = ("json", "voc", "coco")

EPILOG = f"""\
{ORIGINS}
examples:
  python -m keras_frcnn evaluate --run runs/vgg16 -p VOCdevkit --report
  python -m keras_frcnn evaluate --run runs/vgg16 -p VOCdevkit --stage 2
  python -m keras_frcnn evaluate --run runs/fast-rcnn -p VOCdevkit \\
      --proposals boxes.h5
  python -m keras_frcnn evaluate --detections all.json -p VOCdevkit --coco
  python -m keras_frcnn evaluate --detections results.tar.gz -p VOCdevkit
  python -m keras_frcnn evaluate --detections int8.json --against float32.json \\
      -p VOCdevkit --out int8
"""


def build_parser() -> argparse.ArgumentParser:
    """The parser; every default is named with its origin."""
    parser = HelpfulParser(
        prog="python -m keras_frcnn evaluate",
        usage="python -m keras_frcnn evaluate -p PATH --run DIR [flags]\n"
        "       python -m keras_frcnn evaluate -p PATH (--saved_model DIR | --onnx FILE) [flags]\n"
        "       python -m keras_frcnn evaluate -p PATH --detections FILE [flags]",
        description="PASCAL VOC average precision, 11-point and area, per class and mean.",
        epilog=EPILOG,
    )
    _add_what(parser.add_argument_group("what to evaluate on what"))
    _add_how(parser.add_argument_group("how"))
    _add_outputs(parser.add_argument_group("what is written besides the table and evaluation.json"))
    return parser


def _add_what(group) -> None:
    add_detector_flags(group)
    group.add_argument(
        "--detections",
        metavar="FILE",
        help="detections of any program, instead of --run: a JSON list of {file_name or image_id, "
        "class_name or category_id, bbox [x, y, width, height], score}, as COCO's results; or a "
        "folder or tar archive of VOC's comp4_det_test_CLASS.txt",
    )
    group.add_argument(
        "--coco_annotations",
        metavar="FILE",
        help="the annotations whose ids the JSON of --detections uses\n"
        "default: image_id is the VOC id or its digits, category_id the place in the class list, "
        "from 1 (ours)",
    )
    group.add_argument(
        "--classes",
        metavar="DIR",
        help="run folder whose classes --detections has, where the data lack objects of some\n"
        "default: the classes of the data (ours)",
    )
    add_path_flags(group)
    add_test_set_flag(group)
    group.add_argument(
        "--out",
        metavar="DIR",
        help="where all files go\n"
        "default: the run folder; the current folder with --detections (ours)",
    )


def _add_how(group) -> None:
    add_stage_flag(group)
    add_proposals_flag(group)
    group.add_argument(
        "--num_proposals",
        type=whole_number(1),
        metavar="N",
        help="proposals of an image\n"
        "default: 300 (config.py:162); the best 2000 of --proposals (section 4.1)",
    )
    add_scales_flag(group)
    group.add_argument(
        "--filter",
        choices=tuple(RECIPES),
        metavar="RECIPE",
        help="which detections count. paper: a class's 100 best boxes of an image, suppressed, 40 "
        "an image over the set (fast_rcnn_test.m:74-79,103-111); py-faster-rcnn: score above "
        "0.05, suppressed, 100 an image (test.py:264-283), which suits crowds\n"
        "default: the recipe that the run was trained by",
    )
    group.add_argument(
        "--iou",
        type=number(0, 1, above=True),
        default=0.5,
        metavar="IOU",
        help="least IoU of a true positive\ndefault: 0.5 (VOCevaldet.m of the devkit)",
    )
    add_first_images_flag(group)
    add_strict_flag(group)
    add_precision_flag(group)
    add_gpu_flag(group)


def _add_outputs(group) -> None:
    group.add_argument(
        "--report",
        action="store_true",
        help="report/: report.html (one file, opens anywhere) with precision-recall curves, "
        "confusion matrix, the worst images of each class, and the figures as PNG and CSV\n"
        "default: off (ours)",
    )
    group.add_argument(
        "--score_thresh",
        type=number(-math.inf),
        metavar="SCORE",
        help="lowest score in the confusion matrix and the pictures of the report\n"
        f"default: {SHOWN_SCORE}, above which no other class of a box has a higher one (ours)",
    )
    group.add_argument(
        "--against",
        metavar="FILE",
        help="detections of the same images by another form of the network, such as float32's: how "
        "many of those from score 0.3 have a partner among the evaluated, and the AP of all "
        "classes in one ranking, of both\ndefault: none (ours)",
    )
    group.add_argument(
        "--coco",
        action="store_true",
        help="COCO's AP and AR too; needs the extra paper\ndefault: off (ours)",
    )
    group.add_argument(
        "--write",
        type=_file_kinds,
        metavar="KINDS",
        help="detections as json (detections.json), voc (voc_results/comp4_det_test_CLASS.txt), "
        "coco (coco_results/coco_results.json, and coco_annotations.json), such as voc,coco, or "
        "none\n"
        "default: json, to evaluate again without the network; none with --detections (ours)",
    )


def check(arguments: argparse.Namespace) -> None:
    """Refuses flags that contradict each other and files that are not there.

    Raises:
        UserError: see above.
    """
    if (place_of(arguments) is None) == (arguments.detections is None):
        raise UserError(
            "Give one of --run DIR, --saved_model DIR, --onnx FILE and --detections FILE."
        )
    if arguments.detections is None:
        if arguments.coco_annotations is not None:
            raise UserError("--coco_annotations belongs to --detections, whose ids it explains.")
        if arguments.classes is not None:
            raise UserError("--classes belongs to --detections: a detector knows its own.")
    else:
        file = existing_path(arguments.detections, "--detections")
        if arguments.coco_annotations is not None:
            existing_path(arguments.coco_annotations, "--coco_annotations")
        for flag in ("stage", "num_proposals", "proposals", "scales", "filter", "precision"):
            if getattr(arguments, flag) is not None:
                raise UserError(f"--{flag} belongs to --run; detections in a file are made.")
        for name in ("detections.json", "voc_results", "coco_results/coco_results.json"):
            ours = user_path(arguments.out or ".") / name
            if arguments.write and ours.exists() and ours.samefile(file):
                raise UserError(f"--write would replace --detections {file}: choose another --out.")
    if arguments.filter is not None and not (arguments.run or arguments.detections):
        raise UserError("--filter belongs to --run: an export has its own inside.")
    short_sides(arguments.scales)
    if arguments.against is not None:
        existing_path(arguments.against, "--against")
    if arguments.out is not None and user_path(arguments.out).is_file():
        raise UserError(f"--out {arguments.out} is a file; give a folder.")
    if arguments.score_thresh is not None and not arguments.report:
        raise UserError("--score_thresh is for the report: add --report or leave it out.")
    if arguments.coco:
        from keras_frcnn.evaluation.coco import check_available

        check_available()


def _file_kinds(text: str) -> tuple[str, ...]:
    kinds = tuple(dict.fromkeys(text.split(",")))
    if kinds == ("none",):
        return ()
    if not set(kinds) <= set(WRITABLE):
        expected = f"{', '.join(WRITABLE)}, some of them with commas, or none"
        raise argparse.ArgumentTypeError(f"expected {expected}, not {text!r}")
    return kinds
