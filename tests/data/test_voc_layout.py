"""The layout of a VOC devkit: its years, sets and lists of ids.

Shapes and names
----------------
devkit  VOC2007 with images 1 and 2 in train, 3 in val, 4 in no list.
"""

from __future__ import annotations

import codecs
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from keras_frcnn.data import voc_layout
from keras_frcnn.data.bad_images import check_share_of_bad
from keras_frcnn.data.voc import load_voc
from keras_frcnn.data.voc_layout import available_sets, parse_sets
from keras_frcnn.errors import UserError
from tests.data.devkits import ids, kinds


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2007:trainval+2012:trainval", (("2007", "trainval"), ("2012", "trainval"))),
        ("07", (("2007", "trainval"),)),
        ("12", (("2012", "trainval"),)),
        ("07+12", (("2007", "trainval"), ("2012", "trainval"))),
        ("07++12", (("2007", "trainval"), ("2007", "test"), ("2012", "trainval"))),
        (" 2007:test ", (("2007", "test"),)),
        ("07:test + 2020:my-set_2", (("2007", "test"), ("2020", "my-set_2"))),
        ("2007:val+2007:val", (("2007", "val"),)),
    ],
)
def test_parse_sets(text, expected):
    assert parse_sets(text) == expected


@pytest.mark.parametrize(
    "text", ["", "2007", "trainval", "2007:", "2007:../x", "1999:x", "07+", "7:a"]
)
def test_parse_sets_refuses(text):
    with pytest.raises(UserError, match="2007:trainval"):
        parse_sets(text)


def test_available_sets(devkit):
    for split in ("dog_train", "dog_trainval", "val_small"):
        devkit.list(split, "1")
    devkit.list("test", "1", year=2012)
    assert available_sets(devkit.root) == (
        ("2007", "train"),
        ("2007", "trainval"),
        ("2007", "val"),
        ("2007", "val_small"),
        ("2012", "test"),
    )


def test_only_listed_ids_in_the_order_of_the_list(devkit):
    dataset = load_voc(devkit.root, "2007:train")
    assert ids(dataset) == ["2", "1"]
    assert dataset.sets == ("2007:train",) and dataset.problems == ()
    example = dataset.examples[0]
    assert (example.key, example.height, example.width) == ("VOC2007/2", 40, 60)
    assert example.path == devkit.root / "VOC2007/JPEGImages/2.jpg"
    assert example.boxes_image.tolist() == [[2, 4, 9, 7]]
    assert example.boxes_image.dtype == np.float32


def test_default_is_every_year_that_has_the_split(devkit):
    devkit.add("9", year=2012)
    devkit.list("trainval", "9", year=2012)
    devkit.list("test", "9", year=2020)
    dataset = load_voc(devkit.root, None)
    assert [e.key for e in dataset.examples] == [f"VOC2007/{i}" for i in "123"] + ["VOC2012/9"]
    assert dataset.sets == ("2007:trainval", "2012:trainval")
    assert ids(load_voc(devkit.root, None, default_split="val")) == ["3"]


def test_a_year_folder_itself_is_taken(devkit, monkeypatch):
    devkit.add("9", year=2012)
    devkit.list("trainval", "9", year=2012)
    assert ids(load_voc(devkit.root / "VOC2007", None)) == ["1", "2", "3"]
    monkeypatch.chdir(devkit.root / "VOC2012")
    assert ids(load_voc(Path("."), None)) == ["9"]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("gone", "does not exist"),
        ("VOCdevkit/VOC2007/JPEGImages/1.jpg", "is a file"),
        (".", "give .*VOCdevkit instead"),
        ("VOCdevkit/VOC2007/JPEGImages", "give .*VOCdevkit instead"),
        ("empty", "it holds nothing"),
        ("mine", "no lists in ImageSets/Main"),
    ],
)
def test_wrong_folders_are_told_the_right_one(devkit, path, message):
    base = devkit.root.parent
    (base / "empty").mkdir()
    (base / "mine" / "ImageSets").mkdir(parents=True)
    with pytest.raises(UserError, match=message):
        load_voc(base / path, None)


