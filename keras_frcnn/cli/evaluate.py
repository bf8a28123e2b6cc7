"""``python -m keras_frcnn evaluate``: the VOC metric of a run, or of any program's detections.

Shapes and names
----------------
set  image sets such as ``2007:test``.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import track

from keras_frcnn.cli.common import (
    ORIGINS,
    HelpfulParser,
    choose_devices,
    existing_path,
    make_console,
    number,
    quiet_tensorflow,
    whole_number,
)
from keras_frcnn.cli.given import given_record, load_given
from keras_frcnn.data.dataset import Dataset, Example
from keras_frcnn.errors import UserError
from keras_frcnn.files import write_text
from keras_frcnn.runs import RunFolder

EPILOG = f"""\
{ORIGINS}
examples:
  python -m keras_frcnn evaluate --run runs/vgg16 -p VOCdevkit --set 2007:test
  python -m keras_frcnn evaluate --run runs/vgg16 -p VOCdevkit --stage 2
  python -m keras_frcnn evaluate --run runs/fast-rcnn -p VOCdevkit \\
      --proposals boxes.h5
  python -m keras_frcnn evaluate --detections detections.json -p VOCdevkit
"""


def build_parser() -> argparse.ArgumentParser:
    """The parser; every default is named with its origin."""
    parser = HelpfulParser(
        prog="python -m keras_frcnn evaluate",
        usage="python -m keras_frcnn evaluate -p PATH --run DIR [flags]\n"
        "       python -m keras_frcnn evaluate -p PATH --detections FILE [flags]",
        description="PASCAL VOC average precision, 11-point and area, per class and mean.",
        epilog=EPILOG,
    )
    group = parser.add_argument_group("what to evaluate on what")
    group.add_argument("--run", metavar="DIR", help="run folder of train_frcnn.py")
    group.add_argument(
        "--detections",
        metavar="FILE",
        help="detections of any program, instead of --run: a JSON list of {file_name or image_id, "
        "class_name or category_id, bbox [x, y, width, height], score}",
    )
    group.add_argument(
        "-p",
        "--path",
        required=True,
        metavar="PATH",
        help="VOCdevkit folder, or the text file of -o simple",
    )
    group.add_argument(
        "-o",
        "--parser",
        metavar="LAYOUT",
        choices=("pascal_voc", "simple"),
        default="pascal_voc",
        help="pascal_voc, or simple: lines of path,x1,y1,x2,y2,class\n"
        "default: pascal_voc (lineage)",
    )
    group.add_argument(
        "--set",
        metavar="SETS",
        help="such as 2007:test\ndefault: every test set that exists (ours)",
    )
    group.add_argument(
        "--out",
        metavar="DIR",
        help="where evaluation.json goes\n"
        "default: the run folder; the current folder with --detections (ours)",
    )
    group = parser.add_argument_group("how")
    group.add_argument(
        "--stage",
        type=int,
        choices=(2, 4),
        metavar="2|4",
        help="2: the unshared variant, RPN of stage 1 and detector of stage 2\n"
        "default: 4, the result; 2 where the run was to stop there (section 3.2)",
    )
    group.add_argument(
        "--proposals",
        nargs="+",
        metavar="FILE",
        help="classify these boxes instead of the RPN's: files of python -m keras_frcnn proposals, "
        "or .mat files of Selective Search\n"
        "default: the RPN's; must be given for a run that was trained so",
    )
    group.add_argument(
        "--num_proposals",
        type=whole_number(1),
        metavar="N",
        help="proposals of an image\n"
        "default: 300 (config.py:162); the best 2000 of --proposals (section 4.1)",
    )
    group.add_argument(
        "--iou",
        type=number(0, 1, above=True),
        default=0.5,
        metavar="IOU",
        help="least IoU of a true positive\ndefault: 0.5 (VOCevaldet.m of the devkit)",
    )
    group.add_argument(
        "--images",
        type=whole_number(1),
        metavar="N",
        help="the first N images only\ndefault: all",
    )
    group.add_argument(
        "--strict",
        action="store_true",
        help="stop at any problem in the data\n"
        "default: leave out what is wrong and report it (ours)",
    )
    group.add_argument("--gpu", metavar="N,N|-1", help="devices to use, -1: none\ndefault: all")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Evaluates, prints a table and writes ``evaluation.json``.

    Raises:
        UserError: for anything that the user can mend.
    """
    arguments = build_parser().parse_args(argv)
    check(arguments)
    path = existing_path(arguments.path, "The data path")
    console = make_console()
    quiet_tensorflow()
    evaluation = (
        evaluate_run(arguments, path, console)
        if arguments.run
        else evaluate_file(arguments, path, console)
    )
    from keras_frcnn.evaluation.voc import print_table

    print_table(evaluation["result"], console)
    name = "evaluation"
    name += "-stage2" if arguments.stage == 2 else ""
    name += "-proposals" if arguments.proposals else ""
    target = Path(arguments.out or arguments.run or ".") / f"{name}.json"
    record = {**evaluation["result"].to_json(), **evaluation["about"]}
    write_text(target, json.dumps(record, indent=2) + "\n")
    console.print(f"written to {target}", soft_wrap=True)


