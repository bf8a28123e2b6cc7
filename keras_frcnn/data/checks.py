"""The rules that every annotation and image must pass, whichever file they were read from.

A reader parses its files into ``WrittenImage`` records, in which every number is still the text of
the file; ``build_dataset`` judges them. Nothing is cached and nothing is written.
"""

from __future__ import annotations

import dataclasses
import math
import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from keras_frcnn.data.dataset import (
    DataProblem,
    Dataset,
    Example,
    Problems,
    Written,
    WrittenImage,
    WrittenObject,
    corner_numbers,
    number_of,
)
from keras_frcnn.data.doubts import Mend, doubt_about_objects, is_normalised, judge_sizes
from keras_frcnn.data.images import about_bits, bits_of, read_samples
from keras_frcnn.errors import UserError, shown

Progress = Callable[[int, int], None]  # called with (images checked, images in all)

_CORNER_NAMES = ("xmin", "ymin", "xmax", "ymax")
_SHOWN_WHEN_STRICT = 5


def check_written(
    written: Written,
    *,
    class_names: Sequence[str] | None,
    strict: bool,
    progress: Progress | None = None,
) -> Dataset:
    """Judges what a reader found, as :func:`build_dataset`.

    Args:
        class_names: the known classes, in order; None for those found.

    Raises:
        UserError: as :func:`build_dataset`, or no class is known.
    """
    images, sets = written.images, written.sets
    if class_names is None:
        class_names = written.class_names
        if images and not class_names:
            raise UserError(
                f"Expected objects in {' + '.join(sets)}, but no annotation and no line names a "
                "class, so that no class is known; check the annotations."
            )
    dataset = build_dataset(
        images,
        written.problems,
        class_names=class_names,
        sets=sets,
        strict=strict,
        progress=progress,
    )
    return dataclasses.replace(dataset, split=written.split)


