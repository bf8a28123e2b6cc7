"""Reading a data set for a command, with a progress bar over the checks."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    track,
)

from keras_frcnn.data.bad_images import about_problems, check_share_of_bad, number_left_out
from keras_frcnn.data.dataset import Dataset
from keras_frcnn.data.simple import load_simple
from keras_frcnn.data.voc import load_voc
from keras_frcnn.errors import UserError


def load_dataset(
    path: Path,
    parser: str,
    sets: str | None,
    *,
    console: Console,
    class_names: Sequence[str] | None = None,
    strict: bool = False,
    default_split: str = "trainval",
    allow_bad: bool = False,
) -> Dataset:
    """Reads and checks a data set of either layout, and names what was wrong with it.

    Args:
        parser: ``pascal_voc`` or ``simple``.
        sets: image sets of a devkit; ``None``: every year's ``default_split``.
        class_names: known classes; default: those found.
        allow_bad: go on where more than a tenth of the images or objects cannot be used.

    Raises:
        UserError: as :func:`load_voc` and :func:`load_simple`, or too much is bad.
    """
    if parser == "simple" and sets is not None:
        raise UserError("Image sets belong to VOC devkits; with -o simple leave them out.")
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    hidden = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=hidden) as bar:
        task = bar.add_task(f"reading and checking {path}", total=None)

        def progress(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        of_devkit = {} if parser == "simple" else {"sets": sets, "default_split": default_split}
        load = load_simple if parser == "simple" else load_voc
        dataset = load(path, class_names=class_names, strict=strict, progress=progress, **of_devkit)
    if not allow_bad:
        check_share_of_bad(dataset)
    for sentence in about_problems(dataset):
        console.print(sentence, style="yellow", soft_wrap=True, markup=False, highlight=False)
    return dataset


def load_test_data(
    arguments: argparse.Namespace, path: Path, class_names: Sequence[str] | None, console: Console
) -> Dataset:
    """The images to evaluate on.

    Raises:
        UserError: something is wrong with the data, or no object is of a known class.
    """
    dataset = load_dataset(
        path,
        arguments.parser,
        arguments.set,
        console=console,
        class_names=class_names,
        strict=getattr(arguments, "strict", False),
        default_split="test",
        allow_bad=arguments.allow_bad,
    )
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
