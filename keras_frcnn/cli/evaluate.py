"""``python -m keras_frcnn evaluate``: the VOC metric of a run, or of any program's detections."""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from keras_frcnn.cli import flags
from keras_frcnn.cli.common import data_path, existing_path, start
from keras_frcnn.cli.inputs import (
    first_images,
    load_detector,
    load_given,
    load_test_data,
    passes_of,
    place_of,
)
from keras_frcnn.data import voc
from keras_frcnn.data.dataset import Dataset
from keras_frcnn.detection.detections import ImageDetections
from keras_frcnn.detection.write_detections import LAYOUTS, check_names, place_of_layout
from keras_frcnn.errors import UserError, counted
from keras_frcnn.evaluation.voc import print_table
from keras_frcnn.proposals.given import NUMBER_OF_BOXES
from keras_frcnn.recipes import RECIPES
from keras_frcnn.runs.folder import RunFolder
from keras_frcnn.system.files import check_inside, user_path

if TYPE_CHECKING:
    from keras_frcnn.detection.detector import Detector
    from keras_frcnn.evaluation.evaluate import Evaluation


SHOWN_SCORE = 0.5
# How a detector works, which detections in a file no longer depend on.
OF_DETECTORS = ("stage", "num_proposals", "proposals", "scales", "tile", "filter", "precision")

EPILOG = f"""\
{flags.ORIGINS}
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
    parser = flags.HelpfulParser(
        prog="python -m keras_frcnn evaluate",
        usage="python -m keras_frcnn evaluate -p PATH --run DIR [flags]\n"
        "       python -m keras_frcnn evaluate -p PATH --saved_model DIR [flags]\n"
        "       python -m keras_frcnn evaluate -p PATH --onnx FILE [flags]\n"
        "       python -m keras_frcnn evaluate -p PATH --detections FILE [flags]",
        description="PASCAL VOC average precision, 11-point and area, per class and mean.",
        epilog=EPILOG,
    )
    _add_what(parser.add_argument_group("what to evaluate on what"))
    _add_how(parser.add_argument_group("how"))
    _add_outputs(parser.add_argument_group("what is written besides the table and evaluation.json"))
    return parser


def _add_what(group) -> None:
    flags.add_detector(group)
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
    flags.add_path(group, required=False, help=f"{flags.DATA_PATH}\ndefault: the data of --run")
    flags.add(group, "set")
    group.add_argument(
        "--out",
        metavar="DIR",
        help="where all files go\n"
        "default: the run folder; the current folder with --detections (ours)",
    )


def _add_how(group) -> None:
    flags.add(group, "stage", "proposals")
    flags.add(
        group,
        "num_proposals",
        help="proposals of an image\n"
        "default: 300 (config.py:162); the best 2000 of --proposals (section 4.1)",
    )
    flags.add(group, "scales", "tile")
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
        type=flags.number(0, 1, above=True),
        default=0.5,
        metavar="IOU",
        help="least IoU of a true positive\ndefault: 0.5 (VOCevaldet.m of the devkit)",
    )
    flags.add(group, "images", "strict", "precision", "gpu")


def _add_outputs(group) -> None:
    flags.add_switch(
        group,
        "--report",
        "report/: report.html (one file, opens anywhere) with precision-recall curves, "
        "confusion matrix, the worst images of each class, and the figures as PNG and CSV\n"
        "default: off (ours)",
    )
    group.add_argument(
        "--score_thresh",
        type=flags.number(-math.inf),
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
    flags.add_switch(
        group, "--coco", "COCO's AP and AR too; needs the extra paper\ndefault: off (ours)"
    )
    group.add_argument(
        "--write",
        type=flags.some_of(LAYOUTS, or_none=True),
        metavar="KINDS",
        help="detections as json (detections.json), voc (voc_results/comp4_det_test_CLASS.txt), "
        "coco (coco_results/coco_results.json, and coco_annotations.json), such as voc,coco, or "
        "none\n"
        "default: json, to evaluate again without the network; none with --detections (ours)",
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Evaluates, prints a table and writes ``evaluation.json`` and what else was asked for.

    Raises:
        UserError: for anything that the user can mend.
    """
    arguments = build_parser().parse_args(argv)
    place = checked_place(arguments)
    of_run(arguments)
    suffix = "-stage2" if arguments.stage == 2 else ""
    suffix += "-proposals" if arguments.proposals else ""
    out = user_path(arguments.out or arguments.run or ".")
    path = data_path(arguments.path, out, what="The output folder")
    check_outputs(arguments, out, suffix)
    console, _ = start(arguments.gpu)
    detector = None
    if place is not None:
        own_filter = RECIPES[arguments.filter].evaluation_filter if arguments.filter else None
        detector = load_detector(arguments, place, own_filter, console)
    whole = load_test_data(arguments, class_names_of(arguments, detector, path), console)
    dataset = first_images(whole, arguments.images)
    # Before hours of detection: what cannot be compared or written is told now.
    references = None
    if arguments.against is not None:
        references = read_file(arguments.against, whole, dataset, arguments, console)
    if "voc" in layouts_of(arguments):
        check_names(dataset)
    from keras_frcnn.evaluation.evaluate import evaluate_detections, write_evaluation

    if detector is None:
        detections = read_file(arguments.detections, whole, dataset, arguments, console)
        evaluated = evaluate_detections(
            dataset,
            detections,
            iou_threshold=arguments.iou,
            coco=arguments.coco,
            source=str(user_path(arguments.detections)),
        )
    else:
        part = out / f"detections{suffix}-part.json"
        evaluated = run_detector(arguments, detector, dataset, part, console)
    about: dict[str, Any] = {}
    compared: list[str] = []
    if references is not None:
        from keras_frcnn.evaluation.agreement import compare

        about["against"], compared = compare(evaluated, references, arguments.against)
    score = SHOWN_SCORE if arguments.score_thresh is None else arguments.score_thresh
    written = write_evaluation(
        evaluated,
        out,
        suffix=suffix,
        layouts=layouts_of(arguments),
        report_score=score if arguments.report else None,
        problems=whole.problems,
        about=about,
    )
    # Last: a terminal may be gone, and all that can be kept is.
    print_table(evaluated.voc, console)
    for sentence in compared:
        console.print(sentence, soft_wrap=True)
    if evaluated.coco is not None:
        from keras_frcnn.evaluation.coco import print_coco

        print_coco(evaluated.coco, console)
    for file in written:
        console.print(f"written to {file}", soft_wrap=True)


