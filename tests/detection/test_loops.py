"""The last cuts over a data set against cases worked by hand."""

import numpy as np

from keras_frcnn.detection.detections import ImageDetections
from keras_frcnn.detection.loops import keep_best_per_class

BOX = (10, 10, 20, 20)
FAR = (50, 50, 60, 60)


def of_image(*rows):
    """Each row is (box, score, class)."""
    boxes, scores, classes = zip(*rows, strict=True) if rows else ([], [], [])
    return ImageDetections(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(scores, np.float32),
        np.array(classes, np.int32),
    )


def test_the_best_of_each_class_over_all_images():
    found = {
        "first": of_image((BOX, 0.9, 1), (BOX, 0.2, 1), (BOX, 0.1, 2)),
        "second": of_image((BOX, 0.5, 1), (BOX, 0.8, 1)),
    }
    kept = keep_best_per_class(found, number_of_classes=2, limit_per_class=2)
    assert list(kept) == ["first", "second"]
    np.testing.assert_allclose(kept["first"].scores, [0.9, 0.1])
    assert kept["first"].classes.tolist() == [1, 2]
    np.testing.assert_allclose(kept["second"].scores, [0.8])
    assert kept["second"].boxes_image.shape == (1, 4)


def test_ties_at_the_limit_go_to_the_earlier_image():
    found = {
        "a": of_image((BOX, 0.5, 1)),
        "b": of_image((FAR, 0.5, 1)),
        "c": of_image((BOX, 0.7, 1)),
    }
    kept = keep_best_per_class(found, number_of_classes=1, limit_per_class=2)
    assert [len(detections) for detections in kept.values()] == [1, 0, 1]


def test_the_best_of_nothing():
    assert keep_best_per_class({}, 3, 5) == {}
