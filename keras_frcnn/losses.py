"""The four losses of Faster R-CNN, each a float32 scalar.

The two recipes differ in the RPN's box loss alone: ``paper`` has sigma 1, the number of feature-map
positions as normaliser and weight (lambda) 10; ``py-faster-rcnn`` has sigma 3, the number of
sampled anchors and weight 1.

Shapes and names
----------------
A  anchors; R sampled RoIs; C classes, background (0) included.
logits  before the softmax: (A, 2) background and object, (R, C) classes.
pred_deltas, target_deltas  (ty, tx, th, tw), normalised alike; the detector predicts (R, 4*C),
    class c at [4*c : 4*c + 4].
labels  RPN (A,) int32: 1 object, 0 background, -1 not sampled; detector (R,) int32 class.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def smooth_l1(difference: Any, sigma: float) -> tf.Tensor:
    """``0.5 * (sigma * d)^2`` where ``|d| < 1 / sigma^2``, ``|d| - 0.5 / sigma^2`` beyond.

    Fast R-CNN, eq. 3, with the sigma of PY's smooth_L1_loss_layer. Written with the quadratic part
    ``q`` of ``|d|``, so that no branch is computed and thrown away: value and gradient (up to
    ``sign(d)``) are continuous at the corner.

    Args:
        difference: any shape.
        sigma: 1 or 3; the corner is at ``1 / sigma^2``.

    Returns:
        float32 of the same shape.
    """
    magnitude = tf.abs(tf.cast(difference, tf.float32))
    quadratic = tf.minimum(magnitude, 1.0 / sigma**2)
    return 0.5 * sigma**2 * tf.square(quadratic) + (magnitude - quadratic)


def rpn_class_loss(logits: Any, labels: Any) -> tf.Tensor:
    """Cross-entropy of object against background, mean over the sampled anchors.

    PY stage1_rpn_train.pt:455-456 (``normalize: true``, ignore -1); ML proposal_train.m:327 (sum
    of the label weights): both divide by the number of sampled anchors.

    Args:
        logits: (A, 2), background first.
        labels: (A,) int32; -1 is left out.

    Returns:
        0 where nothing was sampled.
    """
    labels = tf.cast(labels, tf.int32)
    sampled = tf.cast(labels >= 0, tf.float32)
    cross_entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(
        labels=tf.maximum(labels, 0), logits=tf.cast(logits, tf.float32)
    )
    return tf.reduce_sum(cross_entropy * sampled) / tf.maximum(tf.reduce_sum(sampled), 1.0)


def rpn_box_loss(
    pred_deltas: Any,
    target_deltas: Any,
    labels: Any,
    *,
    sigma: float,
    normaliser: Any,
    weight: float,
) -> tf.Tensor:
    """Smooth L1 summed over the positive anchors, times ``weight``, over ``normaliser``.

    Args:
        pred_deltas, target_deltas: (A, 4).
        labels: (A,) int32; only those of 1 count.
        sigma: 1 (ML proposal_train.m:312-317) or 3 (PY stage1_rpn_train.pt:469).
        normaliser: scalar, number of feature-map positions (ML proposal_train.m:317) or of
            sampled anchors (PY anchor_target_layer.py:181-194).
        weight: 10 (ML, paper footnote 3) or 1 (PY stage1_rpn_train.pt:468).

    Returns:
        0 where there is no positive anchor or the normaliser is 0.
    """
    positive = tf.cast(labels, tf.int32) == 1
    total = _box_loss_sum(pred_deltas, target_deltas, positive, sigma)
    return weight * tf.math.divide_no_nan(total, tf.cast(normaliser, tf.float32))


def detector_class_loss(logits: Any, labels: Any) -> tf.Tensor:
    """Softmax cross-entropy (R, C) against (R,), mean over the RoIs; 0 for R = 0.

    stage1_fast_rcnn_train.pt:464-478 (both codes).
    """
    cross_entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(
        labels=tf.cast(labels, tf.int32), logits=tf.cast(logits, tf.float32)
    )
    return tf.reduce_sum(cross_entropy) / _at_least_one(cross_entropy)


def detector_box_loss(
    pred_deltas: Any, target_deltas: Any, labels: Any, *, sigma: float
) -> tf.Tensor:
    """Smooth L1 of the label's own deltas, summed over foreground, over the number of **all** RoIs.

    stage1_fast_rcnn_train.pt:464-478 (both codes): sigma 1, weight 1.

    Args:
        pred_deltas: (R, 4*C), class c at [4*c : 4*c + 4].
        target_deltas: (R, 4).
        labels: (R,) int32; 0 is background and has no box loss.
        sigma: 1.

    Returns:
        0 for R = 0 or without foreground.
    """
    pred_deltas = tf.cast(pred_deltas, tf.float32)
    labels = tf.cast(labels, tf.int32)
    rois, classes = tf.shape(pred_deltas)[0], tf.shape(pred_deltas)[1] // 4
    # A masked sum picks the class: the gradient of a gather would be a scatter with a slower and,
    # on a GPU, not deterministic sum.
    own_class = tf.one_hot(labels, classes)[:, :, tf.newaxis]
    per_class = tf.reshape(pred_deltas, [rois, classes, 4])
    own_deltas = tf.reduce_sum(per_class * own_class, axis=1)
    return _box_loss_sum(own_deltas, target_deltas, labels > 0, sigma) / _at_least_one(labels)


def _box_loss_sum(
    pred_deltas: Any, target_deltas: Any, counted: tf.Tensor, sigma: float
) -> tf.Tensor:
    """Sum of smooth L1 over the rows (B, 4) where ``counted`` (B,) is true."""
    difference = tf.cast(pred_deltas, tf.float32) - tf.cast(target_deltas, tf.float32)
    return tf.reduce_sum(smooth_l1(tf.where(counted[:, tf.newaxis], difference, 0.0), sigma))


def _at_least_one(rows: tf.Tensor) -> tf.Tensor:
    """Number of rows as float32, 1 where there is none."""
    return tf.cast(tf.maximum(tf.shape(rows)[0], 1), tf.float32)
