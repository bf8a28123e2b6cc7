"""What trainings start from: the whole base of a file, its class outputs only for its classes."""

from __future__ import annotations

import numpy as np
import pytest

from keras_frcnn.errors import UserError
from keras_frcnn.network.faster_rcnn import FasterRcnn
from keras_frcnn.network.weights import write_layers
from keras_frcnn.training.initial_weights import load_initial_weights

CLASSES = ("cat", "dog")


@pytest.fixture(scope="module")
def source(run_config):
    return FasterRcnn("tiny", CLASSES, run_config().recipe, seed=1)


@pytest.fixture
def model(run_config):
    return FasterRcnn("tiny", CLASSES, run_config().recipe, seed=2)


def equal(one, other) -> bool:
    pairs = zip(one.get_weights(), other.get_weights(), strict=True)
    return all(np.array_equal(left, right) for left, right in pairs)


def test_a_file_of_the_base_alone_leaves_the_rest_new(source, model, tmp_path):
    write_layers(tmp_path / "base.h5", source.base_layers, {})
    report = load_initial_weights(model, tmp_path / "base.h5")
    assert set(report.new) == {layer.name for layer in (*model.rpn_layers, *model.head_layers)}
    assert all(equal(*pair) for pair in zip(source.base_layers, model.base_layers, strict=True))
    assert not any(equal(*pair) for pair in zip(source.head_layers, model.head_layers, strict=True))


@pytest.mark.parametrize("metadata", [{}, {"class_names": ["cat", "cow"]}])
def test_a_base_with_a_hole_is_refused_and_nothing_is_loaded(source, model, tmp_path, metadata):
    layers = [layer for layer in source.all_layers if layer.name != "conv3"]
    write_layers(tmp_path / "holed.h5", layers, metadata)
    before = model.base_layers[0].get_weights()
    with pytest.raises(UserError, match="holds no weights for conv3;"):
        load_initial_weights(model, tmp_path / "holed.h5")
    for old, new in zip(before, model.base_layers[0].get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_the_head_of_a_stage_alone_is_refused(source, model, tmp_path):
    write_layers(tmp_path / "stage4.h5", source.head_layers, {})
    with pytest.raises(UserError, match="holds no weights for conv1"):
        load_initial_weights(model, tmp_path / "stage4.h5")


def test_rows_of_other_classes_are_not_taken(source, model, tmp_path):
    write_layers(tmp_path / "cows.h5", source.all_layers, {"class_names": ["cat", "cow"]})
    report = load_initial_weights(model, tmp_path / "cows.h5")
    outputs = {"cls_score", "bbox_pred"}
    assert outputs <= set(report.new)
    assert "classes are cat, cow; this run's are cat, dog" in report.text()
    for mine, theirs in zip(model.all_layers, source.all_layers, strict=True):
        if mine.weights:
            assert equal(mine, theirs) == (mine.name not in outputs), mine.name
