"""Reads detections of any program: JSON records, COCO results, text files of the VOC devkit.

A file whose detections find next to nothing, and would find much with its columns read in another
order, is refused with that cause (:func:`check_plausible`).
"""

from __future__ import annotations

import math
import re
import tarfile
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

import numpy as np

from keras_frcnn.data.dataset import Dataset, Example
from keras_frcnn.data.images import IMAGE_SUFFIXES
from keras_frcnn.detection.detections import NO_DETECTIONS, ImageDetections
from keras_frcnn.detection.write_detections import image_sets, plain_id
from keras_frcnn.errors import UserError, reading
from keras_frcnn.evaluation.matching import box_overlaps
from keras_frcnn.system.files import parse_json, read_text_bounded

# Some four million records, more than any test set gives.
MOST_DETECTION_BYTES = 2**29
# Of all members: a small compressed archive may hold any size. Some five million lines.
MOST_ARCHIVE_BYTES = 2**28
# Comparing more with the objects of their image would fill the memory.
MOST_OF_AN_IMAGE = 100_000
# One after the other: as a list the lines would take three times the memory.
_LINE = re.compile(r"[^\r\n]*(?:\r\n?|\n|\Z)")
_YEAR = re.compile(r"VOC\d{4}")

CORNERS = "xmin, ymin, xmax, ymax"
SIZES = "x, y, width, height"
# How four numbers and a score might be meant: (score, four numbers) -> y1, x1, y2, x2.
READINGS: dict[str, Callable] = {
    CORNERS: lambda s, a, b, c, d: (b, a, d, c),
    SIZES: lambda s, a, b, c, d: (b, a, b + d, a + c),
    "ymin, xmin, ymax, xmax": lambda s, a, b, c, d: (a, b, c, d),
    "centre x, centre y, width, height": lambda s, a, b, c, d: (
        *(b - d / 2, a - c / 2, b + d / 2, a + c / 2),
    ),
    "xmin, ymin, xmax, ymax, score": lambda s, a, b, c, d: (a, s, c, b),
}
# A file whose best detections find less than this share is looked at; another reading has to find
# as much.
LEAST_FOUND = 0.25


def read_detections(
    path: Path | str, dataset: Dataset, coco_annotations: Path | str | None = None
) -> tuple[dict[str, ImageDetections], list[str]]:
    """Reads a JSON list of records, or a folder or tar archive of VOC text files.

    Args:
        coco_annotations: the annotations file whose numbers a COCO results file uses for images and
            classes; without it they are VOC ids and 1-based positions in the class list.

    Returns:
        The detections by ``Example.key`` (images without any are left out), float64; and remarks
        for the screen.

    Raises:
        UserError: as :func:`read_voc`, :func:`read_json` and :func:`check_plausible`, or VOC text
            files with ``coco_annotations``.
    """
    with reading(path, "a file of detections", "give the file that your detector wrote"):
        is_voc = Path(path).is_dir() or (Path(path).is_file() and tarfile.is_tarfile(path))
    if is_voc and coco_annotations is not None:
        raise UserError(f"COCO annotations belong to a JSON file, {path} holds VOC text files.")
    if is_voc:
        detections, notes = read_voc(path, dataset)
    else:
        detections, notes = read_json(path, dataset, coco_annotations)
    written = CORNERS if is_voc else SIZES
    return detections, notes + check_plausible(dataset, detections, written, path)


def read_json(
    path: Path | str, dataset: Dataset, coco_annotations: Path | str | None = None
) -> tuple[dict[str, ImageDetections], list[str]]:
    """Reads a JSON list of records, and finds the image and class of each in the data set.

    An image is found by the stem of ``file_name``, else by ``image_id``, the VOC id (``"000005"``;
    the number 5 will do, as 2008000001 will for ``"2008_000001"``). A stem that several years share
    is settled by image_id or by the folder in ``file_name``. A class is found by ``class_name``, or
    by ``category_id`` where there is none.

    Arguments and result are those of :func:`read_detections`, in the order of the file.

    Raises:
        UserError: the file cannot be read; or a record (named by its 0-based index) has a field
            missing or ill-typed, a negative size, a score that is no finite number, a class or an
            image that is not in the set (an error in VOCevaldet.m too), or fits several images.
    """
    records = _load_json(path, "detections")
    if not isinstance(records, list):
        raise UserError(
            f"The detections {path} should be a JSON list of records with file_name or image_id, "
            f"class_name or category_id, bbox and score; found a {type(records).__name__}."
        )
    if coco_annotations is not None:
        records = with_names(records, coco_annotations)
    images, gathered = ImageIndex(dataset.examples), _Gathered(path, dataset)
    for index, record in enumerate(records):
        where = f"Record {index} (counted from 0) of {path}"
        if not isinstance(record, dict):
            raise UserError(f"{where} should be an object with named fields, it is {record!r:.80}.")
        file_name = _text(record.get("file_name"), "file_name", where)
        image_id = record.get("image_id")
        if isinstance(image_id, (int, float)):
            image_id = str(_whole(image_id, "image_id", where))
        example = images.find(file_name, _text(image_id, "image_id", where), where)
        name = _text(record.get("class_name"), "class_name", where)
        if name:
            class_index = gathered.class_index(name, where)
        else:
            class_index = _category(record, dataset.class_names, where)
        score = _number(record.get("score"), "score", where)
        gathered.add(example.key, _box(record, where), score, class_index)
    notes = []
    if images.found_by_id:
        notes.append(f"{images.found_by_id} detections were matched to their image by image_id.")
    return gathered.detections(), notes + gathered.notes()


