"""Text lists from anywhere: ids of VOC, lines of ``-o simple``.

Shapes and names
----------------
Three images of 40 x 60 pixels, ``a``, ``b`` and ``c``. What each line of a list should become is
worked out here, and every line must become that: an image, an object, or a problem by its name.
"""

from __future__ import annotations

import codecs
import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keras_frcnn.data.simple import load_simple
from keras_frcnn.data.voc import load_voc
from keras_frcnn.errors import UserError
from tests.fuzz.harness import damaged, is_reported, watched

XML = """<annotation><object><name>dog</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax>
<ymax>9</ymax></bndbox></object></annotation>"""
KNOWN = ("a", "b", "c")


@pytest.fixture(scope="module")
def devkit(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("fuzz") / "VOCdevkit"
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / "VOC2007" / folder).mkdir(parents=True)
    for image_id in KNOWN:
        Image.new("RGB", (60, 40)).save(root / f"VOC2007/JPEGImages/{image_id}.jpg")
        (root / f"VOC2007/Annotations/{image_id}.xml").write_text(XML)
    return root


def survive_ids(root: Path, data: bytes) -> list[str] | None:
    """Ids that the devkit gives with this list; ``None`` where it was refused as a whole."""
    file = root / "VOC2007/ImageSets/Main/trainval.txt"
    file.write_bytes(data)
    with watched(root):
        try:
            dataset = load_voc(root, "2007:trainval")
        except UserError as error:
            assert str(file) in str(error) or "2007:trainval" in str(error)
            dataset = None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        assert dataset is None
        return None
    lines = [line.strip() for line in re.split("\r\n|\r|\n", text) if line.strip()]
    expected = {line: ids_on(line) for line in lines}
    if not any(expected.values()):
        assert dataset is None
        return None
    found = [example.image_id for example in dataset.examples]
    assert found == list(dict.fromkeys(image_id for line in lines for image_id in expected[line]))
    for line in lines:
        word = line if line.startswith("#") else line.split()[0]
        told = is_reported(dataset, f"{word}.xml", repr(word[:80])[1:-1])
        assert told or expected[line], f"{line!r} is not told"
    return found


SPELLED = {
    "a.jpg": ["a"],
    "a.xml": ["a"],
    "\ufeffb": ["b"],
    "a,b": ["a", "b"],
    "a;b": ["a", "b"],
    "# a": [],
    "'a'": ["a"],
    '"a"': ["a"],
}


def ids_on(line: str) -> list[str]:
    """Ids that a line names, in the order of the line."""
    words = [word.casefold() for word in line.split()]
    return SPELLED.get(line, [word for word in words if word in KNOWN])


LISTS = {
    "CRLF": b"a\r\nb\r\nc\r\n",
    "CR": b"a\rb\rc",
    "BOM": codecs.BOM_UTF8 + b"a\nb\nc\n",
    "blank lines": b"\n\na\n\n \n\t\nb\nc\n\n\n",
    "trailing blanks": b"a   \nb\t\nc \r\n",
    "leading blanks": b"   a\n\tb\n c",
    "columns": b"a  1\nb -1\nc\t0\n",
    "no last end": b"a\nb\nc",
    "many ends": b"a\nb\nc" + b"\r\n" * 10_000,
}


@pytest.mark.parametrize("name", LISTS)
def test_sound_lists(devkit, name):
    assert survive_ids(devkit, LISTS[name]) == ["a", "b", "c"]


PIECES = (
    *(b"a", b"b", b"c", b"A", b"d", b"a.jpg", b"a.xml", b"../a", b"..", b"/etc/passwd", b"..\\a"),
    *(b"a/../b", b"C:\\a", b"a\0b", b"\0", "ä".encode(), "猫".encode(), "a\u2028b".encode()),
    *("a\x85b".encode(), "\u00a0a".encode(), "\ufeffb".encode(), b"a\x0bb", b"a\x0cb", b"a\x1cb"),
    *(
        b"a,b",
        b"a;b",
        b"# a",
        b"x" * 300,
        b"y" * 70_000,
        b"%s",
        b"*",
        b"a*",
        b"~",
        b"-",
        b"--strict",
    ),
    *(b"[bold]", b"\x1b[2J", b"1e9", b"NaN", b"'a'", b'"a"', b".", b"...", b"con", b"a:stream"),
)
ENDS = (b"\n", b"\r\n", b"\r", b"\n\n", b" \n", b"\t\r\n", b"\n \n")


