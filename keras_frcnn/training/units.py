"""The doubled list of training images and the order in which iterations see it.

Every image appears once as it is and once mirrored (imdb.py:102-117); this is the paper's only
augmentation. The order is a pure function of (seed, stage, epoch), so that a resumed run goes on
with the very image at which it stopped.

Shapes and names
----------------
unit   one image in one orientation, unit  (U,) entries of the doubled list.
epoch  one pass over all units.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from keras_frcnn.data.dataset import Example
from keras_frcnn.proposals.given import mirror
from keras_frcnn.recipes import DetectorConfig


@dataclass(frozen=True)
class TrainingUnit:
    """One image in one orientation, difficult objects removed."""

    example: Example
    flipped: bool

    @property
    def key(self) -> str:
        """Names the unit in files and messages; ends in ``" flipped"`` where it is mirrored."""
        return self.example.key + (" flipped" if self.flipped else "")

    @property
    def boxes_image(self) -> np.ndarray:
        """(G, 4) float32 objects in pixels of the image as this unit shows it."""
        boxes = self.example.boxes_image
        return mirror(boxes, self.example.width) if self.flipped else boxes


def training_units(examples: Sequence[Example], flips: bool) -> tuple[TrainingUnit, ...]:
    """All images as they are, then all images mirrored; difficult objects are left out."""
    plain = [example.without_difficult() for example in examples]
    units = [TrainingUnit(example, False) for example in plain]
    if flips:
        units += [TrainingUnit(example, True) for example in plain]
    return tuple(units)


def give_rois(units: Sequence[TrainingUnit], config: DetectorConfig) -> np.ndarray:
    """(U,) bool, which units can give RoIs: all, or those with objects."""
    return np.array([not config.needs_objects or len(unit.example.classes) > 0 for unit in units])


def steps_per_epoch(units: int, images_per_step: int) -> int:
    """Iterations of one pass."""
    return -(-units // images_per_step)


def steps_of_pass(
    examples: Sequence[Example], flips: bool, images_per_step: int, needs_objects: bool
) -> int:
    """Iterations in which a stage sees every image that gives it something in each orientation.

    Args:
        needs_objects: whether images without objects, difficult ones aside, give nothing.
    """
    images = len(examples)
    if needs_objects:
        images = sum(len(each.without_difficult().classes) > 0 for each in examples)
    return steps_per_epoch(images * (2 if flips else 1), images_per_step)


def epoch_batches(
    landscape: np.ndarray, images_per_step: int, *, seed: int, stage: int, epoch: int
) -> np.ndarray:
    """Which units the iterations of one epoch see.

    Images of one orientation are drawn together so that a batch needs little padding
    (roi_data_layer/layer.py:28-41); the batches then come in random order. Where the last batch is
    short, it is filled from the start of the shuffled list.

    Args:
        landscape: (U,) bool, whether a unit is at least as wide as high.

    Returns:
        (steps, images_per_step) int indices of units.
    """
    generator = np.random.default_rng((seed, stage, epoch))
    order = np.concatenate(
        (
            generator.permutation(np.flatnonzero(landscape)),
            generator.permutation(np.flatnonzero(~landscape)),
        )
    )
    steps = steps_per_epoch(len(order), images_per_step)
    order = np.resize(order, steps * images_per_step)
    return generator.permutation(order.reshape(steps, images_per_step))


def unit_order(
    units: Sequence[TrainingUnit],
    images_per_step: int,
    *,
    seed: int,
    stage: int,
    first_iteration: int,
    iterations: int,
) -> Iterator[int]:
    """Unit indices of iterations ``first_iteration`` to ``iterations``, batch after batch."""
    landscape = np.array([unit.example.width >= unit.example.height for unit in units])
    steps = steps_per_epoch(len(units), images_per_step)
    epoch, batches = -1, np.empty((0, images_per_step), int)
    for iteration in range(first_iteration, iterations):
        if iteration // steps != epoch:
            epoch = iteration // steps
            batches = epoch_batches(landscape, images_per_step, seed=seed, stage=stage, epoch=epoch)
        yield from (int(index) for index in batches[iteration % steps])
