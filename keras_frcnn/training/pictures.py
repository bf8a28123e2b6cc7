"""Pictures of what a stage trains on: sampled anchors, sampled RoIs, the data's shapes.

They use the very functions that the training steps use, so a wrong box shows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image

from keras_frcnn.data.coverage import best_ious, best_proposal_ious, shapes_input
from keras_frcnn.data.dataset import Dataset
from keras_frcnn.data.pipeline import decode_unit, image_scale
from keras_frcnn.geometry.anchors import configured_anchors
from keras_frcnn.network.detector import detector_targets
from keras_frcnn.network.faster_rcnn import FasterRcnn
from keras_frcnn.network.rpn import rpn_targets
from keras_frcnn.plots import save_label_statistics
from keras_frcnn.proposals.given import GivenProposals
from keras_frcnn.recipes import Recipe
from keras_frcnn.system.files import written_whole
from keras_frcnn.training.proposal_store import ProposalStore
from keras_frcnn.training.units import TrainingUnit
from keras_frcnn.visualize import draw_samples

PICTURES = 3
# Drawn negatives are thinned: a picture of 128 of them shows nothing else.
BACKGROUND_SHOWN = 16


def save_sampled_anchors(
    folder: Path, model: FasterRcnn, units: Sequence[TrainingUnit], seed: int
) -> None:
    """Writes ``samples/anchors-*.png``: a few images with the anchors of one RPN minibatch."""
    for index, unit in enumerate(_with_objects(units)):
        size, gt_boxes = _input_frame(model.recipe, unit)
        feature_size = [int(model.backbone.feature_size(int(side))) for side in size]
        anchors = model.anchors(*feature_size)
        targets = rpn_targets(anchors, size, gt_boxes, tf.constant([seed, index]), model.recipe.rpn)
        _save(
            folder / "samples" / f"anchors-{index + 1}.png",
            unit,
            size,
            anchors.numpy(),
            targets.labels.numpy(),
            gt_boxes,
        )


def save_sampled_rois(
    folder: Path,
    model: FasterRcnn,
    units: Sequence[TrainingUnit],
    store: ProposalStore,
    seed: int,
    stage: int,
) -> None:
    """Writes ``samples/stage2-rois-*.png``: a few images with the RoIs of one detector step."""
    config = model.recipe.detector
    positions = {unit.key: index for index, unit in enumerate(units)}
    for index, unit in enumerate(_with_objects(units)):
        size, gt_boxes = _input_frame(model.recipe, unit)
        _, scale = image_scale(unit.example.height, unit.example.width, model.recipe.image)
        proposals = store.boxes_of(positions[unit.key]) * np.tile(scale, 2)
        targets = detector_targets(
            proposals.astype(np.float32),
            gt_boxes,
            unit.example.classes,
            tf.constant([seed, index]),
            config.rois_per_step // config.images_per_step,
            config,
        )
        labels = np.minimum(targets.labels.numpy(), 1)
        _save(
            folder / "samples" / f"stage{stage}-rois-{index + 1}.png",
            unit,
            size,
            targets.rois.numpy(),
            labels,
            gt_boxes,
        )


def save_labels(
    dataset: Dataset, recipe: Recipe, png: Path, given: GivenProposals | None = None
) -> tuple[float, float]:
    """Writes ``labels.png``; returns the shares of objects that nothing covers at IoU 0.5 and 0.7.

    An object's best anchor is sought over all positions of its image, inside anchors only, as
    training does; difficult objects are left out as there.

    Args:
        given: Fast R-CNN alone has no anchors: its objects are covered by these proposals.

    Raises:
        UserError: the proposals lack an image, or are those of another image size.
    """
    examples = tuple(example.without_difficult() for example in dataset.examples)
    dataset = dataclasses.replace(dataset, examples=examples)
    if given is None:
        covering, anchors = "anchor", configured_anchors(recipe.anchors)
        ious = best_ious(examples, anchors, recipe.image)
    else:
        covering, anchors = "proposal", np.zeros((0, 4), np.float32)
        proposals = [given.of_example(example).boxes_image for example in examples]
        ious = best_proposal_ious(examples, proposals)
    save_label_statistics(
        dataset,
        png,
        anchors_input=anchors,
        shapes=shapes_input(examples, recipe.image),
        best_ious=ious,
        covering=covering,
    )
    if len(ious) == 0:
        return 0.0, 0.0
    return float((ious < 0.5).mean()), float((ious < 0.7).mean())


def _with_objects(units: Sequence[TrainingUnit]) -> list[TrainingUnit]:
    plain = [unit for unit in units if len(unit.example.classes) and not unit.flipped]
    return plain[:PICTURES]


def _input_frame(recipe: Recipe, unit: TrainingUnit) -> tuple[np.ndarray, np.ndarray]:
    size, scale = image_scale(unit.example.height, unit.example.width, recipe.image)
    return size, (unit.boxes_image * np.tile(scale, 2)).astype(np.float32)


def _save(
    path: Path,
    unit: TrainingUnit,
    size: np.ndarray,
    boxes: np.ndarray,
    labels: np.ndarray,
    gt_boxes: np.ndarray,
) -> None:
    height, width = (int(side) for side in size)
    image = Image.fromarray(decode_unit(unit)).resize((width, height), Image.Resampling.BILINEAR)
    foreground, sampled = boxes[labels == 1], boxes[labels == 0]
    background = sampled[:: -(-len(sampled) // BACKGROUND_SHOWN) or 1]
    kinds = (
        ["background"] * len(background)
        + ["foreground"] * len(foreground)
        + ["ground truth"] * len(gt_boxes)
    )
    shown = np.concatenate((background, foreground, gt_boxes))
    picture = draw_samples(np.asarray(image), shown, kinds, totals={"background": len(sampled)})
    with written_whole(path) as partial:
        picture.save(partial, "PNG")
