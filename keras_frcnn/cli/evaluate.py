"""``python -m keras_frcnn evaluate``: the VOC metric of a run, or of any program's detections."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from keras_frcnn.cli.common import (
    check_outside,
    existing_path,
    make_console,
    quiet_tensorflow,
)
from keras_frcnn.cli.evaluate_flags import SCORE_THRESHOLD, build_parser, check
from keras_frcnn.cli.evaluated import (
    Evaluated,
    data_of_run,
    evaluate_file,
    evaluate_run,
    read_file,
)
from keras_frcnn.data.dataset import Dataset
from keras_frcnn.errors import UserError
from keras_frcnn.evaluation.detection_files import ImageDetections
from keras_frcnn.evaluation.voc import decimal, evaluate_voc, print_table
from keras_frcnn.evaluation.voc_files import check_names
from keras_frcnn.files import check_inside, user_path, write_text


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
    out, suffix = target_of(arguments)
    check_outside(out, path, "The output folder")
    check_stays(arguments, out, suffix)
    for name in ("report", "voc_results", "coco_results"):
        check_inside(out / f"{name}{suffix}", out)
    if arguments.run:
        whole, dataset = data_of_run(arguments, path, console)
        # Before hours of detection: what cannot be compared or written is told now.
        references = read_references(arguments, whole, console)
        if "voc" in kinds_of_detections(arguments):
            check_names(dataset)
        part = out / f"detections{suffix}-part.json"
        evaluated = evaluate_run(arguments, whole, dataset, console, part=part)
    else:
        evaluated = evaluate_file(arguments, path, console)
        references = read_references(arguments, evaluated.whole, console)
    record = {**evaluated.result.to_json(), **evaluated.about}
    compared: list[str] = []
    if references is not None:
        record["against"], compared = compare(arguments, evaluated, references)
    coco = None
    if arguments.coco:
        from keras_frcnn.evaluation.coco import evaluate_coco, print_coco

        coco = evaluate_coco(evaluated.dataset, evaluated.detections)
        record["coco"] = coco.to_json()
    target = out / f"evaluation{suffix}.json"
    write_text(target, json.dumps(record, indent=2) + "\n")
    written = [target, *write_detections(arguments, evaluated, out, suffix)]
    if arguments.report:
        from keras_frcnn.evaluation.report import write_report

        score = SCORE_THRESHOLD if arguments.score_thresh is None else arguments.score_thresh
        page = write_report(
            out / f"report{suffix}",
            evaluated.dataset,
            evaluated.detections,
            evaluated.result,
            subject=evaluated.subject,
            score_threshold=score,
            coco=coco,
        )
        written.append(page)
    if evaluated.whole.problems:
        from keras_frcnn.data.checks import report_text

        written.append(out / f"evaluation_data{suffix}.txt")
        write_text(written[-1], report_text(evaluated.whole.problems))
    # Last: a terminal may be gone, and all that can be kept is.
    print_table(evaluated.result, console)
    for sentence in compared:
        console.print(sentence, soft_wrap=True)
    if coco is not None:
        print_coco(coco, console)
    for file in written:
        console.print(f"written to {file}", soft_wrap=True)


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


def read_references(
    arguments: argparse.Namespace, whole: Dataset, console: Console
) -> dict[str, ImageDetections] | None:
    """The detections of ``--against``, ``None`` without it."""
    if arguments.against is None:
        return None
    return read_file(arguments.against, whole, arguments, console)


def compare(
    arguments: argparse.Namespace,
    evaluated: Evaluated,
    references: dict[str, ImageDetections],
) -> tuple[dict[str, Any], list[str]]:
    """How far the detections are those of ``--against``: for the record, and as sentences."""
    from keras_frcnn.evaluation.agreement import (
        CLOSE,
        ROUGH,
        agreement,
        pooled_average_precision,
    )

    other = evaluate_voc(
        evaluated.dataset,
        references,
        iou_threshold=arguments.iou,
        strictly_greater=evaluated.result.strictly_greater,
    )
    pooled = [pooled_average_precision(result) for result in (evaluated.result, other)]
    found = [agreement(references, evaluated.detections, tolerance) for tolerance in (CLOSE, ROUGH)]
    sentences = [
        f"AP of all classes in one ranking: {decimal(pooled[0])}, "
        f"in {arguments.against} {decimal(pooled[1])}",
        *(f"of {arguments.against}: {each}" for each in found),
    ]
    record = {
        "detections": str(arguments.against),
        "ap_pooled": pooled[0],
        "ap_pooled_against": pooled[1],
        "agreement": [each.to_json() for each in found],
    }
    return record, sentences


def kinds_of_detections(arguments: argparse.Namespace) -> tuple[str, ...]:
    """In which layouts detections are written: those of a file are there already."""
    if arguments.write is not None:
        return arguments.write
    return ("json",) if arguments.run else ()


def write_detections(
    arguments: argparse.Namespace, evaluated: Evaluated, out: Path, suffix: str
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
