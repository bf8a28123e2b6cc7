"""The flags that name a detector, and the detector that they name."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from rich.console import Console

from keras_frcnn.cli.common import existing_path
from keras_frcnn.cli.shared_flags import short_sides, usable_precision
from keras_frcnn.detection.load import MODEL_FILE, check_run, load
from keras_frcnn.errors import UserError
from keras_frcnn.recipes import DetectionFilter
from keras_frcnn.runs.folder import find_run

if TYPE_CHECKING:
    from keras_frcnn.detection.detector import Detector

PLACES = ("run", "saved_model", "onnx", "config_filename")


def add_detector_flags(group) -> None:
    """Where the detector lies: one of them is given."""
    group.add_argument("--run", metavar="DIR", help="run folder of train_frcnn.py")
    group.add_argument("--saved_model", metavar="DIR", help="an exported model, instead of --run")
    group.add_argument(
        "--onnx",
        metavar="FILE",
        help="an exported ONNX file, instead of --run; needs onnxruntime (the extra onnx)",
    )


def place_of(arguments: argparse.Namespace) -> str | None:
    """The one place that was given; None without any.

    Raises:
        UserError: several are given, or the one is nothing of its kind, or a run without an RPN
            where no proposals are given.
    """
    given = {name: getattr(arguments, name, None) for name in PLACES}
    given = {name: text for name, text in given.items() if text is not None}
    if len(given) > 1:
        names = " and ".join(f"--{name}" for name in given)
        raise UserError(f"{names} each name a detector; give one of them.")
    for name, text in given.items():
        if name == "config_filename":
            text = str(find_run(existing_path(text, "--config_filename")).path)
        if name in ("run", "config_filename"):
            check_run(text, boxes_given=bool(arguments.proposals))
        elif name == "saved_model":
            if not (existing_path(text, "--saved_model") / MODEL_FILE).is_file():
                raise UserError(f"--saved_model {text} is no export: it has no {MODEL_FILE}.")
        elif existing_path(text, "--onnx").is_dir():
            raise UserError(f"--onnx {text} is a folder; give the file.")
        return text
    return None


def load_detector(
    arguments: argparse.Namespace, detection_filter: DetectionFilter | None, console: Console
) -> Detector:
    """What the flags name, see :func:`keras_frcnn.detection.load.load`."""
    return load(
        place_of(arguments),
        detection_filter,
        stage=arguments.stage,
        # Given proposals are counted where they are looked up.
        number_of_proposals=None if arguments.proposals else arguments.num_proposals,
        short_sides=short_sides(arguments.scales),
        head_chunk=getattr(arguments, "num_rois", None),
        precision=usable_precision(arguments.precision, console),
        boxes_given=bool(arguments.proposals),
    )
