"""Writes detections: JSON, CSV, COCO's two files, and the text files of the VOC devkit.

Our own JSON is a list of COCO result records with two readable fields more (``file_name`` and
``class_name``). ``bbox`` is ``[x, y, width, height]``, 0-based, half-open, in pixels of the
original image; ``category_id`` is the 1-based position in the class list, not an id of COCO.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from keras_frcnn.data.dataset import Dataset
from keras_frcnn.detection.detections import NO_DETECTIONS, ImageDetections
from keras_frcnn.errors import UserError
from keras_frcnn.system.files import write_table, write_text, written_whole

CSV_COLUMNS = (
    *("image_id", "file_name", "class_name", "category_id"),
    *("x", "y", "width", "height", "score"),
)
# comp4: trained with any data but the test set, which weights from ImageNet are (devkit 3.1).
COMPETITION = "comp4"
# Above the largest area of COCO's widest range, 1e5 ** 2.
OUTSIDE_EVERY_RANGE = 1e12
# What becomes of VOC's difficult objects under a protocol that does not know them.
DIFFICULT_RULE = (
    "Difficult objects are given an area outside of every area range, which COCO's protocol "
    "ignores: missing one costs nothing, and one detection of each counts for nothing. A second "
    "detection of the same difficult object is a false positive here, and is none in the VOC "
    "metric."
)


def detection_records(
    file_name: str, image_id: str, detections: ImageDetections, class_names: Sequence[str]
) -> list[dict[str, Any]]:
    """The detections of one image as records of our JSON, in their order.

    Numbers are the shortest decimals that give the same float32 when read again: equal scores stay
    equal, and nothing is lost.

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
    """The detections of a data set as records of our JSON, in the order of its images.

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


def write_voc(
    folder: Path | str, dataset: Dataset, detections: Mapping[str, ImageDetections]
) -> list[Path]:
    """Writes ``comp4_det_test_CLASS.txt`` for every class, empty ones too, as the devkit does.

    A line is ``image_id score xmin ymin xmax ymax``. Corners are 1-based and inclusive: a half-open
    box becomes ``(x1 + 1, y1 + 1, x2, y2)``. Scores have 6 decimals, corners 3: scores that differ
    by less become ties. The name of the image set is that of ``dataset.sets``, or ``test`` where
    they have several.

    Raises:
        UserError: as :func:`check_names`.
    """
    check_names(dataset)
    lines: list[list[str]] = [[] for _ in dataset.class_names]
    for example in dataset.examples:
        found = detections.get(example.key, NO_DETECTIONS)
        values = zip(found.boxes_image.tolist(), found.scores, found.classes, strict=True)
        for (y1, x1, y2, x2), score, class_index in values:
            corners = f"{x1 + 1:.3f} {y1 + 1:.3f} {x2:.3f} {y2:.3f}"
            lines[class_index - 1].append(f"{example.image_id} {score:.6f} {corners}\n")
    splits = image_sets(dataset)
    split = splits.pop() if len(splits) == 1 else "test"
    paths = []
    for name, of_class in zip(dataset.class_names, lines, strict=True):
        paths.append(Path(folder) / f"{COMPETITION}_det_{split}_{name}.txt")
        write_text(paths[-1], "".join(of_class))
    return paths


def image_sets(dataset: Dataset) -> set[str]:
    """The names of the devkit's image sets: ``{"test"}`` for ``("2007:test",)``."""
    return {split for name in dataset.sets if (split := name.partition(":")[2])}


def check_names(dataset: Dataset) -> None:
    """Makes sure that VOC text files can hold the ids and class names.

    Raises:
        UserError: naming the first that they cannot, or two images with one id.
    """
    ids: dict[str, str] = {}
    for example in dataset.examples:
        image_id = example.image_id
        if image_id in ids:
            raise UserError(
                f"{ids[image_id]} and {example.key} have one id, by which VOC text files "
                "name images: choose one image set (`set`), or use JSON."
            )
        ids[image_id] = example.key
        if not image_id or any(character.isspace() for character in image_id):
            raise UserError(
                f"The image id {image_id!r} holds a blank, and VOC text files separate by blanks: "
                "write JSON instead."
            )
    for name in dataset.class_names:
        if not name or any(character in name for character in '/\\\0<>:"|?*'):
            raise UserError(
                f"The class {name!r} cannot be part of a file name, as VOC text files need it: "
                "write JSON instead."
            )


def write_coco(
    folder: Path | str, dataset: Dataset, detections: Mapping[str, ImageDetections]
) -> tuple[Path, Path]:
    """Writes ``coco_results.json`` and the ``coco_annotations.json`` that its numbers refer to."""
    results = Path(folder) / "coco_results.json"
    annotations = Path(folder) / "coco_annotations.json"
    write_json(results, coco_results(dataset, detections))
    write_text(annotations, json.dumps(coco_annotations(dataset)) + "\n")
    return results, annotations


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


def coco_annotations(dataset: Dataset) -> dict[str, Any]:
    """The ground truth as COCO's ``instances`` file; difficult objects by ``DIFFICULT_RULE``."""
    numbers = image_numbers(dataset)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
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


def image_numbers(dataset: Dataset) -> dict[str, int]:
    """The COCO image id of each image, by ``Example.key``.

    The digits of the VOC id where every id has some and they stay different (``"000005"`` is 5,
    ``"2008_000001"`` is 2008000001), otherwise 1, 2, 3 in the order of the list.
    """
    plain = [plain_id(example.image_id) for example in dataset.examples]
    numbers: Sequence[int] = range(1, len(plain) + 1)
    if len(set(plain)) == len(plain) and all(text.isascii() and text.isdigit() for text in plain):
        digits = [int(text) for text in plain]
        # Ids of 64 bits and of JavaScript's numbers.
        numbers = digits if max(digits, default=0) < 2**53 else numbers
    return dict(zip((example.key for example in dataset.examples), numbers, strict=True))


def plain_id(image_id: str) -> str:
    """``"5"`` for ``"000005"``, ``"2008000001"`` for ``"2008_000001"``; other ids as they are.

    They are one image to programs that keep ids as numbers, as COCO does.
    """
    digits = image_id.replace("_", "")
    if not (digits.isascii() and digits.isdigit()):
        return image_id
    return digits.lstrip("0") or "0"


def _shortest_decimals(values: np.ndarray) -> np.ndarray:
    if values.dtype == np.float64:  # read from a file: already as short as it was written
        return values
    return values.astype(np.float32).astype(str).astype(np.float64)
