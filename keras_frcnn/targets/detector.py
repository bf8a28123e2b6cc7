"""RoIs and targets of the detector for one image.

Shapes and names
----------------
P  proposals; G ground-truth boxes; candidates are the P proposals, then the G gt boxes.
R  sampled RoIs, at most ``rois_per_image``; C classes, background included.
proposals, gt_boxes, rois  (., 4) float32, half-open (y1, x1, y2, x2), all in one frame (pixels of
    the network input).
gt_classes  (G,) int32, 1-based; labels (R,) int32, 0 is background.
deltas  (R, 4) float32, (ty, tx, th, tw) of the matched gt relative to the RoI, normalised by the
    row of the RoI's label in delta_means and delta_stds, both (C, 4).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

from keras_frcnn.geometry.boxes import encode
from keras_frcnn.targets.matching import match_rois
from keras_frcnn.targets.sampling import sample_positives_and_negatives


class DetectorTargets(NamedTuple):
    """The sampled RoIs and what the detector's losses compare with, foreground first.

    Attributes:
        rois: (R, 4) float32 in the frame of the proposals.
        labels: (R,) int32.
        deltas: (R, 4) float32, normalised; 0 for background.
    """

    rois: tf.Tensor
    labels: tf.Tensor
    deltas: tf.Tensor


def detector_targets(
    proposals: Any,
    gt_boxes: Any,
    gt_classes: Any,
    seed: Any,
    *,
    rois_per_image: int,
    foreground_fraction: float,
    foreground_iou: float,
    background_iou_low: float,
    background_iou_high: float,
    delta_means: Any,
    delta_stds: Any,
) -> DetectorTargets:
    """Sample RoIs of one image and label them (Fast R-CNN, 2.3).

    The gt boxes join the candidates (ML roidb_from_proposal.m:41-48; PY
    proposal_target_layer.py:48-52). Foreground has its best IoU >= ``foreground_iou`` and the
    class of that gt (PY config.py:53; ML fast_rcnn_get_minibatch.m:93); background has it in
    [``background_iou_low``, ``background_iou_high``). At most ``round(rois_per_image *
    foreground_fraction)`` are foreground (minibatch.py:25-26), background fills up, and with too
    few of both the sample is smaller: nothing is drawn twice (minibatch.py:96-113).

    Args:
        proposals: (P, 4); P may be 0.
        gt_boxes, gt_classes: (G, 4) and (G,); G may be 0.
        seed: (2,) int32.
        rois_per_image, foreground_fraction: 64 and 0.25 with two images a step.
        foreground_iou, background_iou_low, background_iou_high: 0.5 and [0.1, 0.5) (ML
            fast_rcnn_config.m:31-32) or [0, 0.5) (PY faster_rcnn_alt_opt.yml).
        delta_means, delta_stds: (C, 4), a row per class; that of background is not used.

    Returns:
        R may be 0 when no candidate is eligible.
    """
    candidates, gt_boxes = join_ground_truth(proposals, gt_boxes)
    matches = match_rois(candidates, gt_boxes)
    foreground = matches.max_iou >= foreground_iou
    background = (
        (matches.max_iou >= background_iou_low)
        & (matches.max_iou < background_iou_high)
        & ~foreground
    )
    foreground, background = sample_positives_and_negatives(
        foreground,
        background,
        seed,
        size=rois_per_image,
        positive_fraction=foreground_fraction,
    )
    foreground_positions = tf.where(foreground)[:, 0]
    background_positions = tf.where(background)[:, 0]

    foreground_gt = tf.gather(matches.matched_gt, foreground_positions)
    foreground_rois = tf.gather(candidates, foreground_positions)
    foreground_labels = tf.gather(tf.cast(gt_classes, tf.int32), foreground_gt)
    deltas = encode(foreground_rois, tf.gather(gt_boxes, foreground_gt))
    means = tf.gather(tf.cast(delta_means, tf.float32), foreground_labels)
    stds = tf.gather(tf.cast(delta_stds, tf.float32), foreground_labels)

    background_rois = tf.gather(candidates, background_positions)
    background_labels = tf.zeros_like(background_positions, tf.int32)
    return DetectorTargets(
        rois=tf.concat([foreground_rois, background_rois], axis=0),
        labels=tf.concat([foreground_labels, background_labels], axis=0),
        deltas=tf.concat([(deltas - means) / stds, tf.zeros_like(background_rois)], axis=0),
    )


def join_ground_truth(proposals: Any, gt_boxes: Any) -> tuple[tf.Tensor, tf.Tensor]:
    """The candidates (P + G, 4), proposals first, and the gt boxes (G, 4), both float32."""
    gt_boxes = tf.cast(gt_boxes, tf.float32)
    return tf.concat([tf.cast(proposals, tf.float32), gt_boxes], axis=0), gt_boxes
