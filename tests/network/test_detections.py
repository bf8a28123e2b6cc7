"""Detections against a plain loop, with the filters of both recipes.

Shapes and names
----------------
N  images, R  RoIs (zero-padded), C  classes incl. background; deltas (N, R, 4 * C).
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from keras_frcnn.network.detector import select_detections
from keras_frcnn.recipes import PAPER, PY_FASTER_RCNN, DetectionFilter

SIZES = np.array([[100, 140], [90, 90]], np.int32)


def iou(a, b):
    height = max(min(a[2], b[2]) - max(a[0], b[0]), 0.0)
    width = max(min(a[3], b[3]) - max(a[1], b[1]), 0.0)
    areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return height * width / (areas - height * width)


def loop(logits, deltas, rois, count, size, chosen):
    """Of one image: list of (score, class, box), best first."""
    exponents = np.exp(logits.astype(float) - logits.max(axis=1, keepdims=True))
    scores = exponents / exponents.sum(axis=1, keepdims=True)
    found = []
    for class_index in range(1, logits.shape[1]):
        candidates = []
        for roi in range(count):
            y1, x1, y2, x2 = rois[roi].astype(float)
            ty, tx, th, tw = deltas[roi, 4 * class_index : 4 * class_index + 4].astype(float)
            height, width = y2 - y1, x2 - x1
            cy, cx = y1 + height / 2 + ty * height, x1 + width / 2 + tx * width
            height, width = height * np.exp(th), width * np.exp(tw)
            box = (
                np.clip(cy - height / 2, 0, size[0] - 1),
                np.clip(cx - width / 2, 0, size[1] - 1),
                np.clip(cy + height / 2, 1, size[0]),
                np.clip(cx + width / 2, 1, size[1]),
            )
            candidates.append((scores[roi, class_index], class_index, box))
        candidates.sort(key=lambda entry: -entry[0])
        kept = []
        for candidate in candidates[: chosen.per_class_before_nms]:
            if candidate[0] > chosen.score_threshold and all(
                iou(candidate[2], other[2]) <= chosen.nms_iou for other in kept
            ):
                kept.append(candidate)
        found += kept
    return sorted(found, key=lambda entry: -entry[0])[: chosen.per_image]


def random_inputs(rois=40, classes=4):
    rng = np.random.default_rng(7)
    corner = rng.uniform(0, 60, (2, rois, 2))
    boxes = np.concatenate((corner, corner + rng.uniform(10, 40, (2, rois, 2))), -1).astype("f")
    counts = np.array([rois, 25], np.int32)
    boxes[1, 25:] = 0
    logits = rng.normal(0, 2, (2, rois, classes)).astype("f")
    logits[1, 25:, 2] = 50  # padding with high scores must not come back
    deltas = rng.normal(0, 0.3, (2, rois, 4 * classes)).astype("f")
    deltas[:, :, :4] = 1e3  # those of background are never used
    return logits, deltas, boxes, counts


@pytest.mark.parametrize(
    "chosen",
    [
        PAPER.test_filter,
        PY_FASTER_RCNN.evaluation_filter,
        PAPER.evaluation_filter,
        dataclasses.replace(PAPER.evaluation_filter, per_class_before_nms=10),
        DetectionFilter(score_threshold=0.2, nms_iou=0.5, per_image=6),
    ],
    ids=["test", "py", "paper", "paper-10", "six"],
)
def test_against_a_loop(chosen, on_gpu):
    logits, deltas, rois, counts = random_inputs()
    found = select_detections(logits, deltas, rois, counts, SIZES, chosen)
    for image in range(2):
        expected = loop(
            logits[image], deltas[image], rois[image], counts[image], SIZES[image], chosen
        )
        count = int(found.count[image])
        assert count == len(expected) > 0
        np.testing.assert_allclose(
            found.scores[image, :count], [entry[0] for entry in expected], atol=1e-6
        )
        np.testing.assert_array_equal(
            found.classes[image, :count], [entry[1] for entry in expected]
        )
        np.testing.assert_allclose(
            found.boxes_input[image, :count], [entry[2] for entry in expected], atol=1e-3
        )
        for array in (found.boxes_input, found.scores, found.classes):
            np.testing.assert_array_equal(array[image, count:], 0)


def test_the_two_filters_of_the_recipes():
    test, paper = PAPER.test_filter, PAPER.evaluation_filter
    assert (test.score_threshold, test.nms_iou, test.per_image) == (0.05, 0.3, 100)
    assert test.per_class_before_nms is None
    assert (paper.score_threshold, paper.nms_iou, paper.per_image) == (0.0, 0.3, None)
    assert (paper.per_class_before_nms, paper.mean_per_class) == (100, 40)
    assert PY_FASTER_RCNN.evaluation_filter == test == PY_FASTER_RCNN.test_filter


@pytest.mark.parametrize("chosen", [PAPER.test_filter, PAPER.evaluation_filter])
def test_no_rois(chosen, on_gpu):
    found = select_detections(
        np.zeros((1, 3, 4), "f"),
        np.zeros((1, 3, 16), "f"),
        np.zeros((1, 3, 4), "f"),
        np.array([0], np.int32),
        SIZES[:1],
        chosen,
    )
    assert int(found.count[0]) == 0
