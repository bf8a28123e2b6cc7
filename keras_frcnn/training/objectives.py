"""What the stages minimise: the losses of a batch as functions ``(batch, seed) -> metrics``.

Shapes and names
----------------
N  images of a batch, R  sampled RoIs of all of them, C  classes incl. background.
batch    the dictionary of :mod:`keras_frcnn.data.pipeline`.
metrics  scalars by name; the sum of those whose name ends in ``_loss`` is the objective.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from keras_frcnn import losses
from keras_frcnn.network.faster_rcnn import FasterRcnn
from keras_frcnn.network.proposals import select_proposals
from keras_frcnn.recipes import DetectorConfig, Recipe
from keras_frcnn.targets.detector import detector_targets
from keras_frcnn.targets.rpn import rpn_targets

Metrics = dict[str, tf.Tensor]

_RPN_METRICS = ("rpn_class_loss", "rpn_box_loss", "positive_anchors")
_OF_RPN = {"loss", *_RPN_METRICS}
_OF_DETECTOR = {
    *("loss", "detector_class_loss", "detector_box_loss"),
    *("foreground_rois", "background_rois"),
}
# By stage, what a step measures.
METRICS = {0: _OF_RPN | _OF_DETECTOR, 1: _OF_RPN, 2: _OF_DETECTOR, 3: _OF_RPN, 4: _OF_DETECTOR}


@dataclass(frozen=True)
class DeltaNormalisation:
    """Means and standard deviations that make targets zero-mean and of unit variance.

    Attributes:
        rpn_mean, rpn_std: (4,) shared by all anchors (proposal_prepare_image_roidb.m:70-104).
        detector_means, detector_stds: (C, 4) per class (fast_rcnn_prepare_image_roidb.m:58-96).
    """

    rpn_mean: np.ndarray
    rpn_std: np.ndarray
    detector_means: np.ndarray
    detector_stds: np.ndarray

    @classmethod
    def identity(cls, number_of_classes: int) -> DeltaNormalisation:
        """Means 0 and deviations 1."""
        return cls(
            np.zeros(4, np.float32),
            np.ones(4, np.float32),
            np.zeros((number_of_classes, 4), np.float32),
            np.ones((number_of_classes, 4), np.float32),
        )


def fold(seed: tf.Tensor, *numbers: int) -> tf.Tensor:
    """A new (2,) int32 seed from one and a path of numbers: other paths give other streams."""
    for number in numbers:
        seed = tf.random.experimental.stateless_fold_in(seed, number)
    return seed


def rpn_losses(
    model: FasterRcnn,
    outputs: Sequence[tf.Tensor],
    anchors: tf.Tensor,
    batch: dict[str, tf.Tensor],
    seed: tf.Tensor,
    normalisation: DeltaNormalisation,
) -> Metrics:
    """Losses of the region proposal network over the sampled anchors (equation 1).

    Returns:
        ``rpn_class_loss``, ``rpn_box_loss`` and the mean number of sampled ``positive_anchors`` an
        image.
    """
    config = model.recipe.rpn
    logits, deltas = outputs
    images = logits.shape[0] or batch["size"].shape[0]
    positions = tf.cast(tf.shape(anchors)[0] // model.recipe.anchors.per_position, tf.float32)
    totals = [0.0, 0.0, 0.0]
    for image in range(images):
        targets = rpn_targets(
            anchors,
            batch["size"][image, 0],
            batch["size"][image, 1],
            batch["gt_boxes"][image, : batch["gt_count"][image]],
            fold(seed, 0, image),
            positive_iou=config.positive_iou,
            negative_iou=config.negative_iou,
            minibatch_size=config.minibatch_size,
            positive_fraction=config.positive_fraction,
            delta_mean=normalisation.rpn_mean,
            delta_std=normalisation.rpn_std,
            keep_cross_boundary=config.keep_cross_boundary,
        )
        if config.box_normaliser == "positions":
            normaliser = positions
        else:
            sampled = tf.reduce_sum(tf.cast(targets.labels >= 0, tf.float32))
            normaliser = tf.maximum(sampled, 1.0)
        totals[0] += losses.rpn_class_loss(logits[image], targets.labels)
        totals[1] += losses.rpn_box_loss(
            deltas[image],
            targets.deltas,
            targets.labels,
            sigma=config.sigma,
            normaliser=normaliser,
            weight=config.box_weight,
        )
        totals[2] += tf.reduce_sum(tf.cast(targets.labels == 1, tf.float32))
    return {name: total / images for name, total in zip(_RPN_METRICS, totals, strict=True)}


def detector_losses(
    model: FasterRcnn,
    features: tf.Tensor,
    proposals: Sequence[tf.Tensor],
    batch: dict[str, tf.Tensor],
    seed: tf.Tensor,
    normalisation: DeltaNormalisation,
    rois_per_image: int,
) -> Metrics:
    """Losses of Fast R-CNN over sampled RoIs (Fast R-CNN, section 2.3).

    Args:
        proposals: for each image its candidates (P, 4) in input pixels.
        rois_per_image: how many RoIs to sample from each.

    Returns:
        ``detector_class_loss``, ``detector_box_loss``, ``foreground_rois``, ``background_rois``.
    """
    config: DetectorConfig = model.recipe.detector
    samples = []
    for image, candidates in enumerate(proposals):
        count = batch["gt_count"][image]
        samples.append(
            detector_targets(
                candidates,
                batch["gt_boxes"][image, :count],
                batch["gt_classes"][image, :count],
                fold(seed, 1, image),
                rois_per_image=rois_per_image,
                foreground_fraction=config.foreground_fraction,
                foreground_iou=config.foreground_iou,
                background_iou_low=config.background_iou_low,
                background_iou_high=config.background_iou_high,
                delta_means=normalisation.detector_means,
                delta_stds=normalisation.detector_stds,
            )
        )
    roi_image = tf.concat(
        [tf.fill(tf.shape(sample.labels), index) for index, sample in enumerate(samples)],
        axis=0,
    )
    labels = tf.concat([sample.labels for sample in samples], axis=0)
    rois = tf.concat([sample.rois for sample in samples], axis=0)
    target_deltas = tf.concat([sample.deltas for sample in samples], axis=0)
    class_logits, deltas = model.detector_training(
        [features, rois, roi_image, fold(seed, 2)], training=True
    )
    foreground = tf.reduce_sum(tf.cast(labels > 0, tf.float32))
    return {
        "detector_class_loss": losses.detector_class_loss(class_logits, labels),
        "detector_box_loss": losses.detector_box_loss(
            deltas, target_deltas, labels, sigma=config.sigma
        ),
        "foreground_rois": foreground,
        "background_rois": tf.cast(tf.size(labels), tf.float32) - foreground,
    }


def features_of(model: FasterRcnn, batch: dict[str, tf.Tensor]) -> tf.Tensor:
    """The base's features of a batch: those it brings, or computed from its images."""
    if "features" in batch:
        return batch["features"]
    return model.base(batch["image"], training=False)


