"""Detections in the text files of the VOC devkit, one a class, written and read.

A line is ``image_id score xmin ymin xmax ymax``; corners are 1-based and inclusive, so a half-open
box is written as ``(x1 + 1, y1 + 1, x2, y2)``.
"""

from __future__ import annotations

import math
import re
import tarfile
from array import array
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from keras_frcnn.data.dataset import Dataset
from keras_frcnn.detection.detections import NO_DETECTIONS, ImageDetections
from keras_frcnn.detection.image_index import ImageIndex
from keras_frcnn.detection.json_files import MOST_DETECTION_BYTES, gathered
from keras_frcnn.errors import UserError, reading
from keras_frcnn.system.files import read_text_bounded, write_text

# comp4: trained with any data but the test set, which weights from ImageNet are (devkit 3.1).
COMPETITION = "comp4"
# Of all members: a small compressed archive may hold any size. Some five million lines.
MOST_ARCHIVE_BYTES = 2**28
# One after the other: as a list the lines would take three times the memory.
_LINE = re.compile(r"[^\r\n]*(?:\r\n?|\n|\Z)")


def write_voc(
    folder: Path | str, dataset: Dataset, detections: Mapping[str, ImageDetections]
) -> list[Path]:
    """Writes ``comp4_det_test_CLASS.txt`` for every class, empty ones too, as the devkit does.

    Scores have 6 decimals, corners 3: scores that differ by less become ties. The name of the image
    set is that of ``dataset.sets``, or ``test`` where they have several.

    Raises:
        UserError: an id or class name that such a file cannot hold, or two images with one id.
    """
    check_names(dataset)
    lines: list[list[str]] = [[] for _ in dataset.class_names]
    for example in dataset.examples:
        found = detections.get(example.key, NO_DETECTIONS)
        values = zip(found.boxes_image.tolist(), found.scores, found.classes, strict=True)
        for (y1, x1, y2, x2), score, class_index in values:
            corners = f"{x1 + 1:.3f} {y1 + 1:.3f} {x2:.3f} {y2:.3f}"
            lines[class_index - 1].append(f"{example.image_id} {score:.6f} {corners}\n")
    splits = _splits(dataset)
    split = splits.pop() if len(splits) == 1 else "test"
    paths = []
    for name, of_class in zip(dataset.class_names, lines, strict=True):
        paths.append(Path(folder) / f"{COMPETITION}_det_{split}_{name}.txt")
        write_text(paths[-1], "".join(of_class))
    return paths


def is_voc_detections(path: Path | str) -> bool:
    """Whether a path is a folder or a tar archive, in which VOC text files are looked for."""
    path = Path(path)
    with reading(path, "a file of detections", "give the file that your detector wrote"):
        return path.is_dir() or (path.is_file() and tarfile.is_tarfile(path))


def read_voc(path: Path | str, dataset: Dataset) -> tuple[dict[str, ImageDetections], list[str]]:
    """Reads the files ``comp*_det_*_CLASS.txt`` of a folder or tar archive, at any depth.

    Ties of score keep the order of the image list; the devkit's keep the order of the file.

    Returns:
        The detections by ``Example.key`` (images without any are left out), float64; and remarks
        for the screen.

    Raises:
        UserError: there is no such file, two are of one class, one is of a class that is not in the
            set, a file cannot be read, or a line (named by its number) is not an id of one image of
            the set and five finite numbers, of which the last four are a box.
    """
    images, keys = ImageIndex(dataset.examples), {}
    class_indices = {name: index for index, name in enumerate(dataset.class_names, start=1)}
    numbers: dict[str, array[float]] = {}
    seen: dict[str, str] = {}
    for name, class_name, text in _class_files(Path(path), _file_name_pattern(dataset)):
        if class_name not in class_indices:
            raise UserError(
                f"{name} in {path} is of the class {class_name!r}, expected one of: "
                f"{', '.join(class_indices)}."
            )
        if class_name in seen:
            raise UserError(
                f"{path} holds two files of the class {class_name!r}, {seen[class_name]} and "
                f"{name}: give the folder of one evaluation."
            )
        seen[class_name] = name
        index = class_indices[class_name]
        for number, line in enumerate(map(re.Match.group, _LINE.finditer(text)), start=1):
            if not line.strip():
                continue
            where = f"Line {number} of {name} in {path}"
            image_id, values = _parse(line, where)
            if image_id not in keys:
                keys[image_id] = images.find("", image_id, where).key
            numbers.setdefault(keys[image_id], array("d")).extend((*values, index))
    if not seen:
        raise UserError(
            f"{path} holds no file named like comp4_det_test_{dataset.class_names[0]}.txt: give "
            "the folder or tar archive of the devkit's results, or a JSON file."
        )
    notes = []
    missing = [name for name in class_indices if name not in seen]
    if missing:
        notes.append(f"There is no file for {', '.join(missing)}: nothing was found of them.")
    empty = len(dataset) - len(numbers)
    if empty:
        notes.append(f"{empty} of {len(dataset)} images have no detection in {path}.")
    return gathered(numbers, path), notes


def _splits(dataset: Dataset) -> set[str]:
    return {split for name in dataset.sets if (split := name.partition(":")[2])}


def _file_name_pattern(dataset: Dataset) -> re.Pattern[str]:
    """Of the files that :func:`write_voc`, the devkit and py-faster-rcnn write for a class.

    An image set may have a name with an underscore if it is one of ``dataset``. py-faster-rcnn
    puts a salt between: ``comp4_1f2e..._det_test_car.txt``.
    """
    split = "|".join((*map(re.escape, sorted(_splits(dataset))), "[^_]+"))
    return re.compile(rf"comp\d+.*?_det_(?:{split})_(?P<class_name>.+)\.txt")


def _class_files(path: Path, pattern: re.Pattern[str]) -> Iterator[tuple[str, str, str]]:
    """Name, class and contents of the files of a folder or archive that fit, sorted by name."""
    if path.is_dir():
        for file in sorted(path.rglob("*.txt")):
            if match := pattern.fullmatch(file.name):
                name = str(file.relative_to(path))
                with reading(file, "UTF-8 text", "give the files that the devkit takes"):
                    text = read_text_bounded(file, MOST_DETECTION_BYTES)
                yield name, match["class_name"], text
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
                where = f"{member.name} in {path}"
                with reading(where, "UTF-8 text", "give the files that the devkit takes"):
                    text = archive.extractfile(member).read().decode("utf-8-sig")
                yield member.name, match["class_name"], text


def _parse(line: str, where: str) -> tuple[str, tuple[float, ...]]:
    """Id of the image; y1, x1, y2, x2 and score."""
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
    return words[0], (ymin - 1, xmin - 1, ymax, xmax, score)


def check_names(dataset: Dataset) -> None:
    """Makes sure that ids and class names can stand in VOC text files.

    Raises:
        UserError: naming the first that cannot.
    """
    ids: dict[str, str] = {}
    for example in dataset.examples:
        image_id = example.image_id
        if image_id in ids:
            raise UserError(
                f"{ids[image_id]} and {example.key} have one id, by which VOC text files "
                "name images: choose one image set (--set), or use JSON."
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
