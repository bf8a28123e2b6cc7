"""Testing at several scales: the choice of the scale, the pooling, the recipe's own scale alone.

Shapes and names
----------------
rois  (R, 4) half-open (y1, x1, y2, x2) in pixels of the recipe's own input.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pytest
import tensorflow as tf

from keras_frcnn.detection.network_detector import NetworkDetector, classify_in_chunks
from keras_frcnn.network.faster_rcnn import FasterRcnn
from keras_frcnn.network.multi_scale import Level, detect_at_nearest, nearest_levels, pyramid
from keras_frcnn.network.network_input import Frames, prepare_image
from keras_frcnn.recipes import DetectionFilter
from tests.random_networks import find, random_image, random_network

CLASSES = ("disc", "square", "star")
EVERYTHING = DetectionFilter(score_threshold=0.0)
SIDES = (64, 96, 160, 400)


@pytest.fixture(scope="module")
def model(tiny_recipe):
    return random_network(tiny_recipe, CLASSES, seed=1)


def plain_level(roi, own_scale, scales) -> int:
    """Fast R-CNN's _project_im_rois for one RoI: its area in the image, then at every scale."""
    height = (roi[2] - roi[0]) / own_scale[0]
    width = (roi[3] - roi[1]) / own_scale[1]
    differences = [abs(height * sy * width * sx - 224 * 224) for sy, sx in scales]
    return differences.index(min(differences))


def test_the_nearest_scale_is_that_of_a_plain_loop():
    generator = np.random.default_rng(0)
    corners = np.sort(generator.uniform(0, 600, (400, 2, 2)), axis=1)
    rois = corners.reshape(-1, 4).astype(np.float32)
    own = np.array((1.2, 1.21), np.float32)
    scales = np.outer((0.96, 1.152, 1.376, 1.728, 2.4), (1.0, 1.003)).astype(np.float32)
    expected = [plain_level(roi, own, scales) for roi in rois.astype(np.float64)]
    found = nearest_levels(tf.constant(rois), tf.constant(own), tf.constant(scales))
    np.testing.assert_array_equal(found, expected)
    assert set(expected) == {0, 1, 2, 3, 4}


def test_the_nearest_scale_by_hand():
    # At scale 1 a RoI of 112 x 112 has a quarter of 224^2, at 2 all of it; one of 224 the reverse.
    # 158.4^2 is halfway: |25090 - 50176| at 1, |100362 - 50176| at 2.
    rois = tf.constant([[0, 0, 112, 112], [5, 5, 229, 229], [0, 0, 158.4, 158.4], [0, 0, 0, 0.0]])
    scales = tf.constant([[1.0, 1.0], [2.0, 2.0]])
    assert nearest_levels(rois, tf.constant([1.0, 1.0]), scales).numpy().tolist() == [1, 0, 0, 0]
    # In pixels of an input of twice the size the RoIs are half as large.
    found = nearest_levels(rois, tf.constant([2.0, 2.0]), scales)
    assert found.numpy().tolist() == [1, 1, 1, 0]


@pytest.mark.parametrize(("size", "chunk"), [((231, 90), 64), ((96, 400), None)])
def test_the_recipes_own_scale_alone_changes_nothing(model, size, chunk):
    # 96 x 400 is limited by the recipe's long side of 160, which goes with its short side.
    pixels = random_image(*size)
    expected = find(NetworkDetector(model, EVERYTHING, head_chunk=chunk), pixels)
    own = NetworkDetector(model, EVERYTHING, head_chunk=chunk, short_sides=(96,))
    found = find(own, pixels)
    np.testing.assert_array_equal(found.boxes_image, expected.boxes_image)
    np.testing.assert_array_equal(found.scores, expected.scores)
    np.testing.assert_array_equal(found.classes, expected.classes)
    assert len(found) > 20


