"""Detections in another form than was asked for: refused with the cause, never counted as misses.

Shapes and names
----------------
objects  half-open (y1, x1, y2, x2) in images of 200 x 300 pixels (height x width).
"""

from __future__ import annotations

import json
import os
import tarfile

import pytest

from keras_frcnn.errors import UserError
from keras_frcnn.evaluation import read_detections as reader
from keras_frcnn.evaluation.read_detections import read_detections

HEIGHT, WIDTH = 200, 300
OBJECTS = ((120, 20, 180, 70), (10, 200, 60, 290), (100, 150, 190, 280))
CORNERS = [(x1, y1, x2, y2) for y1, x1, y2, x2 in OBJECTS]
SIZES = [(x1, y1, x2 - x1, y2 - y1) for y1, x1, y2, x2 in OBJECTS]
FRACTIONS = [
    (x1 / WIDTH, y1 / HEIGHT, (x2 - x1) / WIDTH, (y2 - y1) / HEIGHT) for y1, x1, y2, x2 in OBJECTS
]


@pytest.fixture
def data(make_dataset):
    images = [[(box, index % 2 + 1, False)] for index, box in enumerate(OBJECTS)]
    names = ("cat", "dog", "cow")
    ids = ("000005", "000007", "000009")
    return make_dataset(*images, class_names=names, ids=ids, size=(HEIGHT, WIDTH))


@pytest.fixture
def read_json(data, tmp_path):
    """Reads one detection an image, with these four numbers."""

    def read(boxes, **change):
        records = [
            {"image_id": e.image_id, "category_id": index % 2 + 1, "bbox": box, "score": 0.9}
            | {name: value(index) for name, value in change.items()}
            for index, (e, box) in enumerate(zip(data.examples, boxes, strict=False))
        ]
        (tmp_path / "d.json").write_text(json.dumps(records))
        return read_detections(tmp_path / "d.json", data)

    return read


@pytest.fixture
def read_voc(data, tmp_path):
    """Reads one line an image, its five numbers as they are given."""

    def read(rows, name="{}"):
        for index, class_name in enumerate(data.class_names[:2]):
            lines = [
                " ".join(map(str, (name.format(example.image_id), *row)))
                for place, (example, row) in enumerate(zip(data.examples, rows, strict=True))
                if place % 2 == index
            ]
            (tmp_path / f"comp4_det_test_{class_name}.txt").write_text("\n".join(lines))
        return read_detections(tmp_path, data)

    return read


def test_what_is_right_is_read_without_a_remark(read_json, read_voc, data):
    assert read_json(SIZES)[1] == ["3 detections were matched to their image by image_id."]
    found, notes = read_voc([(0.9, x1 + 1, y1 + 1, x2, y2) for x1, y1, x2, y2 in CORNERS])
    assert notes == ["There is no file for cow: nothing was found of them."]
    assert [f.boxes_image[0].tolist() for f in found.values()] == [
        list(OBJECTS[index]) for index in (0, 2, 1)
    ]


@pytest.mark.parametrize(
    ("boxes", "cause"),
    [
        (CORNERS, "xmin, ymin, xmax, ymax"),
        (OBJECTS, "ymin, xmin, ymax, xmax"),
        (FRACTIONS, "x, y, width, height from 0 to 1"),
        ([(x / WIDTH, y / HEIGHT, u / WIDTH, v / HEIGHT) for x, y, u, v in CORNERS], "0 to 1"),
        ([(x + w / 2, y + h / 2, w, h) for x, y, w, h in SIZES], "centre"),
        ([(4 * x, 4 * y, 4 * w, 4 * h) for x, y, w, h in SIZES], "another size"),
    ],
)
def test_json_boxes_in_another_form_are_refused_by_name(read_json, boxes, cause):
    with pytest.raises(UserError, match=r"d\.json") as error:
        read_json(boxes)
    assert cause in str(error.value)


