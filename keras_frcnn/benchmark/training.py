"""One step of every stage, and the bare arithmetic of stages 1 and 2, each a call to time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from keras_frcnn.benchmark.operations import count_operations
from keras_frcnn.benchmark.setting import random_batch
from keras_frcnn.benchmark.testing import Part
from keras_frcnn.data.pipeline import batch_signature
from keras_frcnn.network.faster_rcnn import FasterRcnn
from keras_frcnn.network.normalisation import Normalisation
from keras_frcnn.runs.stage_table import STAGES, Stage
from keras_frcnn.training.step import TrainingStep, step_of

Batch = dict[str, tf.Tensor]

RATE = 1e-6
_STAGES = {f"stage{stage.number}": stage for stage in STAGES["alternating"]}
_STAGES |= {"joint": STAGES["joint"][0]}
PARTS = ("stage1", "bare1", "stage2", "bare2", "stage3", "stage4", "joint")


def parts_of_training(model: FasterRcnn, names: Sequence[str] = PARTS) -> dict[str, Part]:
    """Some of :data:`PARTS` on random images, all on one network."""
    return {name: _part(model, name) for name in names}


def step_on(model: FasterRcnn, name: str, batch: Batch) -> TrainingStep:
    """The step of ``stage1`` to ``stage4`` or ``joint``, for batches as this one."""
    stage, features = _STAGES[name], batch.get("features")
    size = (model.number_of_classes, 4) if "head" in stage.trains else (4,)
    signature = batch_signature(
        batch["size"].shape[0],
        None if features is None else features.shape[-1],
        None if features is None else features.dtype,
    )
    return step_of(model, stage.trains, Normalisation.identity(*size), signature)


def _part(model: FasterRcnn, name: str) -> Part:
    """A step on a random batch, or its arithmetic alone, with the update."""
    is_bare = name.startswith("bare")
    name = name.replace("bare", "stage")
    stage = _STAGES[name]
    images = model.recipe.detector.images_per_step if "rpn" not in stage.trains else 1
    batch = random_batch(model.recipe.image, images)
    if stage.is_shared:
        batch = _with_features(model, batch)
    step = step_on(model, name, batch)
    arithmetic = _arithmetic(model, stage, step)
    shape = _pooled_shape(model, stage)

    def count() -> int:
        """Operations of a step, its RoIs as many as it samples at most."""
        inputs = batch["features" if stage.is_shared else "image"]
        return count_operations(tf.function(arithmetic), inputs, tf.TensorSpec(shape))

    if not is_bare:
        seed = tf.constant([0, 0])
        return Part(
            lambda: step.run((batch,), tf.constant(RATE), seed)["loss"].numpy(), count, images
        )
    pooled = tf.constant(np.random.default_rng(0).random(shape, np.float32))

    @tf.function
    def bare(pixels, pooled):
        gradients, *kept = arithmetic(pixels, pooled)
        step.optimizer.apply(gradients, tf.constant(RATE))
        return [tf.reshape(value, (-1,))[0] for value in tf.nest.flatten(kept)]

    return Part(lambda: bare(batch["image"], pooled)[-1].numpy(), count, images)


def _arithmetic(model: FasterRcnn, stage: Stage, step: TrainingStep) -> Callable:
    """``(images or features, pooled) -> gradients, [gradient toward pooled], outputs``.

    The detector's head works on pooled features that are given: RoI pooling is left out. The
    gradient toward them is computed where a step would carry it on to the base.
    """
    variables, parts = step.optimizer.variables_trained, stage.trains

    def run(inputs, pooled):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([*variables, pooled])
            features = inputs if stage.is_shared else model.base(inputs, training=False)
            outputs = [features]
            if "rpn" in parts:
                outputs += model.rpn_head(features)
            if "head" in parts:
                hidden = model.backbone.head(pooled)
                outputs += [layer(hidden) for layer in (model.cls_score, model.bbox_pred)]
        gradients = tape.gradient(outputs, [*variables, pooled])
        toward_pooled = gradients[-1:] if {"base", "head"} <= set(parts) else []
        return gradients[:-1], toward_pooled, outputs

    return run


def _pooled_shape(model: FasterRcnn, stage: Stage) -> tuple[int, ...]:
    """Of what is pooled in a step: (RoIs, p, p, F)."""
    recipe, backbone = model.recipe, model.backbone
    rois = 0
    if "head" in stage.trains:
        is_joint = "rpn" in stage.trains
        rois = recipe.joint_rois_per_image if is_joint else recipe.detector.rois_per_step
    return rois, backbone.roi_size, backbone.roi_size, backbone.channels


def _with_features(model: FasterRcnn, batch: Batch) -> Batch:
    """The batch with the base's features, in half precision, in place of the images."""
    features = model.base(batch["image"], training=False)
    half = tf.bfloat16 if model.precision == "bfloat16" else tf.float16
    rest = {name: value for name, value in batch.items() if name != "image"}
    return {**rest, "features": tf.cast(features, half)}