def test_levels_are_the_images_at_their_short_sides(model):
    pixels = tf.constant(random_image(100, 2000)[None])
    own = Level(tf.zeros((1, 1, 1, 1)), tf.ones(2))
    config = model.recipe.image
    levels = pyramid(pixels, model.base, config, (50, 96, 200, 3000), own)
    assert levels[1] is own
    # 50 by 1000; 200 by 4000 is limited to 2000, as the published setting is.
    for level, size in (
        (levels[0], (50, 1000)),
        (levels[2], (100, 2000)),
        (levels[3], (150, 3000)),
    ):
        np.testing.assert_allclose(level.scale, np.array(size) / (100, 2000), rtol=1e-6)
        assert level.features.shape[1:3] == tuple(-(-side // 16) for side in size)


def plain_outputs(model, pixels, short_sides):
    """Head outputs of each proposal by itself, at the scale of the plain loop."""
    config = model.recipe.image

    def prepared(short_side, long_side):
        at_scale = dataclasses.replace(config, short_side=short_side, long_side=long_side)
        return prepare_image(tf.constant(pixels[None]), at_scale)

    inputs, own_scale = prepared(config.short_side, config.long_side)
    frames = Frames(np.array(inputs.shape[1:3])[None], own_scale[None])
    outputs = model.rpn(model.features(inputs))
    proposals = model.proposals(outputs, frames, model.recipe.test_proposals)
    rois = proposals.boxes_input[0, : int(proposals.count[0])].numpy()
    own_scale = own_scale.numpy()
    at_scales = [
        prepared(side, config.long_side if side == config.short_side else 2000)
        for side in short_sides
    ]
    scales = [scale.numpy() for _, scale in at_scales]
    levels = [plain_level(roi, own_scale, scales) for roi in rois]
    rows = []
    for roi, level in zip(rois, levels, strict=True):
        there = roi / np.tile(own_scale, 2) * np.tile(scales[level], 2)
        features = model.base(at_scales[level][0])
        found = model.detector([features, tf.constant(there[None]), tf.zeros(1, tf.int32)])
        rows.append(tf.nn.softmax(found[0])[0, 1:])
    return np.array(rows), levels


def test_scores_are_those_of_each_roi_pooled_at_its_scale(tiny_recipe):
    proposals = dataclasses.replace(tiny_recipe.test_proposals, after_nms=40)
    model = random_network(
        dataclasses.replace(tiny_recipe, test_proposals=proposals), CLASSES, seed=2
    )
    pixels = random_image(100, 140)
    sides = (96, 300, 420, 600)
    expected, levels = plain_outputs(model, pixels, sides)
    assert len(set(levels)) >= 2, "one scale for all proves little"
    everything = DetectionFilter(score_threshold=0.0, nms_iou=1.0, per_image=None)
    found = find(NetworkDetector(model, everything, short_sides=sides), pixels)
    assert len(found) == expected.size
    np.testing.assert_allclose(np.sort(found.scores), np.sort(expected, axis=None), atol=2e-5)
    # One scale that is not the recipe's is another network input.
    other = find(NetworkDetector(model, everything, short_sides=(200,)), pixels)
    assert np.abs(np.sort(other.scores) - np.sort(found.scores)).max() > 1e-3


@pytest.mark.parametrize("pooling", ["crop", "max", "align"])
@pytest.mark.parametrize("chunk", [None, 7])
def test_a_scale_without_a_roi_is_no_trouble(tiny_recipe, pooling, chunk):
    detector = dataclasses.replace(tiny_recipe.detector, roi_pooling=pooling)
    model = random_network(dataclasses.replace(tiny_recipe, detector=detector), CLASSES, seed=1)
    head = functools.partial(classify_in_chunks, model, chunk)
    generator = np.random.default_rng(0)
    levels = [
        Level(tf.constant(generator.random((2, 6, 9, 128), np.float32)), tf.ones(2) * scale)
        for scale in (1.0, 1.5, 100.0)
    ]
    rois = tf.constant([[0, 0, 90, 120], [10, 20, 60, 80], [5, 5, 40, 100]], tf.float32)
    roi_image = tf.constant([0, 1, 0])
    assert set(nearest_levels(rois, tf.ones(2), tf.stack([x.scale for x in levels])).numpy()) == {1}
    logits, deltas = detect_at_nearest(levels, tf.ones(2), rois, roi_image, head)
    expected = model.detector([levels[1].features, rois * 1.5, roi_image])
    np.testing.assert_allclose(logits, expected[0], atol=1e-5)
    np.testing.assert_allclose(deltas, expected[1], atol=1e-5)
    nothing = detect_at_nearest(levels, tf.ones(2), rois[:0], roi_image[:0], head)
    assert [tuple(output.shape) for output in nothing] == [(0, 4), (0, 16)]


@pytest.mark.parametrize("chunk", [None, 2])
def test_a_scale_without_a_roi_under_a_head_of_convolutions(tiny_recipe, chunk):
    model = FasterRcnn("resnet50", CLASSES, tiny_recipe, seed=0)
    features = tf.constant(np.random.default_rng(0).random((1, 6, 9, 1024), np.float32))
    levels = [Level(features, tf.ones(2) * scale) for scale in (1.0, 1.5, 100.0)]
    rois = tf.constant([[0, 0, 90, 120], [10, 20, 60, 80], [5, 5, 40, 100]], tf.float32)
    roi_image = tf.zeros(3, tf.int32)
    head = functools.partial(classify_in_chunks, model, chunk)
    found = detect_at_nearest(levels, tf.ones(2), rois, roi_image, head)
    expected = model.detector([features, rois * 1.5, roi_image])
    for outputs, of_all in zip(found, expected, strict=True):
        np.testing.assert_allclose(outputs, of_all, atol=1e-4)


def test_batches_and_sizes_go_through_one_trace(model):
    predictor = NetworkDetector(model, EVERYTHING, short_sides=SIDES)
    images = np.stack([random_image(90, 130, seed) for seed in range(2)])
    together = predictor.predict(images)
    for index in range(2):
        alone = predictor.predict(images[index : index + 1])
        for name, values in alone._asdict().items():
            ours = getattr(together, name)[index].numpy()
            np.testing.assert_allclose(ours, values[0], rtol=1e-4, atol=0.01, err_msg=name)
    for size in ((1, 1), (33, 200)):
        found = find(predictor, random_image(*size))
        assert (found.boxes_image[:, 2:] <= size).all()
    assert predictor.predict.experimental_get_tracing_count() == 1


def test_the_unshared_variant_pools_from_its_own_base(model, tiny_recipe):
    other = random_network(tiny_recipe, CLASSES, seed=7)
    mixed = NetworkDetector(model, EVERYTHING, detector_model=other, short_sides=SIDES)
    plain = find(NetworkDetector(model, EVERYTHING, short_sides=SIDES), random_image(100, 140))
    found = find(mixed, random_image(100, 140))
    assert len(found) != len(plain) or not np.allclose(found.scores, plain.scores)
    own = NetworkDetector(model, EVERYTHING, detector_model=other, short_sides=(96,))
    expected = find(
        NetworkDetector(model, EVERYTHING, detector_model=other), random_image(100, 140)
    )
    np.testing.assert_array_equal(find(own, random_image(100, 140)).scores, expected.scores)
