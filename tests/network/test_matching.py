"""Matching of anchors and RoIs: ties, the guard, who competes, no ground truth.

Shapes and names
----------------
boxes  (., 4) float32, half-open (y1, x1, y2, x2).
"""

import numpy as np
import pytest
import tensorflow as tf

from keras_frcnn.network.targets import match_anchors, match_rois

THRESHOLDS = {"positive_iou": 0.7, "negative_iou": 0.3}
GT = [[0.0, 0.0, 10.0, 10.0]]


def numpy_iou(box_a, box_b):
    height = min(box_a[2], box_b[2]) - max(box_a[0], box_b[0])
    width = min(box_a[3], box_b[3]) - max(box_a[1], box_b[1])
    if height <= 0 or width <= 0:
        return np.float32(0)
    intersection = np.float32(height * width)
    area_a = (box_a[2] - box_a[0]) * (box_a[3] - box_a[1])
    area_b = (box_b[2] - box_b[0]) * (box_b[3] - box_b[1])
    return intersection / np.float32(area_a + area_b - intersection)


def numpy_match(anchors, inside, gt_boxes, positive_iou, negative_iou):
    """The rule anchor by anchor, in plain Python."""
    labels, matched = np.full(len(anchors), -1), np.zeros(len(anchors), int)
    overlaps = np.array([[numpy_iou(a, g) for g in gt_boxes] for a in anchors], np.float32)
    for a in np.flatnonzero(inside):
        best = max(overlaps[a])
        matched[a] = list(overlaps[a]).index(best)
        if best < np.float32(negative_iou):
            labels[a] = 0
        for g in range(len(gt_boxes)):
            best_of_gt = max(overlaps[other, g] for other in np.flatnonzero(inside))
            if best_of_gt > 0 and overlaps[a, g] == best_of_gt:
                labels[a] = 1
        if best >= np.float32(positive_iou):
            labels[a] = 1
    return labels, matched


def labels_of(anchors, gt_boxes, inside=None):
    inside = np.ones(len(anchors), bool) if inside is None else inside
    return match_anchors(anchors, inside, gt_boxes, **THRESHOLDS).labels.numpy().tolist()


def test_thresholds_at_their_exact_values():
    anchors = [
        [0, 0, 10, 10],  # IoU 1: best
        [0, 0, 7, 10],  # IoU 0.7 exactly: positive
        [0, 0, 6.9, 10],  # below 0.7: neither
        [0, 0, 3, 10],  # IoU 0.3 exactly: neither
        [0, 0, 2.9, 10],  # below 0.3: background
        [50, 50, 60, 60],  # IoU 0
    ]
    assert labels_of(anchors, GT) == [1, 1, -1, -1, 0, 0]


def test_all_that_tie_for_a_gt_are_positive_and_win_over_background():
    # Each of the first three overlaps the gt by 2.5 rows of 10: IoU 25 / 175 = 1/7 < 0.3.
    anchors = [[7.5, 0, 17.5, 10], [-7.5, 0, 2.5, 10], [0, 7.5, 10, 17.5], [8, 0, 18, 10]]
    assert labels_of(anchors, GT) == [1, 1, 1, 0]


def test_a_gt_that_no_inside_anchor_overlaps_makes_no_positives():
    anchors = [[20, 20, 30, 30], [40, 40, 50, 50], [2, 0, 12, 10]]
    far = [[500.0, 500.0, 510.0, 510.0]]
    assert labels_of(anchors, far) == [0, 0, 0]
    assert labels_of(anchors, GT + far) == [0, 0, 1]


def test_only_inside_anchors_compete():
    anchors = [[0, 0, 10, 10], [0, 0, 4, 10], [0, 0, 3.5, 10]]
    assert labels_of(anchors, GT) == [1, -1, -1]
    # The best one is outside: it is -1, and the next best inside takes its place.
    assert labels_of(anchors, GT, inside=[False, True, True]) == [-1, 1, -1]


def test_a_positive_is_matched_to_its_own_best_gt():
    # The anchor is the best of both gt boxes; its own best is the second.
    anchors = [[0, 0, 10, 10], [100, 100, 110, 110]]
    gt_boxes = [[0, 0, 3, 10], [0, 0, 8, 10]]
    matches = match_anchors(anchors, [True, True], gt_boxes, **THRESHOLDS)
    assert matches.labels.numpy().tolist() == [1, 0]
    assert matches.matched_gt.numpy().tolist() == [1, 0]


@pytest.mark.parametrize("anchors", [0, 4])
@pytest.mark.parametrize("gt", [0, 2])
@pytest.mark.parametrize("inside", [True, False])
def test_every_emptiness(anchors, gt, inside):
    traced = tf.function(
        lambda a, i, g: match_anchors(a, i, g, **THRESHOLDS),
        input_signature=[
            tf.TensorSpec([None, 4]),
            tf.TensorSpec([None], tf.bool),
            tf.TensorSpec([None, 4]),
        ],
    )
    matches = traced(tf.zeros([anchors, 4]), tf.fill([anchors], inside), tf.ones([gt, 4]))
    assert matches.labels.dtype == matches.matched_gt.dtype == tf.int32
    assert matches.labels.numpy().tolist() == [0 if inside else -1] * anchors
    assert matches.matched_gt.numpy().tolist() == [0] * anchors


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_random_boxes_against_the_plain_loop(seed):
    random = np.random.default_rng(seed)
    corners = random.integers(0, 30, (80, 2))
    anchors = np.concatenate([corners, corners + random.integers(4, 20, (80, 2))], axis=1)
    corners = random.integers(0, 30, (6, 2))
    gt_boxes = np.concatenate([corners, corners + random.integers(4, 20, (6, 2))], axis=1)
    inside = random.random(80) < 0.7
    labels, matched = numpy_match(anchors, inside, gt_boxes, 0.7, 0.3)
    matches = match_anchors(anchors, inside, gt_boxes, **THRESHOLDS)
    np.testing.assert_array_equal(matches.labels, labels)
    np.testing.assert_array_equal(matches.matched_gt, matched)


def test_rois_worked_numbers():
    rois = [[0, 0, 10, 10], [0, 0, 10, 20], [50, 50, 60, 60]]
    gt_boxes = [[0, 5, 10, 20], [0, 0, 10, 10], [0, 0, 10, 10]]
    matches = match_rois(rois, gt_boxes)
    np.testing.assert_allclose(matches.max_iou, [1.0, 0.75, 0.0], rtol=1e-6)
    assert matches.matched_gt.numpy().tolist() == [1, 0, 0]


def test_rois_without_ground_truth():
    matches = match_rois([[0.0, 0, 10, 10], [0, 0, 5, 5]], np.zeros((0, 4)))
    assert matches.max_iou.numpy().tolist() == [0.0, 0.0]
    assert matches.matched_gt.numpy().tolist() == [0, 0]
    assert match_rois(np.zeros((0, 4)), GT).max_iou.shape == (0,)
