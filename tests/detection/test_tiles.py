"""Large images in tiles: every object once, whole, wherever the seams are."""

from __future__ import annotations

import numpy as np
import pytest

from keras_frcnn.detection.detections import ImageDetections
from keras_frcnn.detection.detector import Detector
from keras_frcnn.detection.tiles import TiledDetector, merged, tile_corners
from keras_frcnn.errors import UserError


class Squares(Detector):
    """Finds what it sees of squares, each in a grey of its own, and remembers the tiles' sizes."""

    class_names = ("square",)
    score_threshold = 0.0
    source = "squares"

    def __init__(self):
        self.seen = []

    def find(self, images, boxes=None):
        return [self._of(image) for image in images]

    def _of(self, image):
        self.seen.append(image.shape[:2])
        found = []
        for grey in np.unique(image[image > 0]):
            y, x = np.nonzero((image == grey).all(axis=2))
            found.append((y.min(), x.min(), y.max() + 1, x.max() + 1, 0.9, 1))
        return ImageDetections.from_numbers([number for each in found for number in each])


def image_of(size, boxes):
    image = np.zeros((*size, 3), np.uint8)
    for index, (y1, x1, y2, x2) in enumerate(boxes):
        image[y1:y2, x1:x2] = index + 1
    return image


@pytest.mark.parametrize(
    ("length", "side", "overlap", "starts"),
    [
        (100, 100, 0.2, [0]),
        (60, 100, 0.2, [0]),
        (180, 100, 0.2, [0, 80]),
        (190, 100, 0.2, [0, 80, 90]),
        (300, 100, 0.0, [0, 100, 200]),
    ],
)
def test_tiles_cover_an_image_and_end_with_it(length, side, overlap, starts):
    assert [y for y, _ in tile_corners(length, 1, side, overlap)] == starts
    covered = np.zeros(length, bool)
    for start in starts:
        covered[start : start + side] = True
    assert covered.all()


@pytest.mark.parametrize("seed", range(20))
def test_every_object_is_found_once_and_whole(seed):
    rng = np.random.default_rng(seed)
    boxes = []
    for y in range(0, 400, 50):
        for x in range(0, 600, 50):
            height, width = rng.integers(5, 40, 2)
            y1, x1 = y + rng.integers(0, 50 - height), x + rng.integers(0, 50 - width)
            boxes.append((y1, x1, y1 + height, x1 + width))
    boxes = [boxes[i] for i in rng.permutation(len(boxes))]
    found = TiledDetector(Squares(), 200, 0.25).find([image_of((400, 600), boxes)])[0]
    assert sorted(map(tuple, found.boxes_image.astype(int).tolist())) == sorted(boxes)


def test_an_object_larger_than_the_overlap_stays_in_its_parts():
    """Nothing is lost: no tile saw it whole."""
    found = TiledDetector(Squares(), 100, 0.2).find([image_of((100, 180), [(10, 20, 90, 160)])])[0]
    assert found.boxes_image.tolist() == [[10, 20, 90, 100], [10, 80, 90, 160]]


def test_neighbours_of_another_class_or_beside_each_other_stay():
    found = ImageDetections(
        np.array([(0, 0, 10, 10), (0, 0, 10, 10), (0, 6, 10, 16)], np.float32),
        np.array([0.9, 0.8, 0.7], np.float32),
        np.array([1, 2, 1], np.int32),
    )
    # Of the first, the third shares 40 of 160 pixels: an IoU of 0.25.
    assert merged(found, np.zeros(3, bool), 0.3).tolist() == [True, True, True]
    assert merged(found, np.zeros(3, bool), 0.2).tolist() == [True, True, False]


def test_a_part_never_drops_the_whole_however_sure_it_is():
    found = ImageDetections(
        np.array([(0, 0, 10, 5), (0, 0, 10, 20)], np.float32),
        np.array([0.99, 0.5], np.float32),
        np.array([1, 1], np.int32),
    )
    assert merged(found, np.array([True, False]), 0.3).tolist() == [False, True]


def test_a_small_image_is_one_tile_and_no_tile_is_larger():
    detector = Squares()
    TiledDetector(detector, 64, 0.5).find([np.zeros((40, 50, 3), np.uint8)])
    assert detector.seen == [(40, 50)]
    TiledDetector(detector, 64, 0.5).find([np.zeros((100, 130, 3), np.uint8)])
    assert set(detector.seen[1:]) == {(64, 64)}


def test_it_is_a_detector():
    tiled = TiledDetector(Squares(), 64)
    assert tiled.detect(image_of((100, 100), [(40, 40, 70, 70)])).boxes.tolist() == [
        [40, 40, 70, 70]
    ]
    assert tiled.about() == {"detector": "squares", "tile": [64, 0.2]}
    with pytest.raises(UserError, match="tiles"):
        tiled.find([np.zeros((9, 9, 3), np.uint8)], [np.zeros((0, 4), np.float32)])


@pytest.mark.parametrize(("side", "overlap"), [(31, 0.2), (100, -0.1), (100, 0.95), (100, np.nan)])
def test_impossible_tiles_are_refused(side, overlap):
    with pytest.raises(UserError, match="tile"):
        TiledDetector(Squares(), side, overlap)