@pytest.mark.parametrize("sets", ["2007:test", "2012:trainval", "07+12"])
def test_a_missing_set_is_told_with_those_there_are(devkit, sets):
    with pytest.raises(UserError, match=r"found the sets: 2007:train, 2007:trainval, 2007:val"):
        load_voc(devkit.root, sets)


def test_a_missing_default_split(devkit):
    with pytest.raises(UserError, match=r"Main/test\.txt of any year"):
        load_voc(devkit.root, None, default_split="test")


def test_list_forms(devkit):
    devkit.add("my photo")
    text = codecs.BOM_UTF8 + b"1\r\n\r\n  2  -1\r\n3\t1\r\nmy photo\r\n"
    devkit.file(2007, "ImageSets/Main", "odd.txt").write_bytes(text)
    dataset = load_voc(devkit.root, "2007:odd")
    assert ids(dataset) == ["1", "2", "3", "my photo"]
    assert dataset.problems == ()


def test_repeated_ids_are_used_and_reported_once(devkit):
    devkit.list("again", "2", "1", "2", "2")
    dataset = load_voc(devkit.root, "2007:again+2007:val+2007:train")
    assert ids(dataset) == ["2", "1", "3"]
    assert kinds(dataset) == ["id repeated", "id repeated"]
    assert "found it 4 times" in dataset.problems[0].reason


@pytest.mark.parametrize("bad", ["../1", "a/b", "a\\b", "..", "/etc/passwd", "a\0b"])
def test_ids_that_leave_the_folder_are_refused(devkit, bad):
    devkit.list("bad", "1", bad)
    dataset = load_voc(devkit.root, "2007:bad")
    assert ids(dataset) == ["1"]
    assert kinds(dataset) == ["id refused"] and dataset.problems[0].where == "line 2"


@pytest.mark.parametrize(
    "text",
    [
        "1 2 3",
        "1\t2\t3\n",
        "1, 2, 3",
        "1;2;3",
        '"1" "2" "3"',
        '"1","2","3"',
        "1\x0c2\x0c3",
        "1\u20282\u20283\n",
        "1\r2\r3",
        '"1"\n"2" -1\n\'3\'',
        "1.jpg -1\n2.JPEG 1\n3.png 0\n",
        "1.xml\n2.XML\n3\n",
        "\ufeff1\n\ufeff2\n3",
    ],
)
def test_no_id_is_lost_by_how_its_list_is_written(devkit, text):
    devkit.file(2007, "ImageSets/Main", "odd.txt").write_bytes(text.encode())
    dataset = load_voc(devkit.root, "2007:odd")
    assert ids(dataset) == ["1", "2", "3"] and dataset.problems == ()


@pytest.mark.parametrize(
    ("file", "written"),
    [
        ("my photo", '"my photo"'),
        ("my photo", '"my photo" -1'),
        ("my photo", "my photo 1"),
        ("my photo", "my photo.jpg"),
        ("it's", "it's"),
        ("a.jpg", "a.jpg"),
        ("1.v2", "1.v2"),
        ("cam1/1", "cam1/1"),
        ("cam1/1", "cam1\\1.jpg 1"),
        ("cam 1/1", '"cam 1/1"'),
        ("IMG_7", "img_7"),
        ("img_7", "IMG_7.JPG"),
        (unicodedata.normalize("NFD", "Übung 1"), unicodedata.normalize("NFC", "Übung 1")),
        (unicodedata.normalize("NFC", "Übung/é"), unicodedata.normalize("NFD", "übung/É")),
    ],
)
def test_an_id_is_found_however_it_is_spelled(devkit, file, written):
    (devkit.root / "VOC2007/JPEGImages" / file).parent.mkdir(parents=True, exist_ok=True)
    devkit.add(file)
    devkit.list("odd", "2", written)
    dataset = load_voc(devkit.root, "2007:odd")
    assert ids(dataset) == ["2", file] and dataset.problems == ()
    assert dataset.examples[1].path == devkit.root / "VOC2007/JPEGImages" / f"{file}.jpg"


def test_suffixes_of_annotations_in_upper_case(devkit):
    annotations = devkit.root / "VOC2007/Annotations"
    (annotations / "1.xml").rename(annotations / "1.XML")
    assert ids(load_voc(devkit.root, "2007:train")) == ["2", "1"]


