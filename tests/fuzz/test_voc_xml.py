"""VOC annotations from anywhere: nasty texts in each field, hostile XML, random damage.

Shapes and names
----------------
A devkit of three images of 40 x 60 pixels (height x width), of which the second has the bad
annotation; the other two must always come through as they are.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from keras_frcnn.data.dataset import number_of
from keras_frcnn.data.voc import load_voc
from keras_frcnn.errors import UserError
from tests.fuzz.harness import damaged, is_reported, watched

HEIGHT, WIDTH = 40, 60
GOOD = """<annotation>
  <folder>VOC2007</folder><filename>{image_id}.jpg</filename>
  <size><width>60</width><height>40</height><depth>3</depth></size>
  <object><name>dog</name><difficult>0</difficult>
    <bndbox><xmin>5</xmin><ymin>3</ymin><xmax>30</xmax><ymax>20</ymax></bndbox></object>
  <object><name>cat</name><difficult>1</difficult>
    <bndbox><xmin>31</xmin><ymin>9</ymin><xmax>60</xmax><ymax>40</ymax></bndbox></object>
</annotation>
"""
BAD_ID = "000002"
TEXT = GOOD.format(image_id=BAD_ID)

NASTY_TEXTS = (
    *("", " ", "-5", "-1e308", "NaN", "nan", "inf", "-Infinity", "1e400", "1e308", "9" * 400),
    *("0", "1", "61", "60.0000001", "59.5", "1_0", "0x10", "１２", "12 13", "1,5", "12;", "true"),
    *("1e-400", "+7", "-0", "None", "&#9;7&#10;", "&lt;b&gt;", "[bold]x[/bold]", "dog" * 400),
    *("../../../etc/passwd", "/etc/passwd", "..\\..\\boot.ini", "C:\\a.jpg", "000001.jpg", "."),
    *("..", "a" * 5000, "%s%n", "\u202egod", "\U0001f415", "\u2028", "人", "{image_id}", "'\"`"),
)
TAGS = ("filename", "width", "height", "name", "difficult", "xmin", "ymin", "xmax", "ymax")
REMOVABLE = (*TAGS, "size", "object", "bndbox", "folder", "depth")


def _ten(level: int) -> str:
    """An entity of the expansion is ten of the level below."""
    return f"&l{level - 1};" * 10 if level else "lol"


ENTITIES = "".join(f'<!ENTITY l{level} "{_ten(level)}">' for level in range(10))
MANY_ATTRIBUTES = " ".join(f'a{number}=""' for number in range(10_000))
HOSTILE = {
    "nothing": b"",
    "blank": b" \n\t",
    "zeros": bytes(300),
    "text": b"no XML at all",
    "html": b"<!DOCTYPE html><html><body>404</body></html>",
    "json": b'{"annotation": []}',
    "other root": b"<annotations/>",
    "namespace": b'<annotation xmlns="http://example.com/x"/>',
    "two roots": TEXT.encode() * 2,
    "unclosed": TEXT.replace("</annotation>", "").encode(),
    "expansion": f"<!DOCTYPE annotation [{ENTITIES}]><annotation>&l9;</annotation>".encode(),
    "quadratic": (
        f'<!DOCTYPE annotation [<!ENTITY a "{"a" * 50000}">]>'
        f"<annotation>{'&a;' * 5000}</annotation>"
    ).encode(),
    "external entity": (
        b'<!DOCTYPE annotation [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
        b"<annotation><filename>&x;</filename></annotation>"
    ),
    "remote DTD": b'<!DOCTYPE annotation SYSTEM "http://192.0.2.1/a.dtd"><annotation/>',
    "parameter entity": (
        b'<!DOCTYPE annotation [<!ENTITY % x SYSTEM "file:///etc/passwd"> %x;]><annotation/>'
    ),
    "unknown entity": b"<annotation><filename>&x;</filename></annotation>",
    "unclosed deeply": b"<annotation>" * 200_000,
    "wrong encoding": b'<?xml version="1.0" encoding="utf-16"?>' + TEXT.encode(),
    "latin-1 in UTF-8": TEXT.replace("dog", "gro\xdf").encode("latin-1"),
    "no such encoding": b'<?xml version="1.0" encoding="klingon"?>' + TEXT.encode(),
    "codec that is none": b'<?xml version="1.0" encoding="hex"?>' + TEXT.encode(),
    "utf-7": b'<?xml version="1.0" encoding="utf-7"?>' + TEXT.encode(),
    "ebcdic": b'<?xml version="1.0" encoding="cp037"?>' + TEXT.encode(),
    "surrogates": TEXT.replace("dog", "d\ud800g").encode("utf-8", "surrogatepass"),
    "control character": TEXT.replace("dog", "d\x1b[2Jg").encode(),
    "NUL": TEXT.replace("dog", "d\0g").encode(),
}
SOUND = {
    "nested deeply": b"<annotation>" + b"<a>" * 100_000 + b"</a>" * 100_000 + b"</annotation>",
    "long attribute": b'<annotation a="' + b"x" * 2_000_000 + b'"/>',
    "10,000 attributes": f"<annotation {MANY_ATTRIBUTES}/>".encode(),
    "XML 1.1": b'<?xml version="1.1"?>' + TEXT.encode(),
    "UTF-16": TEXT.encode("utf-16"),
    "BOM": TEXT.encode("utf-8-sig"),
    "declared latin-1": b'<?xml version="1.0" encoding="latin-1"?>' + TEXT.encode("latin-1"),
    "CRLF": TEXT.replace("\n", "\r\n").encode(),
    "CDATA": TEXT.replace("dog", "<![CDATA[dog]]>").encode(),
    "comments": TEXT.replace("<object>", "<!-- <object> --><object>").encode(),
    "instructions": TEXT.replace("<object>", "<?php exit?><object>").encode(),
    "XInclude": TEXT.replace(
        "<folder>",
        '<xi:include xmlns:xi="http://www.w3.org/2001/XInclude" href="/etc/passwd"/><folder>',
    ).encode(),
}


@pytest.fixture(scope="module")
def devkit(tmp_path_factory) -> Path:
    """Three images, of which only the annotation of the second ever changes."""
    root = tmp_path_factory.mktemp("fuzz") / "VOCdevkit"
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / "VOC2007" / folder).mkdir(parents=True)
    for number in (1, 2, 3):
        image_id = f"{number:06d}"
        Image.new("RGB", (WIDTH, HEIGHT)).save(root / f"VOC2007/JPEGImages/{image_id}.jpg")
        annotation_file(root, image_id).write_text(GOOD.format(image_id=image_id))
    (root / "VOC2007/ImageSets/Main/trainval.txt").write_text("000001\n000002\n000003\n")
    return root


def annotation_file(root: Path, image_id: str = BAD_ID) -> Path:
    return root / "VOC2007" / "Annotations" / f"{image_id}.xml"


def objects_in(data: bytes) -> int:
    """Objects of the annotation by Python's own parser, each as often as it has a box."""
    objects = ElementTree.fromstring(data).findall("object")
    return sum(max(1, len(element.findall("bndbox"))) for element in objects)