def rpn_objective(model: FasterRcnn, normalisation: DeltaNormalisation) -> Callable[..., Metrics]:
    """Stages 1 and 3: ``(batch, seed) -> metrics``."""

    def objective(batch, seed):
        features = features_of(model, batch)
        shape = tf.shape(features)
        anchors = model.anchors(shape[1], shape[2])
        return rpn_losses(model, model.rpn_head(features), anchors, batch, seed, normalisation)

    return objective


def detector_objective(
    model: FasterRcnn, normalisation: DeltaNormalisation, images_per_step: int
) -> Callable[..., Metrics]:
    """Stages 2 and 4: ``(batch, seed) -> metrics``; the batch brings its proposals."""
    rois_per_image = model.recipe.detector.rois_per_step // images_per_step

    def objective(batch, seed):
        proposals = [
            batch["proposals"][image, : batch["proposal_count"][image]]
            for image in range(images_per_step)
        ]
        features = features_of(model, batch)
        return detector_losses(
            model, features, proposals, batch, seed, normalisation, rois_per_image
        )

    return objective


def joint_objective(model: FasterRcnn, normalisation: DeltaNormalisation) -> Callable[..., Metrics]:
    """Approximate joint training: proposals are constants for the detector (section 3.2)."""
    recipe: Recipe = model.recipe

    def objective(batch, seed):
        features = features_of(model, batch)
        shape = tf.shape(features)
        anchors = model.anchors(shape[1], shape[2])
        outputs = model.rpn_head(features)
        logits, deltas = (tf.stop_gradient(output) for output in outputs)
        selected = select_proposals(
            logits,
            deltas,
            anchors,
            batch["size"],
            batch["scale"],
            recipe.joint_proposals,
        )
        proposals = [
            selected.boxes_input[image, : selected.count[image]]
            for image in range(batch["size"].shape[0])
        ]
        return {
            **rpn_losses(model, outputs, anchors, batch, seed, normalisation),
            **detector_losses(
                model,
                features,
                proposals,
                batch,
                seed,
                normalisation,
                recipe.joint_rois_per_image,
            ),
        }

    return objective
