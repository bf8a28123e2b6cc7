"""The images of a class on which a detector does worst, chosen and drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image

from keras_frcnn.data.dataset import Dataset, Example
from keras_frcnn.detection.detections import NO_DETECTIONS, ImageDetections
from keras_frcnn.evaluation.matching import (
    FALSE_POSITIVE,
    IGNORED,
    TRUE_POSITIVE,
    Matches,
    box_overlaps,
)
from keras_frcnn.visualize import draw_outcomes, shrunk

# Below this overlap with an object of its class a false detection is not a badly placed one
# (Hoiem, Chodpathumwan and Dai 2012).
LEAST_LOCALISATION = 0.1


@dataclass(frozen=True)
class WorstImages:
    """Positions in ``dataset.examples``, the worst first.

    Attributes:
        missed: images with the most missed objects; of equal numbers the earlier image.
        false_positives: images with the most confident false detections.
    """

    missed: tuple[int, ...]
    false_positives: tuple[int, ...]


def worst_images(
    matches: Matches, class_index: int, *, score_threshold: float, limit: int
) -> WorstImages:
    """Chooses up to ``limit`` images of each kind, of one class, at a score threshold.

    Args:
        class_index: 1-based.
        score_threshold: an object that is only found with a lower score is missed; a false
            detection with a lower score does not count.
    """
    missed = (
        (matches.object_classes == class_index)
        & ~matches.object_difficult
        & (matches.object_scores < score_threshold)
    )
    images, counts = np.unique(matches.object_images[missed], return_counts=True)
    most_missed = images[np.argsort(-counts, kind="stable")][:limit]
    order = matches.order
    false = (
        (matches.classes[order] == class_index)
        & (matches.outcomes[order] == FALSE_POSITIVE)
        & (matches.scores[order] >= score_threshold)
    )
    confident = dict.fromkeys(matches.images[order[false]].tolist())
    return WorstImages(tuple(most_missed.tolist()), tuple(confident)[:limit])


def draw_image(
    dataset: Dataset,
    detections: Mapping[str, ImageDetections],
    matches: Matches,
    image: int,
    class_index: int,
    *,
    score_threshold: float,
    iou_threshold: float,
    side: int = 480,
) -> tuple[Image.Image, str]:
    """An image with the objects of a class and the detections above the threshold.

    Args:
        image: position in ``dataset.examples``.
        side: the longer side of the picture; smaller images stay as they are.

    Returns:
        The picture and a caption.

    Raises:
        UserError: the image cannot be read.
    """
    example = dataset.examples[image]
    picture = Image.fromarray(example.pixels())
    small = shrunk(picture, side)
    of_class = example.classes == class_index
    scores_of_objects = matches.object_scores[matches.object_images == image][of_class]
    difficult = example.difficult[of_class]
    is_missed = ~difficult & (scores_of_objects < score_threshold)
    outcomes = np.select([difficult, is_missed], ["difficult", "missed"], "found").tolist()
    labels = ["missed" if missed else "" for missed in is_missed]
    shown = np.flatnonzero(
        (matches.images == image)
        & (matches.classes == class_index)
        & (matches.scores >= score_threshold)
    )
    words = {TRUE_POSITIVE: "true positive", FALSE_POSITIVE: "false positive", IGNORED: "ignored"}
    found = detections.get(example.key, NO_DETECTIONS).boxes_image[matches.rows[shown]]
    for box, score, outcome in zip(
        found, matches.scores[shown], matches.outcomes[shown], strict=True
    ):
        label = f"{score:.2f}"
        if outcome == FALSE_POSITIVE:
            reason = explain_false_positive(
                example, box, class_index, dataset.class_names, iou_threshold
            )
            label = f"{label} {reason}"
        outcomes.append(words[outcome])
        labels.append(label)
    boxes = np.concatenate([example.boxes_image[of_class], found])
    scaled = boxes * np.tile(np.divide(small.size, picture.size)[::-1], 2)
    false = int((matches.outcomes[shown] == FALSE_POSITIVE).sum())
    counted = int((~difficult).sum())
    objects = f"{int(is_missed.sum())} of {counted} objects missed" if counted else "no object"
    caption = f"{example.key}: {objects}, {false} false detection{'s' * (false != 1)}"
    return draw_outcomes(np.asarray(small), scaled, outcomes, labels), caption


def explain_false_positive(
    example: Example,
    box: np.ndarray,
    class_index: int,
    class_names: tuple[str, ...],
    iou_threshold: float,
) -> str:
    """Why a detection is false: ``duplicate``, ``is CLASS``, ``badly placed`` or ``background``.

    Args:
        box: (4,) in the frame of ``example.boxes_image``; class_index: that of the detection.
        iou_threshold: least IoU with an object that is the same or of another class.
    """
    overlaps = box_overlaps(box[None], example.boxes_image)[0]
    same = example.classes == class_index
    best_same = overlaps[same].max(initial=-1.0)
    if best_same >= iou_threshold:
        return "duplicate"
    if overlaps[~same].max(initial=-1.0) >= iou_threshold:
        best = np.where(same, -1.0, overlaps).argmax()
        return f"is {class_names[example.classes[best] - 1]}"
    return "badly placed" if best_same >= LEAST_LOCALISATION else "background"
