"""``python -m keras_frcnn evaluate``: the VOC metric of a run, or of any program's detections."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from keras_frcnn.cli.common import (
    ORIGINS,
    HelpfulParser,
    check_outside,
    existing_path,
    make_console,
    number,
    some_of,
    whole_number,
)
from keras_frcnn.cli.data import first_images, load_test_data, passes_of
from keras_frcnn.cli.detectors import add_detector_flags, load_detector, place_of
from keras_frcnn.cli.given import given_source, load_given
from keras_frcnn.cli.shared_flags import add_flags, add_path_flags, short_sides
from keras_frcnn.data.dataset import Dataset
from keras_frcnn.detection.detections import ImageDetections
from keras_frcnn.detection.write_detections import check_names
from keras_frcnn.errors import UserError, counted
from keras_frcnn.evaluation.voc import print_table
from keras_frcnn.proposals.given import NUMBER_OF_BOXES
from keras_frcnn.recipes import RECIPES, DetectionFilter
from keras_frcnn.runs.folder import RunFolder
from keras_frcnn.system.devices import choose_devices, quiet_tensorflow
from keras_frcnn.system.files import check_inside, user_path, write_text

if TYPE_CHECKING:
    from keras_frcnn.detection.detector import Detector
    from keras_frcnn.evaluation.evaluate import Evaluation


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
    add_flags(group, "set")
    group.add_argument(
        "--out",
        metavar="DIR",
        help="where all files go\n"
        "default: the run folder; the current folder with --detections (ours)",
    )


def _add_how(group) -> None:
    add_flags(group, "stage", "proposals")
    group.add_argument(
        "--num_proposals",
        type=whole_number(1),
        metavar="N",
        help="proposals of an image\n"
        "default: 300 (config.py:162); the best 2000 of --proposals (section 4.1)",
    )
    add_flags(group, "scales")
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
    add_flags(group, "images", "strict", "precision", "gpu")


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
        type=some_of(WRITABLE, or_none=True),
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


def main(argv: Sequence[str] | None = None) -> None:
    """Evaluates, prints a table and writes ``evaluation.json`` and what else was asked for.

    Raises:
        UserError: for anything that the user can mend.
    """
    arguments = build_parser().parse_args(argv)
    check(arguments)
    path = existing_path(arguments.path, "The data path")
    console = make_console()
    quiet_tensorflow()
    choose_devices(arguments.gpu, deterministic=False)
    out, suffix = target_of(arguments)
    check_outside(out, path, "The output folder")
    check_stays(arguments, out, suffix)
    for name in ("report", "voc_results", "coco_results"):
        check_inside(out / f"{name}{suffix}", out)
    detector = None
    if arguments.detections is None:
        detector = load_detector(arguments, filter_of(arguments), console)
    whole = load_test_data(arguments, class_names_of(arguments, detector, path), console)
    dataset = first_images(whole, arguments.images)
    # Before hours of detection: what cannot be compared or written is told now.
    references = None
    if arguments.against is not None:
        references = read_file(arguments.against, whole, dataset, arguments, console)
    if "voc" in kinds_of_detections(arguments):
        check_names(dataset)
    from keras_frcnn.evaluation.evaluate import evaluate_detections

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
    record = evaluated.to_json()
    compared: list[str] = []
    if references is not None:
        from keras_frcnn.evaluation.agreement import compare

        record["against"], compared = compare(evaluated, references, arguments.against)
    target = out / f"evaluation{suffix}.json"
    write_text(target, json.dumps(record, indent=2) + "\n")
    written = [target, *write_detections(arguments, evaluated, out, suffix)]
    if arguments.report:
        score = SHOWN_SCORE if arguments.score_thresh is None else arguments.score_thresh
        written.append(evaluated.write_report(out / f"report{suffix}", score))
    if whole.problems:
        from keras_frcnn.data.checks import report_text

        written.append(out / f"evaluation_data{suffix}.txt")
        write_text(written[-1], report_text(whole.problems))
    # Last: a terminal may be gone, and all that can be kept is.
    print_table(evaluated.voc, console)
    for sentence in compared:
        console.print(sentence, soft_wrap=True)
    if evaluated.coco is not None:
        from keras_frcnn.evaluation.coco import print_coco

        print_coco(evaluated.coco, console)
    for file in written:
        console.print(f"written to {file}", soft_wrap=True)


def filter_of(arguments: argparse.Namespace) -> DetectionFilter | None:
    """The filter of ``--filter``; None: the recipe's own."""
    return RECIPES[arguments.filter].evaluation_filter if arguments.filter else None


def class_names_of(
    arguments: argparse.Namespace, detector: Detector | None, path: Path
) -> Sequence[str] | None:
    """The classes to number: the detector's, those of ``--classes``, or the devkit's."""
    if detector is not None:
        return detector.class_names
    if arguments.classes is not None:
        return RunFolder(arguments.classes).read_config().class_names
    if arguments.parser == "pascal_voc":
        from keras_frcnn.data.voc import read_class_names

        return read_class_names(path) or None
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
    from keras_frcnn.evaluation.evaluate import evaluate

    given = load_given(arguments.proposals, dataset)
    most = arguments.num_proposals or NUMBER_OF_BOXES
    if given is not None:
        given = given.best(most)

    def keep(finished: Dataset, found: dict[str, ImageDetections]) -> None:
        from keras_frcnn.detection.write_detections import dataset_records, write_json

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
    about = dict(evaluated.about)
    if given is not None:
        about["given"] = dataclasses.asdict(given_source(arguments.proposals, given))
        about["proposals"] = most
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


def target_of(arguments: argparse.Namespace) -> tuple[Path, str]:
    """The folder that is written to, and what the names of the files end in."""
    suffix = "-stage2" if arguments.stage == 2 else ""
    suffix += "-proposals" if arguments.proposals else ""
    return user_path(arguments.out or arguments.run or "."), suffix


def check_stays(arguments: argparse.Namespace, out: Path, suffix: str) -> None:
    """Makes sure that the detections are not written over those they are compared with.

    Raises:
        UserError: they would be.
    """
    if arguments.against is None:
        return
    against = user_path(arguments.against)
    names = {
        "json": f"detections{suffix}.json",
        "voc": f"voc_results{suffix}",
        "coco": f"coco_results{suffix}/coco_results.json",
    }
    for kind in kinds_of_detections(arguments):
        ours = out / names[kind]
        if ours.exists() and ours.samefile(against):
            raise UserError(
                f"The detections would replace --against {against}: choose another --out, or "
                "--write none."
            )


def kinds_of_detections(arguments: argparse.Namespace) -> tuple[str, ...]:
    """In which layouts detections are written: those of a file are there already."""
    if arguments.write is not None:
        return arguments.write
    return ("json",) if arguments.detections is None else ()


def write_detections(
    arguments: argparse.Namespace, evaluated: Evaluation, out: Path, suffix: str
) -> list[Path]:
    """Writes the detections in the layouts of ``--write``; returns what to tell of them."""
    from keras_frcnn.detection.write_detections import (
        dataset_records,
        write_coco,
        write_json,
        write_voc,
    )

    dataset, detections = evaluated.dataset, evaluated.detections
    kinds = kinds_of_detections(arguments)
    written: list[Path] = []
    if "json" in kinds:
        written.append(out / f"detections{suffix}.json")
        write_json(written[-1], dataset_records(dataset, detections))
    if "voc" in kinds:
        folder = out / f"voc_results{suffix}"
        write_voc(folder, dataset, detections)
        written.append(folder)
    if "coco" in kinds:
        written.extend(write_coco(out / f"coco_results{suffix}", dataset, detections))
    return written
