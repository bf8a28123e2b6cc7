"""What flags name, read: the data set, given proposals, the detector."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import track

from keras_frcnn.cli.common import existing_path, progress_bar
from keras_frcnn.cli.flags import short_sides, tile_of
from keras_frcnn.data.bad_images import about_problems, number_left_out
from keras_frcnn.data.dataset import Dataset
from keras_frcnn.data.load import load_data
from keras_frcnn.detection.load import MODEL_FILE, check_run, load
from keras_frcnn.detection.tiles import TiledDetector
from keras_frcnn.errors import UserError
from keras_frcnn.proposals.given import GivenProposals
from keras_frcnn.recipes import DetectionFilter
from keras_frcnn.runs.folder import RunFolder, find_run

if TYPE_CHECKING:
    from keras_frcnn.detection.detector import Detector

PLACES = ("run", "saved_model", "onnx", "config_filename")


def load_dataset(
    arguments: argparse.Namespace,
    console: Console,
    *,
    class_names: Sequence[str] | None = None,
    default_split: str = "trainval",
    split: Mapping[str, str] | None = None,
) -> Dataset:
    """Reads and checks the data set of the flags, and tells what was wrong with it.

    Args:
        class_names: known classes; default: those found.
        default_split: what is read of each year without a flag for sets.
        split: of a run: which part each of its images is in.

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
            split=split,
            progress=progress,
        )
    for sentence in about_problems(dataset):
        console.print(sentence, style="yellow", soft_wrap=True)
    return dataset


def load_test_data(
    arguments: argparse.Namespace, class_names: Sequence[str] | None, console: Console
) -> Dataset:
    """The images to evaluate on.

    Raises:
        UserError: something is wrong with the data, or no object is of a known class.
    """
    split = RunFolder(arguments.run).split() if getattr(arguments, "run", None) else None
    dataset = load_dataset(
        arguments, console, class_names=class_names, default_split="test", split=split
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


def load_given(texts: Sequence[str], dataset: Dataset | None = None) -> GivenProposals:
    """The proposals in the files of ``--proposals``, of every image of the data set.

    Raises:
        UserError: a file cannot be read, or they lack images.
    """
    from keras_frcnn.proposals.files import read_proposals

    given = read_proposals([existing_path(text, "--proposals") for text in texts])
    if dataset is not None:
        given.check_covers(dataset.examples)
    return given


def place_of(arguments: argparse.Namespace) -> str | None:
    """The one place of a detector that was given; None without any.

    Raises:
        UserError: several are given, or the one is nothing of its kind, or a run without an RPN
            where no proposals are given.
    """
    given = {name: getattr(arguments, name, None) for name in PLACES}
    places = {name: text for name, text in given.items() if text is not None}
    if len(places) > 1:
        names = " and ".join(f"--{name}" for name in places)
        raise UserError(f"{names} each name a detector; give one of them.")
    for name, text in places.items():
        if name == "config_filename":
            text = str(find_run(existing_path(text, "--config_filename")).path)
        if name in ("run", "config_filename"):
            check_run(text, boxes_given=bool(arguments.proposals))
        elif name == "saved_model":
            if not (existing_path(text, "--saved_model") / MODEL_FILE).is_file():
                raise UserError(f"--saved_model {text} is no export: it has no {MODEL_FILE}.")
        elif existing_path(text, "--onnx").is_dir():
            raise UserError(f"--onnx {text} is a folder; give the file.")
        return text
    return None


def load_detector(
    arguments: argparse.Namespace,
    place: str,
    detection_filter: DetectionFilter | None,
    console: Console,
) -> Detector:
    """The detector of :func:`place_of` as the flags ask for it, see :func:`keras_frcnn.load`."""
    tile = tile_of(arguments.tile)
    detector = load(
        place,
        detection_filter,
        stage=arguments.stage,
        # Given proposals are counted where they are looked up.
        number_of_proposals=None if arguments.proposals else arguments.num_proposals,
        short_sides=short_sides(arguments.scales),
        head_chunk=getattr(arguments, "num_rois", None),
        precision=usable_precision(arguments.precision, console),
        boxes_given=bool(arguments.proposals),
    )
    return detector if tile is None else TiledDetector(detector, *tile)


def usable_precision(chosen: str | None, console: Console) -> str | None:
    """What ``--precision`` says; ``auto`` is measured, and the reason is printed.

    Raises:
        UserError: this machine does not compute in it.
    """
    if chosen is None:
        return None
    from keras_frcnn.system.precision import check_computes, fastest_precision

    if chosen != "auto":
        check_computes(chosen)
        return chosen
    precision, reason = fastest_precision()
    console.print(reason, soft_wrap=True)
    return precision
