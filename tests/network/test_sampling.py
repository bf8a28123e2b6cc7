"""Sampling: exact counts, uniform, the same for the same seed.

Shapes and names
----------------
mask  (A,) bool; labels (A,) int32 in {1, 0, -1}; seed (2,) int32.
"""

import numpy as np
import pytest
import tensorflow as tf

from keras_frcnn.network.targets import random_subset, sample_labels


@pytest.mark.parametrize(
    ("members", "count", "drawn"), [(10, 4, 4), (10, 10, 10), (3, 7, 3), (0, 5, 0), (5, 0, 0)]
)
def test_subset_count_and_membership(members, count, drawn):
    mask = np.arange(20) % 2 == 0
    mask[2 * members :] = False
    subset = random_subset(mask, count, [1, 2]).numpy()
    assert subset.dtype == bool
    assert subset.sum() == drawn
    assert not np.any(subset & ~mask)


def test_subset_of_nothing_in_a_function_with_dynamic_shapes():
    traced = tf.function(
        random_subset,
        input_signature=[
            tf.TensorSpec([None], tf.bool),
            tf.TensorSpec([], tf.int32),
            tf.TensorSpec([2], tf.int32),
        ],
    )
    assert traced(tf.zeros([0], tf.bool), 3, tf.constant([0, 0])).shape == (0,)
    assert int(tf.math.count_nonzero(traced(tf.ones([9], tf.bool), 3, tf.constant([0, 0])))) == 3
    # A negative count (more positives than the whole sample) draws nobody.
    assert not np.any(traced(tf.ones([9], tf.bool), -2, tf.constant([0, 0])))


def test_subset_is_uniform():
    mask = np.arange(24) % 2 == 1
    draw = tf.function(
        lambda seeds: tf.map_fn(
            lambda seed: random_subset(mask, 3, seed), seeds, fn_output_signature=tf.bool
        )
    )
    draws = 20000
    subsets = draw(tf.stack([tf.range(draws), tf.fill([draws], 7)], axis=1)).numpy()
    assert np.all(subsets.sum(axis=1) == 3)
    frequency = subsets[:, mask].mean(axis=0)
    # Each of 12 members in a quarter of the draws; five standard deviations either side.
    np.testing.assert_allclose(frequency, 0.25, atol=5 * np.sqrt(0.25 * 0.75 / draws))
    # Pairs too: a member comes with each other one equally often, (3 * 2) / (12 * 11).
    together = (subsets[:, 1] & subsets[:, 23]).mean()
    assert together == pytest.approx(6 / 132, abs=5 * np.sqrt(6 / 132 / draws))


def test_the_seed_decides():
    mask = np.ones(200, bool)
    first = random_subset(mask, 50, [3, 4]).numpy()
    np.testing.assert_array_equal(first, random_subset(mask, 50, [3, 4]))
    assert np.any(first != random_subset(mask, 50, [3, 5]).numpy())


@pytest.mark.parametrize(
    ("positives", "negatives", "expected"),
    [
        (300, 5000, (128, 128)),
        (10, 5000, (10, 246)),
        (300, 20, (128, 20)),
        (0, 5000, (0, 256)),
        (7, 0, (7, 0)),
        (0, 0, (0, 0)),
    ],
)
def test_minibatch_of_256(positives, negatives, expected):
    labels = np.concatenate([np.ones(positives), np.zeros(negatives), -np.ones(40)])
    labels = np.random.default_rng(0).permutation(labels).astype(np.int32)
    sampled = sample_labels(labels, [5, 6], size=256, positive_fraction=0.5).numpy()
    assert sampled.dtype == np.int32
    assert ((sampled == 1).sum(), (sampled == 0).sum()) == expected
    kept = sampled >= 0
    np.testing.assert_array_equal(sampled[kept], labels[kept])
    assert np.all(sampled[~kept] == -1)


def test_half_a_positive_rounds_up():
    labels = np.repeat([1, 0], 20).astype(np.int32)
    sampled = sample_labels(labels, [0, 0], size=10, positive_fraction=0.25).numpy()
    assert ((sampled == 1).sum(), (sampled == 0).sum()) == (3, 7)