def read_voc(path: Path | str, dataset: Dataset) -> tuple[dict[str, ImageDetections], list[str]]:
    """Reads the files ``comp*_det_*_CLASS.txt`` of a folder or tar archive, at any depth.

    Ties of score keep the order of the image list; the devkit's keep the order of the file. The
    result is that of :func:`read_detections`.

    Raises:
        UserError: there is no such file, two are of one class, one is of a class that is not in the
            set, a file cannot be read, or a line (named by its number) is not an id of one image of
            the set and five finite numbers, of which the last four are a box.
    """
    images, gathered = ImageIndex(dataset.examples), _Gathered(path, dataset)
    keys: dict[str, str] = {}
    seen: dict[str, str] = {}
    for name, class_name, text in _class_files(Path(path), _file_name_pattern(dataset)):
        index = gathered.class_index(class_name, f"{name} in {path}")
        if class_name in seen:
            raise UserError(
                f"{path} holds two files of the class {class_name!r}, {seen[class_name]} and "
                f"{name}: give the folder of one evaluation."
            )
        seen[class_name] = name
        for number, line in enumerate(map(re.Match.group, _LINE.finditer(text)), start=1):
            if not line.strip():
                continue
            where = f"Line {number} of {name} in {path}"
            image_id, box, score = _parse(line, where)
            if image_id not in keys:
                keys[image_id] = images.find("", image_id, where).key
            gathered.add(keys[image_id], box, score, index)
    if not seen:
        raise UserError(
            f"{path} holds no file named like comp4_det_test_{dataset.class_names[0]}.txt: give "
            "the folder or tar archive of the devkit's results, or a JSON file."
        )
    missing = [name for name in dataset.class_names if name not in seen]
    notes = [f"There is no file for {', '.join(missing)}: nothing was found of them."]
    return gathered.detections(), (notes if missing else []) + gathered.notes()


Box = tuple[float, float, float, float]


class _Gathered:
    """What was read so far: numbers by image, of classes by name."""

    def __init__(self, path: Path | str, dataset: Dataset):
        self._path, self._images = path, len(dataset)
        self._classes = {name: index for index, name in enumerate(dataset.class_names, start=1)}
        self._numbers: dict[str, array[float]] = {}

    def class_index(self, name: str, where: str) -> int:
        """The 1-based position of a class."""
        if name not in self._classes:
            known = ", ".join(self._classes)
            raise UserError(f"{where} is of the class {name!r:.80}, expected one of: {known}.")
        return self._classes[name]

    def add(self, key: str, box: Box, score: float, class_index: int) -> None:
        """Adds a detection, its box as y1, x1, y2, x2."""
        self._numbers.setdefault(key, array("d")).extend((*box, score, class_index))

    def detections(self) -> dict[str, ImageDetections]:
        """Everything, by ``Example.key``."""
        for key, numbers in self._numbers.items():
            if len(numbers) // 6 > MOST_OF_AN_IMAGE:
                raise UserError(
                    f"{self._path} has {len(numbers) // 6} detections in the image {key}, expected "
                    f"at most {MOST_OF_AN_IMAGE}; leave out those with the lowest scores."
                )
        return {key: ImageDetections.from_numbers(each) for key, each in self._numbers.items()}

    def notes(self) -> list[str]:
        """How many images have no detection, if any."""
        missing = self._images - len(self._numbers)
        note = f"{missing} of {self._images} images have no detection in {self._path}."
        return [note] if missing else []