@pytest.mark.parametrize(
    ("written", "named"),
    [
        ("0000", "000"),
        ("cam2/000", "000"),
        ("VOC2007/JPEGImages/000.jpg", "000"),
        ("img_1", "IMG_1.xml or .*Img_1"),
    ],
)
def test_ids_that_are_not_found_are_told_the_nearest_file(devkit, written, named):
    for name in ("000", "IMG_1", "Img_1"):
        devkit.add(name)
    devkit.list("odd", *["2"], written)
    dataset = load_voc(devkit.root, "2007:odd")
    assert ids(dataset) == ["2"]
    (problem,) = dataset.problems
    assert problem.action == "image dropped"
    assert Path(problem.reason.split(" or ")[-1].split()[-1]).stem in ("000", "IMG_1", "Img_1")
    with pytest.raises(UserError, match=named):
        check_share_of_bad(dataset)


def test_two_spellings_of_one_id_are_one(devkit):
    devkit.list("odd", "1", "1.jpg", '"1"')
    dataset = load_voc(devkit.root, "2007:odd")
    assert ids(dataset) == ["1"] and kinds(dataset) == ["id repeated"]


def test_lists_are_bounded(devkit, monkeypatch):
    monkeypatch.setattr(voc_layout, "MOST_LINES", 3)
    assert len(load_voc(devkit.root, "2007:trainval")) == 3
    devkit.list("odd", "1", "2 3 4")
    with pytest.raises(UserError, match="odd.txt"):
        load_voc(devkit.root, "2007:odd")


@pytest.mark.parametrize(
    ("file", "parser"),
    [
        ("1.xml", "voc_xml"),
        ("train/1.xml", "voc_xml"),
        ("train/_annotations.coco.json", "coco"),
        ("data.yaml", "yolo"),
        ("labels/1.txt", "yolo"),
    ],
)
def test_folders_of_other_programs_are_told_their_parser(tmp_path, file, parser):
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).touch()
    with pytest.raises(UserError, match=f"{file} use the parser {parser}"):
        load_voc(tmp_path, None)


@pytest.mark.parametrize("rest", [" -1", "\t1", "  0"])
def test_lists_of_single_classes_alone_are_one_list(devkit, rest):
    main = devkit.root / "VOC2007/ImageSets/Main"
    for file in main.iterdir():
        file.unlink()
    devkit.add("my photo")
    for name, listed in (("cat", ("3", "1")), ("dog", ("1", "my photo", "3"))):
        devkit.list(f"{name}_trainval", *(f"{image_id}{rest}" for image_id in listed))
    devkit.list("dog_test", f"2{rest}")
    dataset = load_voc(devkit.root, None)
    assert ids(dataset) == ["3", "1", "my photo"]
    assert dataset.sets == ("2007:trainval",) and dataset.problems == ()
    assert ids(load_voc(devkit.root, None, default_split="test")) == ["2"]
    with pytest.raises(UserError, match="2007:test, 2007:trainval"):
        load_voc(devkit.root, "2007:val")


def test_without_trainval_the_lists_there_are_train(devkit):
    main = devkit.root / "VOC2007/ImageSets/Main"
    (main / "trainval.txt").unlink()
    dataset = load_voc(devkit.root, None)
    assert dataset.sets == ("2007:train", "2007:val") and ids(dataset) == ["2", "1", "3"]
    (main / "train.txt").unlink()
    (main / "val.txt").rename(main / "default.txt")
    assert load_voc(devkit.root, None).sets == ("2007:default",)
    devkit.list("other", "1")
    with pytest.raises(UserError, match="2007:default, 2007:other"):
        load_voc(devkit.root, None)


def test_a_folder_that_holds_the_lists_itself_is_read_as_cvat_writes_it(devkit):
    devkit.list("default", "1", "2")
    folder = (devkit.root / "VOC2007").rename(devkit.root.parent / "task 1")
    for name in ("train", "val", "trainval"):
        (folder / f"ImageSets/Main/{name}.txt").unlink()
    dataset = load_voc(folder, None)
    assert dataset.sets == ("2007:default",) and ids(dataset) == ["1", "2"]
    assert dataset.class_names == ("dog",)
