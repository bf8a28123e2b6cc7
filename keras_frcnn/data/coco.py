"""COCO's annotations: one JSON file, or several, each of a part.

    annotations/instances_train2017.json    as COCO and CVAT have them, images in any folders
    train/_annotations.coco.json            as Roboflow has them, beside their images
    result.json, images/                    as Label Studio has it

Boxes are ``[x, y, width, height]``, half-open, in pixels of the image counted from 0.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path, PurePosixPath
from typing import Any

from keras_frcnn.data.dataset import (
    Corners,
    DataProblem,
    Problems,
    Written,
    WrittenImage,
    WrittenObject,
)
from keras_frcnn.data.names import PICTURE_SUFFIXES, FilesOfFolder
from keras_frcnn.data.split import by_name, chosen_parts, part_of, part_of_file
from keras_frcnn.data.voc_xml import polygon_problem
from keras_frcnn.errors import UserError, reading
from keras_frcnn.system.files import parse_json, read_bounded

# Those of COCO's 118,287 training images have 450 MB.
_MOST_BYTES = 2**30
_HEAD = 2**16
_FIELDS = re.compile(rb'"(images|annotations|categories|licenses)"\s*:\s*\[')
_FORM = "COCO annotations with images, annotations and categories"
_ADVICE = "give annotations of objects in COCO's format"


def recognises(path: Path) -> bool:
    """Whether it is a JSON file, or a folder with one of COCO's kind in it or below it."""
    return (
        path.suffix.lower() == ".json" if path.is_file() else path.is_dir() and _files(path) != []
    )


def read(
    path: Path, sets: str | None, default_split: str, kept: Mapping[str, str] | None = None
) -> Written:
    """What a JSON file, or those of a folder, say of the images beside or below.

    An image lies where its ``file_name`` says, from the data folder, the file's or any other below;
    objects with ``iscrowd`` are difficult ones.

    Raises:
        UserError: there is no such file, it is none of COCO's, or has no part as asked for.
    """
    files = _files(path)
    if not files:
        raise UserError(f"Expected {_FORM} in JSON, found none in {path}.")
    root = path if path.is_dir() else path.parent
    if path.is_file() and root.absolute().name.casefold() == "annotations":
        root = root.parent
    images, problems = FilesOfFolder(root, PICTURE_SUFFIXES), Problems()
    found: list[tuple[WrittenImage, str]] = []
    for file in files:
        place = file.absolute().relative_to(root.absolute())
        for image in _images(file, place, root, images, problems):
            part = part_of_file(place) or part_of(*PurePosixPath(image.image_id).parts[:-1])
            found.append((image, part))
    found.sort(key=lambda pair: by_name(pair[0]))
    return chosen_parts(root, found, problems, sets, default_split, kept)


def _files(path: Path) -> list[Path]:
    """The annotation files: those named ``instances_``, where there are any."""
    if not path.is_dir():
        return [path]
    files = [file for file in FilesOfFolder(path, (".json",)) if _is_coco(file)]
    return [file for file in files if file.name.startswith("instances_")] or files


def _is_coco(file: Path) -> bool:
    if not file.is_file():
        return False
    with open(file, "rb") as stream:
        return _FIELDS.search(stream.read(_HEAD)) is not None


