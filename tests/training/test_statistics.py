"""Statistics of the targets against plain loops; folding them into a layer and out again.

Shapes and names
----------------
C  classes incl. background, F  inputs of a layer.
"""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pytest

from keras_frcnn.network.faster_rcnn import FasterRcnn
from keras_frcnn.network.normalisation import Normalisation
from keras_frcnn.proposals.given import ranked
from keras_frcnn.training.proposal_store import ProposalStore
from keras_frcnn.training.statistics import (
    detector_statistics,
    rpn_statistics,
)
from keras_frcnn.training.units import training_units

MEANS = np.array([[0, 0, 0, 0], [0.1, -0.2, 0.3, 0.4], [1, 2, 3, 4]], np.float32)
STDS = np.array([[1, 1, 1, 1], [0.1, 0.2, 0.3, 0.4], [2, 3, 4, 5]], np.float32)


@pytest.fixture(scope="module")
def model(tiny_recipe, demo_dataset):
    return FasterRcnn("tiny", demo_dataset.class_names, tiny_recipe, seed=2)


@pytest.fixture(scope="module")
def units(demo_dataset):
    return training_units(demo_dataset.examples, flips=True)


def encode(reference, box):
    """Deltas of one box in float64."""
    height, width = reference[2] - reference[0], reference[3] - reference[1]
    own_height, own_width = box[2] - box[0], box[3] - box[1]
    return (
        ((box[0] + box[2]) - (reference[0] + reference[2])) / 2 / height,
        ((box[1] + box[3]) - (reference[1] + reference[3])) / 2 / width,
        np.log(own_height / height),
        np.log(own_width / width),
    )


def iou(a, b):
    height = max(min(a[2], b[2]) - max(a[0], b[0]), 0.0)
    width = max(min(a[3], b[3]) - max(a[1], b[1]), 0.0)
    areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return height * width / (areas - height * width)


def input_frame(unit, short=96, long=160):
    """Input size and boxes in input pixels: short side 96, rounded half up."""
    height, width = unit.example.height, unit.example.width
    factor = min(short / min(height, width), long / max(height, width))
    size = [int(np.floor(side * factor + 0.5)) for side in (height, width)]
    scale = np.array([size[0] / height, size[1] / width] * 2)
    return size, scale, unit.boxes_image * scale


def positive_deltas(anchors, size, gt_boxes):
    inside = [
        anchor
        for anchor in anchors
        if min(anchor[:2]) >= 0 and anchor[2] <= size[0] and anchor[3] <= size[1]
    ]
    # Rounded as float32, in which equal anchors tie.
    overlaps = np.array([[iou(anchor, box) for box in gt_boxes] for anchor in inside])
    overlaps = overlaps.round(6)
    best = overlaps.max(axis=0)
    return [
        encode(anchor, gt_boxes[np.argmax(row)])
        for anchor, row in zip(inside, overlaps, strict=True)
        if row.max() >= 0.7 or np.any((row == best) & (best > 0))
    ]