def check(arguments: argparse.Namespace) -> None:
    """Refuses flags that contradict each other and files that are not there.

    Raises:
        UserError: see above.
    """
    if (arguments.run is None) == (arguments.detections is None):
        raise UserError("Give either --run DIR or --detections FILE.")
    if arguments.run is not None:
        run = RunFolder(arguments.run)
        run.read_config() if arguments.proposals else run.check_makes_proposals()
    else:
        existing_path(arguments.detections, "--detections")
        for flag in ("stage", "num_proposals", "proposals"):
            if getattr(arguments, flag) is not None:
                raise UserError(f"--{flag} belongs to --run; detections in a file are made.")
    if arguments.out is not None and Path(arguments.out).is_file():
        raise UserError(f"--out {arguments.out} is a file; give a folder.")


def load_test_data(
    arguments: argparse.Namespace, path: Path, class_names: Sequence[str] | None, console: Console
) -> Dataset:
    """The images to evaluate on."""
    from keras_frcnn.cli.data import load_dataset

    dataset = load_dataset(
        path,
        arguments.parser,
        arguments.set,
        console=console,
        class_names=class_names,
        strict=arguments.strict,
        default_split="test",
    )
    if dataset.problems:
        first = dataset.problems[0]
        console.print(
            f"{len(dataset.problems)} problems in the data, the first: {first.file}, "
            f"{first.where or 'as a whole'}: {first.reason} [{first.action}]",
            style="yellow",
            soft_wrap=True,
        )
    unknown = sum(problem.kind == "class unknown" for problem in dataset.problems)
    if unknown and not dataset.number_of_objects:
        raise UserError(
            f"None of the objects in {' + '.join(dataset.sets)} is of a class that the run knows "
            f"({', '.join(dataset.class_names)}): evaluate on the kind of data it was trained on."
        )
    if arguments.images is not None:
        dataset = dataclasses.replace(dataset, examples=dataset.examples[: arguments.images])
    return dataset


def evaluate_run(arguments: argparse.Namespace, path: Path, console: Console) -> dict:
    """Runs the network on every image and evaluates."""
    choose_devices(arguments.gpu, deterministic=False)
    from keras_frcnn.data.images import read_image
    from keras_frcnn.data.pipeline import in_parallel
    from keras_frcnn.evaluation.final_filter import keep_best_per_class
    from keras_frcnn.evaluation.voc import evaluate_voc
    from keras_frcnn.inference import result_stage

    run = RunFolder(arguments.run)
    config = run.read_config()
    dataset = load_test_data(arguments, path, config.class_names, console)
    run.check_not_trained_on(dataset)
    recipe = config.recipe
    stage = arguments.stage or result_stage(run)
    detect, about_proposals = load_detector(arguments, stage, dataset)
    images = in_parallel(
        lambda example: read_image(example.path), dataset.examples, workers=2, ahead=8
    )
    start = time.monotonic()
    detections = {}
    examples = track(
        dataset.examples, "detecting", console=console, disable=not console.is_terminal
    )
    for example, image in zip(examples, images, strict=True):
        detections[example.key] = detect(example, image)
    seconds = (time.monotonic() - start) / len(dataset)
    limit = recipe.evaluation_filter.mean_per_class
    if limit is not None:
        detections = keep_best_per_class(detections, len(config.class_names), limit * len(dataset))
    result = evaluate_voc(
        dataset,
        detections,
        iou_threshold=arguments.iou,
        strictly_greater=recipe.evaluation_strictly_greater,
    )
    console.print(f"{len(dataset)} images, {seconds:.2f} s an image")
    about = {
        "run": str(run.path),
        "stage": stage,
        **about_proposals,
        "network": config.network,
        "recipe": recipe.name,
        "seconds_per_image": seconds,
    }
    return {"result": result, "about": about}


def load_detector(
    arguments: argparse.Namespace, stage: int, dataset: Dataset
) -> tuple[Callable, dict]:
    """``(example, image) -> ImageDetections`` of a run, and what to tell of its proposals."""
    from keras_frcnn.given_boxes import NUMBER_OF_BOXES, load_classifier
    from keras_frcnn.inference import load_predictor

    chosen = RunFolder(arguments.run).read_config().recipe.evaluation_filter
    given, most = load_given(arguments.proposals, dataset), arguments.num_proposals
    if given is None:
        predictor = load_predictor(arguments.run, chosen, stage=stage, number_of_proposals=most)
        about = {"proposals": predictor.proposals.after_nms}
        return lambda example, image: predictor.detect(image)[0], about
    classifier = load_classifier(arguments.run, chosen, stage=stage)
    most = most or NUMBER_OF_BOXES

    def detect(example: Example, image):
        return classifier.detect(image, given.of_example(example).best(most).boxes_image)[0]

    return detect, {"proposals": most, **given_record(arguments.proposals, given, "given")}


def evaluate_file(arguments: argparse.Namespace, path: Path, console: Console) -> dict:
    """Evaluates detections that another program wrote."""
    from keras_frcnn.data.voc import read_class_names
    from keras_frcnn.evaluation.detection_files import read_json
    from keras_frcnn.evaluation.voc import evaluate_voc

    file = existing_path(arguments.detections, "--detections")
    class_names = read_class_names(path) if arguments.parser == "pascal_voc" else None
    dataset = load_test_data(arguments, path, class_names or None, console)
    detections, notes = read_json(file, dataset)
    for note in notes:
        console.print(note)
    result = evaluate_voc(dataset, detections, iou_threshold=arguments.iou)
    return {"result": result, "about": {"detections": str(file)}}
