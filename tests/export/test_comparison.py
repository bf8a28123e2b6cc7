"""What an export is compared on, and when it is what it should be."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from keras_frcnn.detection.detections import NO_DETECTIONS, ImageDetections
from keras_frcnn.export import comparison


class Watched:
    """A detector that finds nothing and remembers the pixels it was shown."""

    def __init__(self):
        self.seen = []

    def find(self, images):
        self.seen += images
        return [NO_DETECTIONS for _ in images]


@pytest.mark.parametrize(
    ("images", "asked", "calibrated", "compared", "most"),
    [
        (6, 3, [0, 2, 4], [1, 3, 5], 3),
        (9, 3, [0, 3, 6], [1, 5], 2),
        (3, 5, [0, 1, 2], [0, 1], 2),
    ],
)
def test_int8_is_compared_on_images_that_were_not_calibrated_on(
    images, asked, calibrated, compared, most, monkeypatch
):
    examples = [
        SimpleNamespace(key=str(place), pixels=lambda place=place: place) for place in range(images)
    ]
    monkeypatch.setattr(comparison, "COMPARED", most)
    chosen, others = comparison.spread(examples, asked)
    assert [example.pixels() for example in chosen] == calibrated
    detectors = Watched(), Watched()
    comparison.compare_int8(*detectors, others or chosen)
    assert [detector.seen for detector in detectors] == [compared, compared]


def found(*boxes, scores=None) -> ImageDetections:
    scores = [0.9] * len(boxes) if scores is None else scores
    return ImageDetections(
        np.float32(boxes).reshape(-1, 4), np.float32(scores), np.ones(len(boxes), np.int32)
    )


BOXES = [(10 * n, 0, 10 * n + 9, 9) for n in range(10)]


@pytest.mark.parametrize(
    ("other", "kept", "equal"),
    [
        (found(*BOXES), 10, True),
        (found(*BOXES[:9]), 9, True),
        (found(*BOXES[:8]), 8, False),
        (found(*BOXES, scores=[0.9] * 9 + [0.902]), 10, False),
        (found(*BOXES[:9], (90, 0, 99, 9.4)), 10, True),
        (found(*BOXES[:9], (90, 0, 99, 9.6)), 10, False),
    ],
)
def test_an_onnx_file_may_lack_a_tenth_and_no_more(other, kept, equal):
    result = comparison.compare_onnx(found(*BOXES), other)
    assert (result.detections, result.kept, result.equal) == (10, kept, equal)


def test_nothing_is_as_much_as_nothing():
    result = comparison.compare_onnx(NO_DETECTIONS, NO_DETECTIONS)
    assert result == comparison.Comparison(0, 0, 0.0, 0.0, True)
