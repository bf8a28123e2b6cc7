"""RPN targets of whole images, and the statistics of their deltas.

Shapes and names
----------------
anchors, gt_boxes  (., 4) float32, half-open (y1, x1, y2, x2); labels (A,); deltas (A, 4).
"""

import math

import numpy as np
import pytest
import tensorflow as tf

from keras_frcnn.geometry.anchors import anchor_grid, base_anchors
from keras_frcnn.network.normalisation import Normalisation, mean_and_std
from keras_frcnn.network.rpn import rpn_positive_deltas, rpn_targets
from keras_frcnn.recipes import RpnConfig

CONFIG = RpnConfig()
EVERY_ANCHOR = RpnConfig(keep_cross_boundary=True)

SMALL_ANCHORS = [
    [0, 0, 20, 20],  # the best, 8 rows of the gt missing
    [0, 0, 10, 20],  # neither
    [60, 60, 80, 80],  # background
    [-4, 0, 24, 20],  # equal to the gt but outside
]
SMALL_GT = [[-4.0, 0.0, 24.0, 20.0]]


def test_worked_image_with_normalised_deltas():
    mean, std = [0.1, 0.2, 0.3, 0.4], [0.5, 0.25, 2.0, 4.0]
    targets = rpn_targets(
        SMALL_ANCHORS, (100, 100), SMALL_GT, [0, 0], CONFIG, Normalisation(mean, std)
    )
    assert targets.labels.dtype == tf.int32
    assert targets.labels.numpy().tolist() == [1, -1, 0, -1]
    expected = np.zeros((4, 4))
    expected[0] = (np.array([0, 0, math.log(28 / 20), 0]) - mean) / std
    np.testing.assert_allclose(targets.deltas, expected, atol=1e-6)


def test_cross_boundary_anchors_take_part_only_when_asked():
    targets = rpn_targets(SMALL_ANCHORS, (100, 100), SMALL_GT, [0, 0], EVERY_ANCHOR)
    # 20 / 28 = 0.71 keeps the first positive; the last is the best now.
    assert targets.labels.numpy().tolist() == [1, -1, 0, 1]
    np.testing.assert_allclose(targets.deltas[3], np.zeros(4), atol=1e-6)


def test_full_image_counts_and_deltas():
    anchors = anchor_grid(base_anchors(), 38, 63)
    gt_boxes = np.array([[100, 100, 300, 260], [50, 400, 550, 900], [200, 600, 290, 700.0]])
    traced = tf.function(
        lambda anchors, gt_boxes, seed: rpn_targets(anchors, (600, 1000), gt_boxes, seed, CONFIG),
        input_signature=[
            tf.TensorSpec([None, 4]),
            tf.TensorSpec([None, 4]),
            tf.TensorSpec([2], tf.int32),
        ],
    )
    labels, deltas = (
        t.numpy() for t in traced(anchors, tf.cast(gt_boxes, tf.float32), tf.constant([1, 2]))
    )
    assert (labels >= 0).sum() == 256
    assert 3 <= (labels == 1).sum() <= 128
    assert not np.any(deltas[labels != 1])
    a = anchors.numpy()
    inside = (a[:, 0] >= 0) & (a[:, 1] >= 0) & (a[:, 2] <= 600) & (a[:, 3] <= 1000)
    assert not np.any((labels >= 0) & ~inside)
    for k in np.flatnonzero(labels == 1):
        y1, x1, y2, x2 = a[k]
        encoded = [
            (
                ((g[0] + g[2]) - (y1 + y2)) / 2 / (y2 - y1),
                ((g[1] + g[3]) - (x1 + x2)) / 2 / (x2 - x1),
                math.log((g[2] - g[0]) / (y2 - y1)),
                math.log((g[3] - g[1]) / (x2 - x1)),
            )
            for g in gt_boxes
        ]
        assert np.abs(np.array(encoded) - deltas[k]).max(axis=1).min() < 1e-5