class ImageIndex:
    """Finds the image that another program's file name or image id means: by name, else by id.

    Attributes:
        found_by_id: how often the file name did not do.
    """

    def __init__(self, examples: Sequence[Example]) -> None:
        self.found_by_id = 0
        self._by_stem: dict[str, list[Example]] = {}
        self._by_id: dict[str, list[Example]] = {}
        for example in examples:
            self._by_stem.setdefault(example.path.stem, []).append(example)
            for name in {example.image_id, plain_id(example.image_id), example.key}:
                self._by_id.setdefault(name, []).append(example)

    def find(self, file_name: str, image_id: str, where: str) -> Example:
        """The one image that a record is about.

        Args:
            file_name, image_id: either may be ``""``; an id may be the name of a file, too.
            where: names the record in messages.

        Raises:
            UserError: there is no such image, or several.
        """
        of_this_id = self._by_id.get(image_id) or self._by_id.get(plain_id(image_id), [])
        if not (file_name or of_this_id) and image_id.lower().endswith(IMAGE_SUFFIXES):
            file_name = image_id
        name = PurePosixPath(file_name.replace("\\", "/"))
        if not (file_name or image_id):
            raise UserError(f"{where} needs a file_name or an image_id, it has neither.")
        candidates = self._by_stem.get(name.stem, []) if file_name else []
        candidates = [e for e in candidates if not _is_of_another_year(e, image_id)]
        if not candidates:
            candidates = of_this_id
            self.found_by_id += 1
        if len(candidates) > 1:
            exact = [e for e in candidates if image_id in (e.image_id, e.key)]
            candidates = exact or [e for e in candidates if e in of_this_id] or candidates
            candidates = [e for e in candidates if _in_folder(e, name)] or candidates
            candidates = [e for e in candidates if e.path.name == name.name] or candidates
        if len(candidates) == 1:
            return candidates[0]
        given = (("file_name", file_name), ("image_id", image_id))
        received = ", ".join(f"{field} {text!r:.80}" for field, text in given if text)
        if candidates:
            keys = ", ".join(example.key for example in candidates[:4])
            raise UserError(
                f"{where} ({received}) fits several images ({keys}): give the image_id as "
                f"{candidates[0].key!r} or the folder in file_name."
            )
        raise UserError(
            f"{where} ({received}) is about an image that is not in the set: evaluate on the set "
            "that the detections were made on, or leave the record out; ids of a COCO annotations "
            "file need that file (`coco_annotations`)."
        )


def _is_of_another_year(example: Example, image_id: str) -> bool:
    """Whether an id such as ``"VOC2012/000005"`` means an image of another year.

    Other folders say nothing: they may be those of another machine.
    """
    years = {part for part in PurePosixPath(image_id).parts if _YEAR.fullmatch(part)}
    return bool(years and _YEAR.fullmatch(example.source)) and example.source not in years


def _in_folder(example: Example, name: PurePosixPath) -> bool:
    folders = name.parent.parts
    if not folders:
        return False
    return example.source in folders or example.path.parent.parts[-len(folders) :] == folders


def with_names(records: Sequence[Any], path: Path | str) -> list[Any]:
    """COCO results with the names of their image and class instead of the numbers.

    Args:
        path: the annotations file; its ``images`` and ``categories`` are read. The ``key`` of an
            image, which :func:`write_coco` adds, tells apart files of one name.

    Raises:
        UserError: the file cannot be read, is no JSON, or lacks what is needed, or a record has a
            number that it does not list.
    """
    content = _load_json(path, "annotations")
    images = _by_id(content, "images", "file_name", path)
    categories = _by_id(content, "categories", "name", path)
    result = []
    for index, record in enumerate(records):
        if isinstance(record, dict):  # anything else is refused where the records are read
            where = f"Record {index} (counted from 0)"
            image = _find(images, record, "image_id", where, path)
            category = _find(categories, record, "category_id", where, path)
            names = {"file_name": image["file_name"], "class_name": category["name"]}
            record = {**record, **names, "image_id": image.get("key")}
        result.append(record)
    return result


def _by_id(content: Any, what: str, field: str, path: Path | str) -> dict[str, dict[str, Any]]:
    entries = content.get(what) if isinstance(content, dict) else None
    if not isinstance(entries, list) or not all(
        isinstance(entry, dict)
        and isinstance(entry.get("id"), (int, str))
        and isinstance(entry.get(field), str)
        for entry in entries
    ):
        raise UserError(
            f"{path} is no COCO annotations file: it should be an object whose "
            f"{what!r} are a list of objects with id and {field}."
        )
    # By name, too, for programs that write names where numbers belong; numbers come first.
    by_name = {PurePath(entry[field]).name: entry for entry in entries}
    return by_name | {str(entry["id"]): entry for entry in entries}


