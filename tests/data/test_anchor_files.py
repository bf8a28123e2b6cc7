"""Files of anchor shapes: there and back, written by hand, and every mistake refused."""

from __future__ import annotations

import json

import pytest

from keras_frcnn.data.anchor_files import read_anchors, write_anchors
from keras_frcnn.errors import UserError
from keras_frcnn.recipes import PAPER, ImageConfig

SHAPES = ((23.8, 25.0), (128.8, 140.6))


def test_there_and_back(tmp_path):
    file = tmp_path / "new" / "anchors.json"
    write_anchors(file, SHAPES, PAPER.image, {"seed": 0})
    assert read_anchors(file, PAPER.image) == SHAPES
    values = json.loads(file.read_text())
    assert values == {
        "shapes": [[23.8, 25.0], [128.8, 140.6]],
        "format": 1,
        "short_side": 600,
        "long_side": 1000,
        "about": {"seed": 0},
    }


def test_shapes_alone_are_for_any_input_size(tmp_path):
    file = tmp_path / "mine.json"
    file.write_text('{"shapes": [[30, 40.5]]}')
    assert read_anchors(file, ImageConfig(123, 456)) == ((30.0, 40.5),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "it should hold"),
        ("[[1, 2]]", "has no list of shapes; it should hold"),
        ('{"shapes": 3}', "has no list of shapes"),
        ('{"shapes": []}', "shapes should have at least 1 .*, not 0"),
        ('{"shapes": [[1, 2], [3]]}', r"shapes\[1\] should have 2 entries, not 1"),
        ('{"shapes": [[1, 2, 3]]}', r"shapes\[0\] should have 2 entries, not 3"),
        ('{"shapes": [5]}', r"shapes\[0\] .*, not 5"),
        ('{"shapes": [[1, 0]]}', r"shapes\[0\]\[1\] should be above 0"),
        ('{"shapes": [[1, -3]]}', r"shapes\[0\]\[1\] should be above 0"),
        ('{"shapes": [[1, "3"]]}', r"shapes\[0\]\[1\]"),
        ('{"shapes": [[1, true]]}', r"shapes\[0\]\[1\]"),
        ('{"shapes": [[1, NaN]]}', r"shapes\[0\]\[1\]"),
        ('{"shapes": [[1, Infinity]]}', r"shapes\[0\]\[1\]"),
        ('{"shapes": [[1, 1e308]]}', r"shapes\[0\]\[1\]"),
        ('{"shapes": [[1, %s]]}' % (400 * "9"), r"shapes\[0\]\[1\]"),
        ('{"shapes": [[1, %s]]}' % (9000 * "9"), "it should hold"),
        (json.dumps({"shapes": 20_000 * [[30, 40]]}), "at most 100 entries, not 20000"),
        ('{"shapes": [[1, 2]], "format": 2}', "has the format 2, .* reads 1; update keras_frcnn"),
        ("[" * 100_000, "nested too deeply"),
        ('{"shapes": [[1, 2]], "short_side": 300}', "made for --short_side 300, .* has.* 600"),
        ('{"shapes": [[1, 2]], "long_side": 500}', "made for --long_side 500, .* 1000"),
    ],
)
def test_bad_files_are_refused(tmp_path, text, message):
    file = tmp_path / "anchors.json"
    file.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        read_anchors(file, PAPER.image)
    assert str(file) in str(caught.value)


def test_what_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(UserError, match="none.json cannot be read .*No such file"):
        read_anchors(tmp_path / "none.json", PAPER.image)
    with pytest.raises(UserError, match="cannot be read .*Is a directory"):
        read_anchors(tmp_path, PAPER.image)
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n\xff")
    with pytest.raises(UserError, match="cannot be read"):
        read_anchors(tmp_path / "picture.png", PAPER.image)
