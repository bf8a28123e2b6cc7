"""Batches: what goes together, and that nothing changes by it.

Shapes and names
----------------
alone  what is found in an image by itself.
"""

from __future__ import annotations

import numpy as np
import pytest

from keras_frcnn.detection.network_detector import NetworkDetector
from keras_frcnn.recipes import DetectionFilter
from tests.random_networks import find, random_image, random_network

CLASSES = ("disc", "square", "star")
EVERYTHING = DetectionFilter(score_threshold=0.0)
# All of them 96 x 128 as inputs.
SIZES = ((96, 128), (48, 64), (192, 256), (75, 100))


@pytest.fixture(scope="module")
def model(tiny_recipe):
    return random_network(tiny_recipe, CLASSES, seed=1)


@pytest.fixture(scope="module", params=["plain", "chunks", "unshared"])
def detector(request, model, tiny_recipe):
    other = random_network(tiny_recipe, CLASSES, seed=2)
    options = {
        "plain": {},
        "chunks": {"head_chunk": 7},
        "unshared": {"detector_model": other},
    }[request.param]
    return NetworkDetector(model, EVERYTHING, **options)


def assert_same(ours, theirs, size):
    """Boxes are compared as parts of the image's sides: how many pixels convolutions of another
    batch move a corner by depends on the processor and on how large the box is."""
    assert len(ours) == len(theirs) > 0
    sides = np.tile(size, 2)
    np.testing.assert_allclose(ours.scores, theirs.scores, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(ours.boxes_image / sides, theirs.boxes_image / sides, atol=1e-4)
    np.testing.assert_array_equal(ours.classes, theirs.classes)
    assert (ours.boxes_image[:, 2:] <= size).all()


def traces(detector):
    """How often the network was traced."""
    functions = (detector.predict, detector._predict_inputs)
    return sum(function.experimental_get_tracing_count() for function in functions)


def test_images_of_several_sizes_with_one_size_of_input(detector):
    assert {detector.key(*size) for size in SIZES} == {(96, 128)}
    images = [random_image(*size, seed) for seed, size in enumerate(SIZES)]
    for image, found in zip(images, detector.find(images), strict=True):
        assert_same(found, find(detector, image), image.shape[:2])


def test_equal_images_and_one_alone(detector):
    images = [random_image(90, 130, seed) for seed in range(3)]
    for some in (images, images[:1]):
        for image, found in zip(some, detector.find(some), strict=True):
            assert_same(found, find(detector, image), image.shape[:2])


def test_one_trace_whatever_the_sizes(model):
    detector = NetworkDetector(model, EVERYTHING)
    for sizes in (SIZES, ((120, 90),), ((33, 200), (33, 200)), ((1, 1), (2, 2))):
        detector.find([random_image(*size) for size in sizes])
    assert traces(detector) == 1


def test_keys_keep_height_and_width_apart(detector):
    assert detector.key(96, 128) != detector.key(128, 96)
    assert detector.key(96, 128) != detector.key(96, 129)


def test_at_several_scales_images_of_a_batch_are_of_one_size(model):
    """One size at 96 pixels, as here, does not make one size at others."""
    detector = NetworkDetector(model, EVERYTHING, short_sides=(96, 200))
    assert len({detector.key(*size) for size in SIZES}) == len(SIZES)
    images = [random_image(90, 130, seed) for seed in range(2)]
    for image, found in zip(images, detector.find(images), strict=True):
        alone = find(detector, image)
        assert len(found) == len(alone)
        np.testing.assert_allclose(found.scores, alone.scores, atol=1e-4)
    assert traces(detector) == 1
