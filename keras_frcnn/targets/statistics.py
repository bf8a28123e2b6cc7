"""Mean and standard deviation of the deltas of a data set, gathered image by image.

The tf functions return the sums of one image; their caller adds them up in float64 and calls
``mean_and_std`` once at the end.

Shapes and names
----------------
A  anchors; P proposals; G ground-truth boxes; C classes, background included.
boxes  (., 4) float32, half-open (y1, x1, y2, x2), all in one frame (pixels of the network input).
deltas  (ty, tx, th, tw), not normalised.
count, delta_sum, sum_of_squares  () and (4,) for the RPN, (C,) and (C, 4) for the detector.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from keras_frcnn.geometry.boxes import encode
from keras_frcnn.targets.detector import join_ground_truth
from keras_frcnn.targets.matching import match_anchors, match_rois
from keras_frcnn.targets.rpn import competing_anchors, encode_matches


class DeltaSums(NamedTuple):
    """Sums over the deltas of one image.

    Attributes:
        count: () or (C,) int32, how many deltas.
        delta_sum: (4,) or (C, 4) float32.
        sum_of_squares: (4,) or (C, 4) float32.
    """

    count: tf.Tensor
    delta_sum: tf.Tensor
    sum_of_squares: tf.Tensor


def rpn_positive_deltas(
    anchors: Any,
    image_height: Any,
    image_width: Any,
    gt_boxes: Any,
    *,
    positive_iou: float,
    negative_iou: float,
    keep_cross_boundary: bool = False,
) -> DeltaSums:
    """Sums over **all** positive anchors of an image, before any sampling.

    One 4-vector for all anchor shapes, as in ML proposal_prepare_image_roidb.m:70-104. Arguments
    as those of ``rpn.rpn_targets``.

    Returns:
        count (), delta_sum (4,), sum_of_squares (4,).
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
    positions = tf.where(matches.labels == 1)[:, 0]
    deltas = encode_matches(anchors, gt_boxes, matches, positions)
    return DeltaSums(
        count=tf.shape(deltas)[0],
        delta_sum=tf.reduce_sum(deltas, axis=0),
        sum_of_squares=tf.reduce_sum(tf.square(deltas), axis=0),
    )


def detector_foreground_deltas(
    proposals: Any,
    gt_boxes: Any,
    gt_classes: Any,
    *,
    foreground_iou: float,
    number_of_classes: int,
) -> DeltaSums:
    """Sums per class over **all** foreground RoIs of an image, the gt boxes among them.

    As in ML fast_rcnn_prepare_image_roidb.m:58-96 and PY roidb.py:67-105. Arguments as those of
    ``detector.detector_targets``; ``number_of_classes`` is C, background included.

    Returns:
        count (C,), delta_sum (C, 4), sum_of_squares (C, 4); the row of background is 0.
    """
    candidates, gt_boxes = join_ground_truth(proposals, gt_boxes)
    matches = match_rois(candidates, gt_boxes)
    positions = tf.where(matches.max_iou >= foreground_iou)[:, 0]
    gt_positions = tf.gather(matches.matched_gt, positions)
    labels = tf.gather(tf.cast(gt_classes, tf.int32), gt_positions)
    deltas = encode(tf.gather(candidates, positions), tf.gather(gt_boxes, gt_positions))
    return DeltaSums(
        count=tf.math.unsorted_segment_sum(tf.ones_like(labels), labels, number_of_classes),
        delta_sum=tf.math.unsorted_segment_sum(deltas, labels, number_of_classes),
        sum_of_squares=tf.math.unsorted_segment_sum(tf.square(deltas), labels, number_of_classes),
    )


def mean_and_std(
    count: Any, delta_sum: Any, sum_of_squares: Any, *, epsilon: float
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and (population) standard deviation from sums over the data set.

    The sources start their counts at eps (fast_rcnn_prepare_image_roidb.m:58-96, roidb.py:67-105),
    so that a row without samples gets mean 0 and standard deviation 0, and they never normalise
    with it. Here such a row gets mean 0 and standard deviation 1: it is left as it is.

    A component whose samples are all equal (a class with one RoI, or with none but its own gt
    boxes) has no spread to divide by. Its standard deviation is 1 too: a tiny one would blow the
    rounding of its deltas up to any size.

    Args:
        count: () or (C,), how many deltas.
        delta_sum, sum_of_squares: (4,) or (C, 4).
        epsilon: a standard deviation not above it counts as none. The rounding of float32 sums
            leaves up to 1e-3 times the mean where there is none, so take about 1e-3.

    Returns:
        mean and std, each (4,) or (C, 4) float64; std is above ``epsilon``.
    """
    count = np.asarray(count, np.float64)[..., np.newaxis]
    divisor = np.maximum(count, 1.0)
    mean = np.where(count > 0, np.asarray(delta_sum, np.float64) / divisor, 0.0)
    # Rounding can leave a variance a little below 0.
    variance = np.maximum(np.asarray(sum_of_squares, np.float64) / divisor - mean**2, 0.0)
    std = np.sqrt(variance)
    return mean, np.where(std > epsilon, std, 1.0)
