"""Proposals against a plain loop: decode, clip, smallest side, best, suppress, best.

Shapes and names
----------------
A  anchors of the whole map; scales  input pixels per original pixel, vertical and horizontal.
"""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from keras_frcnn.network.network_input import Frames
from keras_frcnn.network.rpn import RpnOutputs, select_proposals
from keras_frcnn.recipes import PAPER, ProposalConfig

HEIGHT, WIDTH = 96.0, 128.0


def loop(logits, deltas, anchors, size, scale, config):
    """Of one image: kept boxes (K, 4) and scores (K,), in float64."""
    candidates = []
    for anchor, delta, logit in zip(
        anchors.astype(float), deltas.astype(float), logits.astype(float), strict=True
    ):
        sides = anchor[2:] - anchor[:2]
        centre = anchor[:2] + sides / 2 + delta[:2] * sides
        sides = sides * np.exp(delta[2:])
        y1, x1, y2, x2 = *(centre - sides / 2), *(centre + sides / 2)
        y1, y2 = np.clip(y1, 0, size[0] - 1), np.clip(y2, 1, size[0])
        x1, x2 = np.clip(x1, 0, size[1] - 1), np.clip(x2, 1, size[1])
        smallest = config.min_size_image
        if (y2 - y1) / scale[0] >= smallest and (x2 - x1) / scale[1] >= smallest:
            candidates.append((logit[1] - logit[0], (y1, x1, y2, x2)))
    candidates.sort(key=lambda entry: -entry[0])
    kept = []
    for difference, box in candidates[: config.before_nms]:
        if len(kept) < config.after_nms and all(
            iou(box, other) <= config.nms_iou for _, other in kept
        ):
            kept.append((difference, box))
    scores = [1 / (1 + np.exp(-difference)) for difference, _ in kept]
    return np.reshape([box for _, box in kept], (-1, 4)), np.array(scores)


def iou(a, b):
    height = max(min(a[2], b[2]) - max(a[0], b[0]), 0.0)
    width = max(min(a[3], b[3]) - max(a[1], b[1]), 0.0)
    areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return height * width / (areas - height * width)


def random_inputs(seed, images=2, anchors=150):
    rng = np.random.default_rng(seed)
    centre = rng.uniform(-10, 120, (anchors, 2))
    sides = rng.uniform(10, 80, (anchors, 2))
    boxes = np.concatenate((centre - sides / 2, centre + sides / 2), 1).astype("f")
    logits = rng.normal(0, 2, (images, anchors, 2)).astype("f")
    deltas = rng.normal(0, 0.3, (images, anchors, 4)).astype("f")
    sizes = np.array([[HEIGHT, WIDTH], [80, 100]], np.int32)[:images]
    scales = np.array([[0.5, 0.7], [2.0, 1.6]], "f")[:images]
    return logits, deltas, boxes, sizes, scales


@pytest.mark.parametrize(
    "config",
    [
        ProposalConfig(before_nms=None, after_nms=200),
        ProposalConfig(before_nms=40, after_nms=200, nms_iou=0.5),
        ProposalConfig(before_nms=1000, after_nms=7),
        ProposalConfig(before_nms=None, after_nms=20, min_size_image=45.0),
    ],
)
def test_against_a_loop(config, on_gpu):
    logits, deltas, anchors, sizes, scales = random_inputs(1)
    found = select_proposals(RpnOutputs(logits, deltas, anchors), Frames(sizes, scales), config)
    assert found.boxes_input.shape == (2, config.after_nms, 4)
    assert found.scores.shape == (2, config.after_nms)
    for image in range(2):
        boxes, scores = loop(
            logits[image], deltas[image], anchors, sizes[image], scales[image], config
        )
        count = int(found.count[image])
        assert count == len(boxes)
        np.testing.assert_allclose(found.boxes_input[image, :count], boxes, atol=1e-3)
        np.testing.assert_allclose(found.scores[image, :count], scores, atol=1e-6)
        np.testing.assert_array_equal(found.boxes_input[image, count:], 0)
        np.testing.assert_array_equal(found.scores[image, count:], 0)
    assert int(found.count[0]) > 0


