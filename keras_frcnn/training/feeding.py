"""What the steps of a run are fed with: images, features and proposals, from files or caches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import tensorflow as tf

from keras_frcnn.data.dataset import Example
from keras_frcnn.data.pipeline import batch_signature, batches, unit_record
from keras_frcnn.errors import UserError
from keras_frcnn.network.faster_rcnn import FasterRcnn
from keras_frcnn.network.network_input import Frames
from keras_frcnn.proposals.given import ScoredBoxes
from keras_frcnn.recipes import ImageConfig
from keras_frcnn.runs.config import RunConfig
from keras_frcnn.runs.folder import RunFolder
from keras_frcnn.training.caches import (
    CachePlan,
    FeatureCache,
    ImageCache,
    feature_shapes,
    plan_cache,
)
from keras_frcnn.training.display import TrainingDisplay
from keras_frcnn.training.objectives import features_of
from keras_frcnn.training.options import TrainingOptions
from keras_frcnn.training.proposal_store import ProposalStore
from keras_frcnn.training.units import TrainingUnit


@dataclass(frozen=True, eq=False)
class Feed:
    """Batches of training units.

    Attributes:
        images: a cache of them, if there is one.
        features: cached ones, in place of pixels.
        store: proposals of every unit, if any are needed.
        workers: threads that decode, and that resize.
    """

    units: Sequence[TrainingUnit]
    config: ImageConfig
    images: ImageCache | None = None
    features: FeatureCache | None = None
    store: ProposalStore | None = None
    images_per_step: int = 1
    workers: int = 2

    @property
    def signature(self) -> dict[str, tf.TensorSpec]:
        """Of a batch, for a function that is traced once."""
        return batch_signature(self.images_per_step, *self._channels_and_dtype)

    def record(self, index: int) -> dict[str, Any]:
        """A unit by itself, see :func:`unit_record`."""
        return unit_record(
            index,
            self.units[index],
            self.config,
            proposals_image=None if self.store is None else self.store.boxes_of(index),
            features=None if self.features is None else self.features.get(index),
            read=Example.pixels if self.images is None else self.images.read,
        )

    def batches(self, order: Iterable[int]) -> Iterator[dict[str, tf.Tensor]]:
        """Batches of the units in this order, see :func:`keras_frcnn.data.pipeline.batches`."""
        channels, dtype = self._channels_and_dtype
        return batches(
            self.record,
            order,
            self.config,
            images_per_step=self.images_per_step,
            feature_channels=channels,
            feature_dtype=dtype,
            workers=self.workers,
        )

    @property
    def _channels_and_dtype(self) -> tuple[int | None, tf.DType | None]:
        cache = self.features
        return (None, None) if cache is None else (int(cache.shapes[0, 2]), cache.dtype)


def fill_features(
    cache: FeatureCache, model: FasterRcnn, feed: Feed, display: TrainingDisplay
) -> None:
    """Computes the features of every unit once; mirrored images are computed, never mirrored."""

    @tf.function(input_signature=[feed.signature])
    def features(batch):
        return features_of(model, batch)[0]

    count = len(feed.units)
    batch_iterator = iter(feed.batches(range(count)))
    for index in display.passes(range(count), "features of the frozen base"):
        cache.put(index, features(next(batch_iterator)))


def make_proposals(model: FasterRcnn, feed: Feed, display: TrainingDisplay) -> ProposalStore:
    """Runs the RPN over every unit; those that are mirrored are seen mirrored (imdb_from_voc.m)."""

    @tf.function(input_signature=[feed.signature])
    def proposals(batch):
        frames = Frames(batch["size"], batch["scale"])
        outputs = model.rpn(features_of(model, batch))
        found = model.proposals(outputs, frames, model.recipe.training_proposals)
        count = found.count[0]
        return frames.to_image(found.boxes_input)[0, :count], found.scores[0, :count]

    entries = {}
    batch_iterator = iter(feed.batches(range(len(feed.units))))
    for unit in display.passes(feed.units, "proposals of all training images"):
        found, scores = proposals(next(batch_iterator))
        entries[unit.key] = ScoredBoxes(found.numpy(), scores.numpy())
    return ProposalStore(entries)


class Sources:
    """The training units of a run, and the caches of their images and features.

    Args:
        run: an existing run folder, which takes the caches that do not fit into memory.

    Attributes:
        features: the feature cache of stages 3 and 4, once it is filled; else None.
        kept_free: bytes of the disk that caches leave to the training.
    """

    def __init__(
        self,
        config: RunConfig,
        units: Sequence[TrainingUnit],
        run: RunFolder,
        options: TrainingOptions,
        display: TrainingDisplay,
    ):
        self.config = config
        self.units = units
        self.run = run
        self.options = options
        self.display = display
        self.features: FeatureCache | None = None
        self.kept_free = 0
        self._images: ImageCache | None = None

    def feed(
        self, store: ProposalStore | None = None, images_per_step: int = 1, *, keep: bool = True
    ) -> Feed:
        """Batches of pixels, or of features once they are cached; and of proposals.

        Images come from files, or from their cache, which is made when the first is to be kept.
        """
        needed = keep and self._images is None and self.features is None
        if needed and self._image_plan.place != "off":
            on_disk = self._image_plan.place == "disk"
            self._images = ImageCache(
                [unit.example for unit in self.units],
                self.run.path / "images.bin" if on_disk else None,
            )
        return Feed(
            self.units,
            self.config.recipe.image,
            self._images,
            self.features,
            store,
            images_per_step,
            self.options.workers,
        )

    def compute_features(self, model: FasterRcnn) -> None:
        """Fills the cache for stages 3 and 4, once, where there is room."""
        if self.features is not None:
            return
        shapes = feature_shapes(model, self.units)
        size = int(np.prod(shapes, axis=1).sum()) * 2
        choice = self.options.feature_cache
        if choice == "auto" and self.run.features_kept() is False:
            choice = "off"
        plan = self._plan(size, choice)
        self._check_features(plan)
        self.display.say(f"feature cache: {plan.text()}")
        if plan.place == "off":
            return
        file = self.run.path / "features.bin" if plan.place == "disk" else None
        dtype = tf.bfloat16 if self.config.precision == "bfloat16" else tf.float16
        # Where no image was needed yet, a cache of them would not be for long, and its room has
        # just been planned for the features.
        feed = self.feed(keep=False)
        self.features = FeatureCache(shapes, dtype, file)
        fill_features(self.features, model, feed, self.display)
        self._close_images()  # the stages that follow read features

    def close(self) -> None:
        """Frees the caches."""
        self._close_images()
        if self.features is not None:
            self.features.close()
            self.features = None

    def _check_features(self, plan: CachePlan) -> None:
        """Makes sure that a run sees features of one kind, from wherever it goes on.

        Kept ones are rounded to 16 bits and come from images without padding.

        Raises:
            UserError: the run began with kept features, and there is no room for them now.
        """
        kept = plan.place != "off"
        began = self.run.features_kept()
        if began is None:
            self.run.note_features_kept(kept)
        elif began and not kept and self.options.feature_cache != "off":
            raise UserError(
                f"The run began with features that were kept, and now there is no room for them "
                f"({plan.reason}): make room, or give a larger --cache_budget. With "
                "--feature_cache off train_frcnn.py goes on without, and its result is another one."
            )
        elif began != kept:
            self.display.say(
                f"the run began with features that were {'' if began else 'not '}kept: its result "
                "is not that of a run without a stop",
                style="yellow",
            )

    @cached_property
    def _image_plan(self) -> CachePlan:
        examples = [unit.example for unit in self.units]
        plan = self._plan(ImageCache.size_of(examples), self.options.image_cache)
        self.display.say(f"image cache: {plan.text()}")
        return plan

    def _plan(self, size: int, choice: str) -> CachePlan:
        budget = self.options.cache_budget
        return plan_cache(size, self.run.path, choice, budget, kept_free=self.kept_free)

    def _close_images(self) -> None:
        if self._images is not None:
            self._images.close()
            self._images = None
