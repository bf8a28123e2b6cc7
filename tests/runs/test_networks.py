"""What trainings start from: the whole base of a file, its class outputs only for its classes.

A run goes on with the initial weights that it began with, or says that they changed.

Shapes and names
----------------
file  the initial weights.
"""

from __future__ import annotations

import dataclasses
import hashlib

import h5py
import numpy as np
import pytest

from keras_frcnn.errors import UserError
from keras_frcnn.network.faster_rcnn import FasterRcnn
from keras_frcnn.network.weights import write_layers
from keras_frcnn.runs.folder import RunFolder
from keras_frcnn.runs.networks import (
    check_unchanged,
    load_initial_weights,
    weights_file,
    with_digest,
)
from keras_frcnn.runs.stage_table import FINAL
from keras_frcnn.training import output

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
    write_layers(tmp_path / "base.h5", source.layers("base"), {})
    report = load_initial_weights(model, tmp_path / "base.h5")
    assert set(report.new) == {
        layer.name for layer in (*model.layers("rpn"), *model.layers("head"))
    }
    assert all(
        equal(*pair) for pair in zip(source.layers("base"), model.layers("base"), strict=True)
    )
    assert not any(
        equal(*pair) for pair in zip(source.layers("head"), model.layers("head"), strict=True)
    )


@pytest.mark.parametrize("metadata", [{}, {"class_names": ["cat", "cow"]}])
def test_a_base_with_a_hole_is_refused_and_nothing_is_loaded(source, model, tmp_path, metadata):
    layers = [layer for layer in source.layers() if layer.name != "conv3"]
    write_layers(tmp_path / "holed.h5", layers, metadata)
    before = model.layers("base")[0].get_weights()
    with pytest.raises(UserError, match="holds no weights for conv3;"):
        load_initial_weights(model, tmp_path / "holed.h5")
    for old, new in zip(before, model.layers("base")[0].get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_the_head_of_a_stage_alone_is_refused(source, model, tmp_path):
    write_layers(tmp_path / "stage4.h5", source.layers("head"), {})
    with pytest.raises(UserError, match="holds no weights for conv1"):
        load_initial_weights(model, tmp_path / "stage4.h5")


def test_rows_of_other_classes_are_not_taken(source, model, tmp_path):
    write_layers(tmp_path / "cows.h5", source.layers(), {"class_names": ["cat", "cow"]})
    report = load_initial_weights(model, tmp_path / "cows.h5")
    outputs = {"cls_score", "bbox_pred"}
    assert outputs <= set(report.new)
    assert "classes are cat, cow; this run's are cat, dog" in "\n".join(report.lines())
    for mine, theirs in zip(model.layers(), source.layers(), strict=True):
        if mine.weights:
            assert equal(mine, theirs) == (mine.name not in outputs), mine.name


def write_weights(path, config, seed):
    model = FasterRcnn("tiny", config.class_names, config.recipe, seed=seed)
    write_layers(path, model.layers(), {"class_names": list(config.class_names)})


@pytest.fixture
def file(tmp_path, run_config):
    path = tmp_path / "initial.h5"
    write_weights(path, run_config(), seed=1)
    return path


def test_the_digest_is_that_of_the_contents(run_config, file):
    config = run_config()
    assert with_digest(config, None) == config
    expected = hashlib.blake2b(file.read_bytes(), digest_size=16).hexdigest()
    assert with_digest(config, file) == dataclasses.replace(config, initial_weights_digest=expected)


def test_random_weights_and_those_of_a_file_are_not_taken_for_each_other(
    run_config, file, tmp_path
):
    check_unchanged(run_config(), None)
    known = with_digest(run_config(), file)
    elsewhere = tmp_path / "elsewhere.h5"
    elsewhere.write_bytes(file.read_bytes())
    check_unchanged(known, elsewhere)
    for config, path in ((run_config(), file), (known, None)):
        with pytest.raises(UserError, match="changed since the run was started"):
            check_unchanged(config, path)


@pytest.mark.parametrize("names", [5, "cat", ["cat", 3], [["cat"]], {}, [], ["\ud800"], True])
def test_class_names_that_are_no_names_are_refused(source, model, tmp_path, names):
    write_layers(tmp_path / "odd.h5", source.layers(), {"class_names": names})
    with pytest.raises(UserError, match=r"class_names .*odd\.h5"):
        load_initial_weights(model, tmp_path / "odd.h5")


def test_values_that_are_no_numbers_are_refused(source, model, tmp_path):
    write_layers(tmp_path / "odd.h5", source.layers(), {})
    with h5py.File(tmp_path / "odd.h5", "r+") as file:
        file["conv1/conv1/kernel:0"][0, 0, 0, 0] = np.nan
    with pytest.raises(UserError, match=r"odd\.h5 .*NaN.* kernel of layer conv1"):
        load_initial_weights(model, tmp_path / "odd.h5")


@pytest.mark.parametrize("mode", ["alternating", "joint"])
def test_changed_initial_weights_are_refused_as_long_as_they_are_needed(
    run_config, demo_dataset, trainer_of, tmp_path, monkeypatch, file, mode
):
    monkeypatch.setattr(output, "save_curves", lambda *arguments: None)
    numbers = () if mode == "joint" else (1,)
    config = run_config(mode=mode, stages=numbers, initial_weights=str(file))
    run = RunFolder(tmp_path / "run")
    run.create(with_digest(config, file), [])

    def train():
        trainer_of(run.resume(config), demo_dataset, run, initial_weights=file)[0].train()

    before = file.read_bytes()
    write_weights(file, config, seed=2)
    changed = file.read_bytes()
    with pytest.raises(UserError, match=r"The initial weights .*initial\.h5 changed since the run"):
        train()
    assert not list(run.path.glob("weights/*"))
    file.write_bytes(before)
    train()
    finished = run.weights_file("final" if mode == "joint" else "stage1")
    assert finished.exists()
    file.write_bytes(changed)  # nothing is left to start from it
    train()


def test_the_file_may_be_named_or_lie_in_a_run(tmp_path):
    assert weights_file("random", "tiny") is None
    file = tmp_path / "random"  # a path is never taken for the word
    file.write_text("")
    assert weights_file(file, "tiny") == file
    with pytest.raises(UserError, match="received .*absent.h5"):
        weights_file(tmp_path / "absent.h5", "tiny")
    with pytest.raises(UserError, match="a folder without final.weights.h5"):
        weights_file(tmp_path, "tiny")
    final = RunFolder(tmp_path).weights_file(FINAL)
    final.parent.mkdir()
    final.write_text("")
    assert weights_file(tmp_path, "tiny") == final
