"""Images with VOC XML without lists, as programs for marking leave them."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from keras_frcnn.data.load import load_data
from keras_frcnn.errors import UserError
from tests.data.devkits import annotation, ids, kinds, object_xml
from tests.data.layouts import write


def photo(file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (60, 40)).save(file)
    return file


def marked(root: Path, image: str, xml: str, filename: str = "") -> None:
    """An image and its XML file."""
    photo(root / image)
    name = f"<filename>{filename}</filename>" if filename else ""
    write(root / xml, annotation(name, object_xml()))


@pytest.mark.parametrize(
    ("image", "xml", "filename"),
    [
        ("slide3 field 01.jpg", "slide3 field 01.xml", ""),
        ("images/slide3 field 01.jpg", "annotations/slide3 field 01.xml", ""),
        ("Bilder/a/1.PNG", "Rahmen/a/1.XML", ""),
        ("a/b/c/1.png", "d/1.xml", "somewhere/else.png"),
        ("photos/original.jpeg", "marks/0001.xml", "original.jpeg"),
        ("photos/original.jpeg", "marks/0001.xml", "C:\\Users\\me\\original.jpeg"),
        ("photos/IMG_1.JPG", "marks/img_1.xml", ""),
        ("photos/1.v2.jpg", "marks/1.v2.xml", ""),
        ("photos/1.jpg", "photos/1.jpg.xml", ""),
    ],
)
def test_an_annotation_finds_its_image(tmp_path, image, xml, filename):
    root = tmp_path / "cells"
    marked(root, image, xml, filename)
    photo(root / image).with_name("other.jpg")
    dataset = load_data(root, "all")
    assert dataset.parser == "voc_xml" and dataset.problems == ()
    (example,) = dataset.examples
    assert (example.source, example.image_id, example.path) == ("cells", image, root / image)
    assert example.boxes_image.tolist() == [[2, 4, 9, 7]]  # from 1, as in a devkit


def test_images_of_one_name_belong_to_the_folders_most_alike(tmp_path):
    for part, name in (("train", "dog"), ("valid", "cat"), ("test", "cow")):
        photo(tmp_path / part / "images" / "1.jpg")
        write(tmp_path / part / "xml" / "1.xml", annotation(object_xml(name)))
    for part, name in (("train", "dog"), ("val", "cat"), ("test", "cow")):
        dataset = load_data(tmp_path, part)
        assert dataset.class_names == (name,) and len(dataset) == 1


def test_an_annotation_whose_image_is_in_doubt_has_none(tmp_path):
    for folder in "ab":
        photo(tmp_path / folder / "1.jpg")
    write(tmp_path / "c/1.xml", annotation(object_xml()))
    with pytest.raises(
        UserError, match="1.xml: image missing: expected one image named 1, found none or"
    ):
        load_data(tmp_path, "all", strict=True)


def test_the_filename_never_leaves_the_folder(tmp_path):
    photo(tmp_path / "secret.jpg")
    marked(tmp_path / "data", "1.jpg", "1.xml")
    write(tmp_path / "data/2.xml", annotation("<filename>../secret.jpg</filename>", object_xml()))
    dataset = load_data(tmp_path / "data", "all", allow_bad=True)
    assert ids(dataset) == ["1.jpg"] and kinds(dataset) == ["image missing"]


def test_what_is_left_out_is_named(tmp_path):
    for name in ("1", "2", "3"):
        marked(tmp_path, f"{name}.jpg", f"{name}.xml")
    photo(tmp_path / "unmarked.jpg")
    write(tmp_path / "other/1.xml", annotation(object_xml()))
    write(tmp_path / "cvat.xml", "<annotations><image/></annotations>")
    write(tmp_path / "._1.xml", "of a Mac")
    dataset = load_data(tmp_path, "all", allow_bad=True)
    assert ids(dataset) == ["1.jpg", "2.jpg", "3.jpg"]
    found = {problem.kind: problem for problem in dataset.problems}
    assert sorted(found) == ["annotation unreadable", "image missing", "image not annotated"]
    assert found["image not annotated"].file.endswith("unmarked.jpg")
    assert "expected <annotation>, found <annotations>" in found["annotation unreadable"].reason
    assert "belongs to" in found["image missing"].reason


def test_a_picture_of_a_kind_that_is_not_read_is_named(tmp_path):
    marked(tmp_path, "1.jpg", "1.xml")
    write(tmp_path / "2.heic", "x")
    write(tmp_path / "2.xml", annotation(object_xml()))
    dataset = load_data(tmp_path, "all", allow_bad=True)
    (problem,) = dataset.problems
    assert "2.heic is of a kind that is not read" in problem.reason


def test_images_come_in_the_order_of_their_names(tmp_path):
    for name in ("b.jpg", "a b.png", "a.jpg", "B.jpg", "c/a.jpg"):
        marked(tmp_path, name, f"{name.rpartition('.')[0]}.xml")
    assert ids(load_data(tmp_path, "all")) == ["B.jpg", "a.jpg", "a b.png", "b.jpg", "c/a.jpg"]
