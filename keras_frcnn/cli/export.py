"""``python -m keras_frcnn export``: a SavedModel or an ONNX file from a run."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.progress import track

from keras_frcnn.cli.common import (
    ORIGINS,
    HelpfulParser,
    check_outside,
    existing_path,
    make_console,
    output_file,
    whole_number,
)
from keras_frcnn.cli.fields import with_flags
from keras_frcnn.cli.shared_flags import (
    DATA_PATH,
    add_filter_flags,
    add_flags,
    add_path_flags,
    add_training_set_flag,
    usable_precision,
)
from keras_frcnn.data.dataset import Example
from keras_frcnn.detection.detections import ImageDetections
from keras_frcnn.errors import UserError, check_installed
from keras_frcnn.evaluation.agreement import ROUGH, agreement, paired
from keras_frcnn.runs.folder import RunFolder
from keras_frcnn.system.devices import choose_devices, quiet_tensorflow
from keras_frcnn.system.files import user_path

if TYPE_CHECKING:
    from keras_frcnn.detection.network_detector import NetworkDetector


ONNX = ".onnx"
CALIBRATION_IMAGES = 100

EPILOG = f"""\
{ORIGINS}
examples:
  python -m keras_frcnn export --run runs/vgg16 --out exported
  python -m keras_frcnn export --run runs/vgg16 --out exported --image photo.jpg
  python -m keras_frcnn export --run runs/vgg16 --out vgg16.onnx
  python -m keras_frcnn export --run runs/vgg16 --out vgg16-int8.onnx --int8 \\
    -p VOCdevkit --set 2007:trainval
