"""What the stages minimise: the losses of a batch as functions ``(batch, seed) -> metrics``.

Shapes and names
----------------
N  images of a batch.
batch    the dictionary of :mod:`keras_frcnn.data.pipeline`.
metrics  scalars by name; the sum of those whose name ends in ``_loss`` is the objective.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf

from keras_frcnn.network.faster_rcnn import FasterRcnn
from keras_frcnn.network.network_input import Frames
from keras_frcnn.network.normalisation import Normalisation
from keras_frcnn.network.rpn import RpnOutputs

Metrics = dict[str, tf.Tensor]
Objective = Callable[[dict[str, tf.Tensor], tf.Tensor], Metrics]

# What a step measures of each part.
_METRICS = {
    "rpn": ("rpn_class_loss", "rpn_box_loss", "positive_anchors"),
    "head": (
        *("detector_class_loss", "detector_box_loss"),
        *("foreground_rois", "background_rois"),
    ),
}


def metric_names(parts: Sequence[str]) -> set[str]:
    """What a step that trains these parts measures."""
    return {"loss", *(name for part in parts for name in _METRICS.get(part, ()))}


def features_of(model: FasterRcnn, batch: dict[str, tf.Tensor]) -> tf.Tensor:
    """The base's features of a batch: those it brings, or computed from its images."""
    return batch["features"] if "features" in batch else model.features(batch["image"])


def objective_of(
    model: FasterRcnn, parts: Sequence[str], normalisation: Normalisation
) -> Objective:
    """The losses of a step that trains these parts.

    Without the RPN the detector sees the proposals of the batch. With it, in approximate joint
    training, it sees those that the RPN makes, which are constants for it (section 3.2).

    Args:
        normalisation: of the detector's deltas, or of the RPN's where no detector is trained; in
            joint training the RPN's stay as they are.
    """
    recipe = model.recipe
    is_joint = "rpn" in parts and "head" in parts
    of_rpn = Normalisation.identity(4) if is_joint else normalisation

    def objective(batch, seed):
        features, metrics = features_of(model, batch), {}
        if "rpn" in parts:
            outputs = model.rpn(features)
            metrics.update(model.rpn_losses(outputs, batch, seed, of_rpn))
        if "head" in parts:
            images = batch["size"].shape[0]
            if is_joint:
                proposals = _constant_proposals(model, outputs, batch)
                rois_per_image = recipe.joint_rois_per_image
            else:
                boxes, count = batch["proposals"], batch["proposal_count"]
                proposals = [boxes[image, : count[image]] for image in range(images)]
                rois_per_image = recipe.detector.rois_per_step // images
            metrics.update(
                model.detector_losses(
                    features, proposals, batch, seed, rois_per_image, normalisation
                )
            )
        return metrics

    return objective


def _constant_proposals(
    model: FasterRcnn, outputs: RpnOutputs, batch: dict[str, tf.Tensor]
) -> list[tf.Tensor]:
    """(P, 4) proposals of each image of a batch, through which no gradient flows."""
    constant = outputs._replace(
        logits=tf.stop_gradient(outputs.logits), deltas=tf.stop_gradient(outputs.deltas)
    )
    frames = Frames(batch["size"], batch["scale"])
    found = model.proposals(constant, frames, model.recipe.joint_proposals)
    return [found.boxes_input[i, : found.count[i]] for i in range(batch["size"].shape[0])]