@pytest.mark.parametrize("piece", PIECES, ids=range(len(PIECES)))
def test_single_ids(devkit, piece):
    survive_ids(devkit, b"a\n" + piece + b"\nc\n")


@pytest.mark.parametrize("seed", range(80))
def test_random_ids(devkit, seed):
    rng = np.random.default_rng([4, seed])
    parts = []
    for _ in range(int(rng.integers(1, 12))):
        parts += [PIECES[rng.integers(len(PIECES))], ENDS[rng.integers(len(ENDS))]]
    survive_ids(devkit, b"".join(parts))


@pytest.mark.parametrize("seed", range(60))
def test_damaged_id_lists(devkit, seed):
    data = b"".join(b"%s\r\n" % image_id.encode() for image_id in KNOWN * 4)
    survive_ids(devkit, damaged(data, np.random.default_rng([5, seed])))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-16-le", "cp037"])
def test_id_lists_in_other_encodings(devkit, encoding):
    survive_ids(devkit, "a\nb\nc\nä\n".encode(encoding))


@pytest.mark.parametrize("kind", ["pipe", "zeros without end", "folder", "too large"])
def test_id_lists_that_are_no_files(devkit, kind):
    file = devkit / "VOC2007/ImageSets/Main/trainval.txt"
    file.unlink(missing_ok=True)
    make = {
        "pipe": lambda: os.mkfifo(file),
        "zeros without end": lambda: file.symlink_to("/dev/zero"),
        "folder": lambda: file.mkdir(),
        "too large": lambda: (file.touch(), os.truncate(file, 2**40)),
    }
    make[kind]()
    try:
        for sets in (None, "2007:trainval"):
            with watched(devkit), pytest.raises(UserError, match=r"trainval\.txt"):
                load_voc(devkit, sets)
    finally:
        file.rmdir() if kind == "folder" else file.unlink()


def is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def survive_lines(root: Path, data: bytes) -> int | None:
    """Objects of ``-o simple`` with this list; ``None`` where it was refused as a whole."""
    file = root / "VOC2007" / "JPEGImages" / "list.txt"
    file.write_bytes(data)
    try:
        with watched(root):
            try:
                dataset = load_simple(file)
            except UserError as error:
                assert "list.txt" in str(error)
                return None
    finally:
        file.unlink()
    lines = re.split("\r\n|\r|\n", data.decode("utf-8-sig"))
    written = [line for line in lines if line.strip()]
    accounted = dataset.number_of_objects
    for problem in dataset.problems:
        if problem.kind == "image unreadable":  # told once, for all of its lines
            accounted += sum(Path(problem.file).name in line for line in written)
        elif problem.action != "clipped":
            assert re.match(r"line \d+", problem.where)
            more = re.search(r" and (\d+) more$", problem.where)
            accounted += 1 + int(more[1] if more else 0)
    # Lines that only name an image, and a first line of words, are no objects.
    named = sum(line.rstrip().endswith(",,,,,") for line in written)
    header = not any(map(is_number, written[0].split(",")[1:5]))
    silent = len(written) - accounted
    assert 0 <= silent <= named + header, f"{silent} of {len(written)} lines left out"
    for example in dataset.examples:
        boxes = example.boxes_image
        assert (boxes[:, :2] >= 0).all() and (boxes[:, 2:] <= [40, 60]).all()
        assert (boxes[:, 2:] > boxes[:, :2]).all()
    return dataset.number_of_objects


