"""One step on the largest images before a long stage: what will not fit fails at once."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from keras_frcnn.data.pipeline import batch_signature, batches, image_scale
from keras_frcnn.errors import UserError
from keras_frcnn.network.faster_rcnn import FasterRcnn
from keras_frcnn.network.normalisation import Normalisation
from keras_frcnn.network.variables import trained_variables
from keras_frcnn.recipes import ImageConfig
from keras_frcnn.run_config import stage_name
from keras_frcnn.training.objectives import detector_objective
from keras_frcnn.training.optimizer import LossScale, MomentumOptimizer
from keras_frcnn.training.proposal_store import ProposalStore
from keras_frcnn.training.step import TrainingStep, variable_taken_last
from keras_frcnn.training.units import TrainingUnit

if TYPE_CHECKING:
    from keras_frcnn.training.fitting import Fitting

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
        raise out_of_memory(
            stage, f"the largest images ({', '.join(dict.fromkeys(names))})"
        ) from error


def out_of_memory(stage: int, images: str) -> UserError:
    """What to say where a step, or what is read for it, finds no room.

    Args:
        images: of the step, in words.
    """
    return UserError(
        f"{stage_name(stage).capitalize()} needs more memory than the device has with {images}. "
        "Give a lower --short_side and --long_side, --precision bfloat16 or float16, or "
        "another --gpu."
    )


def probe_stage2(fitting: Fitting, model: FasterRcnn) -> None:
    """Stage 2's step before stage 1 is trained, on made-up proposals: it needs the most memory.

    Without it a run would learn only after stage 1 and its proposals that stage 2 does not fit.

    Args:
        fitting: of the run; :meth:`TrainingRecords.check_room` comes first.
        model: that stage 1 starts from, as stage 2 will; it stays as it is.

    Raises:
        UserError: as :func:`check_memory`.
    """
    if fitting.recipe.stages[1].iterations < PROBED_ITERATIONS:
        return
    _probe_stage2(fitting, model)
    # The step holds itself, and velocities as large as the weights: stage 1 needs their room.
    gc.collect()


def _probe_stage2(fitting: Fitting, model: FasterRcnn) -> None:
    recipe, units = fitting.recipe, fitting.units
    number = recipe.detector.images_per_step
    low, high = recipe.detector.background_iou_low, recipe.detector.background_iou_high
    eligible = np.flatnonzero(fitting.gives_rois())
    if not len(eligible):  # stage 2 will say so
        return
    largest = largest_units(units, eligible, recipe.image, number)
    count = recipe.training_proposals.after_nms
    boxes = [
        made_up_proposals(unit, count, (low + high) / 2) if i in largest else np.zeros((0, 4))
        for i, unit in enumerate(units)
    ]
    keys = [unit.key for unit in units]
    store = ProposalStore.from_lists(keys, boxes, [np.zeros(len(entry)) for entry in boxes])
    make_record = fitting.records.of(store)
    layers = model.layers("base", "head", trained=True)
    normalisation = Normalisation.identity(model.number_of_classes, 4)
    step = TrainingStep(
        detector_objective(model, normalisation, number),
        MomentumOptimizer(trained_variables(layers), recipe.optimizer),
        batch_signature(number, None, None),
        batches_per_step=1,
        loss_scale=LossScale(dynamic=fitting.config.precision == "float16"),
        taken_last=variable_taken_last(model, layers),
    )

    def batches_of(found: list[int]):
        return batches(make_record, lambda: iter(found), recipe.image, images_per_step=number)

    check_memory(step, batches_of, largest, [keys[index] for index in largest], 2)


def made_up_proposals(unit: TrainingUnit, count: int, share: float) -> np.ndarray:
    """Boxes of which a full minibatch can be sampled: foreground and background.

    Args:
        count: how many, P.
        share: IoU of the background ones with their object.

    Returns:
        (P, 4) float32 in pixels of the image as the unit shows it: the objects and a part of each
        at its four sides, again and again; the whole image where there is no object.
    """
    boxes = unit.boxes_image
    if not len(boxes):
        boxes = np.array([[0, 0, unit.example.height, unit.example.width]], np.float32)
    y1, x1, y2, x2 = boxes.T
    height, width = share * (y2 - y1), share * (x2 - x1)
    sides = [(y1, x1, y1 + height, x2), (y2 - height, x1, y2, x2)]
    sides += [(y1, x1, y2, x1 + width), (y1, x2 - width, y2, x2)]
    parts = [np.stack(side, axis=1) for side in sides]
    return np.resize(np.concatenate([boxes, *parts]), (count, 4)).astype(np.float32)
