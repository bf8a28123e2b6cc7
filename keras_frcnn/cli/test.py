"""``test_frcnn.py``: detections on a folder of images, drawn and written.

Shapes and names
----------------
boxes_image  (D, 4) half-open (y1, x1, y2, x2) in pixels of the image, EXIF orientation applied.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
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
    run_main,
    whole_number,
)
from keras_frcnn.cli.given import load_given
from keras_frcnn.cli.shared_flags import (
    add_filter_flags,
    add_gpu_flag,
    add_scales_flag,
    short_sides,
)
from keras_frcnn.errors import UserError
from keras_frcnn.proposals.given import GivenProposals, fit_to_image
from keras_frcnn.recipes import DetectionFilter
from keras_frcnn.runs import RunFolder, find_run

EPILOG = f"""\
{ORIGINS}
examples:
  test_frcnn.py -p photos --run runs/vgg16
  test_frcnn.py -p photo.jpg --saved_model exported --draw_thresh 0.8
  test_frcnn.py -p photos --run runs/fast-rcnn --proposals boxes.h5
"""


def entry_point() -> int:
    """What ``test_frcnn.py`` calls; returns the exit code."""
    return run_main(main)


def build_parser() -> argparse.ArgumentParser:
    """The parser; every default is named with its origin."""
    parser = HelpfulParser(
        prog="test_frcnn.py",
        usage="test_frcnn.py -p PATH (--run DIR | --saved_model DIR) [flags]",
        description="Detect objects in an image or in all images of a folder.",
        epilog=EPILOG,
    )
    group = parser.add_argument_group("what to run on what")
    group.add_argument(
        "-p", "--path", required=True, metavar="PATH", help="image or folder, read recursively"
    )
    group.add_argument("--run", metavar="DIR", help="run folder of train_frcnn.py")
    group.add_argument("--saved_model", metavar="DIR", help="an exported model, instead of --run")
    group.add_argument(
        "--config_filename",
        metavar="FILE",
        help="config.json of a run, or the copy that train_frcnn.py --config_filename wrote, "
        "instead of --run (lineage)",
    )
    group.add_argument(
        "--proposals",
        nargs="+",
        metavar="FILE",
        help="classify these boxes, found by the image's name without suffix, instead of the "
        "RPN's: files of python -m keras_frcnn proposals, or .mat files of Selective Search\n"
        "default: the RPN's; must be given for a run that was trained so",
    )
    group.add_argument(
        "--out",
        metavar="DIR",
        default="detections",
        help="where pictures, detections.json and detections.csv go\ndefault: detections (ours)",
    )
    group = parser.add_argument_group("filters")
    group.add_argument(
        "--draw_thresh",
        type=number(0, 1),
        default=0.6,
        metavar="SCORE",
        help="lowest score that is drawn\n"
        "default: 0.6 (script_faster_rcnn_demo.m:106; 0.8 in the lineage)",
    )
    add_filter_flags(group)
    group = parser.add_argument_group("scales")
    add_scales_flag(group)
    group = parser.add_argument_group("machine")
    group.add_argument(
        "-n",
        "--num_rois",
        type=whole_number(1),
        metavar="N",
        help="RoIs that go through the head at once: less memory, the same detections\n"
        "default: all (ours; 32 in the lineage)",
    )
    add_gpu_flag(group)
    group.add_argument(
        "--network", metavar="NAME", help="ignored (lineage): the run knows its network"
    )
    # An export has these inside; only what was typed can contradict it.
    parser.set_defaults(nms_thresh=None, num_proposals=None)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Runs detection as the flags say.

    Raises:
        UserError: for anything that the user can mend.
    """
    arguments = build_parser().parse_args(argv)
    path = existing_path(arguments.path, "The image path")
    check(arguments, path)
    console = make_console()
    quiet_tensorflow()
    choose_devices(arguments.gpu, deterministic=False)
    detect, class_names = load_detector(arguments)
    run_on_images(arguments, path, detect, class_names, console)


def check(arguments: argparse.Namespace, path: Path) -> None:
    """Refuses flags that contradict each other; ``--config_filename`` becomes ``--run``.

    Raises:
        UserError: see above.
    """
    given = [arguments.run, arguments.saved_model, arguments.config_filename]
    if sum(value is not None for value in given) != 1:
        raise UserError(
            "Give one of --run DIR (made by train_frcnn.py), --saved_model DIR (made by export) "
            "and --config_filename FILE (of a run)."
        )
    short_sides(arguments.scales)
    if arguments.saved_model is not None:
        if arguments.proposals is not None:
            raise UserError("--proposals belongs to --run; an exported model makes its own.")
        if arguments.scales is not None:
            raise UserError("--scales needs --run: an exported model has its one scale inside.")
        for flag in ("nms_thresh", "num_proposals"):
            if getattr(arguments, flag) is not None:
                raise UserError(
                    f"--{flag} is fixed in an exported model; give it to export, or use --run."
                )
    if arguments.config_filename is not None:
        file = existing_path(arguments.config_filename, "--config_filename")
        arguments.run = str(find_run(file).path)
    if arguments.run is not None:
        run = RunFolder(arguments.run)
        run.read_config() if arguments.proposals else run.check_makes_proposals()
    folder, out = path.resolve(), Path(arguments.out).expanduser().resolve()
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {arguments.out} is a file; give a folder.")
    if path.is_dir() and out.is_relative_to(folder):
        raise UserError(
            f"--out {arguments.out} lies inside the image folder {arguments.path}: its pictures "
            "would be taken for images next time. Give a folder elsewhere."
        )


