"""Boxes against worked numbers and NumPy loops.

Shapes and names
----------------
boxes  (., 4) float32, half-open (y1, x1, y2, x2).
"""

import math

import numpy as np
import pytest
import tensorflow as tf

from keras_frcnn.geometry import boxes as box_ops


def random_boxes(count, seed, side=600.0):
    random = np.random.default_rng(seed)
    corners = random.uniform(0, side, (count, 2))
    return np.concatenate([corners, corners + random.uniform(10, side / 2, (count, 2))], axis=1)


def inclusive_iou(box_a, box_b):
    """IoU by the published "+1" formula on inclusive corners."""
    ya1, xa1, ya2, xa2 = box_a - [0, 0, 1, 1]
    yb1, xb1, yb2, xb2 = box_b - [0, 0, 1, 1]
    height = min(ya2, yb2) - max(ya1, yb1) + 1
    width = min(xa2, xb2) - max(xa1, xb1) + 1
    if height <= 0 or width <= 0:
        return 0.0
    area_a = (ya2 - ya1 + 1) * (xa2 - xa1 + 1)
    area_b = (yb2 - yb1 + 1) * (xb2 - xb1 + 1)
    return height * width / (area_a + area_b - height * width)


def test_area_has_no_plus_one_and_is_zero_for_degenerate_boxes():
    boxes = [[0, 0, 1, 1], [2, 3, 5, 7], [4, 4, 4, 9], [5, 5, 3, 2]]
    np.testing.assert_array_equal(box_ops.area(boxes), [1.0, 12.0, 0.0, 0.0])


def test_iou_worked_numbers():
    # 10x10 boxes shifted by 5 in x: 50 / 150; a quarter inside: 25 / 100.
    overlaps = box_ops.iou(
        [[0, 0, 10, 10]], [[0, 5, 10, 15], [0, 0, 5, 5], [0, 10, 10, 20], [0, 0, 10, 10]]
    )
    np.testing.assert_allclose(overlaps, [[1 / 3, 0.25, 0.0, 1.0]], rtol=1e-6)


def test_iou_equals_the_published_formula_on_inclusive_corners():
    boxes_a, boxes_b = np.round(random_boxes(12, 0)), np.round(random_boxes(7, 1))
    expected = [[inclusive_iou(a, b) for b in boxes_b] for a in boxes_a]
    np.testing.assert_allclose(box_ops.iou(boxes_a, boxes_b), expected, rtol=1e-5, atol=1e-7)


def test_iou_of_degenerate_boxes_is_zero():
    degenerate = [[0, 0, 0, 0], [5, 5, 5, 9], [9, 9, 2, 2]]
    overlaps = box_ops.iou(degenerate, [[0, 0, 10, 10], [0, 0, 0, 0], [9, 9, 2, 2]])
    np.testing.assert_array_equal(overlaps, np.zeros((3, 3)))


@pytest.mark.parametrize(("count_a", "count_b"), [(0, 3), (3, 0), (0, 0)])
def test_iou_without_boxes(count_a, count_b):
    traced = tf.function(
        box_ops.iou, input_signature=[tf.TensorSpec([None, 4]), tf.TensorSpec([None, 4])]
    )
    assert traced(tf.zeros([count_a, 4]), tf.zeros([count_b, 4])).shape == (count_a, count_b)


def test_encode_worked_numbers():
    # Reference: centre (10, 30), 20 high and 40 wide. Box: centre (15, 20), 40 high and 10 wide.
    deltas = box_ops.encode([[0, 10, 20, 50]], [[-5, 15, 35, 25]])
    np.testing.assert_allclose(
        deltas, [[5 / 20, -10 / 40, math.log(2.0), math.log(0.25)]], rtol=1e-6
    )


def test_decode_worked_numbers():
    boxes = box_ops.decode([[0, 10, 20, 50]], [[0.25, -0.25, math.log(2.0), math.log(0.25)]])
    np.testing.assert_allclose(boxes, [[-5, 15, 35, 25]], rtol=1e-5)


def test_zero_deltas_decode_to_the_reference_itself():
    """The Python port's decode gives a box one pixel wider here."""
    np.testing.assert_array_equal(
        box_ops.decode([[-40, -84, 56, 100]], np.zeros((1, 4))), [[-40, -84, 56, 100]]
    )


def test_decode_is_the_inverse_of_encode():
    references, boxes = random_boxes(200, 2), random_boxes(200, 3)
    decoded = box_ops.decode(references, box_ops.encode(references, boxes))
    np.testing.assert_allclose(decoded, boxes, atol=2e-3)
    deltas = np.random.default_rng(4).normal(0, 0.5, (200, 4))
    encoded = box_ops.encode(references, box_ops.decode(references, deltas))
    np.testing.assert_allclose(encoded, deltas, atol=2e-4)


def test_decode_clamps_only_large_growth():
    references = [[0, 0, 16, 16], [0, 0, 16, 16], [0, 0, 16, 16]]
    decoded = box_ops.decode(references, [[0, 0, 100, 0], [0, 0, 0, 4.0], [0, 0, -100, 0]]).numpy()
    np.testing.assert_allclose(decoded[0], [-492, 0, 508, 16], rtol=1e-5)  # 1000 px high
    np.testing.assert_allclose(decoded[1, 3] - decoded[1, 1], 16 * math.exp(4.0), rtol=1e-5)
    np.testing.assert_allclose(decoded[2], [8, 0, 8, 16], atol=1e-5)


def test_decode_broadcasts_a_box_per_class():
    references = np.array([[[0.0, 0, 10, 10]], [[5, 5, 15, 25]]])
    assert box_ops.decode(references, np.zeros((2, 3, 4))).shape == (2, 3, 4)


def test_clip_keeps_a_pixel_at_the_border():
    boxes = [[-5, -6, 3, 4], [90, 190, 120, 230], [-9, -9, -2, -2], [150, 250, 160, 260]]
    expected = [[0, 0, 3, 4], [90, 190, 100, 200], [0, 0, 1, 1], [99, 199, 100, 200]]
    np.testing.assert_array_equal(box_ops.clip(boxes, 100, 200), expected)
    clipped = box_ops.clip(boxes, tf.constant(100), tf.constant(200.0))
    np.testing.assert_array_equal(clipped, expected)


def test_clip_per_image():
    boxes = tf.fill([2, 3, 4], 500.0)
    clipped = box_ops.clip(boxes, tf.constant([[100], [50]]), tf.constant([[200], [80]]))
    np.testing.assert_array_equal(clipped[0, 0], [99, 199, 100, 200])
    np.testing.assert_array_equal(clipped[1, 2], [49, 79, 50, 80])
