"""The devkit's text files, written, read again, and read from elsewhere."""

import errno
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

from keras_frcnn.data.dataset import Dataset
from keras_frcnn.detection.write_detections import write_voc
from keras_frcnn.errors import UserError
from keras_frcnn.evaluation.read_detections import read_detections, read_voc

ROOT = Path(__file__).parents[2]
BOX, FAR = (10, 20, 40, 80.5), (50, 50, 60, 60)
NAMES = ("cat", "potted_plant")


@pytest.fixture
def data(make_dataset):
    """Two images without objects."""
    return make_dataset([], [], class_names=NAMES, ids=("000005", "000007"))


def test_lines_as_the_devkit_writes_them(data, make_detections, tmp_path):
    # The mapping's order does not matter: the image list's does.
    found = make_detections(
        ("000007", FAR, 1 / 3, 1), ("000005", BOX, 0.9, 1), ("000005", (0, 0, 1, 1), 0.95, 1)
    )
    paths = write_voc(tmp_path / "new", data, found)
    assert [path.name for path in paths] == [
        "comp4_det_test_cat.txt",
        "comp4_det_test_potted_plant.txt",
    ]
    assert paths[0].read_bytes().decode() == (
        "000005 0.900000 21.000 11.000 80.500 40.000\n"
        "000005 0.950000 1.000 1.000 1.000 1.000\n"  # the first pixel
        "000007 0.333333 51.000 51.000 60.000 60.000\n"
    )
    assert paths[1].read_bytes() == b""


def test_the_name_of_the_image_set(data, tmp_path):
    several = Dataset(NAMES, data.examples, ("2007:trainval", "2012:trainval"))
    assert write_voc(tmp_path, several, {})[0].name == "comp4_det_trainval_cat.txt"
    mixed = Dataset(NAMES, data.examples, ("2007:test", "2012:val"))
    assert write_voc(tmp_path, mixed, {})[0].name == "comp4_det_test_cat.txt"
    simple = Dataset(NAMES, data.examples, ("boxes.txt",))
    assert write_voc(tmp_path, simple, {})[0].name == "comp4_det_test_cat.txt"


def test_what_was_written_is_read(data, make_detections, tmp_path):
    found = make_detections(
        ("000005", BOX, 0.9, 2), ("000007", FAR, 0.5, 1), ("000007", BOX, 0.25, 2)
    )
    write_voc(tmp_path, data, found)
    again, notes = read_detections(tmp_path, data)
    assert set(again) == set(found)
    for key, of_image in found.items():
        order = np.argsort(of_image.classes)
        np.testing.assert_allclose(again[key].boxes_image, of_image.boxes_image[order], atol=1e-3)
        np.testing.assert_allclose(again[key].scores, of_image.scores[order], atol=1e-6)
        np.testing.assert_array_equal(again[key].classes, of_image.classes[order])
    assert notes == []


def test_an_image_set_with_an_underscore_is_read_again(data, make_detections, tmp_path):
    named = Dataset(NAMES, data.examples, ("2007:my_val",))
    found = make_detections(("000005", BOX, 0.9, 2), ("000007", FAR, 0.5, 1))
    assert write_voc(tmp_path, named, found)[1].name == "comp4_det_my_val_potted_plant.txt"
    again, notes = read_voc(tmp_path, named)
    assert {key: of_image.classes.tolist() for key, of_image in again.items()} == {
        "VOC2007/000005": [2],
        "VOC2007/000007": [1],
    }
    assert notes == []


@pytest.mark.parametrize("name", ["results.tar", "results.tar.gz", "no_suffix"])
def test_an_archive_with_the_devkits_folders(data, make_detections, tmp_path, name):
    folder = tmp_path / "results" / "VOC2007" / "Main"
    write_voc(folder, data, make_detections(("000005", BOX, 0.9, 2)))
    (folder / "readme.txt").write_bytes(b"by hand, in Latin-1: \xe9")
    (folder / "comp3_cls_test_cat.txt").write_text("000005 0.5")
    with tarfile.open(tmp_path / name, "w:gz" if name.endswith("gz") else "w") as archive:
        archive.add(tmp_path / "results", "results")
    found, notes = read_detections(tmp_path / name, data)
    assert found["VOC2007/000005"].classes.tolist() == [2]
    assert notes == [f"1 of 2 images have no detection in {tmp_path / name}."]


