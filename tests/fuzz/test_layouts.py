"""COCO's JSON, YOLO's labels and data.yaml from anywhere.

What is read lies in its image, what is not is named, and a file that is no use is one sentence.

Shapes and names
----------------
Images ``1.jpg`` and ``2.jpg`` of 40 x 60 pixels (height x width) with two objects each.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keras_frcnn.data.dataset import Dataset
from keras_frcnn.data.load import load_data
from keras_frcnn.errors import UserError
from tests.fuzz.harness import damaged, watched

BOXES = ([4, 2, 30, 20], [10, 10, 9.5, 9])
COCO = {
    "images": [{"id": i, "file_name": f"{i}.jpg", "height": 40, "width": 60} for i in (1, 2)],
    "annotations": [
        {"id": 2 * i + k, "image_id": i, "category_id": 7 * k, "bbox": box}
        for i in (1, 2)
        for k, box in enumerate(BOXES)
    ],
    "categories": [{"id": 0, "name": "cat"}, {"id": 7, "name": "dog"}],
}
LABELS = "0 0.316667 0.3 0.5 0.5\n1 0.25 0.3625 0.158333 0.225\n"
YAML = "path: .\ntrain: images\nnames:\n  0: cat\n  1: dog\n"


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("fuzz")
    for folder in ("coco", "yolo/images", "yaml/images"):
        (root / folder).mkdir(parents=True)
        for name in "12":
            Image.new("RGB", (60, 40)).save(root / folder / f"{name}.jpg")
    for folder in ("yolo", "yaml"):
        (root / folder / "labels").mkdir()
        (root / folder / "labels/1.txt").write_text(LABELS)
        (root / folder / "labels/2.txt").write_text(LABELS)
    (root / "yolo/classes.txt").write_text("cat\ndog\n")
    return root


def survive(file: Path, data: bytes, path: Path) -> Dataset | None:
    """The data set with this file, None where it was refused."""
    before = file.read_bytes() if file.exists() else None
    file.write_bytes(data)
    try:
        with watched(path if path.is_dir() else path.parent):
            try:
                dataset = load_data(path, "all", allow_bad=True)
            except UserError as error:
                assert "\n" not in str(error)
                return None
    finally:
        file.unlink() if before is None else file.write_bytes(before)
    for example in dataset.examples:
        boxes = example.boxes_image
        assert (boxes[:, :2] >= 0).all() and (boxes[:, 2:] <= [40, 60]).all()
        assert (boxes[:, 2:] > boxes[:, :2]).all()
    assert dataset.problems or [len(e.classes) for e in dataset.examples if len(e.classes)]
    return dataset


def test_undamaged(photos):
    for file, text, path in (
        ("coco/labels.json", json.dumps(COCO), "coco/labels.json"),
        ("yolo/labels/1.txt", LABELS, "yolo"),
    ):
        dataset = survive(photos / file, text.encode(), photos / path)
        assert dataset.problems == () and dataset.number_of_objects == 4


@pytest.mark.parametrize("seed", range(60))
def test_damaged_json(photos, seed):
    data = damaged(json.dumps(COCO).encode(), np.random.default_rng([20, seed]))
    survive(photos / "coco/labels.json", data, photos / "coco/labels.json")


NASTY = (
    *(None, True, -1, 1e400, float("nan"), 10**400, 1e-300, "", "1", "../../1.jpg", "/1.jpg"),
    *("\0", "\udcff", "x" * 100_000, [], [[]], [1] * 50_000, {}, {"id": {}}, "\x1b[2J", "2.jpg"),
)


@pytest.mark.parametrize("value", range(len(NASTY)))
def test_json_with_nasty_values(photos, value):
    for part, entries in COCO.items():
        for field in (None, *entries[0]):
            content = json.loads(json.dumps(COCO))
            if field is None:
                content[part][0] = NASTY[value]
            else:
                content[part][0][field] = NASTY[value]
            data = json.dumps(content).encode()
            dataset = survive(photos / "coco/labels.json", data, photos / "coco/labels.json")
            assert dataset is None or dataset.number_of_objects >= 1
        content = {**COCO, part: NASTY[value]}
        survive(photos / "coco/labels.json", json.dumps(content).encode(), photos / "coco")


@pytest.mark.parametrize("seed", range(60))
def test_damaged_labels(photos, seed):
    data = damaged(LABELS.encode() * 3, np.random.default_rng([21, seed]))
    survive(photos / "yolo/labels/1.txt", data, photos / "yolo")


@pytest.mark.parametrize("seed", range(30))
def test_damaged_classes(photos, seed):
    data = damaged(b"cat\ndog\n", np.random.default_rng([22, seed]))
    survive(photos / "yolo/classes.txt", data, photos / "yolo")


@pytest.mark.parametrize("seed", range(60))
def test_damaged_yaml(photos, seed):
    pytest.importorskip("yaml")
    data = damaged(YAML.encode(), np.random.default_rng([23, seed]))
    survive(photos / "yaml/data.yaml", data, photos / "yaml/data.yaml")