@pytest.mark.parametrize(
    ("rows", "cause"),
    [
        ([(*corners, 0.9) for corners in CORNERS], "score last"),
        ([(11, 11, 60, 60, 0.9)] * 3, "score last"),  # on no object
        ([(x1, y1, x2, y2, 95) for x1, y1, x2, y2 in CORNERS], ""),
        ([(0.9, *box) for box in SIZES], "width"),
        ([(0.9, x2, y2, x1, y1) for x1, y1, x2, y2 in CORNERS], ""),
        ([(0.9, *box) for box in OBJECTS], ""),
        ([(0.9, x / WIDTH, y / HEIGHT, u / WIDTH, v / HEIGHT) for x, y, u, v in CORNERS], "0 to 1"),
    ],
)
def test_voc_lines_in_another_form_are_refused(read_voc, tmp_path, rows, cause):
    with pytest.raises(UserError, match=str(tmp_path)) as error:
        read_voc(rows)
    assert cause in str(error.value)


def test_one_box_in_another_form_is_no_proof_and_gets_a_remark(read_json):
    *_, note = read_json(CORNERS[2:])  # of the first image
    assert "0 lie on an object" in note[-1]


def test_classes_that_are_numbered_otherwise_get_a_remark(read_json):
    notes = read_json(SIZES, category_id=lambda index: 3)[1]
    assert "another class" in notes[-1]


def test_a_poor_detector_is_no_mistake_of_the_form(read_json, data):
    """Near the objects, not on them: other readings find no more."""
    poor = [(x + w * 0.6, y, w, h) for x, y, w, h in SIZES]
    found, notes = read_json(poor)
    assert len(found) == 3
    assert "0 lie on an object of their class" in notes[-1]


@pytest.mark.parametrize(
    "name", ["{}.jpg", "{}.PNG", "JPEGImages/{}.jpg", "VOC2007/{}", "C:\\photos\\{}.jpg"]
)
def test_ids_may_be_names_of_files(read_json, read_voc, data, name):
    found, _ = read_json(SIZES, image_id=lambda index: name.format(data.examples[index].image_id))
    assert list(found) == [example.key for example in data.examples]
    rows = [(0.9, x1 + 1, y1 + 1, x2, y2) for x1, y1, x2, y2 in CORNERS]
    assert set(read_voc(rows, name)[0]) == set(found)


def test_names_where_coco_has_numbers(data, tmp_path):
    truth = {
        "images": [{"id": 70, "file_name": "a/000007.jpg"}],
        "categories": [{"id": 17, "name": "dog"}],
    }
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    for image, category in ((70, 17), ("70", "17"), (70.0, 17), ("x/000007.jpg", "dog")):
        record = {"image_id": image, "category_id": category, "bbox": SIZES[1], "score": 0.5}
        (tmp_path / "d.json").write_text(json.dumps([record]))
        found, _ = read_detections(tmp_path / "d.json", data, tmp_path / "truth.json")
        assert found["VOC2007/000007"].classes.tolist() == [2]


def test_files_are_read_up_to_a_bound(data, tmp_path, monkeypatch):
    for path in ("/dev/zero", tmp_path / "pipe"):
        if path != "/dev/zero":
            os.mkfifo(path)
        with pytest.raises(UserError, match="regular"):
            read_detections(path, data)
    line = b"000005 0.9 21 121 70 180\n"
    file = tmp_path / "comp4_det_test_cat.txt"
    file.write_bytes(line * 100)
    with tarfile.open(tmp_path / "d.tar.gz", "w:gz") as archive:
        archive.add(file, file.name)
    monkeypatch.setattr(reader, "MOST_DETECTION_BYTES", 1000)
    monkeypatch.setattr(reader, "MOST_ARCHIVE_BYTES", 1000)
    (tmp_path / "d.json").write_text("[" + " " * 1000 + "]")
    for name in ("d.json", "d.tar.gz", ""):
        with pytest.raises(UserError, match="1000"):
            read_detections(tmp_path / name, data)


def test_an_image_has_room_for_so_many(read_json, monkeypatch):
    monkeypatch.setattr(reader, "MOST_OF_AN_IMAGE", 1)
    read_json(SIZES)
    with pytest.raises(UserError, match="000005"):
        read_json(SIZES, image_id=lambda index: "000005")
