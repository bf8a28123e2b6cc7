"""Detections written, read again, and matched to images and classes."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from keras_frcnn.data.dataset import Dataset, Example
from keras_frcnn.detection.detections import ImageDetections
from keras_frcnn.detection.write_detections import (
    dataset_records,
    detection_records,
    write_csv,
    write_json,
)
from keras_frcnn.errors import UserError
from keras_frcnn.evaluation.read_detections import read_json


def example(image_id, source="VOC2007", path=None):
    return Example(
        image_id=image_id,
        source=source,
        path=Path(path or f"/kit/{source}/JPEGImages/{image_id}.jpg"),
        height=100,
        width=200,
        boxes_image=np.zeros((0, 4), np.float32),
        classes=np.zeros(0, np.int32),
        difficult=np.zeros(0, bool),
    )


def dataset(*examples):
    return Dataset(("cat", "dog"), examples, ("2007:test",))


@pytest.fixture
def read(tmp_path):
    def read_records(records, *examples):
        path = tmp_path / "detections.json"
        path.write_text(records if isinstance(records, str) else json.dumps(records))
        of_set = dataset(*(examples or (example("000005"), example("000007"))))
        return read_json(path, of_set)

    return read_records


def record(**fields):
    return {
        "file_name": "000005.jpg",
        "class_name": "dog",
        "bbox": [1, 2, 3, 4],
        "score": 0.5,
    } | fields


def test_records_hold_every_field_in_x_y_width_height():
    found = ImageDetections(
        np.array([[10, 20, 40, 80.5]], np.float32),
        np.array([0.9], np.float32),
        np.array([2], np.int32),
    )
    assert detection_records("a/000005.jpg", "000005", found, ("cat", "dog")) == [
        {
            "image_id": "000005",
            "file_name": "a/000005.jpg",
            "class_name": "dog",
            "category_id": 2,
            "bbox": [20.0, 10.0, 60.5, 30.0],
            "score": 0.9,
        }
    ]


@pytest.mark.parametrize("class_index", [0, 3])
def test_classes_outside_the_list_are_refused(class_index):
    found = ImageDetections(
        np.ones((1, 4), np.float32),
        np.ones(1, np.float32),
        np.array([class_index], np.int32),
    )
    with pytest.raises(ValueError, match="classes in 1 .. 2"):
        detection_records("a.jpg", "a", found, ("cat", "dog"))


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="shapes"):
        ImageDetections(np.ones((2, 4)), np.ones(1), np.ones(2, np.int32))


def test_json_gives_back_the_same_float32(tmp_path):
    rng = np.random.default_rng(0)
    corners = np.sort(rng.uniform(0, 700, (500, 2, 2)), axis=1).reshape(-1, 4)
    boxes = corners.astype(np.float32)
    scores = rng.uniform(0, 1, 500).astype(np.float32)
    classes = rng.integers(1, 3, 500).astype(np.int32)
    path = tmp_path / "new" / "detections.json"
    found = ImageDetections(boxes, scores, classes)
    write_json(path, detection_records("000005.jpg", "000005", found, ("cat", "dog")))
    read, notes = read_json(path, dataset(example("000005")))
    again = read["VOC2007/000005"]
    np.testing.assert_array_equal(again.boxes_image.astype(np.float32), boxes)
    np.testing.assert_array_equal(again.scores.astype(np.float32), scores)
    np.testing.assert_array_equal(again.classes, classes)
    assert again.classes.dtype == np.int32
    assert notes == []
    assert [p.name for p in path.parent.iterdir()] == ["detections.json"]  # no temporary file left


def test_a_data_set_as_records(tmp_path):
    found = ImageDetections(np.array([[1.1, 2, 3, 4]]), np.array([1 / 3]), np.array([2], np.int32))
    one_year = dataset(example("000005"), example("000007"))
    records = list(dataset_records(one_year, {"VOC2007/000007": found}))
    assert [r["image_id"] for r in records] == ["000007"]
    # What was read in double precision is written in double precision.
    assert (records[0]["score"], records[0]["bbox"]) == (1 / 3, [2.0, 1.1, 2.0, 1.9])
    two_years = dataset(*TWO_YEARS)
    records = dataset_records(two_years, {"VOC2012/000005": found, "VOC2007/000005": found})
    path = tmp_path / "detections.json"
    write_json(path, records)
    again, _ = read_json(path, two_years)
    assert list(again) == ["VOC2007/000005", "VOC2012/000005"]


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "detections.json"
    write_json(path, [{"score": 1.0}])
    with pytest.raises(ValueError):
        write_json(path, [{"score": 2.0}, {"score": float("nan")}])
    assert json.loads(path.read_text()) == [{"score": 1.0}]
    write_json(path, [])
    assert json.loads(path.read_text()) == []


def test_csv(tmp_path):
    path = tmp_path / "detections.csv"
    name = 'a "b", c.jpg'
    write_csv(path, [record(file_name=name, image_id="5", category_id=2)])
    rows = list(csv.reader(path.open(newline="")))
    assert rows == [
        [
            "image_id",
            "file_name",
            "class_name",
            "category_id",
            "x",
            "y",
            "width",
            "height",
            "score",
        ],
        ["5", name, "dog", "2", "1", "2", "3", "4", "0.5"],
    ]


@pytest.mark.parametrize(
    "name", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\ud800", "\udce9"]
)
def test_no_name_is_a_formula_and_any_can_be_written(tmp_path, name):
    path = tmp_path / "detections.csv"
    write_csv(path, [record(file_name=name, image_id="5", category_id=2, bbox=[-1, 2, 3, 4])])
    with open(path, newline="", encoding="utf-8", errors="surrogateescape") as stream:
        _, (_, found, _, _, x, *_) = csv.reader(stream)
    assert x == "-1"
    # The last is a byte of a file's name and goes out as it came.
    as_is = {"\r=1": "\\r=1", "\ud800": "\\ud800"}.get(name, f"'{name}")
    assert found == (name if name == "\udce9" else as_is)


def test_boxes_become_y1_x1_y2_x2(read):
    found, _ = read([record(bbox=[1, 2.5, 30, 40])])
    np.testing.assert_array_equal(found["VOC2007/000005"].boxes_image, [[2.5, 1, 42.5, 31]])
    np.testing.assert_array_equal(found["VOC2007/000005"].classes, [2])


@pytest.mark.parametrize(
    "fields",
    [
        {"file_name": "000005.png"},
        {"file_name": "some/where/000005.jpg"},
        {"file_name": "C:\\photos\\000005.jpg"},
        {"file_name": None, "image_id": "000005"},
        {"file_name": None, "image_id": 5},
        {"file_name": None, "image_id": 5.0},
        {"file_name": None, "image_id": "VOC2007/000005"},
        {"file_name": "unknown.jpg", "image_id": "000005"},
        {"file_name": "000005.jpg", "image_id": "000007"},  # the file name comes first
    ],
)
def test_ways_to_name_an_image(read, fields):
    found, _ = read([record(**fields)])
    assert list(found) == ["VOC2007/000005"]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"class_name": "cat", "category_id": 2}, 1),
        ({"class_name": None, "category_id": 2}, 2),
        ({"class_name": None, "category_id": 1.0}, 1),
    ],
)
def test_ways_to_name_a_class(read, fields, expected):
    found, _ = read([record(**fields)])
    assert found["VOC2007/000005"].classes.tolist() == [expected]


def test_remarks(read):
    found, notes = read([record(file_name=None, image_id="000007")])
    assert list(found) == ["VOC2007/000007"]
    assert notes[0] == "1 detections were matched to their image by image_id."
    assert notes[1].startswith("1 of 2 images have no detection")


def test_records_of_one_image_keep_their_order(read):
    found, _ = read([record(score=0.1), record(file_name="000007.jpg"), record(score=0.9)])
    assert found["VOC2007/000005"].scores.tolist() == [0.1, 0.9]


BAD_RECORDS = [
    ({"file_name": "000099.jpg"}, "not in the set"),
    ({"file_name": "000005.jpg", "image_id": "VOC2012/000005"}, "not in the set"),
    ({"file_name": None}, "needs a file_name or an image_id"),
    ({"file_name": 5}, "text as file_name"),
    ({"file_name": None, "image_id": True}, "finite number as image_id"),
    ({"file_name": None, "image_id": 5.5}, "whole number as image_id"),
    ({"file_name": None, "image_id": ["000005"]}, "text as image_id"),
    ({"class_name": "zebra"}, "class 'zebra', expected one of: cat, dog"),
    ({"class_name": None}, "needs a class_name or a category_id"),
    ({"class_name": None, "category_id": 0}, "category_id 0, expected 1 to 2"),
    ({"class_name": None, "category_id": 3}, "category_id 3, expected 1 to 2"),
    ({"class_name": None, "category_id": 1.5}, "whole number as category_id"),
    ({"class_name": None, "category_id": "1"}, "finite number as category_id"),
    ({"bbox": [1, 2, -3, 4]}, "negative width or height"),
    ({"bbox": [1, 2, 3, -4]}, "negative width or height"),
    ({"bbox": [1, 2, 3]}, "needs a bbox"),
    ({"bbox": None}, "needs a bbox"),
    ({"bbox": [1, 2, 3, "4"]}, "finite number as bbox"),
    ({"bbox": [1, 2, 3, float("inf")]}, "finite number as bbox"),
    ({"score": float("nan")}, "finite number as score"),
    ({"score": "0.5"}, "finite number as score"),
    ({"score": True}, "finite number as score"),
    ({"score": 10**400}, "finite number as score"),
    ({"score": None}, "finite number as score"),
]


@pytest.mark.parametrize(("fields", "reason"), BAD_RECORDS)
def test_a_bad_record_is_named_by_its_index(read, fields, reason):
    with pytest.raises(UserError, match=reason) as error:
        read([record(), record(**fields)])
    assert "Record 1 (counted from 0)" in str(error.value)


@pytest.mark.parametrize("text", ["", "[", "{}", "3", '[{"file_name": ', "[3]", "\x00"])
def test_files_that_are_no_list_of_records(read, text):
    with pytest.raises(UserError):
        read(text)


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        read_json(tmp_path / "none.json", dataset())


TWO_YEARS = (example("000005", "VOC2007"), example("000005", "VOC2012"))


@pytest.mark.parametrize(
    "fields",
    [
        {"image_id": "VOC2012/000005"},
        {"file_name": "VOC2012/000005.jpg"},
        {"file_name": "/elsewhere/VOC2012/JPEGImages/000005.jpg", "image_id": "000005"},
        {"file_name": None, "image_id": "VOC2012/000005"},
    ],
)
def test_a_stem_of_two_years_is_settled_by_id_or_folder(read, fields):
    found, _ = read([record(**fields)], *TWO_YEARS)
    assert list(found) == ["VOC2012/000005"]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"image_id": "000005"},
        {"file_name": "VOC2009/000005.jpg"},
        {"file_name": None, "image_id": 5},
    ],
)
def test_a_stem_of_two_years_is_an_error_otherwise(read, fields):
    with pytest.raises(UserError, match="fits several images"):
        read([record(**fields)], *TWO_YEARS)


def test_a_list_whose_images_have_moved(read):
    photo = example("/mnt/photos/a.jpg", "list", "/mnt/photos/a.jpg")
    found, _ = read([record(file_name="a.jpg", image_id="/home/me/photos/a.jpg")], photo)
    assert list(found) == ["list//mnt/photos/a.jpg"]


def test_a_simple_list_with_one_stem_in_two_folders(read):
    examples = (
        example("a/1.jpg", "list", "/data/a/1.jpg"),
        example("b/1.jpg", "list", "/data/b/1.jpg"),
    )
    found, _ = read([record(file_name="b/1.jpg")], *examples)
    assert list(found) == ["list/b/1.jpg"]
    found, _ = read([record(file_name="1.jpg", image_id="a/1.jpg")], *examples)
    assert list(found) == ["list/a/1.jpg"]


def test_a_number_is_the_digits_of_an_id(read):
    found, _ = read([record(file_name=None, image_id=2008000001)], example("2008_000001"))
    assert list(found) == ["VOC2007/2008_000001"]


def test_an_id_as_written_comes_before_an_equal_number(read):
    examples = (example("05"), example("5"))
    for image_id in ("5", "05"):
        found, _ = read([record(file_name=None, image_id=image_id)], *examples)
        assert list(found) == [f"VOC2007/{image_id}"]
