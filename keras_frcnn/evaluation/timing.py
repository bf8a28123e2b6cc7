"""Time of one image, split as table 4 of the paper splits it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from keras_frcnn.detection.network_detector import NetworkDetector
from keras_frcnn.network.network_input import network_input

PARTS = ("conv", "proposal", "region-wise")


@dataclass(frozen=True)
class PartTimes:
    """Seconds of each repetition.

    Attributes:
        seconds: part to (repetitions,) wall seconds.
        input_size: height and width of the network's input.
        rois: how many went through the detector.
    """

    seconds: dict[str, np.ndarray]
    input_size: tuple[int, int]
    rois: int

    def median(self, part: str) -> float:
        """Median milliseconds of a part."""
        return 1000 * float(np.median(self.seconds[part]))

    def spread(self, part: str) -> float:
        """Half the distance between the quartiles, in milliseconds."""
        low, high = np.quantile(self.seconds[part], (0.25, 0.75))
        return 500 * float(high - low)


def time_parts(
    predictor: NetworkDetector,
    image: np.ndarray,
    *,
    given: np.ndarray | None = None,
    repetitions: int = 10,
    warm_up: int = 2,
) -> PartTimes:
    """Times the parts of one image, warm and each waited for.

    Args:
        predictor: RPN and detector share its base, unless proposals are given.
        image: (H, W, 3) uint8.
        given: (R, 4) proposals in image pixels, in place of the RPN's; there is then no
            ``proposal`` part.
        repetitions: how often the image is run after ``warm_up`` unmeasured times.
    """
    model, detector = predictor.model, predictor.detector_model
    inputs, frames = network_input(tf.constant(image[None]), model.recipe.image)

    @tf.function
    def proposals(features):
        found = model.proposals(model.rpn(features), frames, predictor.proposals)
        return found.boxes_input[0, : found.count[0]]

    @tf.function
    def detections(features, rois):
        count = tf.shape(rois)[:1]
        chosen = predictor.detection_filter
        return detector.detections(features, rois[None], count, frames, chosen).scores

    base = tf.function(detector.features)
    seconds: dict[str, list[float]] = {part: [] for part in PARTS}
    rois = None if given is None else tf.constant(given * np.tile(frames.scales[0], 2), tf.float32)
    for repetition in range(-warm_up, repetitions):
        times = {}
        features, times["conv"] = _timed(base, inputs)
        if given is None:
            rois, times["proposal"] = _timed(proposals, features)
        _, times["region-wise"] = _timed(detections, features, rois)
        if repetition >= 0:
            for part, value in times.items():
                seconds[part].append(value)
    measured = {part: np.array(values) for part, values in seconds.items() if values}
    return PartTimes(
        measured, tuple(int(side) for side in frames.sizes_input[0]), int(rois.shape[0])
    )


def _timed(function: Callable, *arguments: tf.Tensor) -> tuple[tf.Tensor, float]:
    """What a function gives and the seconds until its values are there."""
    start = time.perf_counter()
    result = function(*arguments)
    # Reading a value waits for the device; one is enough and costs no copy of the features.
    tf.reshape(result, (-1,))[:1].numpy()
    return result, time.perf_counter() - start
