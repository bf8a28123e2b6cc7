"""Anchors fitted to a data set, and what they and others cover."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from keras_frcnn.data.anchor_clustering import shape_iou
from keras_frcnn.data.anchor_fit import fit_anchors
from keras_frcnn.data.dataset import Dataset, Example
from keras_frcnn.recipes import PAPER, AnchorConfig, ImageConfig

IMAGE = ImageConfig(100, 200)


def dataset(*shapes, difficult: bool = False) -> Dataset:
    """An image of 100 x 200 pixels for each object of a height and a width."""
    examples = [
        Example(
            image_id=str(number),
            source="VOC2007",
            path=Path("none.jpg"),
            height=100,
            width=200,
            boxes_image=np.float32([[4, 4, 4 + height, 4 + width]]),
            classes=np.ones(1, np.int32),
            difficult=np.array([difficult]),
        )
        for number, (height, width) in enumerate(shapes)
    ]
    return Dataset(("disc",), tuple(examples), ("2007:trainval",))


def test_what_is_measured_is_what_files_hold():
    data = dataset((20, 30), (20.04, 30.04), (60, 40))
    other = {"squares": AnchorConfig(scales=(2.0,), ratios=(1.0,))}
    fit = fit_anchors(data, IMAGE, 2, seed=0, others=other)
    assert fit.anchors == ((20.0, 30.0), (60.0, 40.0))
    assert sorted(fit.clusterings) == [1, 2, 3]
    best = shape_iou(fit.shapes[:, None], np.array(fit.anchors)).max(axis=1)
    assert fit.own.mean_iou == pytest.approx(best.mean())
    squares = shape_iou(fit.shapes, np.array([32.0, 32.0]))
    assert fit.others["squares"].mean_iou == pytest.approx(squares.mean())
    assert fit.own.best_ious.shape == (3,)
    assert len(fit.own.anchors_input) == 2 and len(fit.others["squares"].anchors_input) == 1


def test_without_objects_there_is_nothing_to_fit():
    others = {"nine": PAPER.anchors}
    assert fit_anchors(dataset(difficult=True), IMAGE, 1, seed=0, others=others) is None
    only_difficult = dataset((20, 30), difficult=True)
    assert fit_anchors(only_difficult, IMAGE, 1, seed=0, others=others) is None


def test_more_anchors_than_the_curve_has_may_be_asked_for():
    data = dataset(*((10 + 2 * place, 20 + 3 * place) for place in range(18)))
    fit = fit_anchors(data, IMAGE, 17, seed=0, others={})
    assert list(fit.clusterings) == [*range(1, 16), 17]
    assert len(fit.anchors) == 17
