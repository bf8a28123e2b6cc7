"""An export beside the run that it was made from: on what, by what rule, and how far it is off.

Shapes and names
----------------
image  (H, W, 3) uint8 RGB.
expected  detections of the run, found  those of the export.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_frcnn.data.dataset import Example
from keras_frcnn.data.images import read_image
from keras_frcnn.detection.detections import ImageDetections
from keras_frcnn.detection.detector import Detector
from keras_frcnn.detection.saved_model import check_operations
from keras_frcnn.evaluation.agreement import ROUGH, Agreement, agreement, paired
from keras_frcnn.export.saved_model import detect_as_served, largest_difference
from keras_frcnn.runs.folder import RunFolder

# A SavedModel computes what the run does.
SERVED_PIXELS, SERVED_SCORE = 0.01, 1e-4
# Of what has a partner in an ONNX file; a RoI that ties with another may have none.
LEAST_SHARE, MOST_PIXELS, MOST_SCORE = 0.9, 0.5, 1e-3
# Images on which int8 is compared with float32.
COMPARED = 20
LEAST_INT8 = 0.95


@dataclass(frozen=True)
class Comparison:
    """An export beside its run on one image.

    Attributes:
        detections: of the run.
        kept: those of them that the export has, too.
        pixels: largest difference of a corner.
        score: largest difference of a score.
        equal: whether the export is what it should be.
    """

    detections: int
    kept: int
    pixels: float
    score: float
    equal: bool


def image_to_compare(run: RunFolder, given: Path | None) -> tuple[np.ndarray, str]:
    """An image to compare on, and what it is: the given one, a training sample, else noise.

    A training sample comes first because something is detected on it.

    Raises:
        UserError: the image that was given cannot be read.
    """
    files = [given] if given is not None else sorted((run.path / "samples").glob("*.png"))
    if files:
        return read_image(files[0]), str(files[0])
    return np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8), "a generated image"


def compare_served(folder: Path, image: np.ndarray, detector: Detector) -> Comparison:
    """A SavedModel, loaded as TensorFlow Serving does, beside the detector that it is made of.

    Raises:
        UserError: it cannot be loaded so.
    """
    (expected,) = detector.find([image])
    check_operations(folder)
    found = detect_as_served(folder, image, len(detector.class_names))
    differences = [largest_difference(expected, each) for each in found.values()]
    pixels, score = (float(worst) for worst in np.max(differences, axis=0))  # NaN where there is
    equal = pixels <= SERVED_PIXELS and score <= SERVED_SCORE
    return Comparison(len(expected), len(expected), pixels, score, equal)


def compare_onnx(expected: ImageDetections, found: ImageDetections) -> Comparison:
    """An ONNX file beside the detector that it is made of.

    Not every detection need have its partner: under ``max`` pooling RoIs that cover the same cells
    have equal scores, and rounding decides which of them suppression keeps.
    """
    pixels, scores = paired(expected, found)
    share = len(pixels) / len(expected) if len(expected) else 1.0
    worst, worst_score = (float(values.max(initial=0)) for values in (pixels, scores))
    equal = share >= LEAST_SHARE and worst <= MOST_PIXELS and worst_score <= MOST_SCORE
    return Comparison(len(expected), len(pixels), worst, worst_score, equal)


def compare_int8(float32: Detector, int8: Detector, examples: Sequence[Example]) -> Agreement:
    """How many detections of float32 int8 kept, on at most :data:`COMPARED` of the images."""
    taken, _ = spread(examples, COMPARED)
    images = {example.key: example.pixels() for example in taken}
    references, others = (
        {key: detector.find([image])[0] for key, image in images.items()}
        for detector in (float32, int8)
    )
    return agreement(references, others, ROUGH)


def spread(
    examples: Sequence[Example], number: int
) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """So many images, or all, evenly spread from the first on; and all others."""
    places = np.linspace(0, len(examples), min(number, len(examples)), endpoint=False).astype(int)
    chosen = set(places.tolist())
    return (
        tuple(example for place, example in enumerate(examples) if place in chosen),
        tuple(example for place, example in enumerate(examples) if place not in chosen),
    )