def survive(root: Path, data: bytes | None) -> bool:
    """Loads the devkit with this annotation and checks all promises; whether the image is kept.

    With ``None`` whatever lies there already is loaded.
    """
    if data is not None:
        annotation_file(root).write_bytes(data)
    with watched(root):
        dataset = load_voc(root, "2007:trainval")
    kept = {example.image_id: example for example in dataset.examples}
    for image_id in ("000001", "000003"):
        assert len(kept[image_id].classes) == 2
        np.testing.assert_array_equal(kept[image_id].boxes_image[0], [2, 4, 20, 30])
    place = str(annotation_file(root))
    dropped = number_of(
        problem
        for problem in dataset.problems
        if problem.file == place and problem.action in ("object dropped", "used once")
    )
    if BAD_ID not in kept:
        assert is_reported(dataset, place), "left out without a word"
        return False
    boxes = kept[BAD_ID].boxes_image
    assert len(boxes) + dropped == objects_in(annotation_file(root).read_bytes())
    assert np.isfinite(boxes).all()
    assert (boxes[:, :2] >= 0).all() and (boxes[:, 2:] <= [HEIGHT, WIDTH]).all()
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    return True


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_annotations(devkit, name):
    assert not survive(devkit, HOSTILE[name])


@pytest.mark.parametrize("name", SOUND)
def test_unusual_but_sound_annotations(devkit, name):
    assert survive(devkit, SOUND[name])


@pytest.mark.parametrize("text", NASTY_TEXTS, ids=range(len(NASTY_TEXTS)))
@pytest.mark.parametrize("tag", TAGS)
def test_nasty_texts(devkit, tag, text):
    """One field of the first object, or of the image, has another text."""
    data = re.sub(f"<{tag}>.*?</{tag}>", lambda _: f"<{tag}>{text}</{tag}>", TEXT, count=1)
    assert survive(devkit, data.encode())


@pytest.mark.parametrize("tag", REMOVABLE)
@pytest.mark.parametrize("change", ["missing", "twice", "renamed", "empty", "all missing"])
def test_missing_and_repeated_elements(devkit, tag, change):
    count = 0 if change == "all missing" else 1
    new = {"twice": r"\g<0>\g<0>", "renamed": r"<x>\1</x>", "empty": f"<{tag}/>"}.get(change, "")
    data = re.sub(rf"<{tag}>(.*?)</{tag}>", new, TEXT, count=count, flags=re.DOTALL)
    assert survive(devkit, data.encode())


