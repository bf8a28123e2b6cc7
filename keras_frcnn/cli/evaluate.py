"""``python -m keras_frcnn evaluate``: the VOC metric of a run, or of any program's detections."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from keras_frcnn.cli.common import (
    check_outside,
    existing_path,
    make_console,
)
from keras_frcnn.cli.data import first_images, load_test_data, passes_of
from keras_frcnn.cli.detectors import load_detector
from keras_frcnn.cli.evaluate_flags import SHOWN_SCORE, build_parser, check
from keras_frcnn.cli.given import given_source, load_given
from keras_frcnn.data.dataset import Dataset
from keras_frcnn.detection.detections import ImageDetections
from keras_frcnn.devices import choose_devices, quiet_tensorflow
from keras_frcnn.errors import UserError, counted
from keras_frcnn.evaluation.voc import print_table
from keras_frcnn.evaluation.voc_files import check_names
from keras_frcnn.files import check_inside, user_path, write_text
from keras_frcnn.proposals.given import NUMBER_OF_BOXES
from keras_frcnn.recipes import RECIPES, DetectionFilter
from keras_frcnn.runs import RunFolder
from keras_frcnn.settings import to_json

if TYPE_CHECKING:
    from keras_frcnn.detection.detector import Detector
    from keras_frcnn.evaluation.evaluate import Evaluation


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
    from keras_frcnn.evaluation.evaluate import evaluate_detections, with_report

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
        written.append(with_report(evaluated, out / f"report{suffix}", score).report)
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
        from keras_frcnn.evaluation.detection_files import dataset_records, write_json

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
        about["given"] = to_json(given_source(arguments.proposals, given))
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
    from keras_frcnn.evaluation.sources import read_detections

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
    from keras_frcnn.evaluation.coco_files import write_coco
    from keras_frcnn.evaluation.detection_files import dataset_records, write_json
    from keras_frcnn.evaluation.voc_files import write_voc

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
