"""``test_frcnn.py``: detections on a folder of images, drawn and written."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from keras_frcnn.cli import flags
from keras_frcnn.cli.common import existing_path, start
from keras_frcnn.cli.inputs import load_detector, load_given, place_of
from keras_frcnn.data.images import find_images
from keras_frcnn.errors import UserError
from keras_frcnn.proposals.given import NUMBER_OF_BOXES
from keras_frcnn.recipes import DetectionFilter
from keras_frcnn.system.files import user_path

EPILOG = f"""\
{flags.ORIGINS}
examples:
  test_frcnn.py -p photos --run runs/vgg16
  test_frcnn.py -p photo.jpg --saved_model exported --draw_thresh 0.8
  test_frcnn.py -p photos --onnx vgg16-int8.onnx
  test_frcnn.py -p photos --run runs/fast-rcnn --proposals boxes.h5
"""


def build_parser() -> argparse.ArgumentParser:
    """The parser; every default is named with its origin."""
    parser = flags.HelpfulParser(
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
    flags.add_detector(group)
    group.add_argument(
        "--config_filename",
        metavar="FILE",
        help="config.json of a run, or the copy that train_frcnn.py --config_filename wrote, "
        "instead of --run (lineage)",
    )
    flags.add(group, "stage", "proposals")
    group.add_argument(
        "--out",
        metavar="DIR",
        default="detections",
        help="where pictures, detections.json and detections.csv go\ndefault: detections (ours)",
    )
    group = parser.add_argument_group("filters")
    group.add_argument(
        "--draw_thresh",
        type=flags.number(0, 1),
        default=0.6,
        metavar="SCORE",
        help="lowest score that is drawn\n"
        "default: 0.6 (script_faster_rcnn_demo.m:106; 0.8 in the lineage)",
    )
    of_score = flags.add_filter(group)["score_threshold"]
    of_score.help = f"{of_score.help}, or an export's own where that is higher (ours)"
    group = parser.add_argument_group("scales")
    flags.add(group, "scales", "tile")
    group = parser.add_argument_group("machine")
    group.add_argument(
        "-n",
        "--num_rois",
        type=flags.whole_number(1),
        metavar="N",
        help="RoIs that go through the head at once: less memory, the same detections\n"
        "default: all (ours; 32 in the lineage)",
    )
    group.add_argument(
        "--batch",
        type=flags.whole_number(1),
        default=1,
        metavar="N",
        help="images that go through the network at once, if they are rescaled to the same size "
        "(with --saved_model or --scales: are of the same size): faster on GPUs, more memory; "
        "--onnx and --proposals go one by one\ndefault: 1 (ours)",
    )
    flags.add(group, "precision", "jit", "gpu")
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
    boxes_of = None
    if arguments.proposals is not None:
        given = load_given(arguments.proposals).best(arguments.num_proposals or NUMBER_OF_BOXES)
        boxes_of = given.boxes_of_files(find_images(path)[0])
    from keras_frcnn.detection.folder import Thresholds, detect_folder

    detect_folder(
        detector,
        path,
        user_path(arguments.out),
        Thresholds(arguments.score_thresh, arguments.draw_thresh),
        console,
        batch=arguments.batch,
        boxes_of=boxes_of,
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
    flags.short_sides(arguments.scales)
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
    return flags.with_flags(DetectionFilter(), arguments)
