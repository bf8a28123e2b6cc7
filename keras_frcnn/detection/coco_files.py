"""COCO's two files, annotations and results, and the numbers that they use for images and classes.

COCO boxes are ``[x, y, width, height]``, 0-based and half-open: ours without an offset.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from keras_frcnn.data.dataset import Dataset
from keras_frcnn.detection.detections import NO_DETECTIONS, ImageDetections
from keras_frcnn.detection.image_index import plain_id
from keras_frcnn.detection.json_files import detection_records, load_json, write_json
from keras_frcnn.errors import UserError
from keras_frcnn.system.files import write_text

# Above the largest area of COCO's widest range, 1e5 ** 2.
OUTSIDE_EVERY_RANGE = 1e12

# What becomes of VOC's difficult objects under a protocol that does not know them.
DIFFICULT_RULE = (
    "Difficult objects are given an area outside of every area range, which COCO's protocol "
    "ignores: missing one costs nothing, and one detection of each counts for nothing. A second "
    "detection of the same difficult object is a false positive here, and is none in the VOC "
    "metric."
)


def image_numbers(dataset: Dataset) -> dict[str, int]:
    """The COCO image id of each image, by key.

    The digits of the VOC id where every id has some and they stay different (``"000005"`` is 5,
    ``"2008_000001"`` is 2008000001), otherwise 1, 2, 3 in the order of the list.
    """
    plain = [plain_id(example.image_id) for example in dataset.examples]
    if len(set(plain)) == len(plain) and all(text.isascii() and text.isdigit() for text in plain):
        numbers = [int(text) for text in plain]
        # Ids of 64 bits and of JavaScript's numbers.
        if max(numbers, default=0) < 2**53:
            keys = (example.key for example in dataset.examples)
            return dict(zip(keys, numbers, strict=True))
    return {example.key: number for number, example in enumerate(dataset.examples, start=1)}


def coco_annotations(dataset: Dataset) -> dict[str, Any]:
    """The ground truth as COCO's ``instances`` file; difficult objects by ``DIFFICULT_RULE``."""
    numbers = image_numbers(dataset)
    images, annotations = [], []
    for example in dataset.examples:
        images.append(
            {
                "id": numbers[example.key],
                "file_name": example.path.name,
                "width": example.width,
                "height": example.height,
                "key": example.key,
            }
        )
        values = (example.boxes_image.tolist(), example.classes.tolist(), example.difficult)
        for (y1, x1, y2, x2), class_index, difficult in zip(*values, strict=True):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": numbers[example.key],
                    "category_id": class_index,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": OUTSIDE_EVERY_RANGE if difficult else (x2 - x1) * (y2 - y1),
                    "iscrowd": 0,
                    "difficult": int(difficult),
                }
            )
    categories = [{"id": i, "name": name} for i, name in enumerate(dataset.class_names, start=1)]
    return {
        "info": {"description": DIFFICULT_RULE},
        "images": images,
        "annotations": annotations,
        "categories": categories,
    }


def coco_results(
    dataset: Dataset, detections: Mapping[str, ImageDetections]
) -> Iterator[dict[str, Any]]:
    """The detections as COCO's results, image after image."""
    numbers = image_numbers(dataset)
    for example in dataset.examples:
        found = detections.get(example.key, NO_DETECTIONS)
        for record in detection_records("", "", found, dataset.class_names):
            kept = {name: record[name] for name in ("category_id", "bbox", "score")}
            yield {"image_id": numbers[example.key], **kept}


def write_coco(
    folder: Path | str, dataset: Dataset, detections: Mapping[str, ImageDetections]
) -> tuple[Path, Path]:
    """Writes ``coco_results.json`` and the ``coco_annotations.json`` that its numbers refer to."""
    results = Path(folder) / "coco_results.json"
    annotations = Path(folder) / "coco_annotations.json"
    write_json(results, coco_results(dataset, detections))
    write_text(annotations, json.dumps(coco_annotations(dataset)) + "\n")
    return results, annotations


def with_names(records: Sequence[Any], path: Path | str) -> list[Any]:
    """COCO results with the names of their image and class instead of the numbers.

    Args:
        path: the annotations file; its ``images`` and ``categories`` are read. The ``key`` of an
            image, which :func:`write_coco` adds, tells apart files of one name.

    Raises:
        UserError: the file cannot be read, is no JSON, or lacks what is needed, or a record has a
            number that it does not list.
    """
    content = load_json(path, "annotations")
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
