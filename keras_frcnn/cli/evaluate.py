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
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import track

from keras_frcnn.cli.common import (
    HelpfulParser,
    choose_devices,
    existing_path,
    make_console,
    quiet_tensorflow,
)
from keras_frcnn.data.dataset import Dataset
from keras_frcnn.errors import UserError
from keras_frcnn.runs import RunFolder, write_text

EPILOG = """\
examples:
  python -m keras_frcnn evaluate --run runs/vgg16 -p VOCdevkit --set 2007:test
  python -m keras_frcnn evaluate --run runs/vgg16 -p VOCdevkit --set 2007:test --stage 2
  python -m keras_frcnn evaluate --detections detections.json -p VOCdevkit --set 2007:test
"""


def build_parser() -> argparse.ArgumentParser:
    """The parser; every default is named with its origin."""
    parser = HelpfulParser(
        prog="python -m keras_frcnn evaluate",
        description="PASCAL VOC average precision, 11-point and area, per class and mean.",
        epilog=EPILOG,
    )
    group = parser.add_argument_group("what to evaluate on what")
    group.add_argument(
        "-p",
        "--path",
        required=True,
        metavar="PATH",
        help="VOCdevkit folder, or text file of -o simple",
    )
    group.add_argument("-o", "--parser", choices=("pascal_voc", "simple"), default="pascal_voc")
    group.add_argument(
        "--set", metavar="SETS", help="image sets (default: every test set that exists)"
    )
    group.add_argument("--run", metavar="DIR", help="run folder of train_frcnn.py")
    group.add_argument(
        "--detections",
        metavar="FILE",
        help="detections of any program, instead of --run: JSON list of {file_name or image_id, "
        "class_name or category_id, bbox [x, y, width, height], score}",
    )
    group.add_argument(
        "--out", metavar="DIR", help="where evaluation.json goes (default: the run folder)"
    )
    group = parser.add_argument_group("how")
    group.add_argument(
        "--stage",
        type=int,
        choices=(2, 4),
        default=4,
        help="2: the unshared variant, RPN of stage 1 and detector of stage 2 (default: 4, the result)",
    )
    group.add_argument("--num_proposals", type=int, help="default: 300, config.py:162")
    group.add_argument(
        "--iou",
        type=float,
        default=0.5,
        help="least IoU of a true positive (default: 0.5, the devkit's)",
    )
    group.add_argument("--images", type=int, metavar="N", help="the first N images only")
    group.add_argument("--strict", action="store_true", help="stop at any problem in the data")
    group.add_argument("--gpu", metavar="N,N|-1", help="devices to use (default: all; -1: none)")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Evaluates, prints a table and writes ``evaluation.json``.

    Raises:
        UserError: for anything that the user can mend.
    """
    arguments = build_parser().parse_args(argv)
    if bool(arguments.run) == bool(arguments.detections):
        raise UserError("Give either --run DIR or --detections FILE.")
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
    name = "evaluation.json" if arguments.stage == 4 else f"evaluation-stage{arguments.stage}.json"
    target = Path(arguments.out or arguments.run or ".") / name
    record = {**evaluation["result"].to_json(), **evaluation["about"]}
    write_text(target, json.dumps(record, indent=2) + "\n")
    console.print(f"written to {target}", highlight=False)


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
        console.print(
            f"{len(dataset.problems)} problems in the data, the first: "
            f"{dataset.problems[0].file} {dataset.problems[0].reason}",
            highlight=False,
        )
    if arguments.images is not None:
        dataset = dataclasses.replace(dataset, examples=dataset.examples[: arguments.images])
    return dataset


def evaluate_run(arguments: argparse.Namespace, path: Path, console: Console) -> dict:
    """Runs the network on every image and evaluates."""
    choose_devices(arguments.gpu, deterministic=False)
    from keras_frcnn.data.images import read_image
    from keras_frcnn.data.pipeline import in_parallel
    from keras_frcnn.evaluation.voc import evaluate_voc, keep_best_per_class
    from keras_frcnn.inference import load_predictor

    run = RunFolder(arguments.run)
    config = run.read_config()
    dataset = load_test_data(arguments, path, config.class_names, console)
    run.check_not_trained_on(dataset)
    recipe = config.recipe
    predictor = load_predictor(
        arguments.run,
        recipe.evaluation_filter,
        stage=arguments.stage,
        number_of_proposals=arguments.num_proposals,
    )
    images = in_parallel(
        lambda example: read_image(example.path), dataset.examples, workers=2, ahead=8
    )
    start = time.monotonic()
    detections = {}
    examples = track(
        dataset.examples, "detecting", console=console, disable=not console.is_terminal
    )
    for example, image in zip(examples, images, strict=True):
        detections[example.key], _ = predictor.detect(image)
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
    console.print(f"{len(dataset)} images, {seconds:.2f} s an image", highlight=False)
    about = {
        "run": str(run.path),
        "stage": arguments.stage,
        "proposals": predictor.proposals.after_nms,
        "network": config.network,
        "recipe": recipe.name,
        "seconds_per_image": seconds,
    }
    return {"result": result, "about": about}


def evaluate_file(arguments: argparse.Namespace, path: Path, console: Console) -> dict:
    """Evaluates detections that another program wrote."""
    from keras_frcnn.evaluation.detection_files import read_json
    from keras_frcnn.evaluation.voc import evaluate_voc

    file = existing_path(arguments.detections, "--detections")
    dataset = load_test_data(arguments, path, None, console)
    detections, notes = read_json(file, dataset)
    for note in notes:
        console.print(note, highlight=False)
    result = evaluate_voc(dataset, detections, iou_threshold=arguments.iou)
    return {"result": result, "about": {"detections": str(file)}}