"""


def build_parser() -> argparse.ArgumentParser:
    """The parser; every default is named with its origin."""
    parser = HelpfulParser(
        prog="python -m keras_frcnn export",
        usage="python -m keras_frcnn export --run DIR --out DIR|FILE.onnx [flags]",
        description="Export a run to a SavedModel, or to an ONNX file: both take pixels, give\n"
        "detections and serve without this package.",
        epilog=EPILOG,
    )
    group = parser.add_argument_group("from where to where")
    group.add_argument("--run", required=True, metavar="DIR", help="run folder of train_frcnn.py")
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
    add_filter_flags(group)
    _add_int8_flags(parser.add_argument_group("int8, of an ONNX file"))
    group = parser.add_argument_group("machine")
    add_flags(group, "precision", "gpu")
    return parser


def _add_int8_flags(group) -> None:
    group.add_argument(
        "--int8",
        action="store_true",
        help="base and fully connected layers in 8-bit integers, the RPN and the output layers in "
        "float32: faster on CPUs with VNNI, slightly other detections\ndefault: float32 (ours)",
    )
    add_path_flags(
        group,
        required=False,
        help=f"{DATA_PATH}: training images to calibrate --int8 on, which needs them",
    )
    add_training_set_flag(group, "--set")
    group.add_argument(
        "--calibration_images",
        type=whole_number(1),
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
    console = make_console()
    quiet_tensorflow()
    # An ONNX file is made from the graph of a machine without GPU.
    choose_devices("-1" if out.suffix == ONNX else arguments.gpu, deterministic=False)
    image = image_to_compare(given, run)
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
        check_outside(out, existing_path(arguments.path, "The data path"), "--out")
    elif arguments.parser != "pascal_voc":
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
    from keras_frcnn.detection.saved_model import check_operations
    from keras_frcnn.export.saved_model import (
        check_unused,
        detect_as_served,
        export,
        largest_difference,
    )

    check_unused(out)
    detector = detector_of(arguments, usable_precision(arguments.precision, console))
    with console.status("exporting ..."):
        export(detector, out)
    pixels, name = image
    (expected,) = detector.find([pixels])
    check_operations(out)
    found = detect_as_served(out, pixels, len(detector.class_names))
    differences = [largest_difference(expected, each) for each in found.values()]
    box_difference, score_difference = np.max(differences, axis=0)  # NaN where there is one
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    console.print(f"exported to {out} ({size / 2**20:.0f} MiB)", soft_wrap=True)
    console.print(
        f"loaded as by TensorFlow Serving and compared on {name}, {len(expected)} detections: "
        f"boxes differ by at most {box_difference:.2g} px, scores by {score_difference:.2g}",
        soft_wrap=True,
    )
    if not (box_difference <= 0.01 and score_difference <= 1e-4):
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
    from keras_frcnn.recipes import DetectionFilter

    return load_run(
        arguments.run,
        with_flags(DetectionFilter(), arguments),
        number_of_proposals=arguments.num_proposals,
        precision=precision,
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


COMPARED = 20
# Of what has a partner; a RoI that ties with another may have none.
LEAST_SHARE, MOST_PIXELS, MOST_SCORE = 0.9, 0.5, 1e-3
LEAST_INT8 = 0.95


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
    from keras_frcnn.export.onnx.convert import to_onnx, write_onnx

    examples, others = int8_examples(arguments, console) if arguments.int8 else ((), ())
    detector = detector_of(arguments, precision="float32")
    with console.status("converting ..."):
        model = to_onnx(detector)
        float32 = OnnxDetector(model.SerializeToString())
    pixels, name = image
    expected, found = (each.find([pixels])[0] for each in (detector, float32))
    del detector
    text, equal = comparison(expected, found)
    form = "in float32, before int8, " if arguments.int8 else ""
    console.print(f"{form}run by onnxruntime and compared on {name}, {text}", soft_wrap=True)
    if not equal:
        raise UserError(f"The exported model differs from the run; {out} was not written.")
    if arguments.int8:
        model = quantised(arguments, model, examples, console)
    write_onnx(model, out)
    console.print(f"exported to {out} ({out.stat().st_size / 2**20:.0f} MiB)", soft_wrap=True)
    if arguments.int8:
        compare_int8(float32, OnnxDetector(out), others or examples, console, calibrated=not others)
    console.print(f"use it: test_frcnn.py -p IMAGES --onnx {out}", soft_wrap=True)


def int8_examples(
    arguments: argparse.Namespace, console: Console
) -> tuple[Sequence[Example], Sequence[Example]]:
    """The images to calibrate on, evenly spread over the sets, and all others.

    Raises:
        UserError: as :func:`keras_frcnn.cli.data.load_dataset`.
    """
    from keras_frcnn.cli.data import load_dataset

    config = RunFolder(arguments.run).read_config()
    dataset = load_dataset(arguments, console, class_names=config.class_names)
    dataset = dataset.with_bits(config.data.bits)
    asked = arguments.calibration_images or CALIBRATION_IMAGES
    if len(dataset) < asked:
        console.print(
            f"there are {len(dataset)} images to calibrate on, not {asked}", style="yellow"
        )
    chosen = set(spread(len(dataset), asked))
    examples = tuple(enumerate(dataset.examples))
    return (
        [example for place, example in examples if place in chosen],
        [example for place, example in examples if place not in chosen],
    )


def spread(number: int, asked: int) -> list[int]:
    """So many places among a number of them, or all, evenly spread from the first on."""
    return np.linspace(0, number, min(asked, number), endpoint=False).astype(int).tolist()


def quantised(arguments: argparse.Namespace, model, examples: Sequence[Example], console: Console):
    """The model in int8."""
    from keras_frcnn.export.onnx.quantise import needs_seven_bits, quantise

    bits = arguments.weight_bits or (7 if needs_seven_bits() else 8)
    why = "as asked" if arguments.weight_bits else "for this CPU; --weight_bits says otherwise"
    console.print(f"int8: calibrated on {len(examples)} images, weights of {bits} bits ({why})")
    seen = track(examples, "calibrating", console=console, disable=not console.is_terminal)
    images = (example.pixels() for example in seen)
    return quantise(model, images, seven_bit_weights=bits == 7)


def compare_int8(
    float32, int8, examples: Sequence[Example], console: Console, *, calibrated: bool
) -> None:
    """Says how many detections of some images int8 kept.

    Args:
        examples: at most :data:`COMPARED` of them are taken, evenly spread.
        calibrated: whether they are those that int8 was calibrated on, which flatters it.
    """
    taken = [examples[place] for place in spread(len(examples), COMPARED)]
    images = {example.key: example.pixels() for example in taken}
    kept = agreement(
        *(
            {key: detector.find([image])[0] for key, image in images.items()}
            for detector in (float32, int8)
        ),
        ROUGH,
    )
    which = "it was calibrated on (there are no others)" if calibrated else "not calibrated on"
    console.print(f"int8 beside float32 on {len(images)} images {which}: {kept}", soft_wrap=True)
    if kept.share is not None and kept.share < LEAST_INT8:
        console.print(
            f"that is less than {100 * LEAST_INT8:.0f} %: evaluate the file before you use it",
            style="yellow",
            soft_wrap=True,
        )


def comparison(expected: ImageDetections, found: ImageDetections) -> tuple[str, bool]:
    """What to say of two sets of detections that should be equal, and whether they are.

    Not every detection need have its partner: under ``max`` pooling RoIs that cover the same cells
    have equal scores, and rounding decides which of them suppression keeps.
    """
    pixels, scores = paired(expected, found)
    share = len(pixels) / len(expected) if len(expected) else 1.0
    worst_pixels, worst_score = (float(values.max(initial=0)) for values in (pixels, scores))
    text = (
        f"{len(pixels)} of {len(expected)} detections are there: boxes differ by at most "
        f"{worst_pixels:.2g} px, scores by {worst_score:.2g}"
    )
    equal = share >= LEAST_SHARE and worst_pixels <= MOST_PIXELS and worst_score <= MOST_SCORE
    return text, equal
