"""Targets of the region proposal network for one image.

Shapes and names
----------------
A  anchors of the image; G ground-truth boxes (may be 0).
anchors, gt_boxes  (., 4) float32, half-open (y1, x1, y2, x2) in pixels of the network input.
labels  (A,) int32: 1 object, 0 background, -1 not sampled.
deltas  (A, 4) float32, (ty, tx, th, tw) of the matched gt relative to the anchor, normalised.
delta_mean, delta_std  (4,) shared by all anchor shapes (recipe ``paper``), or 0 and 1.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

from keras_frcnn.geometry.anchors import inside_image
from keras_frcnn.geometry.boxes import encode
from keras_frcnn.targets.matching import Matches, match_anchors
from keras_frcnn.targets.sampling import sample_labels


class RpnTargets(NamedTuple):
    """What the RPN's losses compare with.

    Attributes:
        labels: (A,) int32 in {1, 0, -1}.
        deltas: (A, 4) float32, normalised; 0 where the label is not 1.
    """

    labels: tf.Tensor
    deltas: tf.Tensor


def rpn_targets(
    anchors: Any,
    image_height: Any,
    image_width: Any,
    gt_boxes: Any,
    seed: Any,
    *,
    positive_iou: float,
    negative_iou: float,
    minibatch_size: int,
    positive_fraction: float,
    delta_mean: Any,
    delta_std: Any,
    keep_cross_boundary: bool = False,
) -> RpnTargets:
    """Label, sample and encode the anchors of one image (paper 3.1.2, 3.1.3 and 3.3).

    Args:
        anchors: (A, 4).
        image_height, image_width: real size in pixels of the network input, without the padding
            of a batch; anchors that cross it are never sampled.
        gt_boxes: (G, 4); with G = 0 the minibatch is all background.
        seed: (2,) int32.
        positive_iou, negative_iou: 0.7 and 0.3 in the paper.
        minibatch_size, positive_fraction: 256 and 0.5 in the paper.
        delta_mean, delta_std: (4,), the normalisation of the deltas (ML
            proposal_prepare_image_roidb.m:70-104; PY does not normalise: 0 and 1).
        keep_cross_boundary: treat every anchor as inside. The paper's ablation (3.3): training
            with these anchors does not converge.
    """
    anchors = tf.cast(anchors, tf.float32)
    gt_boxes = tf.cast(gt_boxes, tf.float32)
    matches = match_anchors(
        anchors,
        competing_anchors(anchors, image_height, image_width, keep_cross_boundary),
        gt_boxes,
        positive_iou=positive_iou,
        negative_iou=negative_iou,
    )
    labels = sample_labels(
        matches.labels, seed, size=minibatch_size, positive_fraction=positive_fraction
    )
    positions = tf.where(labels == 1)
    deltas = encode_matches(anchors, gt_boxes, matches, positions[:, 0])
    normalised = (deltas - tf.cast(delta_mean, tf.float32)) / tf.cast(delta_std, tf.float32)
    return RpnTargets(
        labels=labels,
        deltas=tf.tensor_scatter_nd_update(tf.zeros_like(anchors), positions, normalised),
    )


def competing_anchors(
    anchors: tf.Tensor, image_height: Any, image_width: Any, keep_cross_boundary: bool
) -> tf.Tensor:
    """(A,) bool: the anchors inside the image, or all of them with ``keep_cross_boundary``."""
    if keep_cross_boundary:
        return tf.ones(tf.shape(anchors)[:1], tf.bool)
    return inside_image(anchors, image_height, image_width)


def encode_matches(
    anchors: tf.Tensor, gt_boxes: tf.Tensor, matches: Matches, positions: tf.Tensor
) -> tf.Tensor:
    """(K, 4) deltas, not normalised, of the K anchors at ``positions`` to their matched gt."""
    matched_gt_boxes = tf.gather(gt_boxes, tf.gather(matches.matched_gt, positions))
    return encode(tf.gather(anchors, positions), matched_gt_boxes)
