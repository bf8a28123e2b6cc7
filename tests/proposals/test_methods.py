"""Selective Search and EdgeBoxes: what they give, the same on every run, what is missing."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from keras_frcnn.errors import UserError
from keras_frcnn.proposals.methods import (
    EdgeBoxes,
    SelectiveSearch,
    edge_orientation,
    gradient_edges,
    load_opencv,
    thinned,
)


@pytest.fixture(scope="module", autouse=True)
def opencv():
    pytest.importorskip("cv2")
    return load_opencv()


def picture(height: int = 60, width: int = 80, seed: int = 0) -> np.ndarray:
    """Noise with a red rectangle, (15, 20, 45, 60) at 60 x 80."""
    pixels = np.random.default_rng(seed).integers(100, 120, (height, width, 3), np.uint8)
    pixels[height // 4 : height * 3 // 4, width // 4 : width * 3 // 4] = (200, 30, 30)
    return pixels


def iou(boxes, box):
    low = np.maximum(boxes[:, :2], box[:2])
    high = np.minimum(boxes[:, 2:], box[2:])
    both = np.maximum(high - low, 0).prod(axis=1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) + np.prod(np.subtract(box[2:], box[:2]))
    return both / (areas - both)


SMALL = SelectiveSearch(width=120)


@pytest.mark.parametrize("method", [SMALL, EdgeBoxes()])
@pytest.mark.parametrize(("height", "width"), [(60, 80), (80, 60)])
def test_the_object_is_among_the_boxes_of_the_original_image(method, height, width):
    height, width = 3 * height, 3 * width  # EdgeBoxes gives no box below 1000 pixels
    boxes, scores = method(picture(height, width))
    assert boxes.dtype == scores.dtype == np.float32
    assert len(boxes) == len(scores) > 3
    assert (np.diff(scores) <= 0).all()
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2:] <= (height, width)).all()
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    box = np.array((height // 4, width // 4, height * 3 // 4, width * 3 // 4))
    assert iou(boxes, box).max() > 0.8


def test_selective_search_sorts_out_small_and_repeated_boxes():
    """What is dropped, against every box that OpenCV gives for the same resized image."""
    cv2 = load_opencv()
    image = picture()
    every, _ = SelectiveSearch(most=None, width=120, least_side=0)(image)
    kept, _ = SelectiveSearch(most=None, width=120, least_side=20)(image)
    scale = 120 / 80
    sides = (every[:, 2:] - every[:, :2]) * scale
    np.testing.assert_allclose(kept, every[np.round(sides).min(axis=1) >= 20])
    assert 0 < len(kept) < len(every)
    assert len(np.unique(kept, axis=0)) == len(kept)
    few, scores = SelectiveSearch(most=2, width=120)(image)
    np.testing.assert_array_equal(few, kept[:2])
    assert scores.tolist() == [0, -1]
    assert cv2.getNumThreads() == 1


def test_selective_search_gives_the_same_order_again():
    """Its order is drawn; without the seed two runs differ."""
    image = picture()
    first = SMALL(image)
    SMALL(picture(seed=1))  # moves the generator on
    np.testing.assert_array_equal(SMALL(image).boxes_image, first.boxes_image)
    other = SelectiveSearch(width=120, seed=2)(image).boxes_image
    assert sorted(map(tuple, other)) == sorted(map(tuple, first.boxes_image))
    assert not np.array_equal(other, first.boxes_image)


@pytest.mark.parametrize("size", [(1, 1), (1, 90), (400, 1)])
@pytest.mark.parametrize("method", [SMALL, EdgeBoxes()])
def test_the_smallest_images(method, size):
    boxes, scores = method(np.full((*size, 3), 9, np.uint8))
    assert boxes.shape == (len(scores), 4)
    assert (boxes[:, 2:] <= size).all()


def test_settings_tell_what_the_boxes_depend_on():
    assert SMALL.settings()["width"] == 120
    assert "gradient" in EdgeBoxes().settings()["edges"]


def test_edges_of_a_step():
    """A vertical step: strong along it, its normal horizontal, thinned to its line."""
    image = np.zeros((30, 40, 3), np.uint8)
    image[:, 20:] = 200
    edges = gradient_edges(image)
    assert edges.max() == pytest.approx(1)
    assert edges[15].argmax() in (19, 20)
    assert edges[:, :14].max() < 0.01
    orientation = edge_orientation(edges)
    assert np.abs(np.sin(orientation[15, 18:22])).max() < 0.05
    line = thinned(edges, orientation)[15]
    assert np.flatnonzero(line > 0.1).tolist() in ([19], [20], [19, 20])
    # The transposed image has the vertical normal, pi / 2.
    turned = edge_orientation(gradient_edges(image.transpose(1, 0, 2)))
    assert np.abs(np.cos(turned[18:22, 15])).max() < 0.05
    # An edge along y = x has the normal (1, -1), at 3 / 4 pi.
    diagonal = np.where(np.tri(40)[..., None] > 0, np.full(3, 200, np.uint8), np.uint8(0))
    slanted = edge_orientation(gradient_edges(diagonal))
    np.testing.assert_allclose(slanted[[15, 20, 25], [15, 20, 25]], 0.75 * np.pi, atol=0.05)
    assert not gradient_edges(np.full((9, 9, 3), 7, np.uint8)).any()


def test_an_edge_model_that_is_none(tmp_path):
    with pytest.raises(UserError, match="is no file"):
        EdgeBoxes(edge_model=str(tmp_path / "model.yml.gz")).settings()
    for text in ("%YAML:1.0\n---\na: 1\n", "no YAML", "", "%YAML:1.0\n---\noptions: 1\n"):
        (tmp_path / "model.yml").write_text(text)
        with pytest.raises(UserError, match="is no structured forest"):
            EdgeBoxes(edge_model=str(tmp_path / "model.yml")).settings()


def test_without_opencv_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(UserError, match="need OpenCV: pip install .*paper"):
        SelectiveSearch().settings()
    import types

    plain = types.ModuleType("cv2")
    plain.__version__ = "4.12.0"
    monkeypatch.setitem(sys.modules, "cv2", plain)
    with pytest.raises(UserError, match=r"OpenCV 4\.12\.0 lacks its extra modules"):
        SelectiveSearch().settings()
