"""The training step: one trace, mean gradients, loss scale, and what each objective sees.

Shapes and names
----------------
N  images of a batch, R  sampled RoIs of all of them.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from keras_frcnn.network.faster_rcnn import FasterRcnn
from keras_frcnn.network.variables import tensorflow_variable
from keras_frcnn.recipes import PY_FASTER_RCNN, OptimizerConfig
from keras_frcnn.targets.rpn import rpn_targets
from keras_frcnn.training.optimizer import LossScale, MomentumOptimizer
from keras_frcnn.training.step import (
    DeltaNormalisation,
    TrainingStep,
    detector_objective,
    features_of,
    fold,
    joint_objective,
    rpn_objective,
)

SEED = tf.constant([3, 4])
PLAIN_SGD = OptimizerConfig(momentum=0.0, weight_decay=0.0)


@pytest.fixture(scope="module")
def model(tiny_recipe):
    return FasterRcnn("tiny", ("a", "b"), tiny_recipe, seed=2)


def make_batch(counts=(2,), size=(96, 128), padded=None, seed=0):
    """A batch of noise with random objects, and for each object twelve proposals near it."""
    rng = np.random.default_rng(seed)
    height, width = padded or size
    images = len(counts)
    gt_boxes = np.zeros((images, max(counts), 4), np.float32)
    proposals = np.zeros((images, 12 * max(counts) + 4, 4), np.float32)
    proposal_counts = []
    for image, count in enumerate(counts):
        corner = rng.uniform(0, 50, (count, 2))
        gt_boxes[image, :count] = np.concatenate(
            (corner, corner + rng.uniform(25, 45, (count, 2))), 1
        )
        near = np.repeat(gt_boxes[image, :count], 12, axis=0)
        near = near + rng.uniform(-12, 12, near.shape)
        own = np.concatenate((near, [[0, 0, 30, 30], [60, 80, 96, 128], [5, 60, 40, 120]]))
        proposals[image, : len(own)] = own
        proposal_counts.append(len(own))
    pixels = np.zeros((images, height, width, 3), np.float32)
    pixels[:, : size[0], : size[1]] = rng.normal(0, 60, (images, *size, 3))
    return {
        "image": tf.constant(pixels),
        "size": tf.constant([size] * images),
        "scale": tf.ones((images, 2)) * 0.5,
        "gt_boxes": tf.constant(gt_boxes),
        "gt_classes": tf.ones((images, max(counts)), tf.int32),
        "gt_count": tf.constant(counts),
        "proposals": tf.constant(proposals),
        "proposal_count": tf.constant(proposal_counts),
        "unit": tf.range(images),
    }


def signature_of(images=1):
    from keras_frcnn.data.pipeline import batch_signature

    return batch_signature(images, None, None)


def toy(objective=None, *, batches_per_step=1, loss_scale=None, config=PLAIN_SGD):
    """A step over one variable w = (1, 2) whose loss is sum(w x)."""
    weight = tf.Variable([1.0, 2.0], name="kernel")

    def default(batch, seed):
        return {
            "toy_loss": tf.reduce_sum(weight * tf.reduce_mean(batch["x"], axis=0)),
            "other": 7.0,
        }

    step = TrainingStep(
        objective or default,
        MomentumOptimizer([weight], config),
        {"x": tf.TensorSpec((None, 2), tf.float32)},
        batches_per_step=batches_per_step,
        loss_scale=loss_scale or LossScale(dynamic=False),
    )
    return step, weight


def rows(*values):
    return {"x": tf.constant(values, tf.float32)}


def test_gradients_of_several_batches_are_averaged_and_applied_once():
    step, weight = toy(batches_per_step=2)
    metrics = step.run((rows([1, 10]), rows([3, 30], [3, 30])), 0.1, SEED)
    # Gradients (1, 10) and (3, 30): mean (2, 20).
    np.testing.assert_allclose(weight, [1 - 0.2, 2 - 2.0], rtol=1e-6)
    # Losses 1 * 1 + 2 * 10 = 21 and 63.
    assert float(metrics["toy_loss"]) == pytest.approx(42)
    assert float(metrics["loss"]) == pytest.approx(42)  # "other" is no loss
    assert float(metrics["other"]) == pytest.approx(7)


@pytest.mark.parametrize(("norm", "factor"), [(1.0, 0.2), (5.0, 1.0), (50.0, 1.0)])
def test_gradients_are_clipped_by_the_norm_of_all(norm, factor):
    config = OptimizerConfig(momentum=0.0, weight_decay=0.0, clip_norm=norm)
    step, weight = toy(config=config)
    step.run((rows([3, 4]),), 0.1, SEED)  # a norm of 5
    np.testing.assert_allclose(weight, [1 - 0.3 * factor, 2 - 0.4 * factor], rtol=1e-6)


def test_batches_of_one_step_draw_differently():
    def objective(batch, seed):
        return {"drawn": tf.random.stateless_uniform((), seed), "a_loss": tf.reduce_sum(batch["x"])}

    def drawn(batches, seed):
        step, _ = toy(objective, batches_per_step=batches)
        return float(step.run((rows([1, 1]),) * batches, 0.1, seed)["drawn"])

    assert drawn(2, SEED) == drawn(2, SEED)
    assert drawn(2, SEED) != drawn(1, SEED)
    assert drawn(1, SEED) != drawn(1, SEED + 1)


def test_seeds_of_other_paths_differ():
    paths = [(), (0,), (1,), (0, 0), (0, 1), (1, 0), (2,)]
    seeds = {tuple(fold(SEED, *path).numpy().tolist()) for path in paths}
    assert len(seeds) == len(paths)


def test_one_trace_for_all_sizes():
    step, _ = toy()
    for count in (1, 2, 5):
        step.run((rows(*[[1, 2]] * count),), 0.1, SEED)
    step.run((rows([1, 2]),), 0.7, SEED + 9)
    assert step.traces == 1


def test_a_loss_scale_changes_nothing_but_the_range():
    scaled, weight = toy(batches_per_step=2, loss_scale=LossScale(dynamic=True))
    plain, other = toy(batches_per_step=2)
    for step in (scaled, plain):
        metrics = step.run((rows([1, 10]), rows([3, 30])), 0.1, SEED)
        assert float(metrics["loss"]) == pytest.approx(42)
    np.testing.assert_allclose(weight, other, rtol=1e-6)


def test_overflowing_gradients_skip_the_update_and_halve_the_scale():
    scale = LossScale(dynamic=True)
    config = OptimizerConfig(momentum=0.9, weight_decay=0.1)
    step, weight = toy(loss_scale=scale, config=config)
    step.run((rows([1, 1]),), 0.1, SEED)
    kept, velocity = weight.numpy(), step.optimizer.velocities[0].numpy()
    before = float(scale.scale)
    step.run((rows([1e35, 1]),), 0.1, SEED)  # times the scale, beyond float32
    np.testing.assert_array_equal(weight, kept)
    np.testing.assert_array_equal(step.optimizer.velocities[0], velocity)
    assert float(scale.scale) == before / 2
    step.run((rows([1, 1]),), 0.1, SEED)
    assert np.all(weight.numpy() != kept)


def numpy_smooth_l1(difference, sigma):
    size = np.abs(difference)
    return np.where(size < 1 / sigma**2, 0.5 * (sigma * size) ** 2, size - 0.5 / sigma**2).sum()


@pytest.mark.parametrize("recipe_name", ["paper", "py-faster-rcnn"])
def test_rpn_losses_against_numpy(model, recipe_name):
    recipe = model.recipe
    if recipe_name != "paper":
        recipe = dataclasses.replace(recipe, rpn=PY_FASTER_RCNN.rpn)
    own = FasterRcnn("tiny", ("a", "b"), recipe, seed=2)
    normalisation = DeltaNormalisation.identity(3)
    normalisation.rpn_mean[:] = [0.1, -0.1, 0.2, 0.0]
    normalisation.rpn_std[:] = [0.2, 0.3, 0.4, 0.5]
    # The batch is padded: anchors beyond the image's true size must not be drawn.
    batch = make_batch(padded=(112, 160))
    metrics = rpn_objective(own, normalisation)(batch, SEED)
    logits, deltas = (output.numpy()[0] for output in own.region_proposal_network(batch["image"]))
    targets = rpn_targets(
        own.anchors(7, 10),
        96,
        128,
        batch["gt_boxes"][0],
        fold(SEED, 0, 0),
        positive_iou=0.7,
        negative_iou=0.3,
        minibatch_size=256,
        positive_fraction=0.5,
        delta_mean=normalisation.rpn_mean,
        delta_std=normalisation.rpn_std,
    )
    labels = targets.labels.numpy()
    sampled, positive = labels >= 0, labels == 1
    assert positive.sum() > 0
    exponents = np.exp(logits.astype(float))
    chosen = exponents[np.arange(len(labels)), np.maximum(labels, 0)] / exponents.sum(axis=1)
    assert float(metrics["rpn_class_loss"]) == pytest.approx(-np.log(chosen[sampled]).mean())
    sigma, factor = (1, 10 / (7 * 10)) if recipe_name == "paper" else (3, 1 / sampled.sum())
    difference = (deltas - targets.deltas.numpy())[positive].astype(float)
    expected = numpy_smooth_l1(difference, sigma) * factor
    assert float(metrics["rpn_box_loss"]) == pytest.approx(expected, rel=1e-4)
    assert float(metrics["positive_anchors"]) == positive.sum()


def test_detector_sees_its_share_of_rois_from_each_image(model):
    recipe = dataclasses.replace(
        model.recipe, detector=dataclasses.replace(model.recipe.detector, rois_per_step=16)
    )
    own = FasterRcnn("tiny", ("a", "b"), recipe, seed=2)
    batch = make_batch(counts=(2, 3))
    metrics = detector_objective(own, DeltaNormalisation.identity(3), 2)(batch, SEED)
    # Eight an image, a quarter of them foreground: plenty of both are there.
    assert float(metrics["foreground_rois"]) == 4
    assert float(metrics["background_rois"]) == 12
    assert 0.1 < float(metrics["detector_class_loss"]) < 10


def test_images_without_objects_are_all_background(model):
    """RPN: a minibatch of negatives. Detector of py-faster-rcnn: background RoIs only."""
    empty = make_batch(counts=(2,))
    empty["gt_count"] = tf.constant([0])
    metrics = rpn_objective(model, DeltaNormalisation.identity(3))(empty, SEED)
    assert float(metrics["positive_anchors"]) == 0
    assert float(metrics["rpn_box_loss"]) == 0
    assert 0 < float(metrics["rpn_class_loss"]) < 5
    recipe = dataclasses.replace(model.recipe, detector=PY_FASTER_RCNN.detector)
    own = FasterRcnn("tiny", ("a", "b"), recipe, seed=2)
    metrics = detector_objective(own, DeltaNormalisation.identity(3), 1)(empty, SEED)
    assert float(metrics["foreground_rois"]) == 0
    assert float(metrics["background_rois"]) == int(empty["proposal_count"][0])
    assert float(metrics["detector_box_loss"]) == 0


def test_no_roi_at_all_gives_losses_and_gradients_of_zero(model):
    batch = make_batch()
    batch["gt_count"] = batch["proposal_count"] = tf.constant([0])
    variables = [tensorflow_variable(weight) for weight in model.head_layers[-2].weights]
    with tf.GradientTape() as tape:
        tape.watch(variables)
        metrics = detector_objective(model, DeltaNormalisation.identity(3), 1)(batch, SEED)
        loss = metrics["detector_class_loss"] + metrics["detector_box_loss"]
    assert float(loss) == 0
    for gradient in tape.gradient(loss, variables):
        np.testing.assert_array_equal(gradient, np.zeros(gradient.shape))


def test_features_of_a_batch_are_used_as_they_are(model):
    features = tf.ones((1, 2, 3, 128))
    assert features_of(model, {"features": features}) is features


def test_joint_training_of_two_images(model):
    recipe = dataclasses.replace(
        PY_FASTER_RCNN, image=model.recipe.image, anchors=model.recipe.anchors
    )
    own = FasterRcnn("tiny", ("a", "b"), recipe, seed=2)
    batch = make_batch(counts=(2, 1))
    objective = joint_objective(own, DeltaNormalisation.identity(3))
    variables = [
        tensorflow_variable(weight) for layer in own.all_layers for weight in layer.weights
    ]
    names = [f"{layer.name}/{index}" for layer in own.all_layers for index in range(2)]
    before = [variable.numpy() for variable in variables]
    with tf.GradientTape() as tape:
        metrics = objective(batch, SEED)
        detector = metrics["detector_class_loss"] + metrics["detector_box_loss"]
    gradients = dict(zip(names, tape.gradient(detector, variables), strict=True))
    # Proposals are constants for the detector: nothing flows back into the RPN's own layers.
    assert all(gradients[f"{name}/0"] is None for name in ("rpn_conv", "rpn_bbox_pred"))
    assert float(tf.reduce_max(tf.abs(tf.convert_to_tensor(gradients["conv1/0"])))) > 0
    step = TrainingStep(
        objective,
        MomentumOptimizer(variables, recipe.optimizer),
        signature_of(2),
        batches_per_step=1,
        loss_scale=LossScale(dynamic=False),
    )
    for other in (batch, make_batch(counts=(1, 2), size=(64, 100))):
        metrics = step.run((other,), 0.01, SEED)
        values = {name: float(value) for name, value in metrics.items()}
        assert np.isfinite(list(values.values())).all()
        losses = [values[name] for name in values if name.endswith("_loss")]
        assert len(losses) == 4
        assert values["loss"] == pytest.approx(sum(losses), rel=1e-5)
        assert values["foreground_rois"] + values["background_rois"] <= 256
    assert step.traces == 1
    for name, old, variable in zip(names, before, variables, strict=True):
        assert np.any(variable.numpy() != old), name


def test_only_the_given_variables_change(model):
    own = FasterRcnn("tiny", ("a", "b"), model.recipe, seed=2)
    trained = {id(layer) for layer in (own.base.get_layer("conv4"), *own.rpn_layers)}
    variables = [
        tensorflow_variable(weight)
        for layer in own.all_layers
        if id(layer) in trained
        for weight in layer.weights
    ]
    before = {layer.name: layer.get_weights() for layer in own.all_layers}
    step = TrainingStep(
        rpn_objective(own, DeltaNormalisation.identity(3)),
        MomentumOptimizer(variables, own.recipe.optimizer),
        signature_of(),
        batches_per_step=1,
        loss_scale=LossScale(dynamic=False),
    )
    for size in ((96, 128), (128, 96), (97, 111)):
        step.run((make_batch(size=size),), 0.01, SEED)
    assert step.traces == 1
    for layer in own.all_layers:
        changed = [
            np.any(new != old)
            for new, old in zip(layer.get_weights(), before[layer.name], strict=True)
        ]
        assert changed == [id(layer) in trained] * 2, layer.name
