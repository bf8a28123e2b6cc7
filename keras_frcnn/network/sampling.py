"""Uniform random minibatches, the same for the same seed.

Shapes and names
----------------
A  candidates (anchors or RoIs) of one image.
mask  (A,) bool, who may be drawn.
labels  (A,) int32: 1 positive, 0 negative, -1 not sampled.
seed  (2,) int32.
"""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf


def derived_seed(seed: tf.Tensor, *numbers: int) -> tf.Tensor:
    """A new (2,) int32 seed from one and a path of numbers: other paths give other streams."""
    for number in numbers:
        seed = tf.random.experimental.stateless_fold_in(seed, number)
    return seed


def random_subset(mask: Any, count: Any, seed: Any) -> tf.Tensor:
    """Draw ``count`` members of a set, each subset being equally likely.

    Args:
        mask: the set; A may be 0.
        count: a number or a scalar tensor. With fewer members all are drawn.

    Returns:
        (A,) bool with exactly ``min(count, members)`` members of ``mask``.
    """
    mask = tf.cast(mask, tf.bool)
    members = tf.math.count_nonzero(mask, dtype=tf.int32)
    count = tf.clip_by_value(tf.cast(count, tf.int32), 0, members)
    # The largest of independent uniform keys; top_k breaks equal keys by position, so the count is
    # exact. Keys are at least 0: those who may not be drawn come after every member.
    keys = tf.random.stateless_uniform(tf.shape(mask), seed)
    drawn = tf.math.top_k(tf.where(mask, keys, -1.0), k=count, sorted=False).indices
    return tf.tensor_scatter_nd_update(
        tf.zeros_like(mask), drawn[:, tf.newaxis], tf.ones_like(drawn, tf.bool)
    )


def sample_labels(labels: Any, seed: Any, *, size: int, positive_fraction: float) -> tf.Tensor:
    """Keep a minibatch of the labels and set the rest to -1 (paper 3.1.3).

    At most ``size * positive_fraction`` positives, the rest of ``size`` negatives; with too few
    positives negatives fill up, with too few negatives the minibatch is short (PY
    anchor_target_layer.py with config.py:108-110; ML proposal_generate_minibatch.m:98-103).

    Args:
        size, positive_fraction: 256 and 0.5 in the paper.
    """
    labels = tf.cast(labels, tf.int32)
    positives, negatives = sample_positives_and_negatives(
        labels == 1, labels == 0, seed, size=size, positive_fraction=positive_fraction
    )
    return tf.where(positives, 1, tf.where(negatives, 0, -1))


def sample_positives_and_negatives(
    positive: Any, negative: Any, seed: Any, *, size: int, positive_fraction: float
) -> tuple[tf.Tensor, tf.Tensor]:
    """Draw at most ``round(size * positive_fraction)`` positives, then negatives up to ``size``.

    Halves round up, as in MATLAB. All are (A,) bool masks; ``positive`` and ``negative`` are
    disjoint.
    """
    most_positives = math.floor(size * positive_fraction + 0.5)
    # One seed serves both: every candidate has a random key of its own, and nobody is in both sets.
    positives = random_subset(positive, most_positives, seed)
    still_wanted = size - tf.math.count_nonzero(positives, dtype=tf.int32)
    negatives = random_subset(negative, still_wanted, seed)
    return positives, negatives
