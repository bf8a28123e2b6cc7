"""The rules that every annotation and image must pass, whichever file they were read from.

A reader parses its files into ``WrittenImage`` records, in which every number is still the text of
the file; ``build_dataset`` judges them. Nothing is cached and nothing is written, except the report
by ``write_report`` where its caller says.

Shapes and names
----------------
G  objects of one image that are kept.
written  numbers as they stand in the file, before any conversion.
boxes_image  (G, 4) float32, half-open (y1, x1, y2, x2) in pixels of the upright image.
problem  one thing that was wrong and what was done about it (``DataProblem``).
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_frcnn.data.dataset import DataProblem, Dataset, Example
from keras_frcnn.data.images import read_image
from keras_frcnn.errors import UserError
from keras_frcnn.files import write_text

Progress = Callable[[int, int], None]  # called with (images checked, images in all)

_CORNER_NAMES = ("xmin", "ymin", "xmax", "ymax")
_SHOWN_WHEN_STRICT = 5


@dataclass(frozen=True)
class WrittenObject:
    """One object as a file has it.

    Attributes:
        where: its place in the file, ``"object 3 (dog)"`` or ``"line 12"``.
        class_name: may be empty.
        corners: texts of (xmin, ymin, xmax, ymax); None for one that is missing.
        difficult: of a VOC annotation.
    """

    where: str
    class_name: str
    corners: tuple[str | None, str | None, str | None, str | None]
    difficult: bool = False


@dataclass(frozen=True)
class WrittenImage:
    """One image as the annotations have it.

    Attributes:
        image_id, source: as in ``Example``.
        path: an image file that exists.
        annotation: the file that the objects were read from.
        objects: in the order of the file.
        size: (height, width) in pixels as written, or None.
        first_pixel: 1 when corners count pixels from 1 and xmax, ymax are inside the object (VOC);
            0 when they count from 0 and xmax, ymax are just outside (half-open).
    """

    image_id: str
    source: str
    path: Path
    annotation: Path
    objects: tuple[WrittenObject, ...]
    size: tuple[int, int] | None
    first_pixel: int


def build_dataset(
    images: Sequence[WrittenImage],
    problems: Sequence[DataProblem],
    *,
    class_names: Sequence[str],
    sets: Sequence[str],
    strict: bool,
    progress: Progress | None = None,
) -> Dataset:
    """Judge everything that was written and keep what is sound.

    Every image is decoded once, in a pool of threads. The rules for boxes are those of
    ``check_objects``; of an image whose size differs from the written one, the real size counts.

    Args:
        images: in the order of their lists.
        problems: what the reader found before.
        class_names: class ``k`` is ``class_names[k - 1]``; objects of others are dropped.
        sets: named in messages and kept in the data set.
        strict: stop at any problem instead of going on without what is at fault.
        progress: called after each image.

    Raises:
        UserError: no image is left, or ``strict`` and there is a problem.
    """
    problems = list(problems)
    measured = _measure([image.path for image in images], progress)
    examples = []
    for image, size in zip(images, measured, strict=True):
        if isinstance(size, str):
            problems.append(
                DataProblem("image unreadable", str(image.path), "", size, "image dropped")
            )
            continue
        if image.size is not None and image.size != size:
            problems.append(_size_problem(image, size))
        example, found = check_objects(image, size, class_names)
        examples.append(example)
        problems.extend(found)
    if strict and problems:
        raise UserError(_strict_message(problems))
    if not examples:
        raise UserError(_nothing_left_message(sets, problems))
    return Dataset(tuple(class_names), tuple(examples), tuple(sets), tuple(problems))


def check_objects(
    image: WrittenImage, size: tuple[int, int], class_names: Sequence[str]
) -> tuple[Example, list[DataProblem]]:
    """The sound objects of one image.

    In this order: an unknown class, a corner that is no finite number and a box that is degenerate
    as written (xmax <= xmin or ymax <= ymin, before any conversion) are dropped; then corners
    become half-open floats, a box wholly outside the image is dropped and overhang is clipped.

    Args:
        image: what was written.
        size: real (height, width) in pixels, EXIF orientation applied.
        class_names: the known classes.
    """
    positions = {name: position for position, name in enumerate(class_names, start=1)}
    kept, boxes, problems = [], [], []
    for written in image.objects:
        if written.class_name in positions:
            box, problem = _check_box(written.corners, size, image.first_pixel)
        else:
            known = _shortened(class_names)
            box, problem = (
                None,
                (
                    "class unknown",
                    f"expected one of the classes {known}, found {written.class_name!r}",
                    "object dropped",
                ),
            )
        if problem is not None:
            kind, reason, action = problem
            problems.append(DataProblem(kind, str(image.annotation), written.where, reason, action))
        if box is not None:
            kept.append(written)
            boxes.append(box)
    example = Example(
        image_id=image.image_id,
        source=image.source,
        path=image.path,
        height=size[0],
        width=size[1],
        boxes_image=np.array(boxes, np.float32).reshape(-1, 4),
        classes=np.array([positions[written.class_name] for written in kept], np.int32),
        difficult=np.array([written.difficult for written in kept], bool),
    )
    return example, problems


def _check_box(
    corners: Sequence[str | None], size: tuple[int, int], first_pixel: int
) -> tuple[np.ndarray | None, tuple[str, str, str] | None]:
    """(4,) float32 half-open box or None, and (kind, reason, action) of its problem or None."""
    numbers, trouble = _finite_corners(corners)
    if trouble:
        return None, ("box unreadable", trouble, "object dropped")
    xmin, ymin, xmax, ymax = numbers
    found = ", ".join(
        f"{name} {value:g}" for name, value in zip(_CORNER_NAMES, numbers, strict=True)
    )
    if xmax <= xmin or ymax <= ymin:
        reason = f"expected xmin < xmax and ymin < ymax, found {found}"
        return None, ("box degenerate", reason, "object dropped")
    found += f" in an image of {size[1]} x {size[0]} pixels (width x height)"
    box = np.array([ymin - first_pixel, xmin - first_pixel, ymax, xmax])
    box_inside = np.clip(box, 0, [*size, *size])
    box_image = box_inside.astype(np.float32)
    # Judged in float32, so that no box can pass that is empty to everything downstream.
    if box_image[2] <= box_image[0] or box_image[3] <= box_image[1]:
        return None, (
            "box outside",
            f"expected a box inside, found {found}",
            "object dropped",
        )
    if np.any(box_inside != box):
        return box_image, (
            "box clipped",
            f"expected a box inside, found {found}",
            "clipped",
        )
    return box_image, None


def names_found(objects: Iterable[WrittenObject]) -> tuple[str, ...]:
    """Class names of all written objects, difficult and degenerate ones included, sorted.

    Taken from the text alone, so that a lost image or a mended box changes no class number.
    """
    return tuple(sorted({written.class_name for written in objects} - {""}))


def summary(dataset: Dataset) -> dict[str, int | dict[str, int]]:
    """Counts for the screen and the log.

    Returns:
        ``images``; ``images_without_objects``; ``objects`` and ``per_class`` (name to number, in
        the order of the classes), difficult objects included; ``difficult``; ``problems`` (kind to
        number, most frequent first).
    """
    counted = Counter(int(c) for example in dataset.examples for c in example.classes)
    return {
        "images": len(dataset),
        "images_without_objects": sum(len(e.classes) == 0 for e in dataset.examples),
        "objects": dataset.number_of_objects,
        "difficult": sum(int(e.difficult.sum()) for e in dataset.examples),
        "per_class": {name: counted[k] for k, name in enumerate(dataset.class_names, start=1)},
        "problems": _kinds(dataset.problems),
    }


def without_objects(dataset: Dataset) -> list[DataProblem]:
    """A note on every image that has no object to train a detector on (recipe 4.9)."""
    return [
        DataProblem(
            "no object",
            str(example.path),
            "",
            "no object, or difficult ones only: the RPN learns from it, and by the paper's "
            "background rule the detector does not",
            "noted",
        )
        for example in dataset.examples
        if not len(example.without_difficult().classes)
    ]


def report_text(problems: Sequence[DataProblem]) -> str:
    """The report: numbers per kind first, then one line a problem."""
    if not problems:
        return "No problems found in the data.\n"
    lines = [f"Problems found in the data: {len(problems)}", ""]
    lines += [f"{number:8d}  {kind}" for kind, number in _kinds(problems).items()]
    return "\n".join([*lines, "", *map(_line, problems)]) + "\n"


def write_report(problems: Sequence[DataProblem], path: Path) -> None:
    """Write ``report_text`` as UTF-8; missing folders of ``path`` are made."""
    write_text(path, report_text(problems))


def _measure(paths: Sequence[Path], progress: Progress | None) -> list[tuple[int, int] | str]:
    """(height, width) of each image, or why it cannot be read; every image is fully decoded."""
    pool = ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1))
    try:
        measured = []
        for result in pool.map(_measure_one, paths):  # in order; Pillow decodes without the GIL
            measured.append(result)
            if progress is not None:
                progress(len(measured), len(paths))
        return measured
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C does not wait for the images not yet begun


def _measure_one(path: Path) -> tuple[int, int] | str:
    try:
        height, width, _ = read_image(path).shape
    except UserError as error:
        return str(error)
    return height, width


def _finite_corners(texts: Sequence[str | None]) -> tuple[list[float], str]:
    """Corners as floats and what is wrong with them, or ``""``."""
    corners = []
    for name, text in zip(_CORNER_NAMES, texts, strict=True):
        if text is None or not text.strip():
            return [], f"expected a number for {name}, found none"
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            return [], f"expected a number for {name}, found {text.strip()[:40]!r}"
        corners.append(number)
    return corners, ""


def _size_problem(image: WrittenImage, size: tuple[int, int]) -> DataProblem:
    reason = (
        f"the annotation says {image.size[1]} x {image.size[0]} pixels (width x height), "
        f"the upright image has {size[1]} x {size[0]}"
    )
    if image.size == size[::-1]:
        reason += "; were the objects marked on the photo before its EXIF orientation was applied?"
    return DataProblem(
        "size differs",
        str(image.annotation),
        "",
        reason,
        "noted; the real size is used",
    )


def _shortened(names: Sequence[str]) -> str:
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return ", ".join(names[:20]) + more


def _kinds(problems: Sequence[DataProblem]) -> dict[str, int]:
    counted = Counter(problem.kind for problem in problems)
    return dict(sorted(counted.items(), key=lambda item: (-item[1], item[0])))


def _line(problem: DataProblem) -> str:
    place = f"{problem.file}, {problem.where}" if problem.where else problem.file
    return f"{place}: {problem.kind}: {problem.reason} [{problem.action}]"


def _strict_message(problems: Sequence[DataProblem]) -> str:
    first = "\n".join(f"  {_line(problem)}" for problem in problems[:_SHOWN_WHEN_STRICT])
    more = len(problems) - _SHOWN_WHEN_STRICT
    rest = f"\n  and {more} more" if more > 0 else ""
    kinds = ", ".join(f"{number} x {kind}" for kind, number in _kinds(problems).items())
    return (
        f"Expected data without problems (strict), found {len(problems)} ({kinds}); mend them, or "
        f"go on without --strict, which leaves out what is at fault:\n{first}{rest}"
    )


def _nothing_left_message(sets: Sequence[str], problems: Sequence[DataProblem]) -> str:
    name = " + ".join(sets)
    if not problems:
        return f"Expected images in {name}, but its list is empty; choose another set or list."
    kinds = ", ".join(f"{number} x {kind}" for kind, number in _kinds(problems).items())
    return (
        f"Expected images in {name}, but none is left after the checks ({kinds}); the first "
        f"problem: {_line(problems[0])}"
    )
