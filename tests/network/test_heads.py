"""fc6 and fc7 between RoI pooling and the outputs, and their dropout.

Shapes and names
----------------
pooled  (R, p, p, F).
"""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_frcnn.network.backbones import build_backbone
from keras_frcnn.network.backbones.heads import FullyConnectedHead, StatelessDropout, he_normal


def small_head(dropout_rate=0.5, policy="float32"):
    initializers = [he_normal(0, name) for name in ("fc6", "fc7")]
    return FullyConnectedHead(200, initializers, dropout_rate, policy)


def test_head_flattens_rows_columns_channels_and_ends_with_relu():
    head = small_head()
    pooled = np.random.default_rng(0).standard_normal((4, 2, 2, 3)).astype(np.float32)
    actual = head(pooled).numpy()
    (kernel6, bias6), (kernel7, bias7) = (layer.get_weights() for layer in head.layers)
    hidden = np.maximum(pooled.reshape(4, 12) @ kernel6 + bias6, 0)
    np.testing.assert_allclose(actual, np.maximum(hidden @ kernel7 + bias7, 0), atol=1e-5)


def test_models_made_from_one_head_share_its_weights():
    head = small_head()
    pooled, seed = keras.Input((2, 2, 3)), keras.Input(batch_shape=(2,), dtype="int32")
    testing = keras.Model(pooled, head(pooled))
    training = keras.Model([pooled, seed], head(pooled, seed))
    x, key = tf.ones((3, 2, 2, 3)), tf.constant([1, 2])
    before = testing(x).numpy(), training([x, key]).numpy()
    head.layers[1].bias.assign_add(np.ones(200, np.float32))
    assert (testing(x).numpy() != before[0]).any()
    assert (training([x, key]).numpy() != before[1]).any()
    assert len(testing.weights) == len(training.weights) == 4


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_head_drops_by_seed_and_only_with_a_seed(policy):
    head = small_head(policy=policy)
    x = np.random.default_rng(0).standard_normal((3, 2, 2, 3)).astype(np.float32)

    def run(*seed):
        return tf.cast(head(x, tf.constant(seed)) if seed else head(x), tf.float32).numpy()

    np.testing.assert_array_equal(run(), run())
    np.testing.assert_array_equal(run(1, 2), run(1, 2))
    assert (run(1, 2) != run(1, 3)).any()
    assert np.mean(run(1, 2) == 0) > np.mean(run() == 0) + 0.15


def test_dropout_keeps_half_and_doubles_it_with_another_mask_per_layer():
    x, seed = tf.ones((100, 100)), tf.constant([7, 8])
    first, second = (StatelessDropout(0.5, index)(x, seed).numpy() for index in (0, 1))
    assert set(np.unique(first)) == {0.0, 2.0}
    assert np.mean(first == 0) == pytest.approx(0.5, abs=0.02)
    # Independent masks agree on half of the values; equal ones on all.
    assert np.mean(first == second) == pytest.approx(0.5, abs=0.03)


def test_networks_without_dropout_accept_a_seed():
    for network in ("tiny", "resnet50"):
        backbone = build_backbone(network)
        shape = (2, backbone.roi_size, backbone.roi_size, backbone.channels)
        x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        with_seed, without = backbone.head(x, tf.constant([1, 2])), backbone.head(x)
        np.testing.assert_array_equal(with_seed, without)
