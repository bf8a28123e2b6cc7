"""The list ``path,x1,y1,x2,y2,class`` and what is tolerated in it.

Shapes and names
----------------
All images are 40 x 60 pixels (height x width); boxes_image (G, 4) half-open.
"""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from PIL import Image

from keras_frcnn.data import simple
from keras_frcnn.data.simple import load_simple
from keras_frcnn.errors import UserError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two images and one whose name has a comma."""
    (tmp_path / "img").mkdir()
    for name in ("a.png", "b.png", "c, d.png"):
        Image.new("RGB", (60, 40)).save(tmp_path / "img" / name)
    return tmp_path


def listed(folder: Path, text: str | bytes) -> Path:
    path = folder / "list.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_lines_are_grouped_by_image(folder):
    text = (
        "img/b.png,1,2,30,20,dog\nimg/a.png,0,0,60,40,cat\nimg/b.png,5,6,7,8,ant\n"
        "./img/b.png,1,1,2,2,cat\n"
    )
    dataset = load_simple(listed(folder, text))
    assert dataset.class_names == ("ant", "cat", "dog")
    assert dataset.problems == () and dataset.sets == ("list.txt",)
    first, second = dataset.examples
    assert (first.image_id, first.source, first.key) == (
        "img/b.png",
        "list.txt",
        "list.txt/img/b.png",
    )
    assert (first.path, first.height, first.width) == (folder / "img/b.png", 40, 60)
    assert first.boxes_image.tolist() == [[2, 1, 20, 30], [6, 5, 8, 7], [1, 1, 2, 2]]
    assert first.classes.tolist() == [3, 1, 2]
    assert first.difficult.tolist() == [False] * 3
    assert second.boxes_image.tolist() == [[0, 0, 40, 60]]


def test_tolerated_forms(folder):
    text = (
        b"\xef\xbb\xbfpath,x1,y1,x2,y2,class\r\n\r\n"
        b'"img/a.png", 1, 2 ,30,20.5,"dog"\r\n   \r\n'
        b'"img/c, d.png",1,2,3,4,dog\r\nimg\\b.png,,,,,\r\n'
    )
    dataset = load_simple(listed(folder, text))
    assert dataset.problems == ()
    assert [e.image_id for e in dataset.examples] == ["img/a.png", "img/c, d.png", "img\\b.png"]
    assert dataset.examples[0].boxes_image.tolist() == [[2, 1, 20.5, 30]]
    assert dataset.examples[2].boxes_image.shape == (0, 4)


def test_a_byte_order_mark_is_no_part_of_the_first_path(folder):
    dataset = load_simple(listed(folder, b"\xef\xbb\xbfimg/a.png,1,1,5,5,dog\n"))
    assert dataset.problems == () and dataset.examples[0].image_id == "img/a.png"


def test_only_the_first_line_can_be_a_header(folder):
    text = "path,x1,y1,x2,y2,class\nimg/a.png,1,1,5,5,dog\npath,x1,y1,x2,y2,class\n"
    dataset = load_simple(listed(folder, text))
    assert [(p.kind, p.where) for p in dataset.problems] == [("image missing", "line 3")]


def test_every_bad_line_has_its_number_and_reason(folder):
    text = (
        "img/a.png,1,2,30,20,dog\n"  # 1
        "img/a.png,1,2,30,dog\n"  # 2
        "\n"
        "img/a.png,1,2,30,x,dog\n"  # 4
        "img/a.png,9,2,9,20,dog\n"  # 5
        "img/a.png,50,30,61,41,dog\n"  # 6
        "img/a.png,1,2,3,4,\n"  # 7
        "img/a.png,,,,,dog\n"  # 8
        ",1,2,3,4,dog\n"  # 9
    )
    path = listed(folder, text)
    dataset = load_simple(path)
    assert all(problem.file == str(path) for problem in dataset.problems)
    assert sorted((p.where, p.kind, p.action) for p in dataset.problems) == [
        ("line 2", "line unreadable", "line dropped"),
        ("line 4 (dog)", "box unreadable", "object dropped"),
        ("line 5 (dog)", "box degenerate", "object dropped"),
        ("line 6 (dog)", "box clipped", "clipped"),
        ("line 7", "class unknown", "object dropped"),
        ("line 8 (dog)", "box unreadable", "object dropped"),
        ("line 9", "line unreadable", "line dropped"),
    ]
    assert dataset.examples[0].boxes_image.tolist() == [[2, 1, 20, 30], [30, 50, 40, 60]]


def test_missing_images_are_told_with_the_paths_tried(folder, monkeypatch):
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    text = "img/a.png,1,2,3,4,dog\ngone.png,1,2,3,4,cat\ngone.png,2,2,3,4,cat\n"
    dataset = load_simple(listed(folder, text))
    assert len(dataset) == 1
    assert dataset.class_names == ("cat", "dog")
    (problem,) = dataset.problems
    assert (problem.kind, problem.where) == ("image missing", "line 2 and 1 more")
    for tried in (folder / "gone.png", elsewhere / "gone.png"):
        assert str(tried) in problem.reason


def test_paths_from_the_current_folder_come_second(folder, monkeypatch):
    other = folder / "other"
    (other / "img").mkdir(parents=True)
    for name in ("a.png", "z.png"):
        Image.new("RGB", (10, 10)).save(other / "img" / name)
    monkeypatch.chdir(other)
    text = "img/a.png,1,1,5,5,dog\nimg/z.png,1,1,5,5,dog\n" + f"{folder}/img/b.png,,,,,\n"
    dataset = load_simple(listed(folder, text))
    paths = [example.path for example in dataset.examples]
    assert paths == [folder / "img/a.png", other / "img/z.png", folder / "img/b.png"]


def test_a_first_line_with_bad_numbers_is_no_header(folder):
    dataset = load_simple(listed(folder, "img/a.png,a,b,c,d,dog\nimg/a.png,1,1,5,5,dog\n"))
    assert [problem.where for problem in dataset.problems] == ["line 1 (dog)"]


def test_given_classes(folder):
    path = listed(folder, "img/a.png,1,1,5,5,dog\nimg/a.png,1,1,5,5,cat\n")
    dataset = load_simple(path, class_names=("zebra", "cat"))
    assert dataset.class_names == ("zebra", "cat")
    assert dataset.examples[0].classes.tolist() == [2]
    assert [problem.kind for problem in dataset.problems] == ["class unknown"]
    with pytest.raises(UserError, match="line 1"):
        load_simple(path, class_names=("zebra", "cat"), strict=True)


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (b"", "list is empty"),
        (b"path,x1,y1,x2,y2,class\n", "list is empty"),
        (b"img/a.png,,,,,\n", "no line names a class"),
        (b"gone.png,1,1,2,2,dog\n", "none is left"),
        (b"img/a.png,1,1,5,5,caf\xe9\n", "UTF-8"),
        (b"\x00\x01\x02" * 99, "none is left"),
        (b"x" * 200_000 + b",1,1,2,2,dog", "none is left"),
        (b"x\x00y.png,1,1,2,2,dog", "none is left"),
    ],
)
def test_unusable_lists(folder, contents, message):
    with pytest.raises(UserError, match=message):
        load_simple(listed(folder, contents))


def test_no_list(folder):
    with pytest.raises(UserError, match="does not exist"):
        load_simple(folder / "gone.txt")
    with pytest.raises(UserError, match="is a folder.*pascal_voc"):
        load_simple(folder)


@pytest.mark.parametrize(
    ("file", "written"),
    [
        ("IMG_1.JPG", "img_1.jpg"),
        (unicodedata.normalize("NFD", "Übung/é.png"), unicodedata.normalize("NFC", "übung/é.png")),
        ("Photos/a.png", "photos\\A.PNG"),
    ],
)
def test_paths_are_found_however_they_are_spelled(folder, file, written):
    (folder / file).parent.mkdir(exist_ok=True)
    Image.new("RGB", (60, 40)).save(folder / file)
    dataset = load_simple(listed(folder, f"{written},1,1,5,5,dog\n{file},2,2,6,6,dog\n"))
    assert dataset.problems == () and len(dataset) == 1
    assert dataset.examples[0].path.samefile(folder / file)


def test_of_several_alike_none_is_taken(folder):
    for name in ("Z.png", "z.png"):
        Image.new("RGB", (60, 40)).save(folder / "img" / name)
    text = "img/a.png,1,1,5,5,dog\nimg/z.PNG,1,1,5,5,dog\n" + "x/" * 5000 + "a.png,1,1,5,5,dog\n"
    dataset = load_simple(listed(folder, text))
    assert [problem.kind for problem in dataset.problems] == ["image missing"] * 2


def test_lists_are_bounded(folder, monkeypatch):
    monkeypatch.setattr(simple, "MOST_LINES", 3)
    with pytest.raises(UserError, match="list.txt"):
        load_simple(listed(folder, "img/a.png,1,1,5,5,dog\n" * 4))


@pytest.mark.parametrize("end", ["\x0c", "\u2028", "\x85"])
def test_no_line_is_lost_by_its_end(folder, end):
    text = "img/a.png,1,1,5,5,dog\n" + end.join(["img/b.png,1,1,5,5,dog"] * 2)
    dataset = load_simple(listed(folder, text))
    assert [(p.action, p.where) for p in dataset.problems] == [("line dropped", "line 2")]


def test_regions_of_background_are_noted_and_repeated_lines_used_once(folder):
    text = (
        "img/a.png,1,2,30,20,bg\nimg/a.png,5,6,9,9,bg\nimg/a.png,1,1,9,9,dog\n"
        "img/b.png,1,1,9,9,dog\nimg/b.png,1,1,9,9,dog\n"
    )
    dataset = load_simple(listed(folder, text))
    assert dataset.class_names == ("bg", "dog")
    assert [len(example.classes) for example in dataset.examples] == [3, 1]
    actions = {problem.action: problem for problem in dataset.problems}
    assert sorted(actions) == ["noted", "used once"] and len(dataset.problems) == 2
    assert "'bg'" in actions["noted"].reason
    assert actions["used once"].where.startswith("line 5")
