"""How many bad images are too many.

Shapes and names
----------------
bad  an image that was left out: missing or unreadable.
"""

from __future__ import annotations

import dataclasses

import pytest

from keras_frcnn.data.bad_images import check_share_of_bad, number_left_out
from keras_frcnn.data.dataset import DataProblem
from keras_frcnn.errors import UserError


@pytest.fixture
def with_bad(make_dataset):
    """``with_bad(good, bad)``: a data set of ``good`` images, of which ``bad`` more were lost."""

    def make(good, bad):
        lost = [
            DataProblem("image missing", f"{index}.jpg", "", "expected a file", "image dropped")
            for index in range(bad)
        ]
        clipped = DataProblem("box clipped", "a.xml", "object 1 (cat)", "overhangs", "clipped")
        dataset = make_dataset(*([([0, 0, 5, 5], 1, False)] for _ in range(good)))
        return dataclasses.replace(dataset, problems=(clipped, *lost))

    return make


@pytest.mark.parametrize(("good", "bad"), [(9, 1), (90, 10), (5, 0), (1, 0)])
def test_up_to_a_tenth_are_left_out(with_bad, good, bad):
    dataset = with_bad(good, bad)
    check_share_of_bad(dataset)
    assert number_left_out(dataset) == bad


@pytest.mark.parametrize(("good", "bad"), [(1, 9), (89, 11)])
def test_lines_that_cannot_be_read_are_counted_too(make_dataset, good, bad):
    lines = tuple(
        DataProblem("line unreadable", "a.txt", f"line {n}", "found 1 fields", "line dropped")
        for n in range(bad)
    )
    dataset = make_dataset(*([([0, 0, 5, 5], 1, False)] for _ in range(good)))
    message = rf"^{bad} lines of a.txt .*10%, and {good} can.*line 0: found 1.*--allow_bad"
    with pytest.raises(UserError, match=message):
        check_share_of_bad(dataclasses.replace(dataset, problems=lines))
    check_share_of_bad(dataclasses.replace(dataset, problems=lines[: good // 9]))
    # Objects that were read and then left out, such as those of a class that a run does not know.
    unknown = DataProblem("class unknown", "a.txt", "line 99", "found dog", "object dropped")
    check_share_of_bad(dataclasses.replace(dataset, problems=(*lines, *[unknown] * 9 * bad)))


@pytest.mark.parametrize(("good", "bad"), [(8, 1), (89, 11), (0, 1)])
def test_more_stop_and_the_first_is_named(with_bad, good, bad):
    message = rf"^{bad} of the {good + bad} images .*10%.*0.jpg: expected a file.*--allow_bad"
    with pytest.raises(UserError, match=message):
        check_share_of_bad(with_bad(good, bad))
