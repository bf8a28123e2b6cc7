"""What each objective sees of a batch, and its losses against NumPy.

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
from keras_frcnn.network.normalisation import Normalisation
from keras_frcnn.network.rpn import rpn_targets
from keras_frcnn.network.targets import derived_seed
from keras_frcnn.recipes import PY_FASTER_RCNN
from keras_frcnn.training.objectives import (
    features_of,
    objective_of,
)
from tests.training.batches import make_batch

SEED = tf.constant([3, 4])


@pytest.fixture(scope="module")
def model(tiny_recipe):
    return FasterRcnn("tiny", ("a", "b"), tiny_recipe, seed=2)


def numpy_smooth_l1(difference, sigma):
    size = np.abs(difference)
    return np.where(size < 1 / sigma**2, 0.5 * (sigma * size) ** 2, size - 0.5 / sigma**2).sum()


@pytest.mark.parametrize("recipe_name", ["paper", "py-faster-rcnn"])
def test_rpn_losses_against_numpy(model, recipe_name):
    recipe = model.recipe
    if recipe_name != "paper":
        recipe = dataclasses.replace(recipe, rpn=PY_FASTER_RCNN.rpn)
    own = FasterRcnn("tiny", ("a", "b"), recipe, seed=2)
    normalisation = Normalisation([0.1, -0.1, 0.2, 0.0], [0.2, 0.3, 0.4, 0.5])
    # The batch is padded: anchors beyond the image's true size must not be drawn.
    batch = make_batch(padded=(112, 160))
    metrics = objective_of(own, ("rpn",), normalisation)(batch, SEED)
    logits, deltas = (output.numpy()[0] for output in own.rpn_head(own.base(batch["image"])))
    targets = rpn_targets(
        own.anchors(7, 10),
        (96, 128),
        batch["gt_boxes"][0],
        derived_seed(SEED, 0, 0),
        own.recipe.rpn,
        normalisation,
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
    metrics = objective_of(own, ("head",), Normalisation.identity(3, 4))(batch, SEED)
    # Eight an image, a quarter of them foreground: plenty of both are there.
    assert float(metrics["foreground_rois"]) == 4
    assert float(metrics["background_rois"]) == 12
    assert 0.1 < float(metrics["detector_class_loss"]) < 10


def test_images_without_objects_are_all_background(model):
    """RPN: a minibatch of negatives. Detector of py-faster-rcnn: background RoIs only."""
    empty = make_batch(counts=(2,))
    empty["gt_count"] = tf.constant([0])
    metrics = objective_of(model, ("rpn",), Normalisation.identity(4))(empty, SEED)
    assert float(metrics["positive_anchors"]) == 0
    assert float(metrics["rpn_box_loss"]) == 0
    assert 0 < float(metrics["rpn_class_loss"]) < 5
    recipe = dataclasses.replace(model.recipe, detector=PY_FASTER_RCNN.detector)
    own = FasterRcnn("tiny", ("a", "b"), recipe, seed=2)
    metrics = objective_of(own, ("head",), Normalisation.identity(3, 4))(empty, SEED)
    assert float(metrics["foreground_rois"]) == 0
    assert float(metrics["background_rois"]) == int(empty["proposal_count"][0])
    assert float(metrics["detector_box_loss"]) == 0


def test_no_roi_at_all_gives_losses_and_gradients_of_zero(model):
    batch = make_batch()
    batch["gt_count"] = batch["proposal_count"] = tf.constant([0])
    variables = [weight.value for weight in model.layers("head")[-2].weights]
    with tf.GradientTape() as tape:
        tape.watch(variables)
        metrics = objective_of(model, ("head",), Normalisation.identity(3, 4))(batch, SEED)
        loss = metrics["detector_class_loss"] + metrics["detector_box_loss"]
    assert float(loss) == 0
    for gradient in tape.gradient(loss, variables):
        np.testing.assert_array_equal(gradient, np.zeros(gradient.shape))


def test_features_of_a_batch_are_used_as_they_are(model):
    features = tf.ones((1, 2, 3, 128))
    assert features_of(model, {"features": features}) is features


def test_seeds_of_other_paths_differ():
    paths = [(), (0,), (1,), (0, 0), (0, 1), (1, 0), (2,)]
    seeds = {tuple(derived_seed(SEED, *path).numpy().tolist()) for path in paths}
    assert len(seeds) == len(paths)
