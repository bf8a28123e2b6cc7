"""``test_frcnn.py``: detections on a folder of images, drawn and written.

Shapes and names
----------------
boxes_image  (D, 4) half-open (y1, x1, y2, x2) in pixels of the image, EXIF orientation applied.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from keras_frcnn.cli.common import existing_path, start
from keras_frcnn.cli.flags import (
    ORIGINS,
    HelpfulParser,
    add_detector_flags,
    add_filter_flags,
    add_flags,
    number,
    short_sides,
    whole_number,
    with_flags,
)
from keras_frcnn.cli.inputs import load_detector, load_given, place_of
from keras_frcnn.errors import UserError
from keras_frcnn.proposals.given import NUMBER_OF_BOXES, fit_to_image
from keras_frcnn.recipes import DetectionFilter
from keras_frcnn.system.files import user_path

EPILOG = f"""\
{ORIGINS}
examples:
  test_frcnn.py -p photos --run runs/vgg16
  test_frcnn.py -p photo.jpg --saved_model exported --draw_thresh 0.8
  test_frcnn.py -p photos --onnx vgg16-int8.onnx
  test_frcnn.py -p photos --run runs/fast-rcnn --proposals boxes.h5
"""


def build_parser() -> argparse.ArgumentParser:
    """The parser; every default is named with its origin."""
    parser = HelpfulParser(
        prog="test_frcnn.py",
        usage="test_frcnn.py -p PATH --run DIR [flags]\n"
        "       test_frcnn.py -p PATH (--saved_model DIR | --onnx FILE) [flags]",
        description="Detect objects in an image or in all images of a folder.",
        epilog=EPILOG,
    )
    group = parser.add_argument_group("what to run on what")
    group.add_argument(
        "-p", "--path", required=True, metavar="PATH", help="image or folder, read recursively"
    )
    add_detector_flags(group)
    group.add_argument(
        "--config_filename",
        metavar="FILE",
        help="config.json of a run, or the copy that train_frcnn.py --config_filename wrote, "
        "instead of --run (lineage)",
    )
    add_flags(group, "stage", "proposals")
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
    of_score = add_filter_flags(group)["score_threshold"]
    of_score.help = f"{of_score.help}, or an export's own where that is higher (ours)"
    group = parser.add_argument_group("scales")
    add_flags(group, "scales")
    group = parser.add_argument_group("machine")
    group.add_argument(
        "-n",
        "--num_rois",
        type=whole_number(1),
        metavar="N",
        help="RoIs that go through the head at once: less memory, the same detections\n"
        "default: all (ours; 32 in the lineage)",
    )
    group.add_argument(
        "--batch",
        type=whole_number(1),
        default=1,
        metavar="N",
        help="images that go through the network at once, if they are rescaled to the same size "
        "(with --saved_model or --scales: are of the same size): faster on GPUs, more memory; "
        "--onnx and --proposals go one by one\ndefault: 1 (ours)",
    )
    add_flags(group, "precision", "jit", "gpu")
    group.add_argument(
        "--network", metavar="NAME", help="ignored (lineage): the run knows its network"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Runs detection as the flags say.

    Raises:
        UserError: for anything that the user can mend.
    """
    arguments = build_parser().parse_args(argv)
    path = existing_path(arguments.path, "The image path")
    place = checked_place(arguments, path)
    console, _ = start(arguments.gpu, jit=arguments.jit)
    detector = load_detector(arguments, place, filter_of(arguments), console)
    if arguments.score_thresh is None:
        own = detector.score_threshold or 0.0
        arguments.score_thresh = max(DetectionFilter().score_threshold, own)
    from keras_frcnn.detection.folder import Thresholds, detect_folder

    detect_folder(
        detector,
        path,
        user_path(arguments.out),
        Thresholds(arguments.score_thresh, arguments.draw_thresh),
        console,
        batch=arguments.batch,
        boxes_of=given_boxes(arguments),
    )


def checked_place(arguments: argparse.Namespace, path: Path) -> str:
    """Where the detector lies; refuses flags that contradict each other.

    Raises:
        UserError: see above.
    """
    place = place_of(arguments)
    if place is None:
        raise UserError(
            "Give one of --run DIR (made by train_frcnn.py), --saved_model DIR and --onnx FILE "
            "(made by export) and --config_filename FILE (of a run)."
        )
    short_sides(arguments.scales)
    exported = arguments.saved_model is not None or arguments.onnx is not None
    if exported and arguments.nms_thresh is not None:
        raise UserError("--nms_thresh is fixed in an exported model; give it to export.")
    if arguments.onnx is not None and arguments.jit:
        raise UserError("--jit compiles TensorFlow's graphs; onnxruntime runs an ONNX file.")
    folder, out = path.resolve(), user_path(arguments.out).resolve()
    if not path.is_dir() and out == folder.parent:
        raise UserError(
            f"--out {arguments.out} is the folder of {arguments.path}: its picture would be taken "
            "for an image next time. Give a folder elsewhere."
        )
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {arguments.out} is a file; give a folder.")
    if path.is_dir() and out.is_relative_to(folder):
        raise UserError(
            f"--out {arguments.out} lies inside the image folder {arguments.path}: its pictures "
            "would be taken for images next time. Give a folder elsewhere."
        )
    return place


def filter_of(arguments: argparse.Namespace) -> DetectionFilter | None:
    """What ``--score_thresh`` and ``--nms_thresh`` ask for; None: the detector's own."""
    if arguments.score_thresh is None and arguments.nms_thresh is None:
        return None
    return with_flags(DetectionFilter(), arguments)


def given_boxes(arguments: argparse.Namespace) -> Callable[[Path, np.ndarray], np.ndarray] | None:
    """File and pixels of an image to its boxes of ``--proposals``; None without the flag.

    Raises:
        UserError: the files cannot be read, or lack an image.
    """
    if arguments.proposals is None:
        return None
    from keras_frcnn.data.images import find_images

    given = load_given(arguments.proposals).best(arguments.num_proposals or NUMBER_OF_BOXES)
    boxes_of = given.of_files(find_images(user_path(arguments.path))[0])

    def boxes(file: Path, image: np.ndarray) -> np.ndarray:
        height, width = image.shape[:2]
        name = f"{file.name} in {given.source}"
        return fit_to_image(boxes_of[file].boxes_image, height, width, name)

    return boxes
