"""How many images, lines and objects a data set may lose, and how those lost are named."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from keras_frcnn.data.checks import sentence_about
from keras_frcnn.data.dataset import DataProblem, Dataset, number_of
from keras_frcnn.data.doubts import MOST_BAD
from keras_frcnn.errors import UserError, shown

# Of one kind, those that the screen names.
_MOST_IMAGES, _MOST_OTHERS = 20, 3


def number_left_out(dataset: Dataset) -> int:
    """How many images were left out."""
    return number_of(_with_action(dataset, "image dropped"))


def check_share_of_bad(dataset: Dataset) -> None:
    """Stops where so much is bad that the data as a whole may be wrong.

    So it does where so many lines of a simple list are: each may have named an image of its own.

    Raises:
        UserError: more than :data:`MOST_BAD` of the images, lines or objects were left out, or the
            sizes of so many images are not the written ones.
    """
    lines, images = (_with_action(dataset, f"{what} dropped") for what in ("line", "image"))
    bad = number_of(lines)
    read = sum(max(1, len(example.classes)) for example in dataset.examples)
    read += number_of(_with_action(dataset, "object dropped"))
    if bad > MOST_BAD * (read + bad):
        raise UserError(
            f"{bad} lines of {lines[0].file} cannot be read, more than {MOST_BAD:.0%}, and {read} "
            f"can. The first: {lines[0].where}: {lines[0].reason}. Mend the list, or go on without "
            "these lines by --allow_bad."
        )
    if dataset.doubt:
        raise UserError(f"{dataset.doubt}. Mend the data, or go on as they are by --allow_bad.")
    bad = number_of(images)
    listed = len(dataset) + bad
    if bad > MOST_BAD * listed:
        raise UserError(
            f"{bad} of the {listed} images in {' + '.join(dataset.sets)} cannot be used, more than "
            f"{MOST_BAD:.0%}. The first: {images[0].file}: {images[0].reason}. Mend the data, or "
            "go on without these images by --allow_bad."
        )


def about_problems(dataset: Dataset) -> Iterator[str]:
    """Sentences about all that was left out, mended or noted: the first of each kind, and numbers.

    Last comes the doubt about the data as a whole.
    """
    in_kinds = sorted(dataset.problems, key=lambda problem: problem.kind)
    for kind, group in groupby(in_kinds, key=lambda problem: problem.kind):
        problems = list(group)
        dropped = problems[0].action == "image dropped"
        named = problems[: _MOST_IMAGES if dropped else _MOST_OTHERS]
        for problem in named:
            yield shown(sentence_about(problem))
        more = number_of(problems) - number_of(named)
        if more:
            yield f"and {more:,} x {kind} more"
    number = number_left_out(dataset)
    if number:
        yield f"{number} of the {len(dataset) + number} images were left out"
    number = number_of(_with_action(dataset, "object dropped"))
    if number:
        yield f"{number} of the {dataset.number_of_objects + number} objects were left out"
    if dataset.doubt:
        yield shown(dataset.doubt)


def _with_action(dataset: Dataset, action: str) -> list[DataProblem]:
    return [problem for problem in dataset.problems if problem.action == action]