BOXES = {
    "swapped x": (30, 3, 5, 20),
    "swapped y": (5, 20, 30, 3),
    "point": (5, 5, 5, 5),
    "0-based": (0, 0, 59, 39),
    "whole image": (1, 1, 60, 40),
    "1-based overflow": (1, 1, 61, 41),
    "far overflow": (-1000, -1000, 100000, 100000),
    "outside": (70, 3, 90, 20),
    "above": (5, -20, 30, -3),
    "half a pixel": (5.25, 3.25, 5.75, 3.75),
    "too thin for float32": (16777217, 3, 16777218, 20),
}


@pytest.mark.parametrize("name", BOXES)
def test_boxes_of_all_kinds(devkit, name):
    data = TEXT
    for tag, value in zip(("xmin", "ymin", "xmax", "ymax"), BOXES[name], strict=True):
        data = re.sub(f"<{tag}>.*?</{tag}>", f"<{tag}>{value}</{tag}>", data, count=1)
    assert survive(devkit, data.encode())


@pytest.mark.parametrize("count", [2, 500, 5000])
def test_the_same_object_many_times(devkit, count):
    one = TEXT[TEXT.index("<object>") : TEXT.index("</object>") + len("</object>")]
    assert survive(devkit, TEXT.replace(one, one * count).encode())


@pytest.mark.parametrize(
    "kind", ["folder", "pipe", "loop", "dangling", "zeros without end", "too large"]
)
def test_annotations_that_are_no_files(devkit, kind):
    """A pipe and /dev/zero hung the command, or took all memory, before files were looked at."""
    path = annotation_file(devkit)
    path.unlink(missing_ok=True)
    make = {
        "folder": lambda: path.mkdir(),
        "pipe": lambda: os.mkfifo(path),
        "loop": lambda: path.symlink_to(path.name),
        "dangling": lambda: path.symlink_to("nowhere.xml"),
        "zeros without end": lambda: path.symlink_to("/dev/zero"),
        "too large": lambda: (path.touch(), os.truncate(path, 2**40)),
    }
    make[kind]()
    try:
        assert not survive(devkit, None)
    finally:
        path.rmdir() if kind == "folder" else path.unlink()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_an_annotation_that_may_not_be_read(devkit):
    path = annotation_file(devkit)
    path.write_text(TEXT)
    path.chmod(0)
    try:
        assert not survive(devkit, None)
    finally:
        path.chmod(0o644)


def test_an_annotation_that_the_system_refuses(devkit, monkeypatch):
    """What a file without permission gives, also to root."""
    annotation_file(devkit).write_text(TEXT)
    read_bytes = Path.read_bytes

    def refused(path):
        if path.name == f"{BAD_ID}.xml":
            raise PermissionError(13, "Permission denied", str(path))
        return read_bytes(path)

    with monkeypatch.context() as patch, watched(devkit):
        patch.setattr(Path, "read_bytes", refused)
        dataset = load_voc(devkit, "2007:trainval")
    assert len(dataset) == 2
    assert is_reported(dataset, "Permission denied")


def damaged_structure(rng: np.random.Generator) -> bytes:
    """One to four fields with other texts, elements lost, repeated or moved."""
    root = ElementTree.fromstring(TEXT)
    for _ in range(int(rng.integers(1, 5))):
        parents = [element for element in root.iter() if len(element)]
        parent = parents[rng.integers(len(parents))]
        child = parent[int(rng.integers(len(parent)))]
        what = rng.integers(5)
        if what == 0:
            child.text = NASTY_TEXTS[rng.integers(len(NASTY_TEXTS))]
        elif what == 1:
            parent.remove(child)
        elif what == 2:
            parent.insert(0, child)
        elif what == 3:
            parents[rng.integers(len(parents))].append(ElementTree.fromstring("<xmin>7</xmin>"))
        else:
            child.tag = str(rng.choice(REMOVABLE))
        if not len(root):
            break
    return ElementTree.tostring(root)


@pytest.mark.parametrize("seed", range(150))
def test_random_structures(devkit, seed):
    survive(devkit, damaged_structure(np.random.default_rng([1, seed])))


@pytest.mark.parametrize("seed", range(150))
def test_random_damage(devkit, seed):
    survive(devkit, damaged(TEXT.encode(), np.random.default_rng([2, seed])))


@pytest.mark.parametrize("seed", range(10))
def test_strict_stops_at_the_first_problem_and_names_it(devkit, seed):
    data = damaged(TEXT.encode(), np.random.default_rng([2, seed]))
    annotation_file(devkit).write_bytes(data)
    if not load_voc(devkit, "2007:trainval").problems:
        return
    with watched(devkit), pytest.raises(UserError, match=BAD_ID):
        load_voc(devkit, "2007:trainval", strict=True)
