"""How many images a data set may lose."""

from __future__ import annotations

from collections.abc import Iterator

from keras_frcnn.data.dataset import DataProblem, Dataset
from keras_frcnn.errors import UserError

# Share of the listed images that may be left out without a word of the user.
MOST_BAD = 0.1


def left_out(dataset: Dataset) -> list[DataProblem]:
    """The problems for which images were left out."""
    return [problem for problem in dataset.problems if problem.action == "image dropped"]


def check_share_of_bad(dataset: Dataset) -> None:
    """Stops where so many images are bad that the data, not the images, may be wrong.

    So it does where so many lines of a simple list are: each may have named an image of its own.

    Raises:
        UserError: more than :data:`MOST_BAD` of either were left out.
    """
    lines = [problem for problem in dataset.problems if problem.action == "line dropped"]
    read = sum(max(1, len(example.classes)) for example in dataset.examples)
    read += sum(problem.action == "object dropped" for problem in dataset.problems)
    if len(lines) > MOST_BAD * (read + len(lines)):
        raise UserError(
            f"{len(lines)} lines of {lines[0].file} cannot be read, more than {MOST_BAD:.0%}, and "
            f"{read} can. The first: "
            f"{lines[0].where}: {lines[0].reason}. Mend the list, or go on without these lines by "
            "--allow_bad."
        )
    bad = left_out(dataset)
    listed = len(dataset) + len(bad)
    if len(bad) > MOST_BAD * listed:
        raise UserError(
            f"{len(bad)} of the {listed} images in {' + '.join(dataset.sets)} cannot be used, more "
            f"than {MOST_BAD:.0%}. The first: {bad[0].file}: {bad[0].reason}. Mend the data, or go "
            "on without these images by --allow_bad."
        )


def about_left_out(dataset: Dataset) -> Iterator[str]:
    """A sentence about each image that was left out, then their number; nothing without any."""
    bad = left_out(dataset)
    for problem in bad:
        place = f"{problem.file}, {problem.where}" if problem.where else problem.file
        yield f"left out: {place}: {problem.reason}"
    if bad:
        yield f"{len(bad)} of the {len(dataset) + len(bad)} images were left out"
