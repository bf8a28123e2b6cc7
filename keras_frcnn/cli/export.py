"""``python -m keras_frcnn export``: a SavedModel or an ONNX file from a run."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.progress import track

from keras_frcnn.cli import flags
from keras_frcnn.cli.common import data_path, existing_path, output_file, start
from keras_frcnn.cli.inputs import load_dataset, usable_precision
from keras_frcnn.data.dataset import Dataset, Example
from keras_frcnn.errors import UserError, check_installed
from keras_frcnn.recipes import DetectionFilter
from keras_frcnn.runs.folder import RunFolder
from keras_frcnn.system.files import user_path

if TYPE_CHECKING:
    from keras_frcnn.detection.network_detector import NetworkDetector
    from keras_frcnn.evaluation.agreement import Agreement
    from keras_frcnn.export.comparison import Comparison


ONNX = ".onnx"
CALIBRATION_IMAGES = 100

EPILOG = f"""\
{flags.ORIGINS}
examples:
  python -m keras_frcnn export --run runs/vgg16 --out exported
  python -m keras_frcnn export --run runs/vgg16 --out exported --image photo.jpg
  python -m keras_frcnn export --run runs/vgg16 --out vgg16.onnx
  python -m keras_frcnn export --run runs/vgg16 --out vgg16-int8.onnx --int8 \\
    -p VOCdevkit --set 2007:trainval
"""


def build_parser() -> argparse.ArgumentParser:
    """The parser; every default is named with its origin."""
    parser = flags.HelpfulParser(
        prog="python -m keras_frcnn export",
        usage="python -m keras_frcnn export --run DIR --out DIR|FILE.onnx [flags]",
        description="Export a run to a SavedModel, or to an ONNX file: both take pixels, give\n"
        "detections and serve without this package.",
        epilog=EPILOG,
    )
    group = parser.add_argument_group("from where to where")
    flags.add(group, "run", required=True)
    group.add_argument(
        "--out",
        required=True,
        metavar="PATH",
        help="new folder for the SavedModel; or a file that ends in .onnx, replaced where it is "
        "there: one image at a time, float32 whatever the precision of the run, for the CPU; "
        "needs the extra onnx",
    )
    group.add_argument(
        "--image",
        metavar="FILE",
        help="image on which the export is compared with the run\n"
        "default: a training sample of the run folder, else a generated image (ours)",
    )
    group = parser.add_argument_group("what the export does, for good")
    flags.add_filter(group)
    _add_int8_flags(parser.add_argument_group("int8, of an ONNX file"))
    group = parser.add_argument_group("machine")
    flags.add(group, "precision", "gpu")
    return parser


def _add_int8_flags(group) -> None:
    flags.add_switch(
        group,
        "--int8",
        "base and fully connected layers in 8-bit integers, the RPN and the output layers in "
        "float32: faster on CPUs with VNNI, slightly other detections\ndefault: float32 (ours)",
    )
    flags.add_path(
        group,
        required=False,
        help=f"{flags.DATA_PATH}: training images to calibrate --int8 on, which needs them",
    )
    flags.add_training_set(group, "--set")
    group.add_argument(
        "--calibration_images",
        type=flags.whole_number(1),
        metavar="N",
        help="images to calibrate on, evenly spread over the sets\n"
        f"default: {CALIBRATION_IMAGES} (ours)",
    )
    group.add_argument(
        "--weight_bits",
        type=int,
        choices=(7, 8),
        metavar="7|8",
        help="bits of the 8-bit weights that are used; 7 where the file will run on an x86 CPU "
        "without VNNI, whose sums overflow\ndefault: what this CPU needs (ours)",
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Exports, loads what was written and prints the largest difference to the run.

    Raises:
        UserError: for anything that the user can mend, and where the export differs from the run.
    """
    arguments = build_parser().parse_args(argv)
    given = None if arguments.image is None else existing_path(arguments.image, "--image")
    run, out = RunFolder(arguments.run), user_path(arguments.out)
    run.check_makes_proposals()
    check(arguments, out)
    # An ONNX file is made from the graph of a machine without GPU.
    console, _ = start("-1" if out.suffix == ONNX else arguments.gpu)
    from keras_frcnn.export.comparison import image_to_compare

    image = image_to_compare(run, given)
    if out.suffix == ONNX:
        export_onnx(arguments, out, image, console)
    else:
        export_saved_model(arguments, out, image, console)


def check(arguments: argparse.Namespace, out: Path) -> None:
    """Refuses flags that contradict each other and an ``--out`` that cannot be written.

    Raises:
        UserError: see above.
    """
    if out.suffix != ONNX:
        if arguments.int8:
            raise UserError("--int8 makes an ONNX file: let --out end in .onnx.")
    else:
        output_file(arguments.out, "--out")
        check_installed("ONNX files", ["onnx", "onnxruntime", "tf2onnx"], "onnx")
        if arguments.precision not in (None, "float32"):
            raise UserError(
                f"An ONNX file is float32 or --int8, not {arguments.precision}: leave --precision "
                "out."
            )
    for flag in ("path", "set", "allow_bad", "calibration_images", "weight_bits"):
        if getattr(arguments, flag) not in (None, False) and not arguments.int8:
            raise UserError(f"--{flag} belongs to --int8: add it, or leave --{flag} out.")
    if arguments.int8:
        if arguments.path is None:
            raise UserError("--int8 needs images of the training set to calibrate on: add -p PATH.")
        data_path(arguments.path, out)
    elif arguments.parser is not None:
        raise UserError("-o belongs to --int8: add it, or leave -o out.")