def test_a_python_without_liblzma_reads_all_other_files(tmp_path):
    """In a process of its own: here the module is loaded already."""
    (tmp_path / "comp4_det_test_cat.txt").write_text("000005 0.9 21 11 80 40\n")
    with tarfile.open(tmp_path / "results.tar", "w") as archive:
        archive.add(tmp_path / "comp4_det_test_cat.txt", "comp4_det_test_cat.txt")
    (tmp_path / "cut.tar").write_bytes((tmp_path / "results.tar").read_bytes()[:520])
    program = """
import sys
sys.modules["lzma"] = sys.modules["_lzma"] = None
from pathlib import Path
import re
from keras_frcnn.errors import UserError
from keras_frcnn.evaluation.read_detections import _class_files
pattern = re.compile("comp4_det_test_(?P<class_name>.+).txt")
(found,) = _class_files(Path("results.tar"), pattern)
assert found[1:] == ("cat", "000005 0.9 21 11 80 40\\n"), found
try:
    list(_class_files(Path("cut.tar"), pattern))
except UserError as error:
    assert "cut.tar" in str(error)
else:
    raise AssertionError
"""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}){program}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_an_archive_that_may_not_be_read_is_not_called_damaged(data, tmp_path, monkeypatch):
    path = tmp_path / "results.tar"
    with tarfile.open(path, "w"):
        pass

    def refuse(*arguments):
        raise OSError(errno.EIO, "the system's words")

    monkeypatch.setattr(tarfile.TarFile, "next", refuse)
    with pytest.raises(UserError, match=r"results\.tar.*the system's words"):
        read_voc(path, data)


@pytest.mark.parametrize("size", [2**40, 2**62 - 1, 2**63, 2**80])
def test_a_member_beyond_all_bounds_is_damage(data, tmp_path, size):
    header = tarfile.TarInfo("comp4_det_test_cat.txt")
    header.size = size
    path = tmp_path / "results.tar"
    path.write_bytes(header.tobuf(tarfile.GNU_FORMAT) + bytes(2048))
    with pytest.raises(UserError, match=r"results\.tar"):
        read_voc(path, data)


def test_text_of_another_encoding_in_an_archive_is_no_damage(data, tmp_path):
    (tmp_path / "comp4_det_test_cat.txt").write_bytes(b"\xff\xfe")
    with tarfile.open(tmp_path / "results.tar", "w") as archive:
        archive.add(tmp_path / "comp4_det_test_cat.txt", "comp4_det_test_cat.txt")
    with pytest.raises(UserError, match=r"^comp4_det_test_cat.txt in .*UTF-8 text"):
        read_voc(tmp_path / "results.tar", data)


def test_names_of_other_programs(data, tmp_path):
    salted = tmp_path / "comp4_1f2e-77aa_det_test_potted_plant.txt"
    salted.write_text("000005 0.9 21 11 80 40\r\n\n")
    found, notes = read_voc(tmp_path, data)
    assert found["VOC2007/000005"].boxes_image.tolist() == [[10, 20, 40, 80]]
    assert notes[0] == "There is no file for cat: nothing was found of them."


BAD_LINES = [
    ("000005 0.9 1 2 3", "Line 2 of .*cat.txt in .* should be 'image_id score xmin"),
    ("000005 0.9 1 2 3 4 5", "should be"),
    ("000005 high 1 2 3 4", "should be"),
    ("000005 nan 1 2 3 4", "finite numbers"),
    ("000005 0.9 1 2 inf 4", "finite numbers"),
    ("000006 0.9 1 2 3 4", "'000006'.* not in the set"),
]


@pytest.mark.parametrize(("line", "words"), BAD_LINES)
def test_a_bad_line_is_named(data, tmp_path, line, words):
    text = f"000005 0.9 21 11 80 40\n{line}\n"
    (tmp_path / "comp4_det_test_cat.txt").write_text(text)
    with pytest.raises(UserError, match=words):
        read_voc(tmp_path, data)


def test_files_that_do_not_fit(data, tmp_path):
    with pytest.raises(UserError, match="holds no file named like comp4_det_test_cat.txt"):
        read_voc(tmp_path, data)
    (tmp_path / "comp4_det_test_cat.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="UTF-8"):
        read_voc(tmp_path, data)
    (tmp_path / "comp4_det_test_cat.txt").write_text("")
    (tmp_path / "comp3_det_test_cat.txt").write_text("")
    with pytest.raises(UserError, match="two files of the class 'cat'"):
        read_voc(tmp_path, data)
    (tmp_path / "comp3_det_test_cat.txt").unlink()
    (tmp_path / "comp4_det_test_zebra.txt").write_text("")
    with pytest.raises(UserError, match="class 'zebra', expected one of: cat, potted_plant"):
        read_voc(tmp_path, data)
    with pytest.raises(UserError, match="COCO annotations belong to a JSON file"):
        read_detections(tmp_path, data, tmp_path / "truth.json")


def test_names_that_such_files_cannot_hold(make_dataset, data, tmp_path):
    with pytest.raises(UserError, match="id 'a b' holds a blank"):
        write_voc(tmp_path, make_dataset([], ids=("a b",)), {})
    with pytest.raises(UserError, match="class 'a/b' cannot be part"):
        write_voc(tmp_path, make_dataset([], class_names=("a/b",)), {})
    twice = Dataset(NAMES, data.examples * 2, ("2007:test",))
    with pytest.raises(UserError, match="have one id"):
        write_voc(tmp_path, twice, {})
    assert list(tmp_path.iterdir()) == []
