"""``test_frcnn.py``: detections on a folder of images, drawn and written.

Shapes and names
----------------
boxes_image  (D, 4) half-open (y1, x1, y2, x2) in pixels of the image, EXIF orientation applied.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

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
from keras_frcnn.cli.image_loop import Detector, run_on_images
from keras_frcnn.cli.shared_flags import (
    add_filter_flags,
    add_gpu_flag,
    add_jit_flag,
    add_precision_flag,
    add_scales_flag,
    short_sides,
    usable_precision,
)
from keras_frcnn.errors import UserError
from keras_frcnn.files import user_path
from keras_frcnn.onnx_format.packages import TO_RUN, check_available
from keras_frcnn.proposals.given import GivenProposals, fit_to_image
from keras_frcnn.recipes import DetectionFilter
from keras_frcnn.runs import RunFolder, find_run

EPILOG = f"""\
{ORIGINS}
examples:
  test_frcnn.py -p photos --run runs/vgg16
  test_frcnn.py -p photo.jpg --saved_model exported --draw_thresh 0.8
  test_frcnn.py -p photos --onnx vgg16-int8.onnx
  test_frcnn.py -p photos --run runs/fast-rcnn --proposals boxes.h5
"""


def entry_point() -> int:
    """What ``test_frcnn.py`` calls; returns the exit code."""
    return run_main(main)


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
    group.add_argument("--run", metavar="DIR", help="run folder of train_frcnn.py")
    group.add_argument("--saved_model", metavar="DIR", help="an exported model, instead of --run")
    group.add_argument(
        "--onnx",
        metavar="FILE",
        help="an exported ONNX file, instead of --run; needs onnxruntime (requirements-onnx.txt)",
    )
    group.add_argument(
        "--config_filename",
        metavar="FILE",
        help="config.json of a run, or the copy that train_frcnn.py --config_filename wrote, "
        "instead of --run (lineage)",
    )
    group.add_argument(
        "--stage",
        type=int,
        choices=(2, 4),
        metavar="2|4",
        help="2: the unshared variant, which is there while stages 3 and 4 are trained\n"
        "default: 4, the result; 2 where the run was to stop there (section 3.2)",
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
    add_filter_flags(group, "0.05 (test.py:227), or an export's own where that is higher (ours)")
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
    group.add_argument(
        "--batch",
        type=whole_number(1),
        default=1,
        metavar="N",
        help="images that go through the network at once, if they are rescaled to the same size "
        "(with --saved_model or --scales: are of the same size): faster on GPUs, more memory; "
        "--onnx and --proposals go one by one\ndefault: 1 (ours)",
    )
    add_precision_flag(group)
    add_jit_flag(group)
    add_gpu_flag(group)
    group.add_argument(
        "--network", metavar="NAME", help="ignored (lineage): the run knows its network"
    )
    # An export has these inside; only what was typed can contradict it.
    parser.set_defaults(score_thresh=None, nms_thresh=None, num_proposals=None)
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
    choose_devices(arguments.gpu, deterministic=False, jit=arguments.jit)
    precision = usable_precision(arguments.precision, console)
    bits = 0 if arguments.run is None else RunFolder(arguments.run).read_config().data.bits
    run_on_images(arguments, path, load_detector(arguments, precision), console, bits)


def check(arguments: argparse.Namespace, path: Path) -> None:
    """Refuses flags that contradict each other; ``--config_filename`` becomes ``--run``.

    Raises:
        UserError: see above.
    """
    exported = arguments.saved_model is not None or arguments.onnx is not None
    given = [arguments.run, arguments.saved_model, arguments.onnx, arguments.config_filename]
    if sum(value is not None for value in given) != 1:
        raise UserError(
            "Give one of --run DIR (made by train_frcnn.py), --saved_model DIR and --onnx FILE "
            "(made by export) and --config_filename FILE (of a run)."
        )
    short_sides(arguments.scales)
    if exported:
        if arguments.proposals is not None:
            raise UserError("--proposals belongs to --run; an exported model makes its own.")
        if arguments.scales is not None:
            raise UserError("--scales needs --run: an exported model has its one scale inside.")
        if arguments.stage is not None:
            raise UserError("--stage belongs to --run: an exported model is of one stage.")
        if arguments.precision is not None:
            raise UserError("--precision is fixed in an exported model; give it to export.")
        if arguments.num_rois is not None:
            raise UserError("--num_rois belongs to --run: an exported model takes all at once.")
        for flag in ("nms_thresh", "num_proposals"):
            if getattr(arguments, flag) is not None:
                raise UserError(
                    f"--{flag} is fixed in an exported model; give it to export, or use --run."
                )
    if arguments.onnx is not None:
        if arguments.jit:
            raise UserError("--jit compiles TensorFlow's graphs; onnxruntime runs an ONNX file.")
        check_available(TO_RUN)
        existing_path(arguments.onnx, "--onnx")
    if arguments.config_filename is not None:
        file = existing_path(arguments.config_filename, "--config_filename")
        arguments.run = str(find_run(file).path)
    if arguments.run is not None:
        run = RunFolder(arguments.run)
        run.read_config() if arguments.proposals else run.check_makes_proposals()
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


def load_detector(arguments: argparse.Namespace, precision: str | None) -> Detector:
    """What the flags name: a run, or an exported model."""
    from keras_frcnn.batches import BatchPredictor
    from keras_frcnn.inference import load_predictor

    if arguments.onnx:
        from keras_frcnn.onnx_format.detector import OnnxDetector

        model = OnnxDetector(user_path(arguments.onnx))
        set_score_threshold(arguments, model.score_threshold, arguments.onnx)
        return Detector(one_by_one(model), model.class_names)
    if arguments.saved_model:
        from keras_frcnn.export import load_exported

        exported = load_exported(arguments.saved_model)
        set_score_threshold(arguments, exported.score_threshold, arguments.saved_model)
        return Detector(
            lambda images, files: exported.detect_batch(np.stack(images)), exported.class_names
        )
    set_score_threshold(arguments)
    chosen = DetectionFilter(score_threshold=arguments.score_thresh)
    if arguments.nms_thresh is not None:
        chosen = dataclasses.replace(chosen, nms_iou=arguments.nms_thresh)
    given, chunk = load_given(arguments.proposals, None), arguments.num_rois
    if given is not None:
        return classify_given(arguments, chosen, given, precision)
    predictor = load_predictor(
        arguments.run,
        chosen,
        stage=arguments.stage,
        number_of_proposals=arguments.num_proposals,
        head_chunk=chunk,
        short_sides=short_sides(arguments.scales),
        precision=precision,
        stage_flag="--stage",
    )
    if arguments.batch == 1:
        return Detector(one_by_one(predictor), predictor.class_names, lambda: predictor.traces)
    batched = BatchPredictor(predictor)
    return Detector(
        lambda images, files: batched.detect(images),
        predictor.class_names,
        lambda: batched.traces,
        batched.key,
    )


def set_score_threshold(
    arguments: argparse.Namespace, own: float | None = None, export: str | None = None
) -> None:
    """Fills in ``--score_thresh`` where it was not typed: the default, or a higher ``own``.

    Args:
        own: of an exported model, which returns nothing below it; None of one that does not say
            so, and of a run.
        export: the exported model.

    Raises:
        UserError: a lower one was typed than the exported model has inside.
    """
    if arguments.score_thresh is None:
        arguments.score_thresh = max(DetectionFilter().score_threshold, own or 0.0)
    elif own is not None and arguments.score_thresh < own:
        raise UserError(
            f"--score_thresh {arguments.score_thresh:g} is below {own:g}, the lowest score that "
            f"{export} returns; give it to export, or use --run."
        )


def one_by_one(model) -> Callable[[list[np.ndarray], list[Path]], list]:
    """For a :class:`Detector`, what finds objects in one image at a time."""
    return lambda images, files: [model.detect(image) for image in images]


def classify_given(
    arguments: argparse.Namespace,
    chosen: DetectionFilter,
    given: GivenProposals,
    precision: str | None,
) -> Detector:
    """As :func:`load_detector`, on given proposals."""
    from keras_frcnn.data.images import find_images
    from keras_frcnn.given_boxes import NUMBER_OF_BOXES, load_classifier

    boxes_of = given.of_files(find_images(user_path(arguments.path))[0])
    classifier = load_classifier(
        arguments.run,
        chosen,
        stage=arguments.stage,
        head_chunk=arguments.num_rois,
        short_sides=short_sides(arguments.scales),
        precision=precision,
        stage_flag="--stage",
    )
    most = arguments.num_proposals or NUMBER_OF_BOXES

    def detect_one(image: np.ndarray, file: Path):
        boxes = boxes_of[file].best(most).boxes_image
        boxes = fit_to_image(boxes, *image.shape[:2], f"{file.name} in {given.source}")
        return classifier.detect(image, boxes)

    def detect(images: list[np.ndarray], files: list[Path]):
        # Each image has another number of boxes.
        return [detect_one(image, file) for image, file in zip(images, files, strict=True)]

    return Detector(detect, classifier.class_names, lambda: classifier.traces)
