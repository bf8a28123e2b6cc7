"""One step of every stage, and the bare arithmetic of stages 1 and 2, each a call to time.

Shapes and names
----------------
stage1, stage3  RPN, one image.
stage2, stage4  Fast R-CNN, two images with 64 RoIs each.
joint           both on one image; a solver iteration takes two of them.
bare1, bare2    forward, backward and update of the layers of stages 1 and 2, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from keras_frcnn.benchmark.operations import count_operations
from keras_frcnn.benchmark.setting import random_batch
from keras_frcnn.benchmark.testing import Part
from keras_frcnn.data.pipeline import batch_signature
from keras_frcnn.network.faster_rcnn import FasterRcnn
from keras_frcnn.network.variables import tensorflow_variable
from keras_frcnn.training.optimizer import LossScale, MomentumOptimizer
from keras_frcnn.training.step import (
    DeltaNormalisation,
    TrainingStep,
    detector_objective,
    joint_objective,
    rpn_objective,
)

Batch = dict[str, tf.Tensor]

RATE = 1e-6
STAGES = ("stage1", "bare1", "stage2", "bare2", "stage3", "stage4", "joint")


def parts_of_training(model: FasterRcnn, names: Sequence[str] = STAGES) -> dict[str, Part]:
    """Some parts of :data:`STAGES` on random images, all on one network."""
    return {name: _BUILDERS[name](model) for name in names}


def rpn_step(model: FasterRcnn, batch: Batch) -> TrainingStep:
    """The step of stage 1; of stage 3 where the batch has features."""
    layers = model.rpn_layers if "features" in batch else _rpn_layers(model)
    return _step(model, rpn_objective(model, _no_normalisation(model)), layers, batch)


def detector_step(model: FasterRcnn, batch: Batch) -> TrainingStep:
    """The step of stage 2; of stage 4 where the batch has features."""
    layers = model.head_layers if "features" in batch else _fast_rcnn_layers(model)
    images = model.recipe.detector.images_per_step
    objective = detector_objective(model, _no_normalisation(model), images)
    return _step(model, objective, layers, batch)


def joint_step(model: FasterRcnn, batch: Batch) -> TrainingStep:
    """A step of joint training on one image."""
    layers = [*model.trained_base_layers(), *model.rpn_layers, *model.head_layers]
    return _step(model, joint_objective(model, _no_normalisation(model)), layers, batch)


def _part(step_of: Callable[[FasterRcnn, Batch], TrainingStep], *, cached: bool = False):
    """A builder of :data:`_BUILDERS`: the step on a random batch, or on its features."""

    def build(model: FasterRcnn) -> Part:
        images = model.recipe.detector.images_per_step if step_of is detector_step else 1
        batch = random_batch(model.recipe.image, images)
        batch = _with_features(model, batch) if cached else batch
        step, seed = step_of(model, batch), tf.constant([0, 0])
        return Part(lambda: step.run((batch,), tf.constant(RATE), seed)["loss"].numpy(), 0)

    return build


def _bare1(model: FasterRcnn) -> Part:
    optimizer = optimizer_of(model, _rpn_layers(model))

    @tf.function
    def bare(images):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(optimizer.variables_trained)
            outputs = model.rpn_head(model.base(images, training=False))
        optimizer.apply(tape.gradient(outputs, optimizer.variables_trained), tf.constant(RATE))
        return outputs[0][0, 0, 0]

    images = random_batch(model.recipe.image, 1)["image"]
    return Part(lambda: bare(images).numpy(), count_operations(bare, images))


def _bare2(model: FasterRcnn) -> Part:
    """The head on what was pooled; its gradient toward that is computed, too."""
    optimizer = optimizer_of(model, _fast_rcnn_layers(model))
    backbone, detector = model.backbone, model.recipe.detector
    side = backbone.roi_size
    shape = (detector.rois_per_step, side, side, backbone.channels)
    pooled = tf.constant(np.random.default_rng(0).random(shape, np.float32))
    output_layers = model.head_layers[-2:]

    @tf.function
    def bare(images, pooled):
        variables = optimizer.variables_trained
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([*variables, pooled])
            features = model.base(images, training=False)
            hidden = backbone.head(pooled)
            outputs = [features, *(layer(hidden) for layer in output_layers)]
        gradients = tape.gradient(outputs, [*variables, pooled])
        optimizer.apply(gradients[:-1], tf.constant(RATE))
        return gradients[-1][0, 0, 0, 0]

    images = random_batch(model.recipe.image, detector.images_per_step)["image"]
    return Part(lambda: bare(images, pooled).numpy(), count_operations(bare, images, pooled))


_BUILDERS: dict[str, Callable[[FasterRcnn], Part]] = {
    "stage1": _part(rpn_step),
    "bare1": _bare1,
    "stage2": _part(detector_step),
    "bare2": _bare2,
    "stage3": _part(rpn_step, cached=True),
    "stage4": _part(detector_step, cached=True),
    "joint": _part(joint_step),
}


def optimizer_of(model: FasterRcnn, layers: Sequence) -> MomentumOptimizer:
    """Momentum for the weights of some layers."""
    weights = [tensorflow_variable(w) for layer in layers for w in layer.trainable_weights]
    return MomentumOptimizer(weights, model.recipe.optimizer)


def _rpn_layers(model: FasterRcnn) -> list:
    return [*model.trained_base_layers(), *model.rpn_layers]


def _fast_rcnn_layers(model: FasterRcnn) -> list:
    return [*model.trained_base_layers(), *model.head_layers]


def _no_normalisation(model: FasterRcnn) -> DeltaNormalisation:
    return DeltaNormalisation.identity(model.number_of_classes)


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
        optimizer_of(model, layers),
        batch_signature(
            batch["size"].shape[0],
            None if features is None else features.shape[-1],
            None if features is None else features.dtype,
        ),
        batches_per_step=1,
        loss_scale=LossScale(dynamic=model.precision == "float16"),
    )
