"""Detector targets of whole images, and the statistics of their deltas.

Shapes and names
----------------
proposals, gt_boxes, rois  (., 4) float32, half-open (y1, x1, y2, x2); C = 4 classes.
"""

import math

import numpy as np
import pytest
import tensorflow as tf

from keras_frcnn.network.detector import detector_foreground_deltas, detector_targets
from keras_frcnn.network.normalisation import Normalisation
from keras_frcnn.recipes import DetectorConfig

CONFIG = DetectorConfig()
DOWN_TO_ZERO = DetectorConfig(background_iou_low=0.0)
ROIS = 64
GT = np.array([[0.0, 0.0, 10.0, 10.0]])

# Numbers of columns of the gt that a 10-row box covers: IoU columns / 10.
EXACT_HALF, BELOW_HALF, EXACT_TENTH, BELOW_TENTH = 5.0, 4.9, 1.0, 0.9


def inner_boxes(columns):
    return np.array([[0.0, 0.0, 10.0, width] for width in columns]).reshape(-1, 4)


def test_thresholds_order_and_ground_truth_as_candidate():
    proposals = inner_boxes([BELOW_TENTH, EXACT_TENTH, EXACT_HALF, BELOW_HALF])
    targets = detector_targets(proposals, GT, [3], [0, 0], ROIS, CONFIG)
    assert targets.labels.dtype == tf.int32
    # Foreground: IoU 0.5 and the gt itself, once; background: 0.1 and 0.49, not 0.09.
    np.testing.assert_array_equal(targets.rois[:, 3], [5.0, 10.0, 1.0, np.float32(4.9)])
    assert targets.labels.numpy().tolist() == [3, 3, 0, 0]


def test_background_down_to_zero():
    proposals = np.concatenate([inner_boxes([BELOW_TENTH]), [[50, 50, 60, 60]]])
    targets = detector_targets(proposals, GT, [1], [0, 0], ROIS, DOWN_TO_ZERO)
    assert targets.labels.numpy().tolist() == [1, 0, 0]


def test_deltas_are_normalised_by_the_row_of_the_label():
    means = np.arange(16).reshape(4, 4) / 10.0
    stds = np.arange(1, 17).reshape(4, 4) / 4.0
    gt_boxes = np.array([[0.0, 0.0, 10.0, 10.0], [100.0, 100.0, 120.0, 140.0]])
    proposals = np.array([[0.0, 0.0, 10.0, 8.0], [100.0, 110.0, 120.0, 140.0], [0, 0, 10, 2]])
    targets = detector_targets(
        proposals,
        gt_boxes,
        [2, 3],
        [0, 0],
        ROIS,
        CONFIG,
        Normalisation(means, stds),
    )
    assert targets.labels.numpy().tolist() == [2, 3, 2, 3, 0]
    raw = np.array(
        [
            [0, 1 / 8, 0, math.log(10 / 8)],
            [0, -5 / 30, 0, math.log(40 / 30)],
            [0, 0, 0, 0],
            [0, 0, 0, 0],
        ]
    )
    rows = [2, 3, 2, 3]
    np.testing.assert_allclose(targets.deltas[:4], (raw - means[rows]) / stds[rows], atol=1e-6)
    np.testing.assert_array_equal(targets.deltas[4], np.zeros(4))


@pytest.mark.parametrize(
    ("foreground", "background", "expected"),
    [
        (100, 300, (16, 48)),  # both enough
        (2, 300, (3, 61)),  # foreground short (2 + the gt): background fills up
        (100, 10, (16, 10)),  # background short: the sample is smaller
        (0, 0, (1, 0)),  # the gt alone
    ],
)
def test_counts(foreground, background, expected):
    proposals = np.concatenate(
        [inner_boxes(np.linspace(6, 9, foreground)), inner_boxes(np.linspace(2, 4, background))]
    )
    targets = detector_targets(proposals, GT, [1], [3, 1], ROIS, CONFIG)
    labels = targets.labels.numpy()
    assert ((labels == 1).sum(), (labels == 0).sum()) == expected
    assert np.all(np.diff(labels) <= 0)  # foreground first
    assert len(np.unique(targets.rois.numpy(), axis=0)) == len(labels)  # nothing twice


@pytest.fixture(scope="module")
def traced():
    return tf.function(
        lambda proposals, gt_boxes, gt_classes, seed: detector_targets(
            proposals, gt_boxes, gt_classes, seed, ROIS, CONFIG
        ),
        input_signature=[
            tf.TensorSpec([None, 4]),
            tf.TensorSpec([None, 4]),
            tf.TensorSpec([None], tf.int32),
            tf.TensorSpec([2], tf.int32),
        ],
    )


@pytest.mark.parametrize("proposals", [0, 5])
def test_no_eligible_roi_gives_none(traced, proposals):
    """Without objects every IoU is 0, below the background's 0.1."""
    targets = traced(
        tf.fill([proposals, 4], 2.0),
        tf.zeros([0, 4]),
        tf.zeros([0], tf.int32),
        tf.constant([0, 0]),
    )
    assert [t.shape for t in targets] == [(0, 4), (0,), (0, 4)]


def test_no_objects_with_background_down_to_zero_is_all_background():
    proposals = np.tile([[0.0, 0, 20, 20]], (200, 1))
    targets = detector_targets(
        proposals,
        np.zeros((0, 4)),
        np.zeros(0, np.int32),
        [0, 0],
        ROIS,
        DOWN_TO_ZERO,
    )
    assert targets.labels.numpy().tolist() == [0] * 64
    assert not np.any(targets.deltas)


def test_the_seed_decides(traced):
    arguments = (
        tf.constant(inner_boxes(np.linspace(2, 9, 500)), tf.float32),
        tf.constant(GT, tf.float32),
        tf.constant([1]),
    )
    first = traced(*arguments, tf.constant([7, 8])).rois.numpy()
    np.testing.assert_array_equal(first, traced(*arguments, tf.constant([7, 8])).rois)
    assert np.any(first != traced(*arguments, tf.constant([7, 9])).rois.numpy())


def test_statistics_per_class_with_the_gt_boxes_and_before_sampling():
    gt_boxes = np.array([[0.0, 0.0, 10.0, 10.0], [100.0, 100.0, 120.0, 140.0]])
    widths = np.linspace(5, 10, 40)
    proposals = np.concatenate([inner_boxes(widths), inner_boxes([3.0, 4.0])])
    sums = detector_foreground_deltas(
        proposals, gt_boxes, [1, 3], foreground_iou=0.5, number_of_classes=4
    )
    assert sums.count.numpy().tolist() == [0, 41, 0, 1]
    tx = (10 - widths) / 2 / widths
    tw = np.log(10 / widths)
    np.testing.assert_allclose(sums.delta_sum[1], [0, tx.sum(), 0, tw.sum()], rtol=1e-4)
    np.testing.assert_allclose(
        sums.sum_of_squares[1], [0, (tx**2).sum(), 0, (tw**2).sum()], rtol=1e-4
    )
    assert not np.any(sums.delta_sum.numpy()[[0, 2, 3]])


def test_statistics_without_objects():
    sums = detector_foreground_deltas(
        inner_boxes([5.0]),
        np.zeros((0, 4)),
        np.zeros(0, np.int32),
        foreground_iou=0.5,
        number_of_classes=4,
    )
    assert sums.count.numpy().tolist() == [0] * 4
    assert not np.any(sums.delta_sum)
