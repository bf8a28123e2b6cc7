"""COCO's JSON: where its images are, and what is wrong with it.

Shapes and names
----------------
All images are 40 x 60 pixels (height x width).
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from keras_frcnn.data import coco
from keras_frcnn.data.load import load_data
from keras_frcnn.errors import UserError
from tests.data.devkits import ids, kinds
from tests.data.layouts import write

CATEGORIES = [{"id": 3, "name": "dog"}, {"id": 90, "name": "cat"}]
BOX = [4, 2, 3, 7]


def photo(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (60, 40)).save(file)


def content(names: list[str], annotations: list, **more) -> str:
    images = [{"id": i, "file_name": n, "height": 40, "width": 60} for i, n in enumerate(names)]
    fields = {"images": images, "annotations": annotations, "categories": CATEGORIES, **more}
    return json.dumps(fields)


def marked(**fields) -> dict:
    return {"image_id": 0, "category_id": 3, "bbox": BOX, "id": 1, **fields}


def data(tmp_path: Path, *annotations, **more):
    photo(tmp_path / "1.jpg")
    file = write(tmp_path / "labels.json", content(["1.jpg"], list(annotations), **more))
    return load_data(file, "all", allow_bad=True)


@pytest.mark.parametrize(
    ("file", "image", "written"),
    [
        ("annotations/instances_default.json", "images/a/1.jpg", "a/1.jpg"),
        ("annotations/instances_default.json", "1.jpg", "1.jpg"),
        ("result.json", "images/1.jpg", "images/1.jpg"),
        ("result.json", "images/1.jpg", "images\\1.jpg"),
        ("result.json", "images/1.jpg", "/home/me/label-studio/upload/7/1.jpg"),
        ("all/_annotations.coco.json", "all/1.jpg", "1.jpg"),
        ("annotations.json", "deep/er/1.JPG", "1.jpg"),
    ],
)
def test_images_are_found_from_the_folder_and_from_the_file(tmp_path, file, image, written):
    root = tmp_path / "data"
    photo(root / image)
    write(root / file, content([written], [marked()]))
    photo(tmp_path / "1.jpg")
    dataset = load_data(root, "all")
    assert dataset.parser == "coco" and dataset.problems == ()
    assert ids(dataset) == [image]
    assert dataset.examples[0].boxes_image.tolist() == [[2, 4, 9, 7]]
    if not file.startswith("all/"):
        assert ids(load_data(root / file, "all")) == [image]


def test_parts_are_those_of_files_and_folders(tmp_path):
    for part in ("train", "val"):
        photo(tmp_path / f"coco/{part}2017/1.jpg")
        file = tmp_path / f"coco/annotations/instances_{part}2017.json"
        write(file, content(["1.jpg"], [marked()]))
        write(tmp_path / f"coco/annotations/captions_{part}2017.json", content(["1.jpg"], [{}]))
        folder = "valid" if part == "val" else part
        photo(tmp_path / f"roboflow/{folder}/1.jpg")
        file = tmp_path / f"roboflow/{folder}/_annotations.coco.json"
        write(file, content(["1.jpg"], [marked()]))
    assert ids(load_data(tmp_path / "coco")) == ["train2017/1.jpg"]
    assert ids(load_data(tmp_path / "coco", default_split="test")) == ["val2017/1.jpg"]
    assert ids(load_data(tmp_path / "roboflow", "train+val")) == ["train/1.jpg", "valid/1.jpg"]
    alone = load_data(tmp_path / "coco/annotations/instances_val2017.json", default_split="test")
    assert ids(alone) == ["val2017/1.jpg"] and alone.sets == ("val",)
    assert len(load_data(tmp_path / "roboflow/train/_annotations.coco.json")) == 1


def test_ids_have_gaps_and_crowds_are_difficult(tmp_path):
    crowd = marked(category_id=90, iscrowd=1, bbox=[0, 0, 60, 40], id=9)
    dataset = data(tmp_path, crowd, marked(), marked(bbox=[1, 1, 5, 5], ignore=1, iscrowd=0))
    assert dataset.class_names == ("cat", "dog") and dataset.problems == ()
    example = dataset.examples[0]
    assert example.classes.tolist() == [1, 2, 2]
    assert example.difficult.tolist() == [True, False, True]


def test_decimals_are_added_as_such(tmp_path):
    dataset = data(tmp_path, marked(bbox=[10.1, 1e-1, 20.2, 0.2e1]))
    assert dataset.examples[0].boxes_image.tolist() == [
        pytest.approx([0.1, 10.1, 2.1, 30.3], rel=1e-7)
    ]
    assert coco._corners_of_box([10.1, 0, 20.2, 1]) == ("10.1", "0", "30.3", "1")


def test_polygons_without_a_box_are_noted_once(tmp_path):
    outline = [[4, 2, 7, 2, 7, 9], [5, 3, 6, 3, 6.5, 4]]
    bare = {"image_id": 0, "category_id": 3, "segmentation": outline}
    dataset = data(tmp_path, marked(segmentation=outline), bare, {**bare, "category_id": 90})
    assert dataset.examples[0].boxes_image.tolist() == [[2, 4, 9, 7]] * 2
    polygons = [p for p in dataset.problems if p.kind == "polygon for a box"]
    assert [p.number for p in polygons] == [1, 1] and polygons[0].where == "annotation 2 (dog)"
    assert set(kinds(dataset)) == {"object repeated", "polygon for a box"}


@pytest.mark.parametrize(
    ("annotation", "kind"),
    [
        (marked(bbox=[1, 2, 3]), "box unreadable"),
        (marked(bbox="1 2 3 4"), "box unreadable"),
        (marked(bbox=["1", 2, 3, 4]), "box unreadable"),
        (marked(bbox=[1, 2, 3, True]), "box unreadable"),
        (marked(bbox=[1, 2, 3, float("nan")]), "box unreadable"),
        (marked(bbox=[1, 2, 1e300, 4]), "box unreadable"),
        (marked(bbox=[], segmentation={"counts": [1], "size": [4, 4]}), "box unreadable"),
        (marked(bbox=None), "box unreadable"),
        (marked(bbox=[1, 2, 0, 4]), "box degenerate"),
        (marked(bbox=[50, 2, 30, 4]), "box clipped"),
        (marked(category_id=7), "class unknown"),
        (marked(category_id=[7]), "class unknown"),
        (marked(image_id=7), "no such image"),
        (marked(image_id={}), "no such image"),
        ("text", "no such image"),
        (None, "no such image"),
    ],
)
def test_objects_that_are_wrong_are_named(tmp_path, annotation, kind):
    dataset = data(tmp_path, marked(id=77), annotation)
    (problem,) = dataset.problems
    assert (problem.kind, problem.file) == (kind, str(tmp_path / "labels.json"))
    assert problem.where.startswith("annotation 2")
    assert len(dataset.examples[0].classes) == 1 + (kind == "box clipped")


@pytest.mark.parametrize(
    ("image", "kind"),
    [
        ({"id": 9, "file_name": "gone.jpg"}, "image missing"),
        ({"id": 9, "file_name": "../../secret.jpg"}, "image missing"),
        ({"id": 9}, "image unnamed"),
        ({"file_name": "2.jpg"}, "image unnamed"),
        ({"id": [9], "file_name": "2.jpg"}, "image unnamed"),
        (7, "image unnamed"),
        ({"id": 0, "file_name": "2.jpg"}, "id repeated"),
        ({"id": 9, "file_name": "1.jpg"}, "image repeated"),
    ],
)
def test_images_that_are_wrong_are_named(tmp_path, image, kind):
    photo(tmp_path / "data/2.jpg")
    photo(tmp_path / "secret.jpg")
    images = [{"id": 0, "file_name": "1.jpg"}, image]
    other = marked(image_id=9, category_id=90)
    dataset = data(tmp_path / "data", marked(), images=images)
    assert kinds(dataset) == [kind] and ids(dataset) == ["1.jpg"]
    if kind != "image unnamed" and kind != "id repeated":
        dataset = data(tmp_path / "data", marked(), other, images=images)
        assert kinds(dataset) == [kind]
        assert len(dataset.examples[0].classes) == (2 if kind == "image repeated" else 1)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"images": []}',
        '{"images": {}, "annotations": [], "categories": []}',
        "[" * 100_000,
        '{"images": [], "annotations": [' + "9" * 5000 + '], "categories": []}',
        "\udcff",
    ],
)
def test_files_that_are_none_of_coco_s_are_one_sentence(tmp_path, text):
    file = tmp_path / "labels.json"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(UserError) as caught:
        load_data(file)
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)


def test_a_wrong_size_is_told(tmp_path):
    images = [{"id": 0, "file_name": "1.jpg", "height": 60, "width": 40}]
    assert kinds(data(tmp_path, marked(), images=images)) == ["size differs"]
