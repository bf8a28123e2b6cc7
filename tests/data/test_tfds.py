"""Data sets of TensorFlow Datasets, by a stand-in with the same functions."""

from __future__ import annotations

import io
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from keras_frcnn.data.load import load_data
from keras_frcnn.errors import UserError


def encoded(kind: str, level: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (60, 40), (level,) * 3).save(file, kind)
    return file.getvalue()


@pytest.fixture
def tensorflow_datasets(monkeypatch, tmp_path):
    """``voc/2007`` with 3 training and 2 test images; others have no objects."""
    module = ModuleType("tensorflow_datasets")
    module.__spec__ = SimpleNamespace()
    fetched = []

    class Builder:
        def __init__(self, name: str) -> None:
            label = SimpleNamespace(int2str=lambda number: ("cat", "dog")[number])
            features = {"objects": {"label": label}} if name == "voc/2007" else {}
            splits = {"train": 3, "test": 2}
            self.info = SimpleNamespace(splits=splits, features=features)

        def download_and_prepare(self) -> None:
            fetched.append(self)

        def as_dataset(self, split: str, decoders: dict) -> list:
            assert decoders == {"image": "as it is"}
            box = np.float32([[2 / 40, 4 / 60, 9 / 40, 7 / 60], [0, 0, 1, 1]])
            objects = {"bbox": box, "label": np.int64([1, 0])}
            objects["is_difficult"] = np.array([False, True])
            kind = "JPEG" if split == "train" else "PNG"
            return [
                {"image": encoded(kind, 40 * index), "objects": objects}
                for index in range(self.info.splits[split])
            ]

    module.builder, module.as_numpy = Builder, iter
    module.decode = SimpleNamespace(SkipDecoding=lambda: "as it is")
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", module)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return fetched


def test_a_data_set_by_name(tensorflow_datasets, tmp_path):
    for _ in range(2):  # the second time the files are there
        train, test = load_data("tfds:voc/2007"), load_data("tfds:voc/2007", "test")
        assert (len(train), len(test), train.parser) == (3, 2, "tfds")
        assert train.class_names == ("cat", "dog") and train.problems == ()
        example = train.examples[1]
        assert example.boxes_image.tolist() == [[2, 4, 9, 7], [0, 0, 40, 60]]
        assert example.classes.tolist() == [2, 1] and example.difficult.tolist() == [False, True]
        assert example.path.read_bytes() == encoded("JPEG", 40)
        assert example.path.is_relative_to(tmp_path)
    assert tensorflow_datasets


def test_data_sets_without_objects_are_refused(tensorflow_datasets):
    with pytest.raises(UserError, match="tfds:mnist cannot be read as a data set"):
        load_data("tfds:mnist")


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(UserError, match="tfds"):
        load_data("tfds:voc/2007")
