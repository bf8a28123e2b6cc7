"""One step on the largest images before a long stage: what will not fit fails at once.

Shapes and names
----------------
unit  one training image in one orientation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import tensorflow as tf

from keras_frcnn.data.pipeline import image_scale
from keras_frcnn.errors import UserError
from keras_frcnn.recipes import ImageConfig
from keras_frcnn.training.step import TrainingStep
from keras_frcnn.training.units import TrainingUnit

# A stage that is shorter meets its largest image soon enough.
PROBED_ITERATIONS = 1000


def largest_units(
    units: Sequence[TrainingUnit], eligible: Sequence[int], config: ImageConfig, number: int
) -> list[int]:
    """The eligible units of the largest network input, the largest first; repeated if too few."""
    sizes = [
        image_scale(units[i].example.height, units[i].example.width, config)[0] for i in eligible
    ]
    order = np.argsort([-np.prod(size, dtype=np.int64) for size in sizes], kind="stable")
    found = [int(eligible[position]) for position in order[:number]]
    return [found[index % len(found)] for index in range(number)]


def check_memory(
    step: TrainingStep,
    batches_of: Callable[[list[int]], Iterable[dict[str, tf.Tensor]]],
    largest: list[int],
    names: Sequence[str],
    stage: int,
) -> None:
    """Computes the gradients of the largest images and drops them.

    Args:
        batches_of: unit indices to the batches of a step.
        largest: of :func:`largest_units`, as many as a step takes.
        names: of these units, for the message.

    Raises:
        UserError: the device has not enough memory.
    """
    try:
        step.probe(tuple(batches_of(largest)), tf.constant([0, stage])).numpy()
    except tf.errors.ResourceExhaustedError as error:
        raise UserError(
            f"Stage {stage} needs more memory than the device has with the largest images "
            f"({', '.join(dict.fromkeys(names))}). Give a lower --short_side and --long_side, "
            "--precision bfloat16 or float16, or another --gpu."
        ) from error
