"""YOLO's labels: a text file for each image, ``class x y width height`` on each line.

    data.yaml                      train, val, test: folders or lists of images; names
    images/..., labels/...         an image and its labels; or both beside each other
    classes.txt                    where there is no data.yaml

The numbers are shares of the upright image's sides, x and y of the centre; more than four are the
corners of a polygon. They are decimals: corners within 0.01 pixels of a whole number are taken as
that, so that six digits give the very pixels that were marked, up to a side of 13,000.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from keras_frcnn.data.dataset import DataProblem, Problems, Written, WrittenImage, WrittenObject
from keras_frcnn.data.images import upright_size
from keras_frcnn.data.names import PICTURE_SUFFIXES, FilesOfFolder
from keras_frcnn.data.split import PARTS, by_name, chosen_parts, part_of
from keras_frcnn.data.voc_xml import polygon_problem
from keras_frcnn.errors import UserError, reading
from keras_frcnn.system.files import read_text_bounded

_CLASS_FILES = ("classes.txt", "obj.names", "_darknet.labels")
_YAML = (".yaml", ".yml")
_OF_YAML = re.compile(r"^(names|train|val|test)\s*:", re.MULTILINE)
_LABEL = re.compile(r"\s*\d+(\s+[-+.\deE]+){4,}\s*")
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d{1,2})?", re.ASCII)
_NEAR = Decimal("0.01")
# No share is so large: the numbers are pixels.
_LARGEST_SHARE = 2
_MOST_YAML_BYTES, _MOST_BYTES, _MOST_LINES = 2**22, 2**24, 2**16
_FORM = "YOLO's labels"


def recognises(path: Path) -> bool:
    """Whether it is a YAML file, or a folder with one for YOLO, or with labels below it."""
    if path.is_file():
        return path.suffix.lower() in _YAML
    return _yaml_in(path) is not None or any(map(_is_label, FilesOfFolder(path, (".txt",))))


def read(
    path: Path, sets: str | None, default_split: str, kept: Mapping[str, str] | None = None
) -> Written:
    """What labels say of the images of a data.yaml, or of those that labels below a folder have.

    An image of a data.yaml without a file of labels has no object; without a data.yaml it is left
    out, for nobody said that it was labelled.

    Raises:
        UserError: a file cannot be read, no list of classes is there, or no part as asked for.
    """
    problems = Problems()
    yaml_file = path if path.is_file() else _yaml_in(path)
    if yaml_file is not None:
        root, about = _read_yaml(yaml_file)
        names, points = about["names"], about["points"]
        labelled = list(_images_of_yaml(yaml_file, root, about["parts"], problems))
    else:
        root, points = path, False
        names, labelled = _names_of_folder(path), list(_images_of_folder(path, problems))
    read: dict[Path, WrittenImage] = {}
    found = []
    for file, labels, part in labelled:
        if file not in read:
            image_id = Path(os.path.relpath(file, root)).as_posix()
            objects = _objects(file, labels, names, points, problems)
            if objects is None:
                continue
            source = root.absolute().name
            read[file] = WrittenImage(image_id, source, file, labels or file, objects, None, 0)
        found.append((read[file], part))
    found.sort(key=lambda pair: by_name(pair[0]))
    return chosen_parts(root, found, problems, sets, default_split, kept)


def _yaml_in(folder: Path) -> Path | None:
    """The file of a folder that names images and classes."""
    for file in sorted(folder.iterdir()) if folder.is_dir() else ():
        if file.suffix.lower() in _YAML and file.is_file():
            with reading(file, "a data.yaml of YOLO", "take it out of the folder"):
                if len(set(_OF_YAML.findall(read_text_bounded(file, _MOST_YAML_BYTES)))) > 1:
                    return file
    return None


def _is_label(file: Path) -> bool:
    """Whether the first line is one of labels."""
    if not file.is_file():
        return False
    with open(file, encoding="utf-8", errors="replace") as stream:
        return _LABEL.fullmatch(stream.readline(_MOST_BYTES)) is not None


def _read_yaml(file: Path) -> tuple[Path, dict[str, Any]]:
    """The data folder; names by number, places of images by part, whether objects have points."""
    with reading(file, "a data.yaml of YOLO", "mend it"):
        import yaml

        content = yaml.safe_load(read_text_bounded(file, _MOST_YAML_BYTES))
        names = content.get("names") if isinstance(content, dict) else None
        if isinstance(names, list):
            names = dict(enumerate(names))
        if not isinstance(names, dict) or not all(isinstance(number, int) for number in names):
            raise ValueError("expected names, a list or numbers with their names")
        if not all(isinstance(name, (str, int, float)) for name in names.values()):
            raise ValueError("expected a text for each of its names")
        parts: dict[str, list[str]] = {}
        for part in PARTS:
            places = content.get(part) or []
            parts[part] = places if isinstance(places, list) else [places]
            if not all(isinstance(place, str) for place in parts[part]):
                raise ValueError(f"expected {part} to be a path or a list of paths")
        if not any(parts.values()):
            raise ValueError("it names no images under train, val or test")
        root = file.parent / str(content.get("path") or "")
    texts = {number: str(name).strip() for number, name in names.items()}
    points = "kpt_shape" in content
    root = root if os.path.isdir(root) else file.parent
    return root, {"names": texts, "parts": parts, "points": points}


def _images_of_yaml(
    yaml_file: Path, root: Path, parts: Mapping[str, Sequence[str]], problems: Problems
) -> Iterator[tuple[Path, Path | None, str]]:
    """Image, labels and part of each image that the file names."""
    for part, places in parts.items():
        for place in places:
            # Roboflow writes ../train/images for a folder beside the file.
            plain = re.sub(r"^(\.\./)+", "", place)
            tried = [root / place, yaml_file.parent / place, root / plain, yaml_file.parent / plain]
            there = next((each for each in tried if os.path.exists(each)), None)
            if there is None:
                raise UserError(
                    f"Expected the images of {part} in {tried[0]}, as {yaml_file} says, found "
                    "nothing; mend its path."
                )
            for file in _images_at(there, root, problems):
                labels = _labels_of(file)
                if labels is None:
                    reason = "it has no file of labels, and so no object"
                    problems.append(DataProblem("no labels", str(file), "", reason, "noted"))
                yield file, labels, part


def _images_at(place: Path, root: Path, problems: Problems) -> Iterator[Path]:
    """The images of a folder, or of a list of their paths."""
    if place.is_dir():
        yield from (Path(os.path.normpath(file)) for file in FilesOfFolder(place, PICTURE_SUFFIXES))
        return
    with reading(place, "a list of images", "save it as UTF-8, one path a line"):
        lines = read_text_bounded(place, _MOST_BYTES).splitlines()
    for number, line in enumerate(map(str.strip, lines), start=1):
        tried = [folder / line for folder in (place.parent, root, Path.cwd())]
        file = next((each for each in tried if line and os.path.isfile(each)), None)
        if file is not None:
            yield Path(os.path.normpath(file))
        elif line:
            reason = f"expected the image {line:.500}, found no file; tried {tried[0]!s:.500}"
            where = f"line {number}"
            problem = DataProblem("image missing", str(place), where, reason, "image dropped")
            problems.append(problem)


def _labels_of(image: Path) -> Path | None:
    """The labels of an image: in ``labels`` for the last ``images`` of its path, else beside it."""
    parts = list(image.absolute().parts)
    tried = [image.with_suffix(".txt")]
    if "images" in parts[:-1]:
        last = len(parts) - 2 - parts[-2::-1].index("images")
        tried.insert(0, Path(*parts[:last], "labels", *parts[last + 1 :]).with_suffix(".txt"))
    return next((file for file in tried if file.is_file()), None)


def _images_of_folder(root: Path, problems: Problems) -> Iterator[tuple[Path, Path | None, str]]:
    """Image, labels and part of each file of labels below a folder."""
    images = FilesOfFolder(root, PICTURE_SUFFIXES)
    labelled = set()
    for labels in FilesOfFolder(root, (".txt",)):
        place = labels.relative_to(root)
        file = None
        if labels.name not in _CLASS_FILES:
            file = images.find_near([place.with_suffix("").as_posix()], place.parts[:-1])
        if file is not None and file not in labelled:
            labelled.add(file)
            yield file, labels, part_of(*place.parts[:-1], *file.relative_to(root).parts[:-1])
        elif _is_label(labels):
            reason = f"expected one image named {place.stem}, found none or several"
            reason += images.nearest(place.stem)
            where = str(labels)
            problems.append(DataProblem("image missing", where, "", reason, "image dropped"))
    for file in images:
        if file not in labelled:
            reason = "expected a file of labels of its name: it has none, and is left out"
            problems.append(DataProblem("image not annotated", str(file), "", reason, "noted"))


def _names_of_folder(root: Path) -> dict[int, str]:
    """The classes by their numbers, from the one list of their names below a folder."""
    suffixes = [Path(name).suffix for name in _CLASS_FILES]
    files = [file for file in FilesOfFolder(root, suffixes) if file.name in _CLASS_FILES]
    lists = []
    for file in files:
        with reading(file, "a list of classes", "save it as UTF-8, one name a line"):
            text = read_text_bounded(file, _MOST_YAML_BYTES)
        lists.append([line.strip() for line in text.strip().splitlines()])
    if not lists:
        raise UserError(
            f"Expected the names of the classes in a data.yaml or classes.txt in {root}, found "
            "neither; write one name a line into classes.txt, that of class 0 first."
        )
    other = next(
        (file for file, names in zip(files, lists, strict=True) if names != lists[0]), None
    )
    if other is not None:
        raise UserError(f"{files[0]} and {other} name different classes; leave one of them.")
    return dict(enumerate(lists[0]))


def _objects(
    image: Path,
    labels: Path | None,
    names: Mapping[int, str],
    points: bool,
    problems: Problems,
) -> tuple[WrittenObject, ...] | None:
    """The objects of one file of labels; None where it cannot be read."""
    if labels is None:
        return ()
    try:
        with reading(labels, _FORM, "mend it"):
            lines = read_text_bounded(labels, _MOST_BYTES).splitlines()
            if len(lines) > _MOST_LINES:
                raise ValueError(f"it has more than {_MOST_LINES:,} lines")
    except UserError as error:
        reason = str(error)
        problem = DataProblem("annotation unreadable", str(labels), "", reason, "image dropped")
        problems.append(problem)
        return None
    try:
        size = upright_size(image)
    except UserError:
        return ()  # the checks say so
    found = []
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if words:
            found.append(_object(words, number, names, points, size, labels, problems))
    return tuple(found)


def _object(
    words: Sequence[str],
    number: int,
    names: Mapping[int, str],
    points: bool,
    size: tuple[int, int],
    labels: Path,
    problems: Problems,
) -> WrittenObject:
    index = int(words[0]) if re.fullmatch(r"\d{1,9}", words[0], re.ASCII) else -1
    name = names.get(index, "")
    where = f"line {number} ({name or f'class {words[0]}':.80})"
    shares = [Decimal(word) for word in words[1:] if _NUMBER.fullmatch(word)]
    count = len(words) - 1
    fault = ""
    if len(shares) != count:
        fault = f"expected numbers after the class, found {' '.join(words[1:]):.80}"
    elif any(abs(share) > _LARGEST_SHARE for share in shares):
        fault = "expected shares of the image's sides from 0 to 1, found "
        fault += f"{' '.join(words[1:]):.80}"
    elif count == 4 or (points and count > 4):
        x, y, width, height = shares[:4]
        xs, ys = [x - width / 2, x + width / 2], [y - height / 2, y + height / 2]
    elif count >= 6 and count % 2 == 0:
        xs, ys = shares[::2], shares[1::2]
        problems.append_once(polygon_problem(labels, where))
    else:
        fault = "expected a class and 4 numbers, or a polygon of 3 points or more, found "
        fault += f"{count} numbers"
    if fault:
        return WrittenObject(where, name, (None, None, None, None), False, fault)
    corners = (min(xs) * size[1], min(ys) * size[0], max(xs) * size[1], max(ys) * size[0])
    a, b, c, d = map(in_pixels, corners)
    return WrittenObject(where, name, (a, b, c, d))


def in_pixels(value: Decimal) -> str:
    """A corner as text; a whole number of pixels where it is within 0.01 of one."""
    whole = round(value)
    return str(whole) if abs(value - whole) <= _NEAR else f"{value:f}"
