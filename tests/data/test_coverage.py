"""Coverage of objects by placed anchors and by proposals, against a plain loop.

Shapes and names
----------------
boxes  (., 4) float32, half-open (y1, x1, y2, x2).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from keras_frcnn.data.coverage import best_ious, best_proposal_ious, shapes_input
from keras_frcnn.data.dataset import Example
from keras_frcnn.geometry.anchors import shaped_anchors
from keras_frcnn.recipes import ImageConfig


def example(height: int, width: int, boxes) -> Example:
    return Example(
        image_id="000001",
        source="VOC2007",
        path=Path("none.jpg"),
        height=height,
        width=width,
        boxes_image=np.array(boxes, np.float32).reshape(-1, 4),
        classes=np.ones(len(boxes), np.int32),
        difficult=np.zeros(len(boxes), bool),
    )


def plain_best_iou(box, size, scale, shapes) -> float:
    """Every position of a stride of 16, anchor by anchor, those that cross the border left out."""
    y1, x1, y2, x2 = (side * scale for side in box)
    height, width = size
    best = 0.0
    for row in range(-(-height // 16)):
        for column in range(-(-width // 16)):
            for h, w in shapes:
                top, left = 16 * row + 8 - h / 2, 16 * column + 8 - w / 2
                if top < 0 or left < 0 or top + h > height or left + w > width:
                    continue
                common_height = min(y2, top + h) - max(y1, top)
                common_width = min(x2, left + w) - max(x1, left)
                if common_height > 0 and common_width > 0:
                    common = common_height * common_width
                    best = max(best, common / ((y2 - y1) * (x2 - x1) + h * w - common))
    return best


def random_boxes(height: int, width: int, count: int, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    corners = generator.uniform(0, 1, (count, 2, 2)) * (height, width)
    low, high = corners.min(axis=1), corners.max(axis=1)
    return np.concatenate([low, np.maximum(high, low + 1)], axis=1)


def test_best_ious_are_those_of_a_plain_loop():
    shapes = [(20.0, 30.0), (48.5, 40.0), (90.0, 60.0), (200.0, 10.0)]
    image = ImageConfig(short_side=120, long_side=300)
    # Scaled by 2 and 1.5; the second is empty; the third is limited by its long side.
    examples = [
        example(60, 80, random_boxes(60, 80, 9, 0)),
        example(80, 100, []),
        example(160, 80, random_boxes(160, 80, 6, 1)),
        example(50, 200, random_boxes(50, 200, 5, 2)),
    ]
    scaled = {0: ((120, 160), 2.0), 2: ((240, 120), 1.5), 3: ((75, 300), 1.5)}
    expected, sides = [], []
    for index, (size, scale) in scaled.items():
        for box in examples[index].boxes_image:
            expected.append(plain_best_iou(box, size, scale, shapes))
            sides.append([(box[2] - box[0]) * scale, (box[3] - box[1]) * scale])
    found = best_ious(examples, shaped_anchors(shapes), image)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert 0.2 < found.mean() < 0.8
    np.testing.assert_allclose(shapes_input(examples, image), sides, rtol=1e-5)


@pytest.mark.parametrize(("box", "expected"), [((8, 8, 104, 104), 1.0), ((2, 2, 102, 102), 0.0)])
def test_an_anchor_of_the_right_shape_must_find_a_place(box, expected):
    # Centres lie at 8, 24, 40, ...: around 56 an anchor of 96 spans 8 to 104. One of 100 pixels,
    # the object's own shape, would leave an image of 104 around every centre.
    anchors = shaped_anchors([(box[2] - box[0], box[3] - box[1])])
    found = best_ious([example(104, 104, [box])], anchors, ImageConfig(104, 104))
    np.testing.assert_allclose(found, [expected], atol=1e-6)


def test_no_object_and_no_image():
    image = ImageConfig(100, 200)
    for examples in ([], [example(50, 50, [])]):
        assert best_ious(examples, shaped_anchors([(10, 10)]), image).shape == (0,)
        assert shapes_input(examples, image).shape == (0, 2)


def test_best_proposal_ious_are_those_of_a_plain_loop():
    sizes, counts = ((60, 90), (80, 40), (50, 50)), ((4, 30), (0, 7), (3, 0))
    boxes, proposals, expected = [], [], []
    for seed, (size, (objects, given)) in enumerate(zip(sizes, counts, strict=True)):
        boxes.append(random_boxes(*size, objects, seed))
        proposals.append(random_boxes(*size, given, seed + 10).astype(np.float32))
        for y1, x1, y2, x2 in boxes[-1]:
            best = 0.0
            for top, left, bottom, right in proposals[-1]:
                height = max(min(y2, bottom) - max(y1, top), 0)
                width = max(min(x2, right) - max(x1, left), 0)
                union = (y2 - y1) * (x2 - x1) + (bottom - top) * (right - left) - height * width
                best = max(best, height * width / union)
            expected.append(best)
    examples = [example(*size, of_image) for size, of_image in zip(sizes, boxes, strict=True)]
    found = best_proposal_ious(examples, proposals)
    assert found.dtype == np.float32 and min(expected) == 0 < max(expected)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
