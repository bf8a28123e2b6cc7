"""Batches: what goes together, and that nothing changes by it.

Shapes and names
----------------
alone  what is found in an image by itself.
"""

from __future__ import annotations

import numpy as np
import pytest

from keras_frcnn.batches import BatchPredictor
from keras_frcnn.inference import Predictor
from keras_frcnn.recipes import DetectionFilter
from tests.random_networks import random_image, random_network

CLASSES = ("disc", "square", "star")
EVERYTHING = DetectionFilter(score_threshold=0.0)
# All of them 96 x 128 as inputs.
SIZES = ((96, 128), (48, 64), (192, 256), (75, 100))


@pytest.fixture(scope="module")
def model(tiny_recipe):
    return random_network(tiny_recipe, CLASSES, seed=1)


@pytest.fixture(scope="module", params=["plain", "chunks", "unshared"])
def predictor(request, model, tiny_recipe):
    other = random_network(tiny_recipe, CLASSES, seed=2)
    options = {
        "plain": {},
        "chunks": {"head_chunk": 7},
        "unshared": {"detector_model": other},
    }[request.param]
    return Predictor(model, EVERYTHING, **options)


def assert_same(found, alone, size):
    """Boxes are compared as parts of the image's sides: how many pixels convolutions of another
    batch move a corner by depends on the processor and on how large the box is."""
    assert len(found.detections) == len(alone.detections) > 0
    ours, theirs = found.detections, alone.detections
    sides = np.tile(size, 2)
    np.testing.assert_allclose(ours.scores, theirs.scores, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(ours.boxes_image / sides, theirs.boxes_image / sides, atol=1e-4)
    np.testing.assert_array_equal(ours.classes, theirs.classes)
    np.testing.assert_allclose(found.best_scores, alone.best_scores, atol=1e-4)
    assert (ours.boxes_image[:, 2:] <= size).all()


def test_images_of_several_sizes_with_one_size_of_input(predictor):
    batched = BatchPredictor(predictor)
    assert {batched.key(*size) for size in SIZES} == {(96, 128)}
    images = [random_image(*size, seed) for seed, size in enumerate(SIZES)]
    for image, found in zip(images, batched.detect(images), strict=True):
        assert_same(found, predictor.detect(image), image.shape[:2])


def test_equal_images_and_one_alone(predictor):
    batched = BatchPredictor(predictor)
    images = [random_image(90, 130, seed) for seed in range(3)]
    for some in (images, images[:1]):
        for image, found in zip(some, batched.detect(some), strict=True):
            assert_same(found, predictor.detect(image), image.shape[:2])


def test_one_trace_whatever_the_sizes(model):
    batched = BatchPredictor(Predictor(model, EVERYTHING))
    for sizes in (SIZES, ((120, 90),), ((33, 200), (33, 200)), ((1, 1), (2, 2))):
        batched.detect([random_image(*size) for size in sizes])
    assert batched.traces == 1


def test_keys_keep_height_and_width_apart(predictor):
    batched = BatchPredictor(predictor)
    assert batched.key(96, 128) != batched.key(128, 96)
    assert batched.key(96, 128) != batched.key(96, 129)


def test_at_several_scales_images_of_a_batch_are_of_one_size(model):
    """One size at 96 pixels, as here, does not make one size at others."""
    predictor = Predictor(model, EVERYTHING, short_sides=(96, 200))
    batched = BatchPredictor(predictor)
    assert len({batched.key(*size) for size in SIZES}) == len(SIZES)
    images = [random_image(90, 130, seed) for seed in range(2)]
    for image, found in zip(images, batched.detect(images), strict=True):
        alone = predictor.detect(image)
        assert len(found.detections) == len(alone.detections)
        np.testing.assert_allclose(found.detections.scores, alone.detections.scores, atol=1e-4)
    assert batched.traces == 1