def checked_place(arguments: argparse.Namespace) -> str | None:
    """Where the detector lies, None with ``--detections``; refuses flags at odds with each other.

    Raises:
        UserError: see above, or a file is not there.
    """
    place = place_of(arguments)
    if (place is None) == (arguments.detections is None):
        raise UserError(
            "Give one of --run DIR, --saved_model DIR, --onnx FILE and --detections FILE."
        )
    if arguments.detections is None:
        if arguments.coco_annotations is not None:
            raise UserError("--coco_annotations belongs to --detections, whose ids it explains.")
        if arguments.classes is not None:
            raise UserError("--classes belongs to --detections: a detector knows its own.")
    for flag in OF_DETECTORS if place is None else ():
        if getattr(arguments, flag) is not None:
            raise UserError(f"--{flag} belongs to --run; detections in a file are made.")
    for flag in ("detections", "coco_annotations", "against"):
        if getattr(arguments, flag) is not None:
            existing_path(getattr(arguments, flag), f"--{flag}")
    if arguments.filter is not None and arguments.run is None:
        raise UserError("--filter belongs to --run: an export has its own inside.")
    flags.short_sides(arguments.scales)
    if arguments.score_thresh is not None and not arguments.report:
        raise UserError("--score_thresh is for the report: add --report or leave it out.")
    if arguments.coco:
        from keras_frcnn.evaluation.coco import check_available

        check_available()
    return place