def test_positives_that_were_not_drawn_have_no_deltas():
    anchors = [[0.0, 0.0, 100.0, 90.0]] * 40 + [[150.0, 150.0, 190.0, 190.0]] * 40
    config = RpnConfig(minibatch_size=10)
    targets = rpn_targets(anchors, (200, 200), [[0.0, 0, 100, 100]], [0, 0], config)
    labels = targets.labels.numpy()
    assert ((labels == 1).sum(), (labels == 0).sum()) == (5, 5)
    np.testing.assert_array_equal(np.any(targets.deltas.numpy() != 0, axis=1), labels == 1)


def test_image_without_objects_is_all_background():
    anchors = anchor_grid(base_anchors(), 38, 50)
    labels, deltas = rpn_targets(anchors, (600, 800), np.zeros((0, 4)), [0, 0], CONFIG)
    assert (labels.numpy() == 0).sum() == 256
    assert not np.any(labels == 1)
    assert not np.any(deltas)


def test_image_smaller_than_every_anchor_gives_an_empty_minibatch():
    anchors = anchor_grid(base_anchors(), 4, 4)
    labels, deltas = rpn_targets(anchors, (60, 60), [[0.0, 0, 50, 50]], [0, 0], CONFIG)
    assert np.all(labels == -1)
    assert not np.any(deltas)


def test_statistics_count_every_positive_before_sampling():
    gt = [[0.0, 0.0, 100.0, 100.0]]
    anchors = [[0.0, 0.0, 100.0, 100.0 - k] for k in range(10)] + [[0, 0, 100, 50.0]]
    sums = rpn_positive_deltas(anchors, (200, 200), gt, CONFIG)
    deltas = np.array(
        [[0, k / 2 / (100 - k), 0, math.log(100 / (100 - k))] for k in range(10)], np.float64
    )
    assert int(sums.count) == 10
    np.testing.assert_allclose(sums.delta_sum, deltas.sum(axis=0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(sums.sum_of_squares, (deltas**2).sum(axis=0), rtol=1e-4, atol=1e-6)
    mean, std = mean_and_std(*sums, epsilon=1e-3)
    np.testing.assert_allclose(mean, deltas.mean(axis=0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(std[[1, 3]], deltas.std(axis=0)[[1, 3]], rtol=1e-3)
    # All ty and th are 0: no spread, so no normalisation.
    np.testing.assert_array_equal(std[[0, 2]], [1.0, 1.0])


def test_statistics_of_an_image_without_positives():
    sums = rpn_positive_deltas([[0, 0, 9, 9]], (20, 20), np.zeros((0, 4)), CONFIG)
    assert int(sums.count) == 0
    mean, std = mean_and_std(*sums, epsilon=1e-3)
    assert mean.dtype == std.dtype == np.float64
    assert mean.tolist() == [0] * 4
    assert std.tolist() == [1] * 4


def test_mean_and_std_row_by_row():
    count = np.array([0, 2, 1])
    delta_sum = np.array([[0.0] * 4, [6.0] * 4, [0.1] * 4])
    sum_of_squares = np.array([[0.0] * 4, [26.0] * 4, [0.01 - 1e-9] * 4])
    mean, std = mean_and_std(count, delta_sum, sum_of_squares, epsilon=0.01)
    np.testing.assert_allclose(mean[:, 0], [0.0, 3.0, 0.1])
    # Variance 26 / 2 - 9 = 4; one rounded below 0 is no spread.
    np.testing.assert_allclose(std[:, 0], [1.0, 2.0, 1.0])


def test_statistics_with_cross_boundary_anchors_kept():
    arguments = (SMALL_ANCHORS, (100, 100), SMALL_GT)
    assert int(rpn_positive_deltas(*arguments, CONFIG).count) == 1
    kept = rpn_positive_deltas(*arguments, EVERY_ANCHOR)
    assert int(kept.count) == 2


@pytest.mark.parametrize("seed", [0, 1])
def test_same_seed_same_minibatch(seed):
    anchors = anchor_grid(base_anchors(), 38, 50)
    gt_boxes = [[100.0, 100.0, 300.0, 300.0]]
    first = rpn_targets(anchors, (600, 800), gt_boxes, [seed, 3], CONFIG).labels
    again = rpn_targets(anchors, (600, 800), gt_boxes, [seed, 3], CONFIG).labels
    other = rpn_targets(anchors, (600, 800), gt_boxes, [seed, 4], CONFIG).labels
    np.testing.assert_array_equal(first, again)
    assert np.any(first != other)
