"""Passes over all training images between the stages: features and proposals.

Shapes and names
----------------
U  units (images in both orientations), P  proposals of one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import tensorflow as tf

from keras_frcnn.data.pipeline import batch_signature, batches
from keras_frcnn.network.faster_rcnn import FasterRcnn
from keras_frcnn.network.network_input import Frames
from keras_frcnn.training.feature_cache import FeatureCache
from keras_frcnn.training.objectives import features_of
from keras_frcnn.training.proposal_store import ProposalStore
from keras_frcnn.training.units import TrainingUnit

Passes = Callable[[Sequence[int], str], Iterable[int]]


def _one_by_one(model: FasterRcnn, units: int, make_record, cache: FeatureCache | None):
    return iter(
        batches(
            make_record,
            lambda: iter(range(units)),
            model.recipe.image,
            images_per_step=1,
            feature_channels=None if cache is None else model.backbone.channels,
            feature_dtype=None if cache is None else cache.dtype,
        )
    )


def fill_feature_cache(
    model: FasterRcnn,
    units: Sequence[TrainingUnit],
    make_record,
    cache: FeatureCache,
    passes: Passes,
) -> None:
    """Computes the features of every unit once; mirrored images are computed, never mirrored."""

    @tf.function(input_signature=[batch_signature(1, None, None)])
    def features(batch):
        return features_of(model, batch)[0]

    batch_iterator = _one_by_one(model, len(units), make_record, None)
    for index in passes(range(len(units)), "features of the frozen base"):
        cache.put(index, features(next(batch_iterator)))


def make_proposals(
    model: FasterRcnn,
    units: Sequence[TrainingUnit],
    make_record,
    cache: FeatureCache | None,
    passes: Passes,
) -> ProposalStore:
    """Runs the RPN over every unit; those that are mirrored are seen mirrored (imdb_from_voc.m).

    Args:
        make_record: unit index to a record with pixels, or with features where ``cache`` is given.
    """
    feature_dtype = None if cache is None else cache.dtype
    channels = None if cache is None else model.backbone.channels

    @tf.function(input_signature=[batch_signature(1, channels, feature_dtype)])
    def proposals(batch):
        frames = Frames(batch["size"], batch["scale"])
        outputs = model.rpn(features_of(model, batch))
        found = model.proposals(outputs, frames, model.recipe.training_proposals)
        count = found.count[0]
        return frames.to_image(found.boxes_input)[0, :count], found.scores[0, :count]

    boxes, scores = [], []
    batch_iterator = _one_by_one(model, len(units), make_record, cache)
    for _ in passes(range(len(units)), "proposals of all training images"):
        found, objectness = proposals(next(batch_iterator))
        boxes.append(found.numpy())
        scores.append(objectness.numpy())
    return ProposalStore.from_lists([unit.key for unit in units], boxes, scores)