def _find(
    entries: dict[str, Any], record: dict[str, Any], field: str, where: str, path: Path | str
) -> dict[str, Any]:
    value = record.get(field)
    text = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
    entry = entries.get(text) or entries.get(PurePath(text).name)
    if entry is None:
        raise UserError(
            f"{where} has the {field} {value!r:.80}, which {path} does not list: give the "
            "annotations file that the detections were made for."
        )
    return entry


def _load_json(path: Path | str, what: str) -> Any:
    with reading(path, f"{what} in JSON", "give the file that your detector wrote"):
        return parse_json(read_text_bounded(path, MOST_DETECTION_BYTES))


def _category(record: dict[str, Any], class_names: Sequence[str], where: str) -> int:
    if record.get("category_id") is None:
        raise UserError(f"{where} needs a class_name or a category_id, it has neither.")
    index = _whole(record["category_id"], "category_id", where)
    if not 1 <= index <= len(class_names):
        raise UserError(
            f"{where} has the category_id {index}, expected 1 to {len(class_names)}, "
            f"the 1-based position in: {', '.join(class_names)}."
        )
    return index


def _box(record: dict[str, Any], where: str) -> Box:
    box = record.get("bbox")
    if not isinstance(box, list) or len(box) != 4:
        raise UserError(f"{where} needs a bbox [x, y, width, height], it has {box!r:.80}.")
    x, y, width, height = (_number(value, "bbox", where) for value in box)
    if width < 0 or height < 0:
        raise UserError(
            f"{where} has a negative width or height in its bbox {box}: expected x, y, width, "
            "height; are they corners in another order?"
        )
    return y, x, y + height, x + width


def _number(value: Any, field: str, where: str) -> float:
    # The comparison is false for NaN, and exact for integers too long for a float.
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not (is_number and -1e12 < value < 1e12):
        raise UserError(f"{where} needs a finite number as {field}, it has {value!r:.80}.")
    return float(value)


def _whole(value: Any, field: str, where: str) -> int:
    number = _number(value, field, where)
    if number != int(number):
        raise UserError(f"{where} needs a whole number as {field}, it has {value!r}.")
    return int(number)


def _text(value: Any, field: str, where: str) -> str:
    if value is not None and not isinstance(value, str):
        raise UserError(f"{where} needs text as {field}, it has {value!r:.80}.")
    return value or ""


def _file_name_pattern(dataset: Dataset) -> re.Pattern[str]:
    """Of the files that :func:`write_voc`, the devkit and py-faster-rcnn write for a class.

    An image set may have a name with an underscore if it is one of ``dataset``. py-faster-rcnn
    puts a salt between: ``comp4_1f2e..._det_test_car.txt``.
    """
    split = "|".join((*map(re.escape, sorted(image_sets(dataset))), "[^_]+"))
    return re.compile(rf"comp\d+.*?_det_(?:{split})_(?P<class_name>.+)\.txt")


def _class_files(path: Path, pattern: re.Pattern[str]) -> Iterator[tuple[str, str, str]]:
    """Name, class and contents of the files of a folder or archive that fit, sorted by name."""
    text_file = ("UTF-8 text", "give the files that the devkit takes")
    if path.is_dir():
        for file in sorted(path.rglob("*.txt")):
            if match := pattern.fullmatch(file.name):
                with reading(file, *text_file):
                    text = read_text_bounded(file, MOST_DETECTION_BYTES)
                yield str(file.relative_to(path)), match["class_name"], text
        return
    with (
        reading(path, "a whole archive", "copy it again, or unpack it and give the folder"),
        tarfile.open(path) as archive,
    ):
        size, members = 0, []
        for member in archive:  # the next one is looked for behind all bytes of this one
            size += member.size
            if not 0 <= size <= MOST_ARCHIVE_BYTES:
                raise ValueError(f"{member.name} ends after {MOST_ARCHIVE_BYTES} bytes")
            members += [member] if member.isfile() else []
        for member in sorted(members, key=lambda member: member.name):
            if match := pattern.fullmatch(PurePosixPath(member.name).name):
                stream = archive.extractfile(member)
                assert stream is not None, "of a regular file there is one"
                with reading(f"{member.name} in {path}", *text_file):
                    text = stream.read().decode("utf-8-sig")
                yield member.name, match["class_name"], text