def test_the_smallest_side_is_counted_in_original_pixels(on_gpu):
    # 20 x 40 input pixels; at a vertical scale of 1.25 that is 16 original rows, at 1.26 less.
    anchors = np.array([[10, 10, 30, 50]], "f")
    zeros = np.zeros((1, 1, 4), "f")

    def count(vertical, horizontal):
        scales = np.array([[vertical, horizontal]], "f")
        sizes = np.array([[100, 100]], np.int32)
        found = select_proposals(
            RpnOutputs(zeros[..., :2], zeros, anchors),
            Frames(sizes, scales),
            PAPER.test_proposals,
        )
        return int(found.count[0])

    assert count(1.25, 1.0) == 1
    assert count(1.26, 1.0) == 0
    assert count(1.0, 2.5) == 1
    assert count(1.0, 2.6) == 0


def test_ranking_where_the_softmax_saturates(on_gpu):
    # sigmoid(20) and sigmoid(30) are both 1 in float32, but the second is the better box.
    anchors = np.array([[0, 0, 40, 40], [2, 2, 42, 42], [60, 60, 90, 90]], "f")
    logits = np.array([[[-10, 10], [-15, 15], [-12, 13]]], "f")
    assert tf.sigmoid(20.0) == tf.sigmoid(30.0)
    found = select_proposals(
        RpnOutputs(logits, np.zeros((1, 3, 4), "f"), anchors),
        Frames(np.array([[100, 100]], np.int32), np.ones((1, 2), "f")),
        ProposalConfig(before_nms=2, after_nms=3),
    )
    assert int(found.count[0]) == 2
    np.testing.assert_array_equal(found.boxes_input[0, :2], anchors[[1, 2]])


def test_unlikely_boxes_come_back_too(on_gpu):
    # Most anchors of a trained network have large negative logits; their boxes are what the
    # detector's background is drawn from.
    anchors = np.array([[0, 0, 20, 20], [30, 30, 60, 60], [70, 0, 99, 40]], "f")
    logits = np.array([[[30, 0], [0, 5], [3, 0]]], "f")
    found = select_proposals(
        RpnOutputs(logits, np.zeros((1, 3, 4), "f"), anchors),
        Frames(np.array([[100, 100]], np.int32), np.ones((1, 2), "f")),
        ProposalConfig(after_nms=10),
    )
    assert int(found.count[0]) == 3
    np.testing.assert_array_equal(found.boxes_input[0, :3], anchors[[1, 2, 0]])
    expected = 1 / (1 + np.exp(-np.array([5.0, -3.0, -30.0])))
    np.testing.assert_allclose(found.scores[0, :3], expected, rtol=1e-5)


def test_equal_logits_keep_the_order_of_the_anchors(on_gpu):
    corners = 25.0 * np.arange(30)
    anchors = np.stack((corners, corners, corners + 20, corners + 20), 1).astype("f")
    found = select_proposals(
        RpnOutputs(np.zeros((1, 30, 2), "f"), np.zeros((1, 30, 4), "f"), anchors),
        Frames(np.array([[1000, 1000]], np.int32), np.ones((1, 2), "f")),
        ProposalConfig(after_nms=30),
    )
    np.testing.assert_array_equal(found.boxes_input[0], anchors)


def test_nothing_large_enough(on_gpu):
    found = select_proposals(
        RpnOutputs(
            np.zeros((1, 5, 2), "f"),
            np.zeros((1, 5, 4), "f"),
            np.tile(np.array([[0, 0, 8, 8]], "f"), (5, 1)),
        ),
        Frames(np.array([[100, 100]], np.int32), np.ones((1, 2), "f")),
        ProposalConfig(before_nms=3, after_nms=4),
    )
    assert int(found.count[0]) == 0
    np.testing.assert_array_equal(found.boxes_input, np.zeros((1, 4, 4)))
    np.testing.assert_array_equal(found.scores, np.zeros((1, 4)))