def build_dataset(
    images: Sequence[WrittenImage],
    problems: Iterable[DataProblem],
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
    found = Problems(problems)
    measured = _measure([image.path for image in images], progress)
    bits = max((bits for _, bits in measured), default=0)
    sound, sizes = [], []
    for image, (size, used) in zip(images, measured, strict=True):
        if 0 < used <= bits - 4:
            reason = f"it uses {used} of the {bits} bits that the images with 16 bits use"
            found.append(DataProblem("image nearly black", str(image.path), "", reason, "noted"))
        if isinstance(size, str):
            found.append(
                DataProblem("image unreadable", str(image.path), "", size, "image dropped")
            )
        else:
            sound.append(image)
            sizes.append(size)
    mends, doubt = judge_sizes(sound, sizes)
    doubt = doubt or doubt_about_objects(sound, sizes, mends, " + ".join(sets))
    found.extend(_names_in_doubt(sound))
    examples = []
    for image, size, mend in zip(sound, sizes, mends, strict=True):
        if image.size is not None and image.size != size:
            found.append(_size_problem(image, image.size, size, mend))
        example, of_image = check_objects(image, size, class_names, mend)
        examples.append(example)
        found.extend(of_image)
    problems = tuple(found)
    if strict and problems:
        raise UserError(_strict_message(problems))
    if not examples:
        raise UserError(_nothing_left_message(sets, problems))
    if 0 < bits < 16:  # no problem for --strict
        problems += (DataProblem("16-bit images", " + ".join(sets), "", about_bits(bits), "noted"),)
    dataset = Dataset(tuple(class_names), tuple(examples), tuple(sets), problems, doubt)
    return dataset.with_bits(bits)


def check_objects(
    image: WrittenImage, size: tuple[int, int], class_names: Sequence[str], mend: Mend | None = None
) -> tuple[Example, list[DataProblem]]:
    """The sound objects of one image.

    In this order: an unknown class, a corner that is no finite number and a box that is degenerate
    as written (xmax <= xmin or ymax <= ymin, before any conversion) are dropped; then corners
    become half-open floats, a box wholly outside the image is dropped and overhang is clipped. What
    its reader found to be no box is dropped first, the repetition of a kept object last.

    Args:
        image: what was written.
        size: real (height, width) in pixels, EXIF orientation applied.
        class_names: the known classes.
        mend: of boxes that were marked on another form of the image.
    """
    positions = {name: position for position, name in enumerate(class_names, start=1)}
    kept, boxes, problems = [], [], []
    taken = set()
    for written in image.objects:
        box: np.ndarray | None = None
        problem: tuple[str, str, str] | None
        if written.fault:
            problem = ("box unreadable", written.fault, "object dropped")
        elif written.class_name in positions:
            box, problem = _check_box(written.corners, size, image.first_pixel, mend)
        else:
            known = _shortened(class_names)
            reason = f"expected one of the classes {known}, found {written.class_name!r:.80}"
            problem = ("class unknown", reason, "object dropped")
        same = None if box is None else (written.class_name, *box.tolist())
        if same in taken:
            reason = f"expected each {written.class_name:.80} once, found this box before"
            box, problem = None, ("object repeated", reason, "used once")
        if box is not None:
            taken.add(same)
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
    corners: Sequence[str | None], size: tuple[int, int], first_pixel: int, mend: Mend | None
) -> tuple[np.ndarray | None, tuple[str, str, str] | None]:
    """(4,) float32 half-open box or None, and (kind, reason, action) of its problem or None."""
    numbers = corner_numbers(corners)
    for name, text, number in zip(_CORNER_NAMES, corners, numbers, strict=True):
        if math.isnan(number):
            given = repr(text.strip()[:40]) if text and text.strip() else "none"
            reason = f"expected a number for {name}, found {given}"
            return None, ("box unreadable", reason, "object dropped")
    xmin, ymin, xmax, ymax = numbers
    found = ", ".join(
        f"{name} {value:g}" for name, value in zip(_CORNER_NAMES, numbers, strict=True)
    )
    if is_normalised(np.array(numbers)):
        reason = f"expected pixels, found numbers from 0 to 1: {found}"
        return None, ("box normalised", reason, "object dropped")
    if xmax <= xmin or ymax <= ymin:
        reason = f"expected xmin < xmax and ymin < ymax, found {found}"
        return None, ("box degenerate", reason, "object dropped")
    box = np.array([ymin - first_pixel, xmin - first_pixel, ymax, xmax])
    if mend is not None:
        box = mend.apply(box)
        found += f" ({mend.action})"
    reason = (
        f"expected a box inside, found {found} in an image of {size[1]} x {size[0]} pixels "
        "(width x height)"
    )
    box_inside = np.clip(box, 0, [*size, *size])
    box_image = box_inside.astype(np.float32)
    # Judged in float32, so that no box can pass that is empty to everything downstream.
    if box_image[2] <= box_image[0] or box_image[3] <= box_image[1]:
        return None, ("box outside", reason, "object dropped")
    if np.any(box_inside != box):
        return box_image, ("box clipped", reason, "clipped")
    return box_image, None


def names_found(objects: Iterable[WrittenObject]) -> tuple[str, ...]:
    """Class names of all written objects, difficult and degenerate ones included, sorted.

    Taken from the text alone, so that a lost image or a mended box changes no class number.
    """
    return tuple(sorted({written.class_name for written in objects} - {""}))


def summary(dataset: Dataset) -> dict[str, int | dict[str, int]]:
    """Counts for the screen: of objects with the difficult ones, of problems by their frequency."""
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
    reason = (
        "no object, or difficult ones only: the RPN learns from it, and by the paper's background "
        "rule the detector does not"
    )
    return [
        DataProblem("no object", str(example.path), "", reason, "noted")
        for example in dataset.examples
        if not len(example.without_difficult().classes)
    ]


