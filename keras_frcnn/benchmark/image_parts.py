"""Time of one image, split as table 4 of the paper splits it."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from keras_frcnn.benchmark.testing import waiting
from keras_frcnn.detection.network_detector import NetworkDetector
from keras_frcnn.network.network_input import network_input
from keras_frcnn.system.timing import Timing, in_turns


def time_parts(
    predictor: NetworkDetector,
    image: np.ndarray,
    *,
    repetitions: int,
    given: np.ndarray | None = None,
) -> tuple[dict[str, Timing], int]:
    """Times the parts of one image, warm and each waited for.

    Args:
        predictor: RPN and detector share its base, unless proposals are given.
        image: (H, W, 3) uint8.
        given: (R, 4) proposals in image pixels, in place of the RPN's.

    Returns:
        The timings of ``conv``, ``proposal`` (none with ``given``) and ``region-wise``, and how
        many RoIs went through the detector.
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
    features = base(inputs)
    calls = {"conv": waiting(base, (inputs,))}
    if given is None:
        rois = proposals(features)
        calls["proposal"] = waiting(proposals, (features,))
    else:
        rois = tf.constant(given * np.tile(frames.scales[0], 2), tf.float32)
    calls["region-wise"] = waiting(detections, (features, rois))
    return in_turns(calls, repetitions=repetitions), int(rois.shape[0])
