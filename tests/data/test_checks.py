"""The shared rules for boxes and images, and the report.

Shapes and names
----------------
Image of 40 x 60 pixels (height x width) unless said; boxes_image (G, 4) half-open.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keras_frcnn.data import dataset as data
from keras_frcnn.data.checks import (
    WrittenImage,
    WrittenObject,
    build_dataset,
    check_objects,
    names_found,
    report_text,
    summary,
)
from keras_frcnn.data.dataset import DataProblem, Problems, number_of
from keras_frcnn.errors import UserError
from keras_frcnn.system.files import write_text

SIZE = (40, 60)
NAMES = ("cat", "dog")


def written(*corners: object, name: str = "dog", difficult: bool = False) -> WrittenObject:
    texts = tuple(None if corner is None else str(corner) for corner in corners)
    return WrittenObject("object 1 (dog)", name, texts, difficult)


def image_of(
    *objects: WrittenObject,
    path: Path = Path("a.jpg"),
    first_pixel: int = 1,
    size: tuple[int, int] | None = SIZE,
) -> WrittenImage:
    return WrittenImage("a", "VOC2007", path, Path("a.xml"), objects, size, first_pixel)


def saved(path: Path, size: tuple[int, int] = SIZE, **options: object) -> Path:
    Image.new("RGB", (size[1], size[0])).save(path, **options)
    return path


def test_16_bit_images_of_a_data_set_are_read_alike(tmp_path):
    paths = [tmp_path / f"{name}.png" for name in "abc"]
    for path, brightest in zip(paths, (1000, 4095), strict=False):
        Image.fromarray(np.full(SIZE, brightest, np.uint16)).save(path)
    saved(paths[2])
    images = [image_of(path=path) for path in paths]
    dataset = build_dataset(images, [], class_names=NAMES, sets=["s"], strict=True)
    assert dataset.bits == 12
    assert [int(example.pixels().max()) for example in dataset.examples] == [1000 >> 4, 255, 0]
    assert [problem.kind for problem in dataset.problems] == ["16-bit images"]
    assert "4095" in report_text(dataset.problems)
    Image.fromarray(np.full(SIZE, 60000, np.uint16)).save(paths[2])
    bright = build_dataset(images, [], class_names=NAMES, sets=["s"], strict=False)
    assert bright.bits == 16
    assert [(problem.kind, problem.file) for problem in bright.problems] == [
        ("image nearly black", str(path)) for path in paths[:2]
    ]
    saved(paths[2])
    alone = build_dataset(images[2:], [], class_names=NAMES, sets=["s"], strict=True)
    assert (alone.bits, alone.problems) == (0, ())


def judged(*corners: object, first_pixel: int = 1) -> tuple[list, list]:
    example, problems = check_objects(
        image_of(written(*corners), first_pixel=first_pixel), SIZE, NAMES
    )
    return example.boxes_image.tolist(), [(problem.kind, problem.action) for problem in problems]


@pytest.mark.parametrize(
    ("corners", "box"),
    [
        ((1, 1, 60, 40), [0, 0, 40, 60]),
        ((5, 3, 7, 9), [2, 4, 9, 7]),
        ((1, 1, 2, 2), [0, 0, 2, 2]),
        ((45.5, 30.25, 46.5, 31.25), [29.25, 44.5, 31.25, 46.5]),
        ((" 5\n", "3.0", "7.0", "9"), [2, 4, 9, 7]),
    ],
)
def test_voc_boxes_become_half_open_floats(corners, box):
    assert judged(*corners) == ([box], [])


def test_boxes_counted_from_0_keep_their_corners():
    assert judged(5, 3, 7, 9, first_pixel=0) == ([[3, 5, 9, 7]], [])
    assert judged(0, 0, 60, 40, first_pixel=0) == ([[0, 0, 40, 60]], [])


@pytest.mark.parametrize("corners", [(5, 3, 5, 9), (7, 3, 5, 9), (5, 3, 7, 3), (5, 9, 7, 3)])
@pytest.mark.parametrize("first_pixel", [0, 1])
def test_degenerate_is_judged_as_written(corners, first_pixel):
    # (5, 3, 5, 9) of VOC is one pixel wide after the conversion; the rule goes by the file.
    assert judged(*corners, first_pixel=first_pixel) == ([], [("box degenerate", "object dropped")])


@pytest.mark.parametrize(
    ("corners", "box"),
    [
        ((0, 1, 10, 10), [0, 0, 10, 10]),  # 0 - 1 must not wrap around, as unsigned numbers do
        ((-7, -9, 10, 10), [0, 0, 10, 10]),
        ((50, 30, 61, 41), [29, 49, 40, 60]),
        ((60, 40, 99, 99), [39, 59, 40, 60]),
        ((1, 1, 10**30, "9" * 300), [0, 0, 40, 60]),
    ],
)
def test_overhang_is_clipped_and_reported(corners, box):
    assert judged(*corners) == ([box], [("box clipped", "clipped")])


@pytest.mark.parametrize("corners", [(61, 1, 70, 10), (1, 41, 9, 50), (-9, 1, 0, 9), (1, -9, 9, 0)])
def test_boxes_outside_are_dropped(corners):
    assert judged(*corners) == ([], [("box outside", "object dropped")])


@pytest.mark.parametrize(
    "bad",
    [
        "nan",
        "inf",
        "-Infinity",
        "1e999",
        "9" * 400,
        "7e0",
        "1_0",
        "５",
        "12,5",
        "ten",
        "",
        "  ",
        None,
    ],
)
def test_corners_that_are_no_number(bad):
    assert judged(1, 1, bad, 9) == ([], [("box unreadable", "object dropped")])


def test_other_objects_survive_a_bad_one():
    image = image_of(
        written(1, 1, 9, 9, difficult=True),
        written(9, 9, 1, 1),
        written(1, 1, 8, 8, name="unicorn"),
        written(1, 1, 8, 8, name=""),
        written(2, 2, 9, 9, name="cat"),
    )
    example, problems = check_objects(image, SIZE, NAMES)
    assert example.boxes_image.tolist() == [[0, 0, 9, 9], [1, 1, 9, 9]]
    assert example.classes.tolist() == [2, 1]
    assert example.difficult.tolist() == [True, False]
    assert [p.kind for p in problems] == ["box degenerate", "class unknown", "class unknown"]
    assert "'unicorn'" in problems[1].reason and "cat, dog" in problems[1].reason
    assert (example.boxes_image.dtype, example.classes.dtype) == (np.float32, np.int32)
    assert example.difficult.dtype == bool


def test_no_objects_keep_their_shapes():
    example, problems = check_objects(image_of(), SIZE, NAMES)
    assert example.boxes_image.shape == (0, 4) and example.classes.shape == (0,)
    assert problems == []


def test_names_found_are_sorted_and_count_dropped_objects():
    objects = [written(9, 9, 1, 1, name="zebra"), written(1, 1, 2, 2, name="ant"), written(name="")]
    assert names_found(objects) == ("ant", "zebra")


def build(*images: WrittenImage, strict: bool = False, problems: tuple = (), **options: object):
    return build_dataset(
        images, problems, class_names=NAMES, sets=("2007:train",), strict=strict, **options
    )


def test_the_real_size_wins(tmp_path):
    path = saved(tmp_path / "a.png")
    dataset = build(image_of(written(1, 1, 80, 30), path=path, size=(30, 80)))
    example = dataset.examples[0]
    assert (example.height, example.width) == SIZE
    assert example.boxes_image.tolist() == [[0, 0, 30, 60]]
    assert [p.kind for p in dataset.problems] == ["size differs", "box clipped"]
    assert "80 x 30" in dataset.problems[0].reason and "60 x 40" in dataset.problems[0].reason


def test_sizes_are_those_of_the_upright_image(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = saved(tmp_path / "a.jpg", exif=exif)
    dataset = build(image_of(path=path, size=SIZE))
    assert (dataset.examples[0].height, dataset.examples[0].width) == (60, 40)
    assert "EXIF" in dataset.problems[0].reason


def test_unreadable_images_are_dropped_and_the_rest_kept_in_order(tmp_path):
    good = [saved(tmp_path / f"{name}.png") for name in "abcdef"]
    cut = tmp_path / "cut.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60, 3)).astype(np.uint8)).save(
        cut
    )
    cut.write_bytes(cut.read_bytes()[:3000])
    calls = []
    paths = [*good[:3], cut, *good[3:]]
    dataset = build(
        *(image_of(path=path) for path in paths), progress=lambda *call: calls.append(call)
    )
    assert [example.path for example in dataset.examples] == good
    assert [(p.kind, p.file, p.action) for p in dataset.problems] == [
        ("image unreadable", str(cut), "image dropped")
    ]
    assert calls == [(done, 7) for done in range(1, 8)]


def test_strict_names_the_first_problems_and_the_count(tmp_path):
    path = saved(tmp_path / "a.png")
    image = image_of(*[written(9, 9, 1, 1)] * 7, path=path)
    assert len(build(image).problems) == 7
    with pytest.raises(UserError, match="found 7") as caught:
        build(image, strict=True)
    assert str(caught.value).count("a.xml, object 1 (dog)") == 5
    assert "and 2 more" in str(caught.value) and "--strict" in str(caught.value)
    assert len(build(image_of(written(1, 1, 9, 9), path=path), strict=True)) == 1


def test_a_data_set_without_images_is_an_error():
    with pytest.raises(UserError, match="2007:train, but its list is empty"):
        build()
    lost = DataProblem("image missing", "a.jpg", "", "expected a.jpg", "image dropped")
    with pytest.raises(UserError, match="none is left.*1 x image missing.*a.jpg"):
        build(problems=(lost,))


def test_the_repetition_of_an_object_is_named_and_left_out():
    twice = (written(1, 1, 9, 9), written("1.0", 1, 9, 9, difficult=True))
    image = image_of(*twice, written(1, 1, 9, 9, name="cat"), written(1, 1, 9, 8))
    example, problems = check_objects(image, SIZE, NAMES)
    assert example.classes.tolist() == [2, 1, 2]
    assert [(p.kind, p.action) for p in problems] == [("object repeated", "used once")]


@pytest.mark.parametrize(
    ("names", "noted"),
    [
        (("bg", "disc"), 1),
        (("background", "disc"), 1),
        (("disc", "__Background__"), 1),
        (("Disc", "disc", "box"), 1),
        (("traffic light", "traffic  Light", "TrafficLight"), 2),
        (("Übung", "U\u0308bung"), 1),
        (("disc", "disk", "background car"), 0),
    ],
)
def test_names_that_are_likely_no_class_are_noted(tmp_path, names, noted):
    path = saved(tmp_path / "a.png")
    objects = [written(1, 1, 9, 9, name=name) for name in names]
    dataset = build_dataset(
        [image_of(*objects, path=path)], (), class_names=names, sets=("s",), strict=False
    )
    assert [p.action for p in dataset.problems] == ["noted"] * noted
    assert dataset.number_of_objects == len(names)


def test_problems_are_counted_where_they_are_too_many_to_name(monkeypatch):
    monkeypatch.setattr(data, "MOST_OF_A_FILE", 3)
    monkeypatch.setattr(data, "MOST_OF_A_KIND", 8)
    found = [
        DataProblem("image missing", f"{file}.xml", "", "gone", "image dropped")
        for file in range(4)
        for _ in range(5)
    ]
    problems = list(Problems(Problems(found)))
    assert number_of(problems) == 20
    assert [problem.file for problem in problems if problem.number == 1] == [
        *["0.xml"] * 3,
        *["1.xml"] * 3,
        *["2.xml"] * 2,
    ]
    assert "20" in report_text(problems).splitlines()[0]


def test_summary_and_report(tmp_path):
    path = saved(tmp_path / "a.png")
    dataset = build(
        image_of(written(1, 1, 9, 9, difficult=True), written(1, 1, 99, 9), path=path),
        image_of(written(3, 3, 1, 1), written(4, 4, 1, 1), path=path),
    )
    assert summary(dataset) == {
        "images": 2,
        "images_without_objects": 1,
        "objects": 2,
        "difficult": 1,
        "per_class": {"cat": 0, "dog": 2},
        "problems": {"box degenerate": 2, "box clipped": 1},
    }
    report = tmp_path / "run" / "data_report.txt"
    write_text(report, report_text(dataset.problems))
    lines = report.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "Problems found in the data: 3"
    assert lines[2:4] == ["       2  box degenerate", "       1  box clipped"]
    assert lines[5] == (
        "a.xml, object 1 (dog): box clipped: expected a box inside, found xmin 1, ymin 1, xmax 99, "
        "ymax 9 in an image of 60 x 40 pixels (width x height) [clipped]"
    )
    assert len(lines) == 8
    assert report_text([]) == "No problems found in the data.\n"


def test_a_report_keeps_the_bytes_of_names_that_are_no_utf_8(tmp_path):
    name = b"caf\xe9.jpg".decode("utf-8", "surrogateescape")
    problem = DataProblem("image unreadable", name, "", "cut", "image dropped")
    write_text(tmp_path / "report.txt", report_text([problem]))
    assert b"caf\xe9.jpg: image unreadable: cut" in (tmp_path / "report.txt").read_bytes()
