"""An exploding loss is told from a hard image.

Shapes and names
----------------
loss  the objective of one iteration.
"""

from __future__ import annotations

import numpy as np
import pytest

from keras_frcnn.training.explosion import ExplosionGuard


def test_the_first_loss_above_a_hundred_medians():
    guard = ExplosionGuard()
    assert guard.first_explosion([1.0, 2.0, 3.0, 2.0, 2.0]) is None
    assert guard.first_explosion([2.0, 199.0, 201.0, 1e30]) == (2, 2.0)


def test_a_hard_image_after_easy_ones_is_none():
    guard = ExplosionGuard()
    assert guard.first_explosion([0.002] * 100) is None
    assert guard.first_explosion([9.9]) is None
    assert guard.first_explosion([10.1]) == (0, 0.002)


def test_a_loss_that_grows_within_the_first_iterations():
    losses = [0.7, 0.7, 0.6, 0.7, 0.8, 5.0, 40.0, 90.0, 1e4, 1e30]
    assert ExplosionGuard().first_explosion(losses)[0] == 7


@pytest.mark.parametrize("seed", range(5))
def test_noise_over_orders_of_magnitude_is_none(seed):
    losses = np.exp(np.random.default_rng(seed).normal(0, 1, 5000))
    assert ExplosionGuard().first_explosion(losses) is None


def test_what_a_training_that_exploded_had_logged():
    # Means of 20 iterations of an RPN whose learning rate was twice too high.
    losses = [0.617, 1.505, 0.901, 0.9, 0.88, 5.488, 1.7e32, 6.0e13, 0.88]
    assert ExplosionGuard().first_explosion(losses) == (6, pytest.approx(0.9005))
