"""``python -m keras_frcnn export --out FILE.onnx``: writes the file, checks it, says what it found.

Shapes and names
----------------
float32  the detector of the file without int8, also where only the int8 one is written.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from keras_frcnn.cli.export import CALIBRATION_IMAGES, detector_of
from keras_frcnn.data.dataset import Example
from keras_frcnn.detection.detections import ImageDetections
from keras_frcnn.errors import UserError
from keras_frcnn.evaluation.agreement import ROUGH, agreement, paired
from keras_frcnn.runs import RunFolder

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
    from keras_frcnn.onnx_format.convert import to_onnx, write_onnx
    from keras_frcnn.onnx_format.detector import OnnxDetector

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
    from keras_frcnn.onnx_format.quantise import needs_seven_bits, quantise

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
