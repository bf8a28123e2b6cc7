"""What the stages minimise: the losses of a batch as functions ``(batch, seed) -> metrics``.

Shapes and names
----------------
N  images of a batch.
batch    the dictionary of :mod:`keras_frcnn.data.pipeline`.
metrics  scalars by name; the sum of those whose name ends in ``_loss`` is the objective.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from keras_frcnn.network.faster_rcnn import FasterRcnn
from keras_frcnn.network.network_input import Frames
from keras_frcnn.network.normalisation import Normalisation

Metrics = dict[str, tf.Tensor]
Objective = Callable[[dict[str, tf.Tensor], tf.Tensor], Metrics]

_OF_RPN = {"loss", "rpn_class_loss", "rpn_box_loss", "positive_anchors"}
_OF_DETECTOR = {
    *("loss", "detector_class_loss", "detector_box_loss"),
    *("foreground_rois", "background_rois"),
}
# By stage, what a step measures.
METRICS = {0: _OF_RPN | _OF_DETECTOR, 1: _OF_RPN, 2: _OF_DETECTOR, 3: _OF_RPN, 4: _OF_DETECTOR}


def features_of(model: FasterRcnn, batch: dict[str, tf.Tensor]) -> tf.Tensor:
    """The base's features of a batch: those it brings, or computed from its images."""
    return batch["features"] if "features" in batch else model.features(batch["image"])


def rpn_objective(model: FasterRcnn, normalisation: Normalisation) -> Objective:
    """Stages 1 and 3."""

    def objective(batch, seed):
        outputs = model.rpn(features_of(model, batch))
        return model.rpn_losses(outputs, batch, seed, normalisation)

    return objective


def detector_objective(
    model: FasterRcnn, normalisation: Normalisation, images_per_step: int
) -> Objective:
    """Stages 2 and 4; the batch brings its proposals."""
    rois_per_image = model.recipe.detector.rois_per_step // images_per_step

    def objective(batch, seed):
        proposals = [
            batch["proposals"][image, : batch["proposal_count"][image]]
            for image in range(images_per_step)
        ]
        features = features_of(model, batch)
        return model.detector_losses(
            features, proposals, batch, seed, rois_per_image, normalisation
        )

    return objective


def joint_objective(model: FasterRcnn, normalisation: Normalisation) -> Objective:
    """Approximate joint training: proposals are constants for the detector (section 3.2).

    Args:
        normalisation: of the detector's deltas; the RPN's stay as they are.
    """
    recipe, plain = model.recipe, Normalisation.identity(4)

    def objective(batch, seed):
        features = features_of(model, batch)
        outputs = model.rpn(features)
        constant = outputs._replace(
            logits=tf.stop_gradient(outputs.logits), deltas=tf.stop_gradient(outputs.deltas)
        )
        frames = Frames(batch["size"], batch["scale"])
        found = model.proposals(constant, frames, recipe.joint_proposals)
        proposals = [
            found.boxes_input[image, : found.count[image]]
            for image in range(batch["size"].shape[0])
        ]
        rois_per_image = recipe.joint_rois_per_image
        return {
            **model.rpn_losses(outputs, batch, seed, plain),
            **model.detector_losses(
                features, proposals, batch, seed, rois_per_image, normalisation
            ),
        }

    return objective