def _parse(line: str, where: str) -> tuple[str, Box, float]:
    """Id of the image; y1, x1, y2, x2; score."""
    words = line.split()
    try:
        score, xmin, ymin, xmax, ymax = map(float, words[1:])
    except ValueError:
        score = math.nan
    if not (math.isfinite(score) and all(map(math.isfinite, (xmin, ymin, xmax, ymax)))):
        raise UserError(
            f"{where} should be 'image_id score xmin ymin xmax ymax' with finite numbers, it is "
            f"{line.strip()!r:.80}."
        )
    # A hundredth of a pixel: other programs round the corners of narrow boxes.
    if xmax - (xmin - 1) < -0.01 or ymax - (ymin - 1) < -0.01:
        cause = "the score last" if ymax <= 1 < score else "width and height for the last corner"
        raise UserError(
            f"{where} should be 'image_id score xmin ymin xmax ymax', and has a last corner before "
            f"the first, {line.strip()!r:.80}: does it have {cause}?"
        )
    return words[0], (ymin - 1, xmin - 1, ymax, xmax), score


def check_plausible(
    dataset: Dataset, detections: Mapping[str, ImageDetections], written: str, path: object
) -> list[str]:
    """Looks whether detections that find little would find much if they were read otherwise.

    Args:
        written: as what they were read, ``CORNERS`` (of VOC: the first pixel is 1) or ``SIZES``.
        path: where they come from.

    Returns:
        A remark where nothing is found, and the cause is not certain.

    Raises:
        UserError: another reading finds much more, or most boxes lie outside of their images.
    """
    pairs = [(example, detections.get(example.key, NO_DETECTIONS)) for example in dataset.examples]
    # As many of each image as it has objects, as columns in the order of the file.
    best = [(example, each.best(len(example.classes))) for example, each in pairs]
    number = sum(len(each) for _, each in best)

    def found(reading: str, fractions: bool = False, any_class: bool = False) -> int:
        """How many objects have a detection of their class at IoU 0.5, as read."""
        total = 0
        for example, each in best:
            if len(each):
                columns = _columns(each, written)
                boxes = np.stack(READINGS[reading](each.scores, *columns), axis=-1)
                if fractions:
                    boxes = boxes * np.tile((example.height, example.width), 2)
                overlaps = box_overlaps(boxes, example.boxes_image)
                same = each.classes[:, None] == example.classes
                total += ((overlaps >= 0.5) & (any_class | same)).any(axis=0).sum()
        return int(total)

    as_written = found(written)
    if number and as_written >= LEAST_FOUND * number:
        return []
    others = {
        f"{reading}{' from 0 to 1' if fractions else ''}": found(reading, fractions)
        for reading in READINGS
        for fractions in (False, True)
    }
    likely = max(others, key=others.__getitem__)
    so_far = (
        f"Of the {number} best detections in {path}, read as {written}, {as_written} lie on an "
        "object of their class"
    )
    if others[likely] > max(1, LEAST_FOUND * number, 3 * as_written):
        raise UserError(
            f"{so_far}; read as {likely}, {others[likely]} would. Write them as {written} in "
            "pixels of the original images."
        )
    outside = sum(_centres_outside(example, each.boxes_image) for example, each in pairs)
    total = sum(map(len, detections.values()))
    if 2 * outside > total:
        raise UserError(
            f"{outside} of the {total} boxes in {path} lie outside of their images: expected "
            f"{written} in pixels of the original images. Were they made on images of another "
            "size, or on other images?"
        )
    if as_written or not number:
        return []
    in_any_class = found(written, any_class=True)
    if others[likely]:
        cause = f"read as {likely}, {others[likely]} would"
    elif in_any_class:
        cause = f"{in_any_class} lie on an object of another class: are the classes numbered alike?"
    else:
        cause = "were they made on these images, in pixels of their original size?"
    return [f"{so_far}; {cause}"]


def _columns(found: ImageDetections, written: str) -> tuple[np.ndarray, ...]:
    """The four numbers as they stood in the file."""
    y1, x1, y2, x2 = found.boxes_image.astype(np.float64).T
    return (x1 + 1, y1 + 1, x2, y2) if written == CORNERS else (x1, y1, x2 - x1, y2 - y1)


def _centres_outside(example: Example, boxes_image: np.ndarray) -> int:
    centres = (boxes_image[:, :2] + boxes_image[:, 2:]) / 2
    outside = np.any((centres < 0) | (centres > (example.height, example.width)), axis=1)
    return int(outside.sum())
