"""What other libraries' errors say, in a line of ours."""

from __future__ import annotations

import pytest
import tensorflow as tf

from keras_frcnn.errors import reason_of


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