def test_rpn_statistics_against_a_loop(model, units):
    deltas = []
    for unit in units:
        size, _, gt_boxes = input_frame(unit)
        if len(gt_boxes):
            anchors = model.anchors(-(-size[0] // 16), -(-size[1] // 16)).numpy().astype(float)
            deltas += positive_deltas(anchors, size, gt_boxes)
    assert len(deltas) >= 20
    mean, std = rpn_statistics(model, units)
    np.testing.assert_allclose(mean, np.mean(deltas, axis=0), atol=1e-4)
    np.testing.assert_allclose(std, np.std(deltas, axis=0), rtol=1e-3)
    assert (mean.dtype, std.dtype, mean.shape) == (np.float32, np.float32, (4,))
    # Mirrored images balance the horizontal shifts.
    assert abs(mean[1]) < 0.3 * abs(np.abs(np.array(deltas)[:, 1]).mean())


def test_cross_boundary_anchors_count_where_they_are_kept(model, units):
    recipe = model.recipe
    kept = dataclasses.replace(recipe.rpn, keep_cross_boundary=True)
    other = FasterRcnn("tiny", model.class_names, dataclasses.replace(recipe, rpn=kept))
    assert not np.allclose(rpn_statistics(model, units), rpn_statistics(other, units))


def store_of(boxes):
    return ProposalStore({str(index): ranked(entry) for index, entry in enumerate(boxes)})


def test_detector_statistics_against_a_loop(model, units):
    rng = np.random.default_rng(4)
    proposals = []
    for unit in units:
        boxes = np.repeat(unit.boxes_image, 6, axis=0)
        sides = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
        near = boxes + rng.uniform(-0.15, 0.15, boxes.shape) * sides
        proposals.append(np.concatenate((near, [[0, 0, 30, 30]])).astype(np.float32))
    classes = model.number_of_classes
    deltas = [[] for _ in range(classes)]
    for unit, own in zip(units, proposals, strict=True):
        _, scale, gt_boxes = input_frame(unit)
        for roi in [*(own * scale), *gt_boxes]:
            overlaps = [iou(roi, box) for box in gt_boxes] or [0.0]
            best = int(np.argmax(overlaps))
            if overlaps[best] >= 0.5:
                deltas[unit.example.classes[best]].append(encode(roi, gt_boxes[best]))
    means, stds = detector_statistics(model, units, store_of(proposals))
    assert means.shape == stds.shape == (classes, 4)
    np.testing.assert_array_equal(means[0], 0)
    np.testing.assert_array_equal(stds[0], 1)
    assert sum(len(found) > 20 for found in deltas) >= 2
    for label in range(1, classes):
        if deltas[label]:
            np.testing.assert_allclose(means[label], np.mean(deltas[label], axis=0), atol=1e-4)
            np.testing.assert_allclose(stds[label], np.std(deltas[label], axis=0), rtol=1e-3)
        else:
            np.testing.assert_array_equal([means[label], stds[label]], [[0] * 4, [1] * 4])


def test_a_class_without_spread_is_left_as_it_is(model, units):
    """With no proposals every RoI is a gt box and every delta 0: there is nothing to divide by."""
    means, stds = detector_statistics(model, units, store_of([np.zeros((0, 4))] * len(units)))
    np.testing.assert_array_equal(means, np.zeros_like(means))
    np.testing.assert_array_equal(stds, np.ones_like(stds))


def test_rounding_is_not_taken_for_spread(model, demo_dataset):
    """One shift for all objects: what float32 sums leave of the variance must not be divided by."""
    units = training_units(demo_dataset.examples[:3], flips=False)
    squares = [np.array([[20, 20, 97, 97]], np.float32) + shift for shift in (0, 3, 7)]
    units = [
        dataclasses.replace(
            unit,
            example=dataclasses.replace(
                unit.example,
                boxes_image=square,
                classes=np.ones(1, np.int32),
                difficult=np.zeros(1, bool),
            ),
        )
        for unit, square in zip(units, squares, strict=True)
    ]
    # Each gt box itself joins the RoIs, so every proposal is made 40 times.
    shifted = [np.repeat(square + np.float32(7), 40, axis=0) for square in squares]
    _, stds = detector_statistics(model, units, store_of(shifted))
    spread = np.std([0.0] + [7 / 77] * 40)
    np.testing.assert_allclose(stds[1, :2], spread, rtol=2e-2)
    np.testing.assert_array_equal(stds[1, 2:], 1)


def dense(outputs):
    layer = keras.layers.Dense(
        outputs, kernel_initializer=keras.initializers.RandomNormal(seed=1), bias_initializer="ones"
    )
    layer.build((None, 5))
    return layer


def test_a_layer_made_plain_gives_plain_deltas():
    layer, x = dense(12), np.random.default_rng(0).normal(size=(6, 5)).astype("f")
    normalised = layer(x).numpy()
    Normalisation(MEANS, STDS).make_plain(layer)
    # Output 4 * class + coordinate belongs to row class of the statistics.
    expected = normalised.reshape(6, 3, 4) * STDS + MEANS
    np.testing.assert_allclose(layer(x).numpy().reshape(6, 3, 4), expected, rtol=1e-5, atol=1e-6)


def test_a_convolution_made_plain_gives_plain_deltas_for_every_anchor():
    layer = keras.layers.Conv2D(8, 1, kernel_initializer=keras.initializers.RandomNormal(seed=2))
    layer.build((None, None, None, 5))
    x = np.random.default_rng(0).normal(size=(1, 2, 3, 5)).astype("f")
    normalised = layer(x).numpy().reshape(-1, 4)
    Normalisation(MEANS[1], STDS[1]).make_plain(layer)
    expected = normalised * STDS[1] + MEANS[1]
    np.testing.assert_allclose(layer(x).numpy().reshape(-1, 4), expected, rtol=1e-5, atol=1e-6)


def test_making_normalised_is_the_inverse():
    layer = dense(12)
    before = layer.get_weights()
    Normalisation(MEANS, STDS).make_plain(layer)
    folded = layer.get_weights()
    assert not np.allclose(folded[0], before[0])
    Normalisation(MEANS, STDS).make_normalised(layer)
    for old, new in zip(before, layer.get_weights(), strict=True):
        np.testing.assert_allclose(new, old, rtol=1e-6, atol=1e-7)
    Normalisation(MEANS, STDS).make_plain(layer)
    for old, new in zip(folded, layer.get_weights(), strict=True):
        np.testing.assert_allclose(new, old, rtol=1e-6, atol=1e-7)
