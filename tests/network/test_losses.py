"""Losses of both recipes against NumPy, and the gradient of smooth L1 at its corner.

Shapes and names
----------------
logits (A, 2) or (R, C); deltas (., 4) or (R, 4*C); labels as in the modules.
"""

import numpy as np
import pytest
import tensorflow as tf

from keras_frcnn.network.detector import detector_box_loss, detector_class_loss
from keras_frcnn.network.rpn import rpn_box_loss, rpn_class_loss
from keras_frcnn.network.targets import smooth_l1


def numpy_smooth_l1(difference, sigma):
    difference = np.asarray(difference, np.float64)
    corner = 1.0 / sigma**2
    return np.where(
        np.abs(difference) < corner,
        0.5 * (sigma * difference) ** 2,
        np.abs(difference) - 0.5 * corner,
    )


def numpy_cross_entropy(logits, label):
    logits = np.asarray(logits, np.float64)
    return np.log(np.exp(logits - logits.max()).sum()) + logits.max() - logits[label]


def test_smooth_l1_worked_numbers():
    np.testing.assert_allclose(
        smooth_l1([-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 3.0], 1.0),
        [1.5, 0.5, 0.125, 0.0, 0.125, 0.5, 2.5],
    )
    # Corner at 1/9: 4.5 d^2 below, |d| - 1/18 beyond.
    np.testing.assert_allclose(
        smooth_l1([0.1, -0.1, 1.0, -1.0], 3.0),
        [0.045, 0.045, 1 - 1 / 18, 1 - 1 / 18],
        rtol=1e-6,
    )


@pytest.mark.parametrize("sigma", [1.0, 3.0])
def test_smooth_l1_gradient_at_and_around_the_corner(sigma):
    corner = 1.0 / sigma**2
    points = [0.0, 0.5 * corner, 0.999 * corner, corner, 1.001 * corner, 2.0, 1e6]
    expected = [0.0, 0.5, 0.999, 1.0, 1.0, 1.0, 1.0]
    for sign in (1.0, -1.0):
        difference = tf.constant([sign * point for point in points])
        with tf.GradientTape() as tape:
            tape.watch(difference)
            loss = smooth_l1(difference, sigma)
        gradient = tape.gradient(loss, difference)
        np.testing.assert_allclose(gradient, sign * np.array(expected), rtol=1e-5)
        np.testing.assert_allclose(loss, numpy_smooth_l1(difference, sigma), rtol=1e-5)


def test_rpn_class_loss_is_the_mean_over_sampled_anchors():
    logits = np.random.default_rng(0).normal(0, 2, (50, 2)).astype(np.float32)
    labels = np.random.default_rng(1).integers(-1, 2, 50)
    expected = np.mean(
        [numpy_cross_entropy(logits[k], labels[k]) for k in range(50) if labels[k] >= 0]
    )
    np.testing.assert_allclose(rpn_class_loss(logits, labels), expected, rtol=1e-5)


def test_rpn_class_loss_puts_background_first():
    confident_object = [[-10.0, 10.0]]
    assert float(rpn_class_loss(confident_object, [1])) < 1e-6
    assert float(rpn_class_loss(confident_object, [0])) == pytest.approx(20.0)


@pytest.mark.parametrize(
    ("sigma", "normaliser", "weight"),
    [(1.0, 38 * 63, 10.0), (3.0, 256, 1.0)],
    ids=["paper", "py-faster-rcnn"],
)
def test_rpn_box_loss_of_both_recipes(sigma, normaliser, weight):
    random = np.random.default_rng(2)
    pred, target = random.normal(0, 0.5, (2, 60, 4)).astype(np.float32)
    labels = random.integers(-1, 2, 60)
    expected = numpy_smooth_l1((pred - target)[labels == 1], sigma).sum() * weight / normaliser
    loss = rpn_box_loss(
        pred, target, labels, sigma=sigma, normaliser=tf.constant(normaliser), weight=weight
    )
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_detector_class_loss():
    logits = np.random.default_rng(3).normal(0, 2, (30, 5)).astype(np.float32)
    labels = np.random.default_rng(4).integers(0, 5, 30)
    expected = np.mean([numpy_cross_entropy(logits[k], labels[k]) for k in range(30)])
    np.testing.assert_allclose(detector_class_loss(logits, labels), expected, rtol=1e-5)
    # Equal logits cost ln C.
    assert float(detector_class_loss(np.zeros((4, 21)), [0, 1, 2, 20])) == pytest.approx(
        np.log(21), rel=1e-6
    )


