"""Detections of one image, and the JSON and CSV files that carry them.

A file is a list of COCO result records with two readable fields more (``file_name`` and
``class_name``). ``bbox`` is ``[x, y, width, height]``, 0-based, half-open, in pixels of the
original image; ``category_id`` is the 1-based position in the class list, not an id of COCO.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from keras_frcnn.data.dataset import Dataset
from keras_frcnn.detection.detections import NO_DETECTIONS, ImageDetections
from keras_frcnn.detection.image_index import ImageIndex
from keras_frcnn.errors import UserError, reading
from keras_frcnn.system.files import parse_json, read_text_bounded, write_table, written_whole

# Some four million records, more than any test set gives.
MOST_DETECTION_BYTES = 2**29
MOST_OF_AN_IMAGE = 100_000

CSV_COLUMNS = (
    *("image_id", "file_name", "class_name", "category_id"),
    *("x", "y", "width", "height", "score"),
)


def detection_records(
    file_name: str, image_id: str, detections: ImageDetections, class_names: Sequence[str]
) -> list[dict[str, Any]]:
    """The detections of one image as records of the file, in their order.

    Numbers are the shortest decimals that give the same float32 when read again, so a file says
    neither less nor more than the network did and equal scores stay equal.

    Raises:
        ValueError: a class is not in 1 .. len(class_names).
    """
    classes = detections.classes
    if len(classes) and not (classes.min() >= 1 and classes.max() <= len(class_names)):
        raise ValueError(f"expected classes in 1 .. {len(class_names)}, received {classes}")
    y1, x1, y2, x2 = _shortest_decimals(detections.boxes_image).T
    boxes = np.stack([x1, y1, x2 - x1, y2 - y1], axis=-1).round(9).tolist()
    scores = _shortest_decimals(detections.scores).tolist()
    return [
        {
            "image_id": image_id,
            "file_name": file_name,
            "class_name": class_names[class_index - 1],
            "category_id": class_index,
            "bbox": box,
            "score": score,
        }
        for box, score, class_index in zip(boxes, scores, classes.tolist(), strict=True)
    ]


def dataset_records(
    dataset: Dataset, detections: Mapping[str, ImageDetections]
) -> Iterator[dict[str, Any]]:
    """The detections of a data set as records of the file, in the order of its images.

    The image_id is the VOC id; where several years share one, it is ``Example.key``.

    Args:
        detections: by ``Example.key``; an image that is missing has none.
    """
    several = len({example.image_id for example in dataset.examples}) < len(dataset)
    for example in dataset.examples:
        image_id = example.key if several else example.image_id
        found = detections.get(example.key, NO_DETECTIONS)
        yield from detection_records(example.path.name, image_id, found, dataset.class_names)


def write_json(path: Path | str, records: Iterable[dict[str, Any]]) -> None:
    """Writes the records as a JSON list, one a line; a file of that name is replaced at once.

    Raises:
        ValueError: a number is not finite, which JSON cannot say.
    """
    with written_whole(path) as partial, open(partial, "w", encoding="utf-8") as stream:
        # Line by line: millions of records need not be in memory together.
        separator = "[\n"
        for record in records:
            stream.write(separator + json.dumps(record, allow_nan=False))
            separator = ",\n"
        stream.write("[]\n" if separator == "[\n" else "\n]\n")


def write_csv(path: Path | str, records: Iterable[dict[str, Any]]) -> None:
    """Writes the records with the header of ``CSV_COLUMNS``; a file of that name is replaced."""
    rows = ([*map(r.get, CSV_COLUMNS[:4]), *r["bbox"], r["score"]] for r in records)
    write_table(path, chain([CSV_COLUMNS], rows))


def from_records(
    records: Sequence[Any], path: Path | str, dataset: Dataset
) -> tuple[dict[str, ImageDetections], list[str]]:
    """Finds the image and class of each record in the data set.

    An image is found by the stem of ``file_name``, else by ``image_id``, the VOC id (``"000005"``;
    the number 5 will do, as 2008000001 will for ``"2008_000001"``). A stem that several years share
    is settled by image_id or by the folder in ``file_name``. A class is found by ``class_name``, or
    by ``category_id`` where there is none.

    Args:
        path: where the records come from, for messages.

    Returns:
        The detections by ``Example.key`` (images without any are left out), in the order of the
        file, float64; and remarks for the screen.

    Raises:
        UserError: a record (named by its 0-based index) has a field missing or ill-typed, a
            negative size, a score that is no finite number, a class or an image that is not in the
            set (an error in VOCevaldet.m too), or fits several images.
    """
    images = ImageIndex(dataset.examples)
    class_indices = {name: index for index, name in enumerate(dataset.class_names, start=1)}
    numbers: dict[str, array[float]] = {}
    for index, record in enumerate(records):
        where = f"Record {index} (counted from 0) of {path}"
        if not isinstance(record, dict):
            raise UserError(f"{where} should be an object with named fields, it is {record!r:.80}.")
        file_name = _text(record.get("file_name"), "file_name", where)
        image_id = _image_id(record.get("image_id"), where)
        example = images.find(file_name, image_id, where)
        class_index = _class_index(record, class_indices, where)
        score = _number(record.get("score"), "score", where)
        values = (*_box(record, where), score, class_index)
        numbers.setdefault(example.key, array("d")).extend(values)
    detections = gathered(numbers, path)
    notes = []
    if images.found_by_id:
        notes.append(f"{images.found_by_id} detections were matched to their image by image_id.")
    missing = len(dataset) - len(detections)
    if missing:
        notes.append(f"{missing} of {len(dataset)} images have no detection in {path}.")
    return detections, notes


def gathered(numbers: Mapping[str, array[float]], path: Path | str) -> dict[str, ImageDetections]:
    """The detections of each image from y1, x1, y2, x2, score and class, one after the other.

    Raises:
        UserError: an image has so many that comparing them with its objects would fill the memory.
    """
    detections = {}
    for key, of_image in numbers.items():
        values = np.array(of_image).reshape(-1, 6)
        if len(values) > MOST_OF_AN_IMAGE:
            raise UserError(
                f"{path} has {len(values)} detections in the image {key}, expected at most "
                f"{MOST_OF_AN_IMAGE}; leave out those with the lowest scores."
            )
        classes = values[:, 5].astype(np.int32)
        detections[key] = ImageDetections(values[:, :4], values[:, 4], classes)
    return detections


def read_list(path: Path | str) -> list[Any]:
    """The contents of a JSON file that should be a list of records.

    Raises:
        UserError: it cannot be read, or is something else.
    """
    content = load_json(path, "detections")
    if not isinstance(content, list):
        raise UserError(
            f"The detections {path} should be a JSON list of records with file_name or image_id, "
            f"class_name or category_id, bbox and score; found a {type(content).__name__}."
        )
    return content


def load_json(path: Path | str, what: str) -> Any:
    """The contents of a JSON file.

    Args:
        what: it should hold, such as ``"detections"``, for messages.

    Raises:
        UserError: it cannot be read.
    """
    with reading(path, f"{what} in JSON", "give the file that your detector wrote"):
        return parse_json(read_text_bounded(path, MOST_DETECTION_BYTES))


def _image_id(value: Any, where: str) -> str:
    if isinstance(value, (int, float)):
        return str(_whole(value, "image_id", where))
    return _text(value, "image_id", where)


def _class_index(record: dict[str, Any], class_indices: dict[str, int], where: str) -> int:
    name = _text(record.get("class_name"), "class_name", where)
    if name:
        if name not in class_indices:
            known = ", ".join(class_indices)
            raise UserError(f"{where} has the class_name {name!r:.80}, expected one of: {known}.")
        return class_indices[name]
    if record.get("category_id") is None:
        raise UserError(f"{where} needs a class_name or a category_id, it has neither.")
    index = _whole(record["category_id"], "category_id", where)
    if not 1 <= index <= len(class_indices):
        raise UserError(
            f"{where} has the category_id {index}, expected 1 to {len(class_indices)}, "
            f"the 1-based position in: {', '.join(class_indices)}."
        )
    return index


def _box(record: dict[str, Any], where: str) -> tuple[float, float, float, float]:
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
    if value is None:
        return ""
    if not isinstance(value, str):
        raise UserError(f"{where} needs text as {field}, it has {value!r:.80}.")
    return value


def _shortest_decimals(values: np.ndarray) -> np.ndarray:
    if values.dtype == np.float64:  # read from a file: already as short as it was written
        return values
    return values.astype(np.float32).astype(str).astype(np.float64)
