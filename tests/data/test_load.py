"""A data set in any layout by one function."""

from __future__ import annotations

import os

import h5py
import numpy as np
import pytest
from PIL import Image

import keras_frcnn as frcnn
from keras_frcnn.data.load import READERS, load_data, recognised
from keras_frcnn.errors import UserError
from tests.data.devkits import ids
from tests.data.layouts import (
    coco_of,
    devkit_of,
    list_of,
    pictures,
    write,
    xml_folders_of,
    yolo_of,
)

MAKERS = {
    "pascal_voc": devkit_of,
    "voc_xml": xml_folders_of,
    "coco": coco_of,
    "yolo": yolo_of,
    "simple": list_of,
}


def test_sets_of_a_list_are_refused(tmp_path):
    boxes = tmp_path / "boxes.txt"
    boxes.write_text("")
    for parser in (None, "simple"):
        with pytest.raises(UserError, match="Image sets belong to VOC devkits"):
            load_data(boxes, "2007:test", parser=parser)


def trained_on(dataset) -> list:
    """All that the bits of a training depend on."""
    return [
        (
            example.pixels().tobytes(),
            example.boxes_image.tobytes(),
            example.classes.tobytes(),
            example.difficult.tobytes(),
        )
        for example in dataset.examples
    ]


@pytest.mark.parametrize("parts", [("",), ("train", "test", "train")])
def test_the_same_pictures_are_the_same_data_in_every_layout(tmp_path, parts):
    made = pictures(parts=parts)
    for which in ("train", "test") if parts[0] else ("all",):
        of_part = [picture for picture in made if picture.part in (which, "")]
        expected = load_data(list_of(tmp_path / f"list {which}", of_part))
        assert len(expected) == len(of_part) > 3 and not expected.problems
        for example, picture in zip(expected.examples, of_part, strict=True):
            boxes = [(y1, x1, y2, x2) for _, (x1, y1, x2, y2) in picture.objects]
            assert np.array_equal(example.boxes_image, np.reshape(boxes, (-1, 4)))
        for parser, make in MAKERS.items():
            root = tmp_path / f"{parser} {which}"
            if parser == "simple":
                continue
            path = make(root, made)
            sets = {"pascal_voc": f"2007:{which.replace('train', 'trainval')}"}.get(parser, which)
            sets = sets.replace("2007:all", "2007:trainval")
            found = load_data(path, sets)
            assert found.parser == parser and found.problems == ()
            assert found.class_names == expected.class_names and len(found.class_names) > 1
            assert trained_on(found) == trained_on(expected), parser


@pytest.mark.slow
def test_the_same_pictures_train_the_same_weights(tiny_recipe, tmp_path):
    trained = []
    for parser, sets in (("pascal_voc", None), ("yolo", "all")):
        data = load_data(MAKERS[parser](tmp_path / parser, pictures(6, side=200)), sets)
        options = {"network": "tiny", "weights": "random", "recipe": tiny_recipe}
        run = frcnn.train(data, tmp_path / f"run {parser}", **options)
        arrays: dict[str, bytes] = {}
        with h5py.File(run.weights_file("final")) as file:
            file.visititems(
                lambda name, item, arrays=arrays: (
                    arrays.update({name: item[()].tobytes()})
                    if isinstance(item, h5py.Dataset)
                    else None
                )
            )
        trained.append(arrays)
    assert trained[0] == trained[1] and len(trained[0]) > 5


@pytest.mark.parametrize("parser", MAKERS)
def test_parser_forces_a_layout(tmp_path, parser):
    path = MAKERS[parser](tmp_path / "data", pictures(4))
    assert recognised(path) == parser
    sets = "all" if parser not in ("pascal_voc", "simple") else None
    assert len(load_data(path, sets, parser=parser)) == 4
    for other in MAKERS.keys() - {parser, "voc_xml"}:
        with pytest.raises(UserError):
            load_data(path, parser=other)


def test_training_and_test_images_of_parts(tmp_path):
    root = xml_folders_of(tmp_path / "all", pictures(6, ("train", "val", "test")))
    assert load_data(root).sets == ("train",)
    assert load_data(root, default_split="test").sets == ("test",)
    assert len(load_data(root, "trainval")) == 4 and len(load_data(root, "all")) == 6
    assert ids(load_data(root, "valid+train")) == [
        f"{part}/images/field {number:02d}.png"
        for part, number in (("val", 1), ("val", 4), ("train", 0), ("train", 3))
    ]
    with pytest.raises(UserError, match="found the parts: train, val, test; choose `sets`"):
        load_data(root, "2007:test")
    pair = xml_folders_of(tmp_path / "pair", pictures(4, ("train", "valid")))
    assert load_data(pair, default_split="test").sets == ("val",)
    alone = xml_folders_of(tmp_path / "alone", pictures(4, ("train",)))
    with pytest.raises(UserError, match="test or val .*found the parts: train"):
        load_data(alone, default_split="test")
    assert len(load_data(alone / "train")) == 4


