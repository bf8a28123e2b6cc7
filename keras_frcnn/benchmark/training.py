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
STAGES = ("stage1", "bare1", "stage2", "bare2", "stage3", "stage4", "joint")


def parts_of_training(model: FasterRcnn, names: Sequence[str] = STAGES) -> dict[str, Part]:
    """Some parts of :data:`STAGES` on random images, all on one network."""
    return {name: _part(model, *_PARTS[name]) for name in names}


def rpn_step(model: FasterRcnn, batch: Batch) -> TrainingStep:
    """The step of stage 1; of stage 3 where the batch has features."""
    layers = model.layers(*(() if "features" in batch else ("base",)), "rpn", trained=True)
    return _step(model, rpn_objective(model, Normalisation.identity(4)), layers, batch)


def detector_step(model: FasterRcnn, batch: Batch) -> TrainingStep:
    """The step of stage 2; of stage 4 where the batch has features."""
    layers = model.layers(*(() if "features" in batch else ("base",)), "head", trained=True)
    images = model.recipe.detector.images_per_step
    objective = detector_objective(model, _no_normalisation(model), images)
    return _step(model, objective, layers, batch)


def joint_step(model: FasterRcnn, batch: Batch) -> TrainingStep:
    """A step of joint training on one image."""
    layers = model.layers(trained=True)
    return _step(model, joint_objective(model, _no_normalisation(model)), layers, batch)


StepOf = Callable[[FasterRcnn, Batch], TrainingStep]

# Which heads each of them trains.
HEADS: dict[StepOf, tuple[str, ...]] = {
    rpn_step: ("rpn",),
    detector_step: ("detector",),
    joint_step: ("rpn", "detector"),
}


def _part(model: FasterRcnn, step_of: StepOf, kind: str) -> Part:
    """A step on a random batch: ``whole``, on its features (``cached``), or ``bare`` arithmetic."""
    images = model.recipe.detector.images_per_step if step_of is detector_step else 1
    batch = random_batch(model.recipe.image, images)
    if kind == "cached":
        batch = _with_features(model, batch)
    step, seed = step_of(model, batch), tf.constant([0, 0])
    if kind == "bare":
        call = _bare_call(model, step_of, step, batch)
    else:

        def call():
            return step.run((batch,), tf.constant(RATE), seed)["loss"].numpy()

    return Part(call, lambda: _count(model, step_of, step, batch), images)


def _bare_call(model: FasterRcnn, step_of: StepOf, step: TrainingStep, batch: Batch) -> Call:
    """The arithmetic of a step and its update."""
    arithmetic = _arithmetic(model, step_of, step, cached=False)
    shape = _pooled_shape(model, step_of)
    pooled = tf.constant(np.random.default_rng(0).random(shape, np.float32))

    @tf.function
    def bare(pixels, pooled):
        gradients, *kept = arithmetic(pixels, pooled)
        step.optimizer.apply(gradients, tf.constant(RATE))
        return [tf.reshape(value, (-1,))[0] for value in tf.nest.flatten(kept)]

    return lambda: bare(batch["image"], pooled)[-1].numpy()


def _count(model: FasterRcnn, step_of: StepOf, step: TrainingStep, batch: Batch) -> int:
    """Operations of a step, its RoIs as many as it samples at most."""
    cached = "features" in batch
    return count_operations(
        tf.function(_arithmetic(model, step_of, step, cached=cached)),
        batch["features" if cached else "image"],
        tf.TensorSpec(_pooled_shape(model, step_of)),
    )


def _arithmetic(
    model: FasterRcnn, step_of: StepOf, step: TrainingStep, *, cached: bool
) -> Callable:
    """``(images or features, pooled) -> gradients, [gradient toward pooled], outputs``.

    The detector's head works on what was pooled. The gradient toward that is computed where a step
    goes on to the base with it, but nothing of RoI pooling.
    """
    variables, heads = step.optimizer.variables_trained, HEADS[step_of]

    def run(inputs, pooled):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([*variables, pooled])
            features = inputs if cached else model.base(inputs, training=False)
            outputs = [features]
            if "rpn" in heads:
                outputs += model.rpn_head(features)
            if "detector" in heads:
                hidden = model.backbone.head(pooled)
                outputs += [layer(hidden) for layer in (model.cls_score, model.bbox_pred)]
        gradients = tape.gradient(outputs, [*variables, pooled])
        toward_pooled = [] if cached or "detector" not in heads else gradients[-1:]
        return gradients[:-1], toward_pooled, outputs

    return run


def _pooled_shape(model: FasterRcnn, step_of: StepOf) -> tuple[int, ...]:
    """Of what is pooled in a step: (RoIs, p, p, F)."""
    recipe, backbone = model.recipe, model.backbone
    rois = {
        rpn_step: 0,
        detector_step: recipe.detector.rois_per_step,
        joint_step: recipe.joint_rois_per_image,
    }[step_of]
    return rois, backbone.roi_size, backbone.roi_size, backbone.channels


_PARTS: dict[str, tuple[StepOf, str]] = {
    "stage1": (rpn_step, "whole"),
    "bare1": (rpn_step, "bare"),
    "stage2": (detector_step, "whole"),
    "bare2": (detector_step, "bare"),
    "stage3": (rpn_step, "cached"),
    "stage4": (detector_step, "cached"),
    "joint": (joint_step, "whole"),
}


def _no_normalisation(model: FasterRcnn) -> Normalisation:
    return Normalisation.identity(model.number_of_classes, 4)


def _with_features(model: FasterRcnn, batch: Batch) -> Batch:
    """The batch with the base's features, in half precision, in place of the images."""
    features = model.base(batch["image"], training=False)
    half = tf.bfloat16 if model.precision == "bfloat16" else tf.float16
    rest = {name: value for name, value in batch.items() if name != "image"}
    return {**rest, "features": tf.cast(features, half)}


def _step(model: FasterRcnn, objective: Callable, layers: Sequence, batch: Batch) -> TrainingStep:
    features = batch.get("features")
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
