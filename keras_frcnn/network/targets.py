"""What the RPN and the detector are trained by in common: matching, minibatches, smooth L1.

Shapes and names
----------------
A  anchors; R RoIs; G ground-truth boxes (may be 0); I anchors inside the image.
anchors, rois, gt_boxes  (., 4) float32, half-open (y1, x1, y2, x2), all in one frame (pixels of
    the network input).
labels  (A,) int32: 1 object, 0 background, -1 neither or not sampled.
matched_gt  int32 positions in gt_boxes; 0 where there is none.
mask  (A,) bool of candidates, anchors or RoIs: who may be drawn.
seed  (2,) int32.
PY, ML  the two published codes, see :mod:`keras_frcnn.recipes`.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import tensorflow as tf

from keras_frcnn.geometry.boxes import iou


class Matches(NamedTuple):
    """Labels and matched ground truth of anchors.

    Attributes:
        labels: (A,) int32 in {1, 0, -1}.
        matched_gt: (A,) int32, the anchor's own best gt; 0 where it overlaps none or is outside.
    """

    labels: tf.Tensor
    matched_gt: tf.Tensor


class RoiMatches(NamedTuple):
    """Best overlap of RoIs.

    Attributes:
        max_iou: (R,) float32, 0 where no gt overlaps.
        matched_gt: (R,) int32, the gt of that overlap (the first of equal ones).
    """

    max_iou: tf.Tensor
    matched_gt: tf.Tensor


def match_anchors(
    anchors: Any,
    inside: Any,
    gt_boxes: Any,
    *,
    positive_iou: float,
    negative_iou: float,
) -> Matches:
    """Label the anchors of one image (section 3.1.2).

    Positive are the anchors with IoU >= ``positive_iou`` to any gt, **or** with exactly the best
    IoU that any inside anchor has to a gt, all ties kept (PY anchor_target_layer.py:137-150; ML
    proposal_prepare_image_roidb.m:138-154). Negative are those whose best IoU is below
    ``negative_iou``; positives win over negatives (:142-154; .m:156-161). The rest, and all
    anchors that are not inside, are -1.

    A gt that overlaps no inside anchor has the best IoU 0; without the guard here each anchor that
    misses it would tie and turn positive.

    A positive is matched to its own arg-max gt, not to the gt for which it was best (PY :175;
    ML :171).

    Args:
        inside: (A,) bool; only these compete.
        gt_boxes: with G = 0 every inside anchor is negative.
        positive_iou, negative_iou: 0.7 and 0.3 in the paper.
    """
    anchors = tf.cast(anchors, tf.float32)
    # Some two thirds of the anchors cross the boundary: drop them before the (I, G) overlaps.
    inside_positions = tf.where(inside)
    overlaps = _overlaps_with_sentinel(tf.gather(anchors, inside_positions[:, 0]), gt_boxes)

    max_iou = tf.reduce_max(overlaps, axis=1)
    best_of_gt = tf.reduce_max(overlaps, axis=0)
    is_best_of_a_gt = tf.reduce_any((overlaps == best_of_gt) & (best_of_gt > 0.0), axis=1)
    positive = (max_iou >= positive_iou) | is_best_of_a_gt
    labels = tf.where(positive, 1, tf.where(max_iou < negative_iou, 0, -1))
    matched_gt = tf.argmax(overlaps, axis=1, output_type=tf.int32)

    everywhere = tf.shape(anchors)[:1]
    return Matches(
        labels=tf.tensor_scatter_nd_update(tf.fill(everywhere, -1), inside_positions, labels),
        matched_gt=tf.tensor_scatter_nd_update(
            tf.fill(everywhere, 0), inside_positions, matched_gt
        ),
    )


def best_anchor_iou(anchors: Any, inside: Any, gt_boxes: Any) -> tf.Tensor:
    """(G,) float32 best IoU of each gt box with any anchor inside; 0 where there is none."""
    gt_boxes = tf.cast(gt_boxes, tf.float32)
    overlaps = iou(tf.boolean_mask(tf.cast(anchors, tf.float32), inside), gt_boxes)
    # The row of zeros is for an image in which no anchor fits.
    return tf.reduce_max(tf.pad(overlaps, [[1, 0], [0, 0]]), axis=0)


def match_rois(rois: Any, gt_boxes: Any) -> RoiMatches:
    """Best IoU and gt of each RoI (PY proposal_target_layer.py; ML fast_rcnn_get_minibatch.m:93).

    With G = 0 every overlap is 0.
    """
    overlaps = _overlaps_with_sentinel(rois, gt_boxes)
    return RoiMatches(
        max_iou=tf.reduce_max(overlaps, axis=1),
        matched_gt=tf.argmax(overlaps, axis=1, output_type=tf.int32),
    )


def _overlaps_with_sentinel(boxes: Any, gt_boxes: Any) -> tf.Tensor:
    """IoU (B, G + 1) of boxes (B, 4) with the gt boxes and, last, one empty box.

    The last column is 0 everywhere. It keeps max and arg-max defined for G = 0, and being last it
    never wins the arg-max over a real gt.
    """
    gt_boxes = tf.cast(gt_boxes, tf.float32)
    return iou(boxes, tf.concat([gt_boxes, tf.zeros([1, 4])], axis=0))


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
    """Keep a minibatch of the labels and set the rest to -1 (section 3.1.3).

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


def smooth_l1(difference: Any, sigma: float) -> tf.Tensor:
    """``0.5 * (sigma * d)^2`` where ``|d| < 1 / sigma^2``, ``|d| - 0.5 / sigma^2`` beyond.

    Fast R-CNN, eq. 3, with the sigma of PY's smooth_L1_loss_layer. Written with the quadratic part
    ``q`` of ``|d|``, so that no branch is computed and thrown away: value and gradient (up to
    ``sign(d)``) are continuous at the corner ``1 / sigma^2``.
    """
    magnitude = tf.abs(tf.cast(difference, tf.float32))
    quadratic = tf.minimum(magnitude, 1.0 / sigma**2)
    return 0.5 * sigma**2 * tf.square(quadratic) + (magnitude - quadratic)


def smooth_l1_sum(
    pred_deltas: Any, target_deltas: Any, counted: tf.Tensor, sigma: float
) -> tf.Tensor:
    """Sum of smooth L1 over the rows (B, 4) where ``counted`` (B,) is true."""
    difference = tf.cast(pred_deltas, tf.float32) - tf.cast(target_deltas, tf.float32)
    return tf.reduce_sum(smooth_l1(tf.where(counted[:, tf.newaxis], difference, 0.0), sigma))
