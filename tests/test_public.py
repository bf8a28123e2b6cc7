"""The public face: what it names, that it costs nothing until it is used, and a whole training."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest

import keras_frcnn as frcnn
from keras_frcnn.demo.devkit import write_demo_devkit
from keras_frcnn.errors import UserError

LIBRARIES = ("tensorflow", "keras", "matplotlib", "PIL", "h5py")


def test_the_face_is_there_before_any_library():
    code = (
        "import sys, keras_frcnn\n"
        "names = dir(keras_frcnn)\n"
        f"print([name for name in {LIBRARIES!r} if name in sys.modules], len(names))"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert said.split() == ["[]", str(len(frcnn.__all__))]


@pytest.mark.parametrize("name", frcnn.__all__)
def test_every_public_name_is_there_and_documented(name):
    value = getattr(frcnn, name)
    assert name in dir(frcnn)
    assert isinstance(value, (str, dict)) or value.__doc__


def test_what_is_not_public_is_no_attribute():
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        _ = frcnn.nothing_of_the_kind


@pytest.fixture(scope="module")
def devkit(tmp_path_factory):
    path = tmp_path_factory.mktemp("public") / "VOCdevkit"
    write_demo_devkit(path, seed=1, train_images=6, test_images=3, size=(200, 260))
    return path


def test_from_data_to_an_evaluation(devkit, tiny_recipe, tmp_path):
    data = frcnn.load_data(devkit, "2007:trainval")
    assert (len(data), data.problems) == (6, ())
    options = {"network": "tiny", "weights": "random", "recipe": tiny_recipe}
    run = frcnn.train(data, tmp_path / "run", **options)
    weights = run.weights_file("final")
    written = weights.stat().st_mtime_ns
    frcnn.train(data, tmp_path / "run", **options)  # finished: nothing is done again
    assert weights.stat().st_mtime_ns == written
    detector = frcnn.load(tmp_path / "run")
    assert detector.class_names == data.class_names
    test = frcnn.load_data(devkit, "2007:test")
    found = detector.detect(test.examples[0].path)
    assert found.boxes.shape == (len(found), 4) and len(found.class_names) == len(found.scores)
    assert (np.diff(found.scores) <= 0).all()
    assert json.loads(json.dumps(found.to_dict()))["class_names"] == found.class_names
    result = frcnn.evaluate(detector, test, report=tmp_path / "report")
    assert 0 <= result.mean_average_precision <= 1
    assert result.report.is_file() and set(result.detections) == {e.key for e in test.examples}
    with pytest.raises(UserError, match="were in the training set"):
        frcnn.evaluate(detector, data)


def test_a_run_of_another_configuration_is_refused(devkit, tiny_recipe, tmp_path):
    data = frcnn.load_data(devkit)
    stages = tuple(dataclasses.replace(s, iterations=1, drop_at=1) for s in tiny_recipe.stages)
    recipe = dataclasses.replace(tiny_recipe, stages=stages)
    options = {"network": "tiny", "weights": "random"}
    frcnn.train(data, tmp_path / "run", recipe=recipe, **options)
    with pytest.raises(UserError, match="seed"):
        frcnn.train(data, tmp_path / "run", recipe=recipe, seed=5, **options)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"recipe": "fast"}, "recipe"),
        ({"weights": "no/file.h5"}, "weights"),
        ({"network": "vgg"}, "network"),
    ],
)
def test_what_does_not_exist_is_named(devkit, tmp_path, change, field):
    with pytest.raises(UserError, match=field):
        frcnn.train(frcnn.load_data(devkit), tmp_path / "run", **{"weights": "random", **change})
    assert not (tmp_path / "run").exists()


def test_classes_are_matched_by_name(make_dataset):
    data = make_dataset([((10, 10, 20, 20), 1, False)], class_names=("cat",))
    other = data.with_classes(("dog", "cat"))
    assert other.examples[0].classes.tolist() == [2]
    with pytest.raises(UserError, match="class_names"):
        data.with_classes(("dog",))