def load_detector(arguments: argparse.Namespace) -> tuple[Callable, tuple[str, ...]]:
    """``(image, file) -> (ImageDetections, best score of each class)``, and the class names."""
    from keras_frcnn.inference import load_predictor

    if arguments.saved_model:
        from keras_frcnn.export import load_exported

        exported = load_exported(arguments.saved_model)
        return lambda image, file: exported.detect(image), exported.class_names
    chosen = DetectionFilter(score_threshold=arguments.score_thresh)
    if arguments.nms_thresh is not None:
        chosen = dataclasses.replace(chosen, nms_iou=arguments.nms_thresh)
    given, chunk = load_given(arguments.proposals, None), arguments.num_rois
    if given is not None:
        return classify_given(arguments, chosen, given)
    predictor = load_predictor(
        arguments.run,
        chosen,
        number_of_proposals=arguments.num_proposals,
        head_chunk=chunk,
        short_sides=short_sides(arguments.scales),
    )
    return lambda image, file: predictor.detect(image), predictor.class_names


def classify_given(
    arguments: argparse.Namespace, chosen: DetectionFilter, given: GivenProposals
) -> tuple[Callable, tuple[str, ...]]:
    """As :func:`load_detector`, on given proposals."""
    from keras_frcnn.data.images import find_images
    from keras_frcnn.given_boxes import NUMBER_OF_BOXES, load_classifier

    boxes_of = given.of_files(find_images(Path(arguments.path).expanduser())[0])
    classifier = load_classifier(
        arguments.run,
        chosen,
        head_chunk=arguments.num_rois,
        short_sides=short_sides(arguments.scales),
    )
    most = arguments.num_proposals or NUMBER_OF_BOXES

    def detect(image: np.ndarray, file: Path):
        boxes = boxes_of[file].best(most).boxes_image
        boxes = fit_to_image(boxes, *image.shape[:2], f"{file.name} in {given.source}")
        return classifier.detect(image, boxes)

    return detect, classifier.class_names


def run_on_images(
    arguments: argparse.Namespace,
    path: Path,
    detect: Callable,
    class_names: tuple[str, ...],
    console: Console,
) -> None:
    """Detects, draws and writes; unreadable images are named at the end, the rest is done."""
    from keras_frcnn.data.images import find_images, read_image
    from keras_frcnn.evaluation.detection_files import detection_records, write_csv, write_json

    images, others = find_images(path)
    if not images:
        raise UserError(f"There is no image in {path} ({others} other files).")
    out = Path(arguments.out).expanduser()
    out.mkdir(parents=True, exist_ok=True)
    root = path if path.is_dir() else path.parent
    records, unreadable, seconds = [], [], []
    best = np.zeros(len(class_names))
    for file in track(images, "detecting", console=console, disable=not console.is_terminal):
        name = file.relative_to(root)
        try:
            image = read_image(file)
        except UserError as error:
            unreadable.append(str(error))
            continue
        start = time.perf_counter()
        detections, best_of_image = detect(image, file)
        seconds.append(time.perf_counter() - start)
        best = np.maximum(best, best_of_image)
        keep = detections.scores >= arguments.score_thresh
        detections = type(detections)(
            detections.boxes_image[keep], detections.scores[keep], detections.classes[keep]
        )
        records += detection_records(name.as_posix(), file.stem, detections, class_names)
        drawn = draw(image, detections, class_names, arguments.draw_thresh)
        target = (out / name).with_name(name.name + ".png")
        target.parent.mkdir(parents=True, exist_ok=True)
        drawn.save(target)
    write_json(out / "detections.json", records)
    write_csv(out / "detections.csv", records)
    report(console, out, records, best, class_names, seconds, others, unreadable, arguments)


def draw(image: np.ndarray, detections, class_names: Sequence[str], threshold: float):
    """The image with the detections that reach the drawing threshold."""
    from keras_frcnn.visualize import class_colour, draw_detections

    keep = detections.scores >= threshold
    classes = detections.classes[keep]
    return draw_detections(
        image,
        detections.boxes_image[keep],
        [class_names[index - 1] for index in classes],
        detections.scores[keep],
        [class_colour(int(index)) for index in classes],
    )


def report(
    console: Console,
    out: Path,
    records: list[dict],
    best: np.ndarray,
    class_names: Sequence[str],
    seconds: list[float],
    others: int,
    unreadable: list[str],
    arguments: argparse.Namespace,
) -> None:
    """What was done, on the screen.

    Raises:
        UserError: not one image could be read.
    """
    drawn = sum(record["score"] >= arguments.draw_thresh for record in records)
    console.print(
        f"{len(seconds)} images, {len(records)} detections from score {arguments.score_thresh:g}, "
        f"{drawn} drawn from {arguments.draw_thresh:g}"
    )
    if others:
        console.print(f"{others} files that are no images were skipped")
    for sentence in unreadable:
        console.print(f"not read: {sentence}", style="yellow", soft_wrap=True)
    if not seconds:
        raise UserError(f"None of the {len(unreadable)} images could be read.")
    if not drawn:
        order = np.argsort(-best)
        scores = ", ".join(f"{class_names[index]} {best[index]:.3f}" for index in order[:20])
        note = " (0: none that the exported model returns)" if arguments.saved_model else ""
        console.print(
            f"nothing passed --draw_thresh; best score per class{note}: {scores}", soft_wrap=True
        )
    # The first image is traced and compiled with the function.
    steady = seconds[1:] or seconds
    console.print(
        f"{np.median(steady):.3f} s an image (median"
        + (f"; first {seconds[0]:.1f} s)" if len(seconds) > 1 else ")")
    )
    console.print(f"pictures, detections.json and detections.csv are in {out}", soft_wrap=True)