def test_detector_box_loss_takes_the_label_and_divides_by_all_rois():
    random = np.random.default_rng(5)
    pred = random.normal(0, 1, (20, 4 * 6)).astype(np.float32)
    target = random.normal(0, 1, (20, 4)).astype(np.float32)
    labels = random.integers(0, 6, 20)
    expected = 0.0
    for k in range(20):
        if labels[k] > 0:
            own = pred[k, 4 * labels[k] : 4 * labels[k] + 4]
            expected += numpy_smooth_l1(own - target[k], 1.0).sum()
    loss = detector_box_loss(pred, target, labels, sigma=1.0)
    np.testing.assert_allclose(loss, expected / 20, rtol=1e-5)


def test_box_gradients_reach_only_the_counted_outputs():
    pred = tf.ones([3, 12])
    with tf.GradientTape() as tape:
        tape.watch(pred)
        loss = detector_box_loss(pred, tf.zeros([3, 4]), [0, 2, 1], sigma=1.0)
    expected = np.zeros((3, 12))
    expected[1, 8:12] = expected[2, 4:8] = 1 / 3
    np.testing.assert_allclose(tape.gradient(loss, pred), expected, rtol=1e-6)

    pred = tf.ones([3, 4])
    with tf.GradientTape() as tape:
        tape.watch(pred)
        loss = rpn_box_loss(
            pred, tf.zeros([3, 4]), [-1, 0, 1], sigma=3.0, normaliser=2.0, weight=1.0
        )
    np.testing.assert_allclose(tape.gradient(loss, pred), [[0] * 4, [0] * 4, [0.5] * 4])


def test_nothing_sampled_costs_nothing_and_has_no_nan_gradient():
    logits, deltas = tf.ones([3, 2]), tf.ones([3, 4])
    with tf.GradientTape() as tape:
        tape.watch([logits, deltas])
        loss = rpn_class_loss(logits, [-1, -1, -1]) + rpn_box_loss(
            deltas, tf.zeros([3, 4]), [-1, -1, -1], sigma=3.0, normaliser=0, weight=1.0
        )
    assert float(loss) == 0.0
    for gradient in tape.gradient(loss, [logits, deltas]):
        np.testing.assert_array_equal(gradient, np.zeros(gradient.shape))


def test_no_roi_costs_nothing_inside_a_function():
    @tf.function(
        input_signature=[
            tf.TensorSpec([None, 5]),
            tf.TensorSpec([None, 20]),
            tf.TensorSpec([None, 4]),
            tf.TensorSpec([None], tf.int32),
        ]
    )
    def both(logits, pred, target, labels):
        with tf.GradientTape() as tape:
            tape.watch([logits, pred])
            class_loss = detector_class_loss(logits, labels)
            box_loss = detector_box_loss(pred, target, labels, sigma=1.0)
            total = class_loss + box_loss
        return class_loss, box_loss, tape.gradient(total, [logits, pred])

    class_loss, box_loss, gradients = both(
        tf.zeros([0, 5]), tf.zeros([0, 20]), tf.zeros([0, 4]), tf.zeros([0], tf.int32)
    )
    assert float(class_loss) == float(box_loss) == 0.0
    assert [g.shape for g in gradients] == [(0, 5), (0, 20)]


def test_half_precision_predictions_give_float32_losses():
    logits = tf.cast([[1.0, 2.0, 0.5]], tf.bfloat16)
    deltas = tf.cast(np.full((1, 12), 0.5), tf.bfloat16)
    assert detector_class_loss(logits, [1]).dtype == tf.float32
    loss = detector_box_loss(deltas, tf.zeros([1, 4]), [1], sigma=1.0)
    assert loss.dtype == tf.float32
    assert float(loss) == 0.5
