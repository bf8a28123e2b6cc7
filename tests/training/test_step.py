"""The training step: one trace, mean gradients, loss scale, and which gradient comes last.

Shapes and names
----------------
N  images of a batch.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from keras_frcnn.network.faster_rcnn import FasterRcnn
from keras_frcnn.network.normalisation import Normalisation
from keras_frcnn.network.weights import trained_variables
from keras_frcnn.recipes import PY_FASTER_RCNN, OptimizerConfig
from keras_frcnn.training.objectives import (
    objective_of,
)
from keras_frcnn.training.optimizer import LossScale, MomentumOptimizer
from keras_frcnn.training.step import TrainingStep, variable_taken_last
from tests.training.batches import make_batch

SEED = tf.constant([3, 4])
PLAIN_SGD = OptimizerConfig(momentum=0.0, weight_decay=0.0)


@pytest.fixture(scope="module")
def model(tiny_recipe):
    return FasterRcnn("tiny", ("a", "b"), tiny_recipe, seed=2)


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


def test_joint_training_of_two_images(model):
    recipe = dataclasses.replace(
        PY_FASTER_RCNN, image=model.recipe.image, anchors=model.recipe.anchors
    )
    own = FasterRcnn("tiny", ("a", "b"), recipe, seed=2)
    batch = make_batch(counts=(2, 1))
    objective = objective_of(own, ("base", "rpn", "head"), Normalisation.identity(3, 4))
    variables = [weight.value for layer in own.layers() for weight in layer.weights]
    names = [f"{layer.name}/{index}" for layer in own.layers() for index in range(2)]
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
    trained = {id(layer) for layer in (own.base.get_layer("conv4"), *own.layers("rpn"))}
    variables = [
        weight.value for layer in own.layers() if id(layer) in trained for weight in layer.weights
    ]
    before = {layer.name: layer.get_weights() for layer in own.layers()}
    step = TrainingStep(
        objective_of(own, ("rpn",), Normalisation.identity(4)),
        MomentumOptimizer(variables, own.recipe.optimizer),
        signature_of(),
        batches_per_step=1,
        loss_scale=LossScale(dynamic=False),
    )
    for size in ((96, 128), (128, 96), (97, 111)):
        step.run((make_batch(size=size),), 0.01, SEED)
    assert step.traces == 1
    for layer in own.layers():
        changed = [
            np.any(new != old)
            for new, old in zip(layer.get_weights(), before[layer.name], strict=True)
        ]
        assert changed == [id(layer) in trained] * 2, layer.name


def detector_step(recipe, *, batches_per_step, late):
    """(network, step of stage 2), fc6's gradient taken last or with the others."""
    own = FasterRcnn("tiny", ("a", "b"), recipe, seed=2)
    layers = own.layers("base", "head", trained=True)
    step = TrainingStep(
        objective_of(own, ("head",), Normalisation.identity(3, 4)),
        MomentumOptimizer(trained_variables(layers), recipe.optimizer),
        signature_of(),
        batches_per_step=batches_per_step,
        loss_scale=LossScale(dynamic=False),
        taken_last=variable_taken_last(own, layers) if late else None,
    )
    return own, step


@pytest.mark.parametrize("batches_per_step", [1, 2])
def test_a_gradient_taken_last_is_the_same(tiny_recipe, batches_per_step):
    batches = tuple(make_batch(seed=seed) for seed in range(batches_per_step))
    changes = []
    for late in (False, True):
        own, step = detector_step(tiny_recipe, batches_per_step=batches_per_step, late=late)
        before = [value for layer in own.layers() for value in layer.get_weights()]
        step.run(batches, 0.01, SEED)
        after = [value for layer in own.layers() for value in layer.get_weights()]
        changes.append([new - old for new, old in zip(after, before, strict=True)])
    for at_once, last in zip(*changes, strict=True):
        assert np.linalg.norm(last - at_once) <= 1e-5 * np.linalg.norm(at_once)


@pytest.mark.parametrize("late", [False, True])
def test_a_gradient_taken_last_waits_for_all_others(tiny_recipe, late):
    own, step = detector_step(tiny_recipe, batches_per_step=1, late=late)
    graph = step.run.get_concrete_function().graph
    updates = [op for op in graph.get_operations() if op.type == "ResourceApplyKerasMomentum"]
    # Inputs: variable, velocity, rate, gradient, momentum.
    gradients = {update.inputs[0].name: update.inputs[3].op for update in updates}
    kernel = own.layers("head")[0].kernel.value
    handles = {id(outer): inner.name for outer, inner in graph.captures}
    fc6 = gradients.pop(handles[id(kernel.handle)])
    assert len(gradients) == len(step.optimizer.variables_trained) - 1
    awaited = operations_before(fc6)
    assert all(other.name in awaited for other in gradients.values()) == late


def operations_before(operation):
    """Names of all operations that run before this one."""
    found, left = set(), [operation]
    while left:
        current = left.pop()
        before = [*current.control_inputs, *(tensor.op for tensor in current.inputs)]
        left.extend(op for op in before if op.name not in found)
        found.update(op.name for op in before)
    return found


def test_fc6_is_taken_last_only_above_a_trained_base(model):
    base, rpn, head = model.layers("base", trained=True), model.layers("rpn"), model.layers("head")
    fc6 = model.layers("head")[0].kernel.value
    for layers in ([*base, *head], [*base, *rpn, *head]):  # stage 2, joint training
        assert variable_taken_last(model, layers) is fc6
    for layers in ([*base, *rpn], rpn, head):  # stages 1, 3 and 4
        assert variable_taken_last(model, layers) is None


def test_nothing_is_taken_last_where_the_base_has_more_weights(tiny_recipe):
    """ResNet-50: the widest layer of its head has 2.4 million weights, its base 8.3 million."""
    own = FasterRcnn("resnet50", ("a",), tiny_recipe, seed=None)
    assert variable_taken_last(own, own.layers("base", "head", trained=True)) is None