def check_outputs(arguments: argparse.Namespace, out: Path, suffix: str) -> None:
    """Makes sure that all can be written, and not over what is read.

    Raises:
        UserError: it cannot.
    """
    if out.is_file():
        raise UserError(f"--out {arguments.out} is a file; give a folder.")
    for flag in ("detections", "against"):
        text = getattr(arguments, flag)
        for layout in layouts_of(arguments) if text is not None else ():
            ours = place_of_layout(layout, out, suffix)
            if ours.exists() and ours.samefile(user_path(text)):
                raise UserError(
                    f"--write would replace --{flag} {text}: choose another --out, or --write none."
                )
    for name in ("report", "voc_results", "coco_results"):
        check_inside(out / f"{name}{suffix}", out)


def layouts_of(arguments: argparse.Namespace) -> tuple[str, ...]:
    """In which layouts detections are written: those of a file are there already."""
    if arguments.write is not None:
        return arguments.write
    return ("json",) if arguments.detections is None else ()


def of_run(arguments: argparse.Namespace) -> None:
    """Without a path: the data that the run was trained on, where their test part is.

    Raises:
        UserError: there is no run either.
    """
    if arguments.path is not None:
        return
    if arguments.run is None:
        raise UserError("Expected the data to evaluate on: give them as -p PATH.")
    data = RunFolder(arguments.run).read_config().data
    arguments.path, arguments.parser = data.path, arguments.parser or data.parser


def class_names_of(
    arguments: argparse.Namespace, detector: Detector | None, path: Path
) -> Sequence[str] | None:
    """The classes to number: the detector's, those of ``--classes``, or the devkit's."""
    if detector is not None:
        return detector.class_names
    if arguments.classes is not None:
        return RunFolder(arguments.classes).read_config().class_names
    if arguments.parser in (None, "pascal_voc") and voc.recognises(path):
        return voc.read_class_names(path) or None
    return None


def run_detector(
    arguments: argparse.Namespace,
    detector: Detector,
    dataset: Dataset,
    part: Path,
    console: Console,
) -> Evaluation:
    """Evaluates a detector with a progress bar; stopped, says where what it found is.

    Args:
        part: where that is.
    """
    from keras_frcnn.detection.write_detections import dataset_records, write_json
    from keras_frcnn.evaluation.evaluate import evaluate
    from keras_frcnn.proposals.files import source_of_given

    about: dict[str, Any] = {}
    given = None
    if arguments.proposals is not None:
        whole, most = load_given(arguments.proposals, dataset), arguments.num_proposals
        given = whole.best(most or NUMBER_OF_BOXES)
        about["given"] = dataclasses.asdict(source_of_given(arguments.proposals, whole))
        about["proposals"] = most or NUMBER_OF_BOXES

    def keep(finished: Dataset, found: dict[str, ImageDetections]) -> None:
        write_json(part, dataset_records(finished, found))
        classes = f" --classes {arguments.run}" if arguments.run else ""
        console.print(
            f"{counted(len(finished), 'image')} finished, their detections are in {part}; evaluate "
            f"takes them: --detections {part} --images {len(finished)}{classes}",
            soft_wrap=True,
        )

    evaluated = evaluate(
        detector,
        dataset,
        proposals=given,
        iou_threshold=arguments.iou,
        coco=arguments.coco,
        when_stopped=keep,
        passes=passes_of(console, dataset),
    )
    seconds = evaluated.about["seconds_per_image"]
    console.print(f"{counted(len(dataset), 'image')}, {seconds:.2f} s an image")
    about = {**evaluated.about, **about}
    if arguments.run:
        about["filter"] = arguments.filter or about["recipe"]
    variant = " after stage 2" if arguments.stage == 2 else ""
    return dataclasses.replace(evaluated, about=about, subject=f"{detector.source}{variant}")


def read_file(
    text: str,
    whole: Dataset,
    dataset: Dataset,
    arguments: argparse.Namespace,
    console: Console,
) -> dict[str, ImageDetections]:
    """The detections of a file on the images that are evaluated.

    Args:
        whole: all images of the sets, of which the file may have detections.
        dataset: those that are evaluated.
    """
    from keras_frcnn.evaluation.read_detections import read_detections

    detections, notes = read_detections(user_path(text), whole, arguments.coco_annotations)
    for note in notes:
        console.print(note)
    keys = {example.key for example in dataset.examples}
    return {key: found for key, found in detections.items() if key in keys}