GOOD_LINE = "a.jpg,1,2,30,20,dog"
NASTY_FIELDS = (
    *("", " ", "-5", "NaN", "inf", "-1e400", "1e308", "9" * 400, "0x10", "1_0", "1 2", "1;2"),
    *("dog", "../a.jpg", "/etc/passwd", "..\\a.jpg", "a.jpg", "b.jpg", "lost.jpg", '"', '"a,b"'),
    *(
        '"unclosed',
        "'",
        "\0",
        "x" * 200_000,
        "猫",
        "\u2028",
        "\x0b",
        "\x1b[2J",
        "[bold]",
        "%n",
        ".",
    ),
    *("c.jpg/", "./a.jpg", "", "#", "path", "é", "1,2", "1e-400", "60", "61", "40.5", "-0", "+3"),
)


@pytest.mark.parametrize("text", NASTY_FIELDS, ids=range(len(NASTY_FIELDS)))
@pytest.mark.parametrize("place", range(6))
def test_nasty_fields(devkit, place, text):
    fields = GOOD_LINE.split(",")
    fields[place] = text
    count = survive_lines(devkit, f"{GOOD_LINE}\n{','.join(fields)}\nb.jpg,1,1,9,9,cat\n".encode())
    assert count in (2, 3)


FORMS = {
    "CRLF": f"{GOOD_LINE}\r\nb.jpg,1,1,9,9,cat\r\n",
    "BOM": f"\ufeff{GOOD_LINE}\nb.jpg,1,1,9,9,cat",
    "header": f"path,x1,y1,x2,y2,class\n{GOOD_LINE}\nb.jpg,1,1,9,9,cat",
    "blank lines": f"\n\n{GOOD_LINE}\n \n\t\nb.jpg,1,1,9,9,cat\n\n",
    "trailing blanks": f"{GOOD_LINE}  \nb.jpg,1,1,9,9,cat\t\n",
    "blanks in fields": "a.jpg , 1, 2 ,30, 20 , dog\nb.jpg,1,1,9,9,cat",
    "empty image": f"c.jpg,,,,,\n{GOOD_LINE}\nb.jpg,1,1,9,9,cat",
    "the same twice": f"{GOOD_LINE}\n{GOOD_LINE}\nb.jpg,1,1,9,9,cat\n",
    "swapped": f"{GOOD_LINE}\nb.jpg,1,1,9,9,cat\na.jpg,30,2,1,20,dog\n",
    "unknown images": f"{GOOD_LINE}\nd.jpg,1,1,9,9,dog\nb.jpg,1,1,9,9,cat\nd.jpg,1,1,9,9,dog",
    "other columns": f"{GOOD_LINE}\na.jpg,1,2,3\na.jpg\na.jpg,1,2,3,4,dog,x\nb.jpg,1,1,9,9,cat",
    "spaces between": f"{GOOD_LINE}\na.jpg 1 2 3 4 dog\nb.jpg,1,1,9,9,cat",
}


@pytest.mark.parametrize("name", FORMS)
def test_forms_of_lists(devkit, name):
    assert survive_lines(devkit, FORMS[name].encode()) == 2


@pytest.mark.parametrize("seed", range(100))
def test_damaged_lists(devkit, seed):
    data = f"{GOOD_LINE}\r\nb.jpg,1,1,9,9,cat\r\nc.jpg,,,,,\r\n".encode() * 3
    survive_lines(devkit, damaged(data, np.random.default_rng([6, seed])))


@pytest.mark.parametrize("seed", range(60))
def test_random_lines(devkit, seed):
    rng = np.random.default_rng([7, seed])
    lines = [GOOD_LINE]
    for _ in range(int(rng.integers(1, 8))):
        fields = GOOD_LINE.split(",")
        for place in rng.integers(0, 6, 2):
            fields[place] = NASTY_FIELDS[rng.integers(len(NASTY_FIELDS))]
        lines.append(",".join(fields))
    assert survive_lines(devkit, "\n".join(lines).encode()) >= 1
