"""YOLO's labels: where they are, and how shares become pixels.

Shapes and names
----------------
All images are 40 x 60 pixels (height x width) but for those that say otherwise.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keras_frcnn.data.load import load_data
from keras_frcnn.errors import UserError
from tests.data.devkits import ids, kinds
from tests.data.layouts import CLASSES, Picture, pictures, write, yolo_of

LINE = "1 0.5 0.5 0.2 0.4\n"
BOX = [12, 24, 28, 36]

needs_yaml = pytest.mark.usefixtures("yaml")


@pytest.fixture
def yaml():
    return pytest.importorskip("yaml")


def photo(file: Path, size=(60, 40), **how) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(file, **how)
    return file


def data(tmp_path: Path, text: str, size=(60, 40)):
    photo(tmp_path / "1.png", size)
    write(tmp_path / "1.txt", text)
    write(tmp_path / "classes.txt", "cat\nred cell\n")
    return load_data(tmp_path, "all", allow_bad=True)


@pytest.mark.parametrize(
    ("image", "labels"),
    [
        ("1.jpg", "1.txt"),
        ("images/my 1.jpg", "labels/my 1.txt"),
        ("images/a/1.JPG", "labels/a/1.txt"),
        ("obj_train_data/1.jpg", "obj_train_data/1.txt"),
    ],
)
@pytest.mark.parametrize("classes", ["classes.txt", "labels/classes.txt", "obj.names"])
def test_labels_find_their_image_and_classes(tmp_path, image, labels, classes):
    photo(tmp_path / image)
    write(tmp_path / labels, LINE)
    write(tmp_path / classes, "cat\nred cell\n")
    dataset = load_data(tmp_path, "all")
    assert dataset.parser == "yolo" and dataset.problems == ()
    assert ids(dataset) == [image] and dataset.class_names == ("red cell",)
    assert dataset.examples[0].boxes_image.tolist() == [BOX]


YAMLS = [
    "path: .\ntrain: images/train\nval: images/val\nnames: [cat, red cell]\n",
    "train: ../train/images\nval: ../valid/images\nnc: 2\nnames: ['cat', 'red cell']\n",
    "path: {root}\ntrain: [images/train]\nval: lists/val.txt\nnames:\n  0: cat\n  1: red cell\n",
]


@needs_yaml
@pytest.mark.parametrize("text", YAMLS)
def test_a_data_yaml(tmp_path, text):
    for part in ("train", "val"):
        for name in ("1", "2"):
            roboflow = f"{part.replace('val', 'valid')}/{{}}/{name}"
            for place in (f"{{}}/{part}/{name}", roboflow):
                photo(tmp_path / f"{place.format('images')}.jpg")
                write(tmp_path / f"{place.format('labels')}.txt", LINE)
    write(tmp_path / "lists/val.txt", "../images/val/1.jpg\nimages/val/2.jpg\nimages/gone.jpg\n")
    file = write(tmp_path / "data.yaml", text.format(root=tmp_path))
    for path in (tmp_path, file):
        train = load_data(path)
        assert train.parser == "yolo" and train.sets == ("train",) and train.problems == ()
        assert len(train) == 2 and train.class_names == ("red cell",)
        val = load_data(path, default_split="test", allow_bad=True)
        assert val.sets == ("val",) and len(val) == 2
        assert kinds(val) == ["image missing"] * text.count("val.txt")
    assert not {e.path for e in train.examples} & {e.path for e in val.examples}


@needs_yaml
def test_images_of_a_data_yaml_without_labels_have_no_object(tmp_path):
    root = yolo_of(tmp_path / "data", pictures(5, ("train",)))
    photo(root / "images/train/empty.jpg")
    write(root / "data.yaml", f"train: images/train\nnames: {list(CLASSES)}\n")
    dataset = load_data(root)
    assert len(dataset) == 6 and kinds(dataset) == ["no labels"]
    (root / "data.yaml").unlink()
    dataset = load_data(root)
    assert len(dataset) == 5 and kinds(dataset) == ["image not annotated"]


@needs_yaml
@pytest.mark.parametrize(
    "text",
    [
        "names: [a]\ntrain: gone\n",
        "names: [a]\ntrain: [1, 2]\n",
        "names: [[a, b]]\ntrain: images\n",
        "names: a\ntrain: images\n",
        "names: [a]\ntrain: [images\n",
        "names: [a]\ntrain:\nval:\n",
        "names: [a]\ntrain: !!python/object/apply:os.getcwd []\n",
        "names: &a [*a]\ntrain: images\n",
        "{names: [a], train: " + "[" * 5000,
    ],
)
def test_files_that_are_no_data_yaml_are_one_sentence(tmp_path, text):
    photo(tmp_path / "images/1.jpg")
    file = write(tmp_path / "data.yaml", text)
    with pytest.raises(UserError) as caught:
        load_data(file)
    assert "data.yaml" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("digits", [6, 9, 16])
@pytest.mark.parametrize("size", [(60, 40), (641, 479), (4001, 2999), (6007, 31)])
def test_whole_pixels_come_back_exactly(tmp_path, digits, size):
    draw = np.random.default_rng(0)
    lows = draw.integers(0, np.array(size) - 12, (60, 2))
    highs = draw.integers(lows + 4, np.array(size) + 1)
    boxes = np.unique(np.concatenate([lows, highs], 1), axis=0)
    picture = Picture("1", size, tuple(("red cell", tuple(box)) for box in boxes.tolist()))
    dataset = data(tmp_path, picture.labels(("cat", "red cell"), digits), size)
    assert dataset.problems == ()
    assert np.array_equal(dataset.examples[0].boxes_image, boxes[:, [1, 0, 3, 2]])


def test_parts_of_pixels_stay(tmp_path):
    dataset = data(tmp_path, "0 0.5 0.5 0.51 0.5\n0 5e-1 .5 1. 1e0\n")
    assert dataset.examples[0].boxes_image.tolist() == [
        pytest.approx([10, 14.7, 30, 45.3]),
        [0, 0, 40, 60],
    ]


def test_shares_are_of_the_upright_image(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    photo(tmp_path / "1.jpg", (40, 60), exif=exif)
    write(tmp_path / "1.txt", LINE)
    write(tmp_path / "classes.txt", "cat\ndog")
    (example,) = load_data(tmp_path, "all").examples
    assert (example.height, example.width) == (40, 60)
    assert example.boxes_image.tolist() == [BOX]


def test_polygons_are_noted_once(tmp_path):
    outline = "1 0.4 0.3 0.6 0.3 0.6 0.7 0.5 0.7\n"
    dataset = data(tmp_path, outline + outline.replace("1 ", "0 "))
    assert dataset.examples[0].boxes_image.tolist() == [BOX] * 2
    noted, more = dataset.problems
    assert (noted.kind, noted.where) == ("polygon for a box", "line 1 (red cell)")
    assert more.number == 1


@needs_yaml
def test_points_of_poses_are_left_aside(tmp_path):
    photo(tmp_path / "images/1.jpg")
    write(tmp_path / "labels/1.txt", LINE.strip() + " 0.1 0.1 2.0 0.2 0.2 1.0\n")
    write(tmp_path / "data.yaml", "train: images\nnames: [a, b]\nkpt_shape: [2, 3]\n")
    dataset = load_data(tmp_path)
    assert dataset.examples[0].boxes_image.tolist() == [BOX] and dataset.problems == ()


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("1 0.5 0.5 0.2", "box unreadable"),
        ("1 0.5 0.5 0.2 0.4 0.9", "box unreadable"),
        ("1 0.5 0.5 0.2 x", "box unreadable"),
        ("1 0.5 0.5 0.2 nan", "box unreadable"),
        ("1 0,5 0,5 0,2 0,4", "box unreadable"),
        ("1 30 20 12 16", "box unreadable"),
        ("1 0.5 0.5 0 0.4", "box degenerate"),
        ("1 0.5 0.5 1.2 0.4", "box clipped"),
        ("2 0.5 0.5 0.2 0.4", "class unknown"),
        ("-1 0.5 0.5 0.2 0.4", "class unknown"),
        ("dog 0.5 0.5 0.2 0.4", "class unknown"),
        ("9" * 99 + " 0.5 0.5 0.2 0.4", "class unknown"),
    ],
)
def test_lines_that_are_wrong_are_named(tmp_path, line, kind):
    dataset = data(tmp_path, f"0 0.3 0.3 0.2 0.2\n\n{line}\n")
    (problem,) = dataset.problems
    assert (problem.kind, problem.file) == (kind, str(tmp_path / "1.txt"))
    assert problem.where.startswith("line 3")


def test_files_that_cannot_be_read_are_named(tmp_path):
    root = yolo_of(tmp_path / "data", pictures(4))
    (root / "labels/field 00.txt").write_bytes(b"0 0.5 0.5 0.5 0.5\n\xff\n")
    (root / "images/field 01.png").write_bytes(b"no image")
    write(root / "labels/gone.txt", LINE)
    write(root / "README.txt", "made by hand")
    dataset = load_data(root, "all", allow_bad=True)
    assert ids(dataset) == ["images/field 02.png", "images/field 03.png"]
    assert sorted(kinds(dataset)) == ["annotation unreadable", "image missing", "image unreadable"]


def test_classes_must_be_named_once(tmp_path):
    root = yolo_of(tmp_path / "data", pictures(3))
    write(root / "labels/classes.txt", "other\n")
    with pytest.raises(UserError, match="name different classes"):
        load_data(root)
    for file in ("classes.txt", "labels/classes.txt"):
        (root / file).unlink()
    with pytest.raises(UserError, match="write one name a line into classes.txt"):
        load_data(root)