def export_saved_model(
    arguments: argparse.Namespace, out: Path, image: tuple[np.ndarray, str], console: Console
) -> None:
    """Writes the SavedModel and compares it with the run.

    Args:
        image: pixels and name of what to compare on.

    Raises:
        UserError: ``out`` is used already, the run does not fit, or the export differs from it.
    """
    from keras_frcnn.export.comparison import compare_served
    from keras_frcnn.export.saved_model import check_unused, export

    check_unused(out)
    detector = detector_of(arguments, usable_precision(arguments.precision, console))
    with console.status("exporting ..."):
        export(detector, out)
    pixels, name = image
    compared = compare_served(out, pixels, detector)
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    console.print(f"exported to {out} ({size / 2**20:.0f} MiB)", soft_wrap=True)
    console.print(
        f"loaded as by TensorFlow Serving and compared on {name}, {compared.detections} "
        f"detections: {differences(compared)}",
        soft_wrap=True,
    )
    if not compared.equal:
        raise UserError(f"The exported model differs from the run; do not use {out}.")
    console.print(
        f"serve it with TensorFlow Serving, or: test_frcnn.py -p IMAGES --saved_model {out}",
        soft_wrap=True,
    )


def detector_of(arguments: argparse.Namespace, precision: str | None) -> NetworkDetector:
    """The detector of the run with the filters of the flags.

    Raises:
        UserError: as :func:`keras_frcnn.detection.network_detector.load_run`.
    """
    from keras_frcnn.detection.network_detector import load_run

    return load_run(
        arguments.run,
        flags.with_flags(DetectionFilter(), arguments),
        number_of_proposals=arguments.num_proposals,
        precision=precision,
    )


def export_onnx(
    arguments: argparse.Namespace, out: Path, image: tuple[np.ndarray, str], console: Console
) -> None:
    """Writes an ONNX file and compares it with the run.

    Args:
        image: pixels and name of what to compare on.

    Raises:
        UserError: the run does not fit, or the export differs from it.
    """
    from keras_frcnn.detection.exported_model import OnnxDetector
    from keras_frcnn.export.comparison import compare_int8, compare_onnx, spread
    from keras_frcnn.export.onnx.convert import to_onnx, write_onnx

    calibration: Sequence[Example] = ()
    others: Sequence[Example] = ()
    if arguments.int8:
        asked = arguments.calibration_images or CALIBRATION_IMAGES
        calibration, others = spread(calibration_data(arguments, asked, console).examples, asked)
    detector = detector_of(arguments, precision="float32")
    with console.status("converting ..."):
        model = to_onnx(detector)
        float32 = OnnxDetector(model.SerializeToString())
    pixels, name = image
    expected, found = (each.find([pixels])[0] for each in (detector, float32))
    del detector
    form = "in float32, before int8, " if arguments.int8 else ""
    compared = compare_onnx(expected, found)
    console.print(
        f"{form}run by onnxruntime and compared on {name}, {compared.kept} of "
        f"{compared.detections} detections are there: {differences(compared)}",
        soft_wrap=True,
    )
    if not compared.equal:
        raise UserError(f"The exported model differs from the run; {out} was not written.")
    if arguments.int8:
        model = quantised(arguments, model, calibration, console)
    write_onnx(model, out)
    console.print(f"exported to {out} ({out.stat().st_size / 2**20:.0f} MiB)", soft_wrap=True)
    if arguments.int8:
        images = others or calibration
        kept = compare_int8(float32, OnnxDetector(out), images)
        print_int8(kept, len(images), console, calibrated=not others)
    console.print(f"use it: test_frcnn.py -p IMAGES --onnx {out}", soft_wrap=True)


def differences(compared: Comparison) -> str:
    """The end of a sentence."""
    return f"boxes differ by at most {compared.pixels:.2g} px, scores by {compared.score:.2g}"


def calibration_data(arguments: argparse.Namespace, asked: int, console: Console) -> Dataset:
    """The images of which some are calibrated on.

    Raises:
        UserError: as :func:`keras_frcnn.cli.inputs.load_dataset`.
    """
    config = RunFolder(arguments.run).read_config()
    dataset = load_dataset(arguments, console, class_names=config.class_names)
    if len(dataset) < asked:
        console.print(
            f"there are {len(dataset)} images to calibrate on, not {asked}", style="yellow"
        )
    return dataset.with_bits(config.data.bits)


def quantised(arguments: argparse.Namespace, model, examples: Sequence[Example], console: Console):
    """The model in int8."""
    from keras_frcnn.export.onnx.quantise import needs_seven_bits, quantise

    bits = arguments.weight_bits or (7 if needs_seven_bits() else 8)
    why = "as asked" if arguments.weight_bits else "for this CPU; --weight_bits says otherwise"
    console.print(f"int8: calibrated on {len(examples)} images, weights of {bits} bits ({why})")
    seen = track(examples, "calibrating", console=console, disable=not console.is_terminal)
    images = (example.pixels() for example in seen)
    return quantise(model, images, seven_bit_weights=bits == 7)


def print_int8(kept: Agreement, images: int, console: Console, *, calibrated: bool) -> None:
    """Says how many detections int8 kept.

    Args:
        images: how many could be compared on.
        calibrated: whether they are those that int8 was calibrated on, which flatters it.
    """
    from keras_frcnn.export.comparison import COMPARED, LEAST_INT8

    which = "it was calibrated on (there are no others)" if calibrated else "not calibrated on"
    console.print(
        f"int8 beside float32 on {min(images, COMPARED)} images {which}: {kept}", soft_wrap=True
    )
    if kept.share is not None and kept.share < LEAST_INT8:
        console.print(
            f"that is less than {100 * LEAST_INT8:.0f} %: evaluate the file before you use it",
            style="yellow",
            soft_wrap=True,
        )
