"""``python -m keras_frcnn export``: a SavedModel from a run.

Shapes and names
----------------
run  a finished run folder.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from keras_frcnn.cli.common import (
    ORIGINS,
    HelpfulParser,
    choose_devices,
    existing_path,
    make_console,
    quiet_tensorflow,
)
from keras_frcnn.cli.shared_flags import (
    add_filter_flags,
    add_gpu_flag,
    add_precision_flag,
    precision_for_testing,
)
from keras_frcnn.errors import UserError
from keras_frcnn.runs import RunFolder

EPILOG = f"""\
{ORIGINS}
examples:
  python -m keras_frcnn export --run runs/vgg16 --out exported
  python -m keras_frcnn export --run runs/vgg16 --out exported --image photo.jpg
"""


def build_parser() -> argparse.ArgumentParser:
    """The parser; every default is named with its origin."""
    parser = HelpfulParser(
        prog="python -m keras_frcnn export",
        usage="python -m keras_frcnn export --run DIR --out DIR [flags]",
        description="Export a run to a SavedModel that serves without this package.",
        epilog=EPILOG,
    )
    group = parser.add_argument_group("from where to where")
    group.add_argument("--run", required=True, metavar="DIR", help="run folder of train_frcnn.py")
    group.add_argument("--out", required=True, metavar="DIR", help="new folder for the SavedModel")
    group.add_argument(
        "--image",
        metavar="FILE",
        help="image on which the export is compared with the run\n"
        "default: a training sample of the run folder, else a generated image (ours)",
    )
    group = parser.add_argument_group("what the export does, for good")
    add_filter_flags(group)
    group = parser.add_argument_group("machine")
    add_precision_flag(group)
    add_gpu_flag(group)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Exports, loads what was written and prints the largest difference to the run.

    Raises:
        UserError: for anything that the user can mend, and where the export differs from the run.
    """
    arguments = build_parser().parse_args(argv)
    given = None if arguments.image is None else existing_path(arguments.image, "--image")
    run, out = RunFolder(arguments.run), Path(arguments.out)
    run.read_config()
    console = make_console()
    quiet_tensorflow()
    choose_devices(arguments.gpu, deterministic=False)
    from keras_frcnn.export import check_unused, export, largest_difference, load_exported
    from keras_frcnn.inference import load_predictor
    from keras_frcnn.recipes import DetectionFilter

    check_unused(out)
    image, image_name = image_to_compare(given, run)
    predictor = load_predictor(
        arguments.run,
        DetectionFilter(score_threshold=arguments.score_thresh, nms_iou=arguments.nms_thresh),
        number_of_proposals=arguments.num_proposals,
        precision=precision_for_testing(arguments.precision, console),
    )
    with console.status("exporting ..."):
        export(predictor, out)
    expected, _ = predictor.detect(image)
    found, _ = load_exported(out).detect(image)
    pixels, scores = largest_difference(expected, found)
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    console.print(f"exported to {out} ({size / 2**20:.0f} MiB)", soft_wrap=True)
    console.print(
        f"loaded again and compared on {image_name}, {len(expected)} detections: boxes differ by "
        f"at most {pixels:.2g} px, scores by {scores:.2g}",
        soft_wrap=True,
    )
    if pixels > 0.01 or scores > 1e-4:
        raise UserError(f"The exported model differs from the run; do not use {out}.")
    console.print(
        f"serve it with TensorFlow Serving, or: test_frcnn.py -p IMAGES --saved_model {out}",
        soft_wrap=True,
    )


def image_to_compare(given: Path | None, run: RunFolder) -> tuple[np.ndarray, str]:
    """(H, W, 3) uint8 pixels to compare on, and what they are.

    A training sample comes first because something is detected on it, noise only without one.

    Raises:
        UserError: the image that was given cannot be read.
    """
    from keras_frcnn.data.images import read_image

    files = [given] if given is not None else sorted((run.path / "samples").glob("*.png"))
    if files:
        return read_image(files[0]), str(files[0])
    return np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8), "a generated image"
