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
from keras_frcnn.network.variables import trained_variables
from keras_frcnn.timing import Call
from keras_frcnn.training.objectives import detector_objective, joint_objective, rpn_objective
from keras_frcnn.training.optimizer import LossScale, MomentumOptimizer
from keras_frcnn.training.step import TrainingStep, variable_taken_last

Batch = dict[str, tf.Tensor]

RATE = 1e-6
RPN, DETECTOR, JOINT = ("rpn",), ("head",), ("rpn", "head")
# The heads that a step trains, and what of it is timed.
_PARTS = {
    "stage1": (RPN, "whole"),
    "bare1": (RPN, "bare"),
    "stage2": (DETECTOR, "whole"),
    "bare2": (DETECTOR, "bare"),
    "stage3": (RPN, "cached"),
    "stage4": (DETECTOR, "cached"),
    "joint": (JOINT, "whole"),
}
STAGES = tuple(_PARTS)


def parts_of_training(model: FasterRcnn, names: Sequence[str] = STAGES) -> dict[str, Part]:
    """Some parts of :data:`STAGES` on random images, all on one network."""
    return {name: _part(model, *_PARTS[name]) for name in names}


def training_step(model: FasterRcnn, heads: tuple[str, ...], batch: Batch) -> TrainingStep:
    """A step that trains the base, unless the batch has its features, and some heads.

    Args:
        heads: :data:`RPN` (stages 1 and 3), :data:`DETECTOR` (2 and 4) or :data:`JOINT`.
    """
    of_classes = Normalisation.identity(model.number_of_classes, 4)
    if heads == RPN:
        objective = rpn_objective(model, Normalisation.identity(4))
    elif heads == DETECTOR:
        images = model.recipe.detector.images_per_step
        objective = detector_objective(model, of_classes, images)
    else:
        objective = joint_objective(model, of_classes)
    features = batch.get("features")
    layers = model.layers(*(("base",) if features is None else ()), *heads, trained=True)
    return TrainingStep(
        objective,
        MomentumOptimizer(trained_variables(layers), model.recipe.optimizer),
        batch_signature(
            batch["size"].shape[0],
            None if features is None else features.shape[-1],
            None if features is None else features.dtype,
        ),
        batches_per_step=1,
        loss_scale=LossScale(dynamic=model.precision == "float16"),
        taken_last=variable_taken_last(model, layers),
    )


def _part(model: FasterRcnn, heads: tuple[str, ...], kind: str) -> Part:
    """A step on a random batch: ``whole``, on its features (``cached``), or ``bare`` arithmetic."""
    images = model.recipe.detector.images_per_step if heads == DETECTOR else 1
    batch = random_batch(model.recipe.image, images)
    if kind == "cached":
        batch = _with_features(model, batch)
    step, seed = training_step(model, heads, batch), tf.constant([0, 0])
    if kind == "bare":
        call = _bare_call(model, heads, step, batch)
    else:

        def call():
            return step.run((batch,), tf.constant(RATE), seed)["loss"].numpy()

    return Part(call, lambda: _count(model, heads, step, batch), images)


def _bare_call(model: FasterRcnn, heads: tuple[str, ...], step: TrainingStep, batch: Batch) -> Call:
    """The arithmetic of a step and its update."""
    arithmetic = _arithmetic(model, heads, step, cached=False)
    shape = _pooled_shape(model, heads)
    pooled = tf.constant(np.random.default_rng(0).random(shape, np.float32))

    @tf.function
    def bare(pixels, pooled):
        gradients, *kept = arithmetic(pixels, pooled)
        step.optimizer.apply(gradients, tf.constant(RATE))
        return [tf.reshape(value, (-1,))[0] for value in tf.nest.flatten(kept)]

    return lambda: bare(batch["image"], pooled)[-1].numpy()


def _count(model: FasterRcnn, heads: tuple[str, ...], step: TrainingStep, batch: Batch) -> int:
    """Operations of a step, its RoIs as many as it samples at most."""
    cached = "features" in batch
    return count_operations(
        tf.function(_arithmetic(model, heads, step, cached=cached)),
        batch["features" if cached else "image"],
        tf.TensorSpec(_pooled_shape(model, heads)),
    )


def _arithmetic(
    model: FasterRcnn, heads: tuple[str, ...], step: TrainingStep, *, cached: bool
) -> Callable:
    """``(images or features, pooled) -> gradients, [gradient toward pooled], outputs``.

    The detector's head works on what was pooled. The gradient toward that is computed where a step
    goes on to the base with it, but nothing of RoI pooling.
    """
    variables = step.optimizer.variables_trained

    def run(inputs, pooled):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([*variables, pooled])
            features = inputs if cached else model.base(inputs, training=False)
            outputs = [features]
            if "rpn" in heads:
                outputs += model.rpn_head(features)
            if "head" in heads:
                hidden = model.backbone.head(pooled)
                outputs += [layer(hidden) for layer in (model.cls_score, model.bbox_pred)]
        gradients = tape.gradient(outputs, [*variables, pooled])
        toward_pooled = [] if cached or "head" not in heads else gradients[-1:]
        return gradients[:-1], toward_pooled, outputs

    return run


def _pooled_shape(model: FasterRcnn, heads: tuple[str, ...]) -> tuple[int, ...]:
    """Of what is pooled in a step: (RoIs, p, p, F)."""
    recipe, backbone = model.recipe, model.backbone
    rois = {
        RPN: 0,
        DETECTOR: recipe.detector.rois_per_step,
        JOINT: recipe.joint_rois_per_image,
    }[heads]
    return rois, backbone.roi_size, backbone.roi_size, backbone.channels


def _with_features(model: FasterRcnn, batch: Batch) -> Batch:
    """The batch with the base's features, in half precision, in place of the images."""
    features = model.base(batch["image"], training=False)
    half = tf.bfloat16 if model.precision == "bfloat16" else tf.float16
    rest = {name: value for name, value in batch.items() if name != "image"}
    return {**rest, "features": tf.cast(features, half)}
