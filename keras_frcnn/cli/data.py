"""Reading a data set for a command, with a progress bar over the checks."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Iterable, Sequence

from rich.console import Console
from rich.progress import track

from keras_frcnn.cli.common import progress_bar
from keras_frcnn.data.bad_images import about_problems, number_left_out
from keras_frcnn.data.dataset import Dataset
from keras_frcnn.data.load import load_data
from keras_frcnn.errors import UserError


def load_dataset(
    arguments: argparse.Namespace,
    console: Console,
    *,
    class_names: Sequence[str] | None = None,
    default_split: str = "trainval",
) -> Dataset:
    """Reads and checks the data set of the flags, and tells what was wrong with it.

    Args:
        class_names: known classes; default: those found.
        default_split: what is read of each year without a flag for sets.

    Raises:
        UserError: as :func:`keras_frcnn.load_data`.
    """
    title = f"reading and checking {arguments.path}"
    with progress_bar(console, title, transient=True) as progress:
        dataset = load_data(
            arguments.path,
            arguments.set,
            parser=arguments.parser,
            class_names=class_names,
            allow_bad=arguments.allow_bad,
            strict=getattr(arguments, "strict", False),
            default_split=default_split,
            progress=progress,
        )
    for sentence in about_problems(dataset):
        console.print(sentence, style="yellow", soft_wrap=True, markup=False, highlight=False)
    return dataset


def load_test_data(
    arguments: argparse.Namespace, class_names: Sequence[str] | None, console: Console
) -> Dataset:
    """The images to evaluate on.

    Raises:
        UserError: something is wrong with the data, or no object is of a known class.
    """
    dataset = load_dataset(arguments, console, class_names=class_names, default_split="test")
    unknown = sum(problem.kind == "class unknown" for problem in dataset.problems)
    if unknown and not dataset.number_of_objects:
        raise UserError(
            f"None of the objects in {' + '.join(dataset.sets)} is of a class that the run knows "
            f"({', '.join(dataset.class_names)}): evaluate on the kind of data it was trained on."
        )
    return dataset


def first_images(dataset: Dataset, number: int | None) -> Dataset:
    """The data set of the first ``number`` images, of all where that is None."""
    return dataclasses.replace(dataset, examples=dataset.examples[:number])


def passes_of(console: Console, dataset: Dataset) -> Callable[[Iterable, str], Iterable]:
    """``(entries, title) -> entries`` with a bar on the screen, where it is a terminal."""
    bad = number_left_out(dataset)
    note = f" ({bad} bad images left out)" if bad else ""

    def passes(entries: Iterable, title: str) -> Iterable:
        hidden = not console.is_terminal
        total = len(dataset)
        return track(entries, title + note, total=total, console=console, disable=hidden)

    return passes
