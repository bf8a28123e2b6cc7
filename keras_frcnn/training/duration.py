"""How long a step of a stage takes on this machine, and a whole training.

Shapes and names
----------------
side  short side of the network's input, in pixels.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from keras_frcnn.data.dataset import Dataset, Example
from keras_frcnn.data.pipeline import batch_signature, image_scale
from keras_frcnn.network.faster_rcnn import FasterRcnn
from keras_frcnn.network.normalisation import Normalisation
from keras_frcnn.proposals.given import ranked
from keras_frcnn.recipes import ImageConfig
from keras_frcnn.runs.config import RunConfig
from keras_frcnn.runs.stage_table import STAGES, Stage, reader_of
from keras_frcnn.training.feeding import Feed
from keras_frcnn.training.preflight import made_up_proposals
from keras_frcnn.training.proposal_store import ProposalStore
from keras_frcnn.training.step import images_and_batches, step_of
from keras_frcnn.training.units import training_units

FORWARD_SHARE = 0.36
"""Of stage 1's step, the network's forward pass alone: 3483 and 1336 ms in benchmarks/README.md."""

_TIMED = 3


def joint_seconds(config: RunConfig, dataset: Dataset, sides: Sequence[int]) -> list[float]:
    """Seconds of a step of joint training at some short sides.

    It is timed at two of them; the time is linear in the pixels of the input, with a constant for
    the layers above RoI pooling.
    """
    example, image = typical(dataset.examples), config.recipe.image
    low = min(sides)
    timed = sorted({low, min(max(sides), 2 * low)})
    images = [image.with_short_side(side) for side in timed]
    seconds = stage_seconds(_model(config), STAGES["joint"][0], example, images)
    pixels = [_pixels(example, each) for each in images]
    gc.collect()  # as in expected_seconds
    rate = max(0.0, seconds[-1] - seconds[0]) / max(1, pixels[-1] - pixels[0])
    return [
        seconds[0] + rate * (_pixels(example, image.with_short_side(side)) - pixels[0])
        for side in sides
    ]


def expected_seconds(config: RunConfig, dataset: Dataset) -> float:
    """Seconds that a training will take here: its steps, and its passes over all images."""
    model, example = _model(config), typical(dataset.examples)
    image, forward, total = config.recipe.image, 0.0, 0.0
    units = len(dataset) * (2 if config.flips else 1)
    for stage in config.plan:
        (second,) = stage_seconds(model, stage, example, [image])
        forward = (
            forward or FORWARD_SHARE * second / images_and_batches(model.recipe, stage.trains)[0]
        )
        total += config.schedules[stage.number].iterations * second
        # Features of the frozen base, kept for stages 3 and 4; proposals for the next stage.
        passes = (stage.number == 3) + (reader_of(stage, config.plan) is not None)
        total += passes * units * forward
    # The network and its steps hold themselves, and the training needs their room.
    del model
    gc.collect()
    return total


def stage_seconds(
    model: FasterRcnn, stage: Stage, example: Example, images: Sequence[ImageConfig]
) -> list[float]:
    """Median seconds of a step of a stage on one image of the data, at some sizes of the input.

    Reading is left out: it goes on beside the steps. The weights move by next to nothing.
    """
    units = training_units([example], flips=False)
    number, batches_per_step = images_and_batches(model.recipe, stage.trains)
    store = None
    if stage.reads is not None:
        count = model.recipe.training_proposals.after_nms
        boxes = made_up_proposals(units[0], count, model.recipe.detector.background_iou_high / 2)
        store = ProposalStore({units[0].key: ranked(boxes)})
    half = tf.bfloat16 if model.precision == "bfloat16" else tf.float16
    signature = batch_signature(
        number,
        model.backbone.channels if stage.is_shared else None,
        half if stage.is_shared else None,
    )
    classes = (model.number_of_classes, 4) if "head" in stage.trains else (4,)
    normalisation = Normalisation.identity(*classes)
    step = step_of(model, stage.trains, normalisation, signature, batches_per_step)
    medians = []
    for image in images:
        feed = Feed(units, image, store=store, images_per_step=number)
        batch = next(iter(feed.batches([0] * number)))
        if stage.is_shared:
            features = tf.cast(model.features(batch.pop("image")), half)
            batch = {**batch, "features": features}
        seconds = []
        for turn in range(1 + _TIMED):
            start = time.perf_counter()
            seed = tf.constant([0, turn])
            step.run((batch,) * batches_per_step, tf.constant(1e-9), seed)["loss"].numpy()
            seconds.append(time.perf_counter() - start)
        medians.append(float(np.median(seconds[1:])))
    return medians


def typical(examples: Sequence[Example]) -> Example:
    """The image of the median ratio of sides among those with objects, if there are any."""
    counted = [each for each in examples if len(each.without_difficult().classes)] or examples
    ratios = [max(each.height, each.width) / min(each.height, each.width) for each in counted]
    return counted[int(np.argsort(ratios, kind="stable")[len(ratios) // 2])]


def _model(config: RunConfig) -> FasterRcnn:
    recipe, precision = config.recipe, config.precision
    return FasterRcnn(config.network, config.class_names, recipe, precision=precision, seed=0)


def _pixels(example: Example, image: ImageConfig) -> int:
    size, _ = image_scale(example.height, example.width, image)
    return int(np.prod(size, dtype=np.int64))
