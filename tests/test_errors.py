"""What errors say, in a line of ours; names from anywhere."""

from __future__ import annotations

import pytest
import tensorflow as tf

from keras_frcnn.errors import UserError, doing, reading, reason_of, shown


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("no such file\nand more"), "no such file"),
        (ValueError(), "ValueError"),
        (ValueError("\n a {{b}} c"), "a {{b}} c"),
        (tf.errors.AbortedError(None, None, ""), "AbortedError"),
        (tf.errors.AbortedError(None, None, "{{node a/b}} {{f c}} a}} b.jpg: full\n\t [[{{d}}]]"),
         "a}} b.jpg: full"),
        (tf.errors.InternalError(None, None, "Graph execution error:\n\nDetected at node a/b "
         "defined at (most recent call last):\n  File \"x.py\", line 5\n\nno room\n\t [[{{a}}]]"),
         "no room"),
    ],
)  # fmt: skip
def test_the_first_line_without_the_name_of_an_operation(error, expected):
    assert reason_of(error) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("dog", "dog"),
        ("Fußgänger 红 é😀", "Fußgänger 红 é😀"),
        ("a\x1b[31mb\x9b", r"a\x1b[31mb\x9b"),
        ("a\nb\r\t", r"a\nb\r\t"),
        ("\u202eab\u2028\ud800", r"\u202eab\u2028\ud800"),
        (7, "7"),
    ],
)
def test_a_name_moves_no_cursor(name, expected):
    assert shown(name) == expected
    assert shown(name).isprintable()


@pytest.mark.parametrize(
    "error",
    [RuntimeError("odd\nmore"), KeyError("fc6"), RecursionError(), MemoryError(), OSError()],
)
def test_whatever_a_parser_raises_is_about_the_file(error):
    with pytest.raises(UserError) as caught, reading("a.h5", "a weight file", "copy it again"):
        raise error
    text = str(caught.value)
    assert "a.h5" in text and "a weight file" in text and text.endswith("copy it again.")
    assert reason_of(error) in text and "\n" not in text
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("error", [UserError("said better"), KeyboardInterrupt()])
def test_what_is_said_better_passes_and_so_does_a_signal(error):
    with pytest.raises(type(error)) as caught, reading("a.h5", "a weight file", "copy it again"):
        raise error
    assert caught.value is error


def test_the_innermost_doing_counts():
    error = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError), doing("outer"), doing("inner"):
        raise error
    assert error.doing == "inner"
