"""Records of the training units, and the caches of images and features that they come from."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
import tensorflow as tf

from keras_frcnn.data.dataset import Example
from keras_frcnn.data.pipeline import unit_record
from keras_frcnn.errors import UserError
from keras_frcnn.network.faster_rcnn import FasterRcnn
from keras_frcnn.run_config import RunConfig
from keras_frcnn.runs import RunFolder
from keras_frcnn.training.display import TrainingDisplay
from keras_frcnn.training.feature_cache import CachePlan, FeatureCache, feature_shapes, plan_cache
from keras_frcnn.training.image_cache import ImageCache
from keras_frcnn.training.options import TrainingOptions
from keras_frcnn.training.passes import fill_feature_cache
from keras_frcnn.training.proposal_store import ProposalStore
from keras_frcnn.training.room import check_room
from keras_frcnn.training.units import TrainingUnit


class TrainingRecords:
    """What the steps of a run are fed with, from files or from caches.

    Args:
        config: what is trained.
        units: of the run.
        run: an existing run folder, which takes the caches that do not fit into memory.
        options: which caches are wanted.
        display: where it is said which are made.

    Attributes:
        features: the feature cache of stages 3 and 4, once it is filled; else None.
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
        self._images: ImageCache | None = None
        self._bytes_to_write = 0

    def check_room(self, model: FasterRcnn, stage: int) -> None:
        """Makes sure that a stage and the later ones fit on the disk, and keeps caches out of that.

        To be called before the first of :meth:`of` and :meth:`compute_features`, which make the
        caches.

        Args:
            stage: that is about to be trained; 0 is joint training.

        Raises:
            UserError: naming what is needed and what is free.
        """
        units = len(self.units)
        self._bytes_to_write = check_room(self.run, self.config, model, stage, units)

    def of(self, store: ProposalStore | None) -> Callable[[int], dict]:
        """``unit index -> record``: pixels, or features once they are cached, and proposals."""
        read = self._read()
        return functools.partial(self._record, store=store, features=self.features, read=read)

    def _record(
        self,
        index: int,
        *,
        store: ProposalStore | None,
        features: FeatureCache | None,
        read: Callable[[Example], np.ndarray],
    ) -> dict:
        return unit_record(
            index,
            self.units[index],
            self.config.recipe.image,
            proposals_image=None if store is None else store.boxes_of(index),
            features=None if features is None else features.get(index),
            read=read,
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
        # Of pixels. Where no image was needed yet, a cache of them would not be for long, and its
        # room has just been planned for the features.
        read = Example.pixels if self._images is None else self._images.read
        make_record = functools.partial(self._record, store=None, features=None, read=read)
        self.features = FeatureCache(shapes, dtype, file)
        fill_feature_cache(model, self.units, make_record, self.features, self.display.passes)
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

    def _read(self) -> Callable[[Example], np.ndarray]:
        """How images are read: from their cache, made when the first is needed, or from files."""
        if self._images is None and self.features is None:
            self._images = self._image_cache()
        return Example.pixels if self._images is None else self._images.read

    @cached_property
    def _image_plan(self) -> CachePlan:
        examples = [unit.example for unit in self.units]
        plan = self._plan(ImageCache.size_of(examples), self.options.image_cache)
        self.display.say(f"image cache: {plan.text()}")
        return plan

    def _image_cache(self) -> ImageCache | None:
        place = self._image_plan.place
        if place == "off":
            return None
        examples = [unit.example for unit in self.units]
        return ImageCache(examples, self.run.path / "images.bin" if place == "disk" else None)

    def _plan(self, size: int, choice: str) -> CachePlan:
        budget = self.options.cache_budget
        return plan_cache(size, self.run.path, choice, budget, kept_free=self._bytes_to_write)

    def _close_images(self) -> None:
        if self._images is not None:
            self._images.close()
            self._images = None
