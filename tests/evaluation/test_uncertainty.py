"""The bootstrap of the mean average precision against evaluating the drawn images for real.

Shapes and names
----------------
copies  examples and detections of a replicate, an image drawn twice standing there twice.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from keras_frcnn.detection.detections import ImageDetections
from keras_frcnn.evaluation.matching import match_detections
from keras_frcnn.evaluation.uncertainty import Difference, draw_images, resampled_means
from keras_frcnn.evaluation.voc import evaluate_voc

CLASSES = ("cat", "dog", "cow")


@pytest.fixture(scope="module")
def random_case(make_dataset):
    """Twelve images with detections near their objects, distinct scores, some difficult objects."""
    generator = np.random.default_rng(5)
    objects, detections = [], []
    for _ in range(12):
        count = generator.integers(0, 5)
        corners = generator.uniform(0, 60, (count, 2))
        boxes = np.concatenate((corners, corners + generator.uniform(10, 40, (count, 2))), axis=1)
        classes = generator.integers(1, 4, count)
        difficult = generator.random(count) < 0.2
        objects.append(list(zip(boxes, classes, difficult, strict=True)))
        near = np.repeat(boxes, 2, axis=0) + generator.normal(0, 4, (2 * count, 4))
        guesses = np.where(generator.random(2 * count) < 0.8, np.repeat(classes, 2), 1)
        detections.append((near, generator.random(2 * count), guesses))
    dataset = make_dataset(*objects, class_names=CLASSES)
    found = {
        example.key: ImageDetections(
            boxes.astype(np.float32), scores.astype(np.float32), classes.astype(np.int32)
        )
        for example, (boxes, scores, classes) in zip(dataset.examples, detections, strict=True)
    }
    return dataset, found


@pytest.mark.parametrize("eleven_point", [True, False])
def test_a_replicate_is_the_evaluation_of_its_images(random_case, eleven_point):
    dataset, found = random_case
    weights = draw_images(len(dataset), replicates=6, seed=3)
    assert (weights.sum(axis=1) == len(dataset)).all()
    matches = match_detections(dataset, found, iou_threshold=0.5)
    means = resampled_means(matches, len(CLASSES), weights, eleven_point=eleven_point)
    for drawn, mean in zip(weights, means, strict=True):
        examples, detections = [], {}
        for example, times in zip(dataset.examples, drawn, strict=True):
            for copy in range(times):
                twin = dataclasses.replace(example, image_id=f"{example.image_id}-{copy}")
                examples.append(twin)
                detections[twin.key] = found[example.key]
        result = evaluate_voc(dataclasses.replace(dataset, examples=tuple(examples)), detections)
        expected = result.map_11point if eleven_point else result.map_area
        assert mean == pytest.approx(expected, abs=1e-12)


def test_ones_give_the_mean_itself(random_case):
    dataset, found = random_case
    matches = match_detections(dataset, found, iou_threshold=0.5)
    ones = np.ones((1, len(dataset)), np.int32)
    expected = evaluate_voc(dataset, found).map_area
    assert resampled_means(matches, 3, ones, eleven_point=False)[0] == pytest.approx(expected)


def test_draws_depend_on_the_seed_alone():
    assert np.array_equal(draw_images(9, 4, seed=1), draw_images(9, 4, seed=1))
    assert not np.array_equal(draw_images(9, 4, seed=1), draw_images(9, 4, seed=2))


def test_a_difference_is_resolved_beyond_twice_its_error():
    assert Difference(-0.21, 0.1).resolved
    assert not Difference(0.19, 0.1).resolved