def test_what_lies_beside_the_parts_is_for_training_if_nothing_else_is(tmp_path):
    root = xml_folders_of(tmp_path / "data", pictures(6, ("", "test")))
    assert len(load_data(root)) == len(load_data(root, "test")) == 3
    root = xml_folders_of(tmp_path / "others", pictures(6, ("train", "test", "")))
    dataset = load_data(root)
    assert len(dataset) == 2
    assert [(p.kind, p.action) for p in dataset.problems] == [("no part", "noted")] * 2


def test_what_is_wrong_in_one_part_is_no_matter_of_the_others(tmp_path):
    root = xml_folders_of(tmp_path / "parts", pictures(8, ("train", "test")))
    (root / "test/images/field 01.png").unlink()
    assert load_data(root).problems == ()
    with pytest.raises(UserError, match="1 of the 4 images in test cannot be used"):
        load_data(root, "test")
    assert [p.kind for p in load_data(root, "all", allow_bad=True).problems] == ["image missing"]
    root = xml_folders_of(tmp_path / "split", pictures(60))
    for number in range(5):
        (root / f"images/field {number:02d}.png").unlink()
    lost = [len(load_data(root, part, allow_bad=True).problems) for part in ("train", "test")]
    assert sum(lost) == 5 and lost[0] > lost[1]


def test_a_split_is_made_where_there_are_no_lists(tmp_path):
    made = pictures(30)
    splits = []
    for parser in ("voc_xml", "coco", "yolo"):
        path = MAKERS[parser](tmp_path / parser, made)
        train, test = load_data(path), load_data(path, default_split="test")
        assert (train.sets, test.sets) == (("train",), ("test",))
        assert not set(ids(train)) & set(ids(test)) and len(train) + len(test) == 30
        assert train.split == test.split and {*train.split} == {*ids(train), *ids(test)}
        assert all(train.split[image_id] == "train" for image_id in ids(train))
        assert train.class_names == test.class_names
        splits.append({name.rpartition("/")[2]: part for name, part in train.split.items()})
        kept = {name: "train" for name in train.split}
        assert len(load_data(path, split=kept)) == 30
    assert splits[0] == splits[1] == splits[2]
    boxes = list_of(tmp_path / "list", made)
    assert len(load_data(boxes)) == 30 and not load_data(boxes).split
    assert 0 < len(load_data(boxes, "test")) < len(load_data(boxes, "train")) < 30


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.jpg": 1, "b.jpg": 1}, "found 2 .jpg; put the labels beside the images"),
        ({"a.jpg": 1, "a.json": '{"shapes": []}'}, "export the labels as COCO"),
        ({"a.jpg": 1, "boxes.csv": "a.jpg,1,1,2,2,x"}, "give .*boxes.csv itself"),
        ({"photos.zip": "PK"}, "unpack .*photos.zip"),
        ({}, "found no files"),
        ({"report.docx": "x", "._a.xml": "<annotation/>"}, "found 1 .docx; give a folder"),
    ],
)
def test_what_is_not_recognised_is_told_what_was_found(tmp_path, files, message):
    for name, text in files.items():
        if text == 1:
            Image.new("RGB", (60, 40)).save(tmp_path / name)
        else:
            write(tmp_path / name, text)
    with pytest.raises(UserError, match=message):
        load_data(tmp_path)


def test_nothing_and_archives_are_told(tmp_path):
    with pytest.raises(UserError, match="found nothing, check the path"):
        load_data(tmp_path / "gone")
    with pytest.raises(UserError, match="an archive, unpack it"):
        load_data(write(tmp_path / "photos.zip", "PK"))
    for parser in READERS.keys() - {"tfds"}:
        with pytest.raises(UserError):
            load_data(tmp_path / "gone", parser=parser)


def test_lists_of_a_devkit_are_not_passed_over(tmp_path):
    devkit_of(tmp_path / "data/VOCdevkit", pictures(4))
    for path in (tmp_path / "data", tmp_path / "data/VOCdevkit/VOC2007/Annotations"):
        with pytest.raises(UserError, match="give .*VOCdevkit instead"):
            load_data(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
@pytest.mark.parametrize("name", ["a.xml", "a.json", "data.yaml", "a.txt"])
def test_pipes_are_no_data(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(UserError):
        load_data(tmp_path)
