"""Caffe's stochastic gradient descent with momentum, in two fused passes over each variable.

``v <- m v - lr (g + d w)`` and ``w <- w + v`` (recipe 4.2): the first pass puts the decay into
``v``, the second does the rest. Without momentum the decay is added to the gradient. Keras' own SGD
updates the 103 million weights of fc6 in 108 ms, the two passes in 28 and 55 (two CPU cores), and
its ``weight_decay`` is decoupled, which is not Caffe's.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from keras_frcnn.recipes import OptimizerConfig


def is_bias(variable: tf.Variable) -> bool:
    """Whether the variable is a layer's bias, which learns at twice the rate."""
    return variable.name.split("/")[-1].split(":")[0] == "bias"


class MomentumOptimizer(tf.Module):
    """Momentum for a fixed list of variables; every slot exists before the first step."""

    def __init__(self, variables: Sequence[tf.Variable], config: OptimizerConfig):
        super().__init__(name="momentum_optimizer")
        self.config = config
        self.variables_trained = list(variables)
        self.velocities = [
            tf.Variable(tf.zeros_like(variable), trainable=False) for variable in variables
        ]

    def apply(self, gradients: Sequence[tf.Tensor | None], learning_rate: tf.Tensor) -> None:
        """One update. ``learning_rate`` is a float32 scalar; a gradient ``None`` counts as 0."""
        present = [gradient for gradient in gradients if gradient is not None]
        # A variable that a product of the backward pass still reads is copied before its update.
        with tf.control_dependencies(present):
            for variable, velocity, gradient in zip(
                self.variables_trained, self.velocities, gradients, strict=True
            ):
                multiplier = self.config.bias_rate_multiplier if is_bias(variable) else 1.0
                self._apply_to(variable, velocity, gradient, learning_rate * multiplier)

    def _apply_to(self, variable, velocity, gradient, rate) -> None:
        momentum, decay = self.config.momentum, self.config.weight_decay
        if gradient is None:
            gradient = tf.zeros_like(variable)
        if momentum == 0:
            gradient += decay * variable
        else:
            # m (v - lr d w / m) - lr g = m v - lr (g + d w): as a part of the gradient the decay
            # would be one more array of the size of fc6, made and added at every step.
            tf.raw_ops.ResourceApplyGradientDescent(
                var=velocity.handle, alpha=rate * (decay / momentum), delta=variable
            )
        tf.raw_ops.ResourceApplyKerasMomentum(
            var=variable.handle,
            accum=velocity.handle,
            lr=rate,
            grad=gradient,
            momentum=tf.constant(momentum, variable.dtype),
        )


class LossScale(tf.Module):
    """Keeps float16 gradients from underflowing; a constant 1 in the other precisions.

    The loss is multiplied by the scale and the gradients divided by it. Gradients that overflow
    halve the scale and skip the update; ``GROWTH_INTERVAL`` good steps in a row double it.
    """

    GROWTH_INTERVAL = 1000

    def __init__(self, dynamic: bool):
        super().__init__(name="loss_scale")
        self.dynamic = dynamic
        self.scale = tf.Variable(2.0**13 if dynamic else 1.0, trainable=False)
        self.good_steps = tf.Variable(0, trainable=False)

    def update(self, finite: tf.Tensor) -> None:
        """Adapts the scale to whether the gradients of this step were all finite."""
        grow = finite & (self.good_steps + 1 >= self.GROWTH_INTERVAL)
        factor = tf.where(grow, 2.0, tf.where(finite, 1.0, 0.5))
        self.scale.assign(tf.clip_by_value(self.scale * factor, 1.0, 2.0**15))
        self.good_steps.assign(tf.where(finite & ~grow, self.good_steps + 1, 0))


def all_finite(tensors: Sequence[tf.Tensor]) -> tf.Tensor:
    """Whether every element of every tensor is finite: a bool scalar."""
    return tf.reduce_all([tf.reduce_all(tf.math.is_finite(tensor)) for tensor in tensors])
