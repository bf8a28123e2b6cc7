"""COCO's files: numbers of images, boxes, and reading what was written."""

import json

import numpy as np
import pytest

from keras_frcnn.data.dataset import Dataset
from keras_frcnn.detection.write_detections import (
    OUTSIDE_EVERY_RANGE,
    coco_annotations,
    image_numbers,
    write_coco,
)
from keras_frcnn.errors import UserError
from keras_frcnn.evaluation.read_detections import read_detections, with_names

BOX, FAR = (10, 20, 40, 80.5), (50, 50, 60, 60)
NAMES = ("cat", "dog")


@pytest.mark.parametrize(
    ("ids", "numbers"),
    [
        (("000005", "000007"), [5, 7]),
        (("2008_000001", "2011_000003"), [2008000001, 2011000003]),
        (("BloodImage_00001", "BloodImage_00000"), [1, 2]),
        (("5", "05"), [1, 2]),
        (("9" * 30, "8"), [1, 2]),
    ],
)
def test_numbers_of_images(make_dataset, ids, numbers):
    data = make_dataset([], [], ids=ids)
    assert [*image_numbers(data).values()] == numbers


def test_annotations(make_dataset):
    data = make_dataset([(BOX, 2, False), (FAR, 1, True)], class_names=NAMES, ids=("000005",))
    content = coco_annotations(data)
    assert content["images"] == [
        {
            "id": 5,
            "file_name": "000005.jpg",
            "width": 100,
            "height": 100,
            "key": "VOC2007/000005",
        }
    ]
    assert content["categories"] == [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    first, second = content["annotations"]
    assert first["bbox"] == [20.0, 10.0, 60.5, 30.0]
    assert (first["area"], first["category_id"], first["difficult"]) == (60.5 * 30, 2, 0)
    assert (second["area"], second["iscrowd"], second["difficult"]) == (OUTSIDE_EVERY_RANGE, 0, 1)


def test_results_are_read_again(make_dataset, make_detections, tmp_path):
    data = make_dataset([], [], class_names=NAMES, ids=("000005", "000007"))
    found = make_detections(("000005", BOX, 0.9, 2), ("000007", FAR, 0.3, 1))
    results, annotations = write_coco(tmp_path, data, found)
    assert json.loads(results.read_text())[0] == {
        "image_id": 5,
        "category_id": 2,
        "bbox": [20.0, 10.0, 60.5, 30.0],
        "score": 0.9,
    }
    for source in (None, annotations):
        again, _ = read_detections(results, data, source)
        assert list(again) == list(found)
        for key, of_image in found.items():
            np.testing.assert_array_equal(again[key].boxes_image, of_image.boxes_image)
            np.testing.assert_array_equal(again[key].classes, of_image.classes)
            np.testing.assert_allclose(again[key].scores, of_image.scores, atol=1e-7)


def test_ids_without_digits_and_equal_stems_need_the_annotations(
    make_dataset, make_detections, tmp_path
):
    first = make_dataset([], class_names=NAMES, ids=("a/1.png",))
    second = make_dataset([], class_names=NAMES, ids=("b/1.png",))
    data = Dataset(NAMES, first.examples + second.examples, ("list",))
    found = make_detections(("b/1.png", BOX, 0.9, 2))
    results, annotations = write_coco(tmp_path, data, found)
    assert list(read_detections(results, data, annotations)[0]) == ["VOC2007/b/1.png"]
    with pytest.raises(UserError, match="`coco_annotations`"):
        read_detections(results, data)


def test_numbers_of_another_programs_annotations(make_dataset, tmp_path):
    data = make_dataset([], [], class_names=NAMES, ids=("000005", "000007"))
    annotations = {
        "images": [{"id": 0, "file_name": "JPEGImages/000007.jpg"}],
        "categories": [{"id": 17, "name": "dog"}],
    }
    (tmp_path / "truth.json").write_text(json.dumps(annotations))
    record = {"image_id": 0, "category_id": 17, "bbox": [1, 2, 3, 4], "score": 0.5}
    (tmp_path / "results.json").write_text(json.dumps([record]))
    found, _ = read_detections(tmp_path / "results.json", data, tmp_path / "truth.json")
    assert found["VOC2007/000007"].classes.tolist() == [2]
    for change, words in (
        ({"image_id": 1}, r"Record 0 .* image_id 1, which .*truth.json does not list"),
        ({"category_id": 2}, "category_id 2, which"),
        ({"image_id": [0]}, "image_id"),
        ({"image_id": None}, "image_id None"),
    ):
        (tmp_path / "results.json").write_text(json.dumps([record | change]))
        with pytest.raises(UserError, match=words):
            read_detections(tmp_path / "results.json", data, tmp_path / "truth.json")
    (tmp_path / "results.json").write_text("[3]")
    with pytest.raises(UserError, match="should be an object"):
        read_detections(tmp_path / "results.json", data, tmp_path / "truth.json")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"images": [], "categories": 3}',
        '{"images": [{"id": 1}], "categories": []}',
        '{"images": [{"id": [1], "file_name": "a.jpg"}], "categories": []}',
    ],
)
def test_what_is_no_annotations_file(tmp_path, text):
    (tmp_path / "truth.json").write_text(text)
    with pytest.raises(UserError, match=r"truth\.json"):
        with_names([], tmp_path / "truth.json")
    with pytest.raises(UserError, match="cannot be read"):
        with_names([], tmp_path / "none.json")
