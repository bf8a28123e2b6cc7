"""A detection system of the paper: a detector and the proposals it is given; evaluated once, kept.

Shapes and names
----------------
B  bootstrap replicates; D  detections of all images.
system  e.g. "Fast R-CNN trained on Selective Search, tested on 300 proposals of an RPN".
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_frcnn.data.dataset import Dataset
from keras_frcnn.data.images import read_image
from keras_frcnn.data.pipeline import in_parallel
from keras_frcnn.evaluation.detection_files import ImageDetections
from keras_frcnn.evaluation.final_filter import keep_best_per_class
from keras_frcnn.evaluation.matching import match_detections
from keras_frcnn.evaluation.uncertainty import Difference, compare, draw_images, resampled_means
from keras_frcnn.evaluation.voc import evaluate_voc
from keras_frcnn.files import written_whole
from keras_frcnn.given_boxes import load_classifier
from keras_frcnn.proposals.given import GivenProposals
from keras_frcnn.runs import RunFolder

# Thousands of proposals at once would take gigabytes.
HEAD_CHUNK = 1000


@dataclass(frozen=True, eq=False)
class Evaluated:
    """The VOC metric of a system, in percent.

    Attributes:
        mean: mAP: 11-point for VOC 2007, area for later years.
        per_class: AP of each class, ``None`` without objects.
        replicates: (B,) mAP of bootstrap draws of the images; the same draws for every system.
        images: how many were tested.
    """

    mean: float
    per_class: tuple[float | None, ...]
    replicates: np.ndarray
    images: int

    @property
    def error(self) -> float:
        """Standard error of the mean over images."""
        return float(np.nanstd(self.replicates, ddof=1))


def difference(first: Evaluated, second: Evaluated) -> Difference:
    """How much better the first is, by the paired bootstrap; in percent."""
    return compare(first.replicates, second.replicates, first.mean - second.mean)


def claim(first: str, second: str, found: Difference) -> str:
    """A sentence about the direction of a difference; it claims nothing beyond twice the error."""
    figures = f"{found.value:+.1f} points, standard error {found.error:.1f}"
    if not found.resolved:
        return f"{first} against {second}: not resolved at this budget ({figures})."
    better, worse = (first, second) if found.value > 0 else (second, first)
    return f"{better} is above {worse} ({figures})."


def detect_all(
    dataset: Dataset,
    detector: RunFolder,
    stage: int | None,
    proposals: GivenProposals,
    most: int | None,
    scales: tuple[int, ...] = (),
) -> dict[str, ImageDetections]:
    """Detections by ``Example.key``, filtered as the recipe evaluates.

    Args:
        detector: a run, of whose stage 2 or 4 the detector is taken (``None``: its result).
        proposals: what it is given, the best ``most`` of each image (``None``: all).
        scales: short sides of an image pyramid; none: the recipe's own.
    """
    recipe = detector.read_config().recipe
    classifier = load_classifier(
        detector.path,
        recipe.evaluation_filter,
        stage=stage,
        head_chunk=HEAD_CHUNK,
        short_sides=scales,
    )
    images = in_parallel(
        lambda example: read_image(example.path), dataset.examples, workers=2, ahead=4
    )
    detections = {}
    for example, image in zip(dataset.examples, images, strict=True):
        boxes = proposals.of_example(example).best(most).boxes_image
        detections[example.key], _ = classifier.detect(image, boxes)
    limit = recipe.evaluation_filter.mean_per_class
    if limit is None:
        return detections
    return keep_best_per_class(detections, len(dataset.class_names), limit * len(dataset))


def evaluated(dataset: Dataset, detections: dict[str, ImageDetections]) -> Evaluated:
    """The metric and its bootstrap."""
    eleven_point = all(part.startswith("2007:") for part in dataset.sets)
    result = evaluate_voc(dataset, detections)
    matches = match_detections(dataset, detections, iou_threshold=0.5)
    weights = draw_images(len(dataset))
    replicates = resampled_means(
        matches, len(dataset.class_names), weights, eleven_point=eleven_point
    )
    name = "ap_11point" if eleven_point else "ap_area"
    values = [getattr(entry, name) for entry in result.per_class.values()]
    mean = result.map_11point if eleven_point else result.map_area
    return Evaluated(
        mean=100 * (mean or 0.0),
        per_class=tuple(None if value is None else 100 * value for value in values),
        replicates=100 * replicates,
        images=len(dataset),
    )


def write_detections(path: Path, dataset: Dataset, detections: dict[str, ImageDetections]) -> None:
    """Keeps detections in the order of the data set."""
    found = [detections[example.key] for example in dataset.examples]
    arrays = {
        "boxes": np.concatenate([entry.boxes_image for entry in found]),
        "scores": np.concatenate([entry.scores for entry in found]),
        "classes": np.concatenate([entry.classes for entry in found]),
        "counts": np.array([len(entry) for entry in found]),
        "ids_hash": np.array(dataset.ids_hash),
    }
    with written_whole(path) as partial, open(partial, "wb") as stream:
        np.savez_compressed(stream, **arrays)


def read_detections(path: Path, dataset: Dataset) -> dict[str, ImageDetections]:
    """The inverse of :func:`write_detections`.

    Raises:
        ValueError: they are of other images.
    """
    with np.load(path, allow_pickle=False) as arrays:
        if str(arrays["ids_hash"]) != dataset.ids_hash:
            raise ValueError(f"{path} holds detections of other images; remove it")
        ends = np.cumsum(arrays["counts"])[:-1]
        parts = (np.split(arrays[name], ends) for name in ("boxes", "scores", "classes"))
        return {
            example.key: ImageDetections(*entry)
            for example, *entry in zip(dataset.examples, *parts, strict=True)
        }