def report_text(problems: Sequence[DataProblem]) -> str:
    """The report: numbers per kind first, then one line a problem."""
    if not problems:
        return "No problems found in the data.\n"
    lines = [f"Problems found in the data: {number_of(problems)}", ""]
    lines += [f"{number:8d}  {kind}" for kind, number in _kinds(problems).items()]
    return "\n".join([*lines, "", *map(sentence_about, problems)]) + "\n"


def _measure(
    paths: Sequence[Path], progress: Progress | None
) -> list[tuple[tuple[int, int] | str, int]]:
    """(height, width) of each image, or why it cannot be read; and as of ``bits_of``.

    Every image is fully decoded.
    """
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


def _measure_one(path: Path) -> tuple[tuple[int, int] | str, int]:
    try:
        samples = read_samples(path)
    except UserError as error:
        return str(error), 0
    return samples.shape[:2], bits_of(samples)


def _size_problem(
    image: WrittenImage, written: tuple[int, int], size: tuple[int, int], mend: Mend | None
) -> DataProblem:
    reason = (
        f"the annotation says {written[1]} x {written[0]} pixels (width x height), "
        f"the upright image has {size[1]} x {size[0]}"
    )
    if mend is not None:
        return DataProblem("boxes mended", str(image.annotation), "", reason, mend.action)
    if written == size[::-1]:
        reason += "; were the objects marked on the photo before its EXIF orientation was applied?"
    action = "noted; the real size is used"
    return DataProblem("size differs", str(image.annotation), "", reason, action)


def _names_in_doubt(images: Sequence[WrittenImage]) -> Iterator[DataProblem]:
    """A note on names that are likely no class of their own."""
    first: dict[str, tuple[str, str]] = {}
    for image in images:
        for written in image.objects:
            first.setdefault(written.class_name, (str(image.annotation), written.where))
    alike: dict[str, str] = {}
    for name, (file, where) in first.items():
        key = "".join(unicodedata.normalize("NFKC", name).casefold().split())
        if key.strip("_") in ("bg", "background"):
            reason = f"objects only, found the class {name!r:.80}: it is trained as any other"
        elif alike.setdefault(key, name) != name:
            reason = f"one spelling of a class, found {name!r:.80} beside {alike[key]!r:.80}"
        else:
            continue
        yield DataProblem("class name doubtful", file, where, f"expected {reason}", "noted")


def _shortened(names: Sequence[str]) -> str:
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return ", ".join(f"{name:.80}" for name in names[:20]) + more


def _kinds(problems: Sequence[DataProblem]) -> dict[str, int]:
    counted: Counter[str] = Counter()
    for problem in problems:
        counted[problem.kind] += problem.number
    return dict(sorted(counted.items(), key=lambda item: (-item[1], item[0])))


def _in_words(problems: Sequence[DataProblem]) -> str:
    return ", ".join(f"{number} x {kind}" for kind, number in _kinds(problems).items())


def sentence_about(problem: DataProblem) -> str:
    """One line on a problem, for the report and the screen."""
    place = ", ".join(filter(None, (problem.file, shown(problem.where))))
    return f"{place or 'elsewhere'}: {problem.kind}: {shown(problem.reason)} [{problem.action}]"


def _strict_message(problems: Sequence[DataProblem]) -> str:
    first = "\n".join(f"  {sentence_about(problem)}" for problem in problems[:_SHOWN_WHEN_STRICT])
    total = number_of(problems)
    more = total - _SHOWN_WHEN_STRICT
    rest = f"\n  and {more} more" if more > 0 else ""
    return (
        f"Expected data without problems (strict), found {total} ({_in_words(problems)}); mend "
        f"them, or go on without --strict, which leaves out what is at fault:\n{first}{rest}"
    )


def _nothing_left_message(sets: Sequence[str], problems: Sequence[DataProblem]) -> str:
    name = " + ".join(sets)
    if not problems:
        return f"Expected images in {name}, but its list is empty; choose another set or list."
    return (
        f"Expected images in {name}, but none is left after the checks ({_in_words(problems)}); "
        f"the first problem: {sentence_about(problems[0])}"
    )