def _images(
    file: Path, place: Path, root: Path, images: FilesOfFolder, problems: Problems
) -> Iterator[WrittenImage]:
    """The images of one file that exist, with their objects.

    Args:
        place: the file's path from the data folder ``root``.
    """
    near = (*re.split(r"[_.]", place.stem), *place.parts[:-1])
    with reading(file, _FORM, _ADVICE):
        content = parse_json(read_bounded(file, _MOST_BYTES))
        listed, annotations, categories = (
            _list(content, field) for field in ("images", "annotations", "categories")
        )
    names = {each.get("id"): each["name"] for each in _records(categories, "name")}
    sizes: dict[Path, tuple[int, int] | None] = {}
    by_id: dict[int | str, Path] = {}
    for number, record in enumerate(listed, start=1):
        written = record.get("file_name") if isinstance(record, dict) else None
        key = record.get("id") if isinstance(record, dict) else None
        where = f"image {number}"
        if not isinstance(written, str) or not isinstance(key, (int, str)):
            reason = f"expected an id and a file_name, found {record!r:.80}"
            problem = DataProblem("image unnamed", str(file), where, reason, "image dropped")
            problems.append(problem)
            continue
        of_image = PurePosixPath(written.replace("\\", "/")).parts[:-1]
        found = images.find_near(
            [written, f"{place.parent.as_posix()}/{written}"], [*near, *of_image]
        )
        if found is None:
            reason = f"expected the image {written:.500} in {root}, found none"
            reason += images.nearest(written)
            problem = DataProblem("image missing", str(file), where, reason, "image dropped")
            problems.append(problem)
            continue
        if by_id.get(key, found) != found:
            reason = f"expected each id once, found {key!r:.80} of {by_id[key]} again"
            problems.append(DataProblem("id repeated", str(file), where, reason, "image dropped"))
            continue
        if found in sizes:
            reason = f"expected each image once, found {written:.500} again"
            problems.append(DataProblem("image repeated", str(file), where, reason, "used once"))
        by_id[key] = found
        sizes.setdefault(found, _size(record))
    missing = {record.get("id") for record in _records(listed, "file_name")} - by_id.keys()
    objects: dict[Path, list[WrittenObject]] = {image: [] for image in sizes}
    for number, record in enumerate(annotations, start=1):
        record = record if isinstance(record, dict) else {}
        key = record.get("image_id")
        if isinstance(key, (int, str)) and key in by_id:
            objects[by_id[key]].append(_object(record, number, names, file, problems))
        elif not isinstance(key, (int, str)) or key not in missing:
            reason = f"expected the id of an image, found the image_id {key!r:.80}"
            where = f"annotation {number}"
            problems.append(
                DataProblem("no such image", str(file), where, reason, "object dropped")
            )
    source = root.absolute().name
    for image, size in sizes.items():
        image_id = image.relative_to(root).as_posix()
        yield WrittenImage(image_id, source, image, file, tuple(objects[image]), size, 0)


def _list(content: Any, field: str) -> list[Any]:
    if not isinstance(content, dict) or not isinstance(content.get(field), list):
        raise ValueError(f"it has no list of {field}")
    return content[field]


def _records(listed: Sequence[Any], field: str) -> Iterator[dict[str, Any]]:
    """Those with an id, and text in a field."""
    for record in listed:
        about = record if isinstance(record, dict) else {}
        if isinstance(about.get("id"), (int, str)) and isinstance(about.get(field), str):
            yield about


def _size(record: dict[str, Any]) -> tuple[int, int] | None:
    height, width = record.get("height"), record.get("width")
    if isinstance(height, int) and isinstance(width, int):
        return (height, width) if 0 < min(height, width) <= max(height, width) < 10**9 else None
    return None


def _object(
    record: dict[str, Any],
    number: int,
    names: Mapping[Any, str],
    file: Path,
    problems: Problems,
) -> WrittenObject:
    category = record.get("category_id")
    name = names.get(category, "").strip() if isinstance(category, (int, str)) else ""
    where = f"annotation {number} ({name or f'category_id {category}':.80})"
    difficult = any(record.get(flag) in (1, "1") for flag in ("iscrowd", "ignore"))
    box, outline = record.get("bbox"), record.get("segmentation")
    corners = _corners_of_box(box)
    if corners is None and not box:
        corners = _corners_around(outline)
        if corners is not None:
            problems.append_once(polygon_problem(file, where))
    if corners is not None:
        return WrittenObject(where, name, corners, difficult)
    fault = f"expected a bbox of x, y, width, height, found {box!r:.80}"
    return WrittenObject(where, name, (None, None, None, None), difficult, fault)


def _corners_of_box(box: Any) -> Corners | None:
    """Added in decimals, so that 10.1 and 20.2 make 30.3."""
    numbers = _decimals(box)
    if len(numbers) != 4:
        return None
    x, y, width, height = numbers
    return f"{x:f}", f"{y:f}", f"{x + width:f}", f"{y + height:f}"


def _corners_around(outline: Any) -> Corners | None:
    """Of all polygons of an object; None where there are none (a run-length mask, say)."""
    parts = [_decimals(part) for part in outline] if isinstance(outline, list) else []
    xs, ys = ([x for part in parts for x in part[axis::2]] for axis in (0, 1))
    if len(xs) != len(ys) or len(xs) < 3:
        return None
    return f"{min(xs):f}", f"{min(ys):f}", f"{max(xs):f}", f"{max(ys):f}"


def _decimals(values: Any) -> list[Decimal]:
    """The numbers of a list of numbers, finite and of a size that pixels have; of others none."""
    try:
        numbers = [Decimal(str(value)) for value in values if not isinstance(value, (str, bool))]
        sound = len(numbers) == len(values) and all(abs(number) < 10**9 for number in numbers)
    except (TypeError, InvalidOperation):
        return []
    return numbers if sound else []
