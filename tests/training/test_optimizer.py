"""Caffe's momentum against a plain loop, and the loss scale of float16.

Shapes and names
----------------
velocity  v <- m v + r (g + d w), w <- w - v, with r and with it the decay doubled for biases.
"""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_frcnn.network.weights import trained_variables
from keras_frcnn.recipes import OptimizerConfig
from keras_frcnn.training.optimizer import (
    LossScale,
    MomentumOptimizer,
    all_finite,
    is_bias,
)


def dense(units=3, inputs=4):
    layer = keras.layers.Dense(
        units, bias_initializer="ones", kernel_initializer=keras.initializers.RandomNormal(seed=1)
    )
    layer.build((None, inputs))
    return layer, trained_variables([layer])


def test_biases_are_told_from_kernels():
    _, (kernel, bias) = dense()
    assert isinstance(kernel, tf.Variable)
    assert (is_bias(kernel), is_bias(bias)) == (False, True)
    convolution = keras.layers.Conv2D(2, 3, name="bias_like")
    convolution.build((None, None, None, 3))
    kinds = [is_bias(weight.value) for weight in convolution.weights]
    assert kinds == [False, True]


def test_momentum_against_a_loop():
    config = OptimizerConfig(momentum=0.9, weight_decay=0.05, bias_rate_multiplier=2.0)
    layer, variables = dense()
    optimizer = MomentumOptimizer(variables, config)
    step = tf.function(
        lambda gradients, rate: optimizer.apply(gradients, rate),
        input_signature=[
            [tf.TensorSpec(variable.shape, tf.float32) for variable in variables],
            tf.TensorSpec((), tf.float32),
        ],
    )
    weights = [variable.numpy().astype(float) for variable in variables]
    velocities = [np.zeros_like(weight) for weight in weights]
    rng = np.random.default_rng(0)
    for rate in (0.1, 0.1, 0.1, 0.01, 0.01, 0.003):  # the velocity is in units of the rate then
        gradients = [rng.normal(size=weight.shape).astype("f") for weight in weights]
        step(gradients, rate)
        for index, multiplier in enumerate((1.0, 2.0)):  # kernel, bias
            decayed = gradients[index] + 0.05 * weights[index]
            velocities[index] = 0.9 * velocities[index] + rate * multiplier * decayed
            weights[index] = weights[index] - velocities[index]
    for variable, weight in zip(layer.get_weights(), weights, strict=True):
        np.testing.assert_allclose(variable, weight, rtol=1e-4, atol=1e-6)


def test_a_missing_gradient_is_zero_and_leaves_the_decay():
    _, variables = dense()
    before = [variable.numpy() for variable in variables]
    config = OptimizerConfig(momentum=0.0, weight_decay=0.5, bias_rate_multiplier=2.0)
    MomentumOptimizer(variables, config).apply([None, None], tf.constant(0.1))
    np.testing.assert_allclose(variables[0], before[0] * (1 - 0.1 * 0.5), rtol=1e-6)
    np.testing.assert_allclose(variables[1], before[1] * (1 - 0.2 * 0.5), rtol=1e-6)


def test_every_slot_exists_before_the_first_step_and_belongs_to_one_variable():
    _, variables = dense()
    optimizer = MomentumOptimizer(variables, OptimizerConfig())
    assert [velocity.shape for velocity in optimizer.velocities] == [(4, 3), (3,)]
    with pytest.raises(ValueError):
        optimizer.apply([tf.zeros((4, 3))], tf.constant(0.1))


def test_loss_scale_halves_on_overflow_and_doubles_after_good_steps():
    scale = LossScale(dynamic=True)
    start = float(scale.scale)
    assert start > 1
    scale.update(tf.constant(False))
    assert float(scale.scale) == start / 2
    for _ in range(LossScale.GROWTH_INTERVAL - 1):
        scale.update(tf.constant(True))
    assert float(scale.scale) == start / 2
    scale.update(tf.constant(True))
    assert (float(scale.scale), int(scale.good_steps)) == (start, 0)
    for _ in range(40):
        scale.update(tf.constant(False))
    assert float(scale.scale) == 1.0


def test_loss_scale_is_1_in_the_other_precisions():
    assert float(LossScale(dynamic=False).scale) == 1.0


def test_all_finite():
    good, bad = tf.ones((2, 2)), tf.constant([1.0, float("inf")])
    assert bool(all_finite([good, good]))
    assert not bool(all_finite([good, bad]))
    assert not bool(all_finite([tf.constant(float("nan"))]))


def test_variables_are_updated_where_they_are_once_nothing_reads_them():
    """The gradient of the first is there at once; that of the second still reads the first."""
    with tf.device("CPU:0"):
        variables = [tf.Variable(tf.eye(1000)), tf.Variable(tf.zeros((1000, 1000)))]
    optimizer = MomentumOptimizer(variables, OptimizerConfig())

    @tf.function
    def step():
        optimizer.apply([tf.zeros((1000, 1000)), tf.linalg.inv(variables[0])], 0.1)

    def address():
        return np.asarray(variables[0].read_value()).__array_interface__["data"][0]

    addresses = [address()]
    for _ in range(3):
        step()
        addresses.append(address())
    assert len(set(addresses)) == 1
