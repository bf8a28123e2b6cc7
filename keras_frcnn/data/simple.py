"""The annotation list of the keras-frcnn lineage: ``path,x1,y1,x2,y2,class``, one object a line.

Corners are in pixels of the upright image, counted from 0, half-open; paths start from the folder
of the list, else from the current one.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from math import isnan
from pathlib import Path

from keras_frcnn.data.checks import Progress, check_written, names_found
from keras_frcnn.data.dataset import (
    DataProblem,
    Dataset,
    Problems,
    Written,
    WrittenImage,
    WrittenObject,
    corner_numbers,
)
from keras_frcnn.data.names import alike
from keras_frcnn.data.split import chosen_parts
from keras_frcnn.data.voc_layout import MOST_LINES, MOST_LIST_BYTES
from keras_frcnn.errors import UserError, reading
from keras_frcnn.system.files import read_text_bounded

ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar", ".bz2", ".xz")
_FORM = "path,x1,y1,x2,y2,class"


def load_simple(
    path: Path | str,
    *,
    class_names: Sequence[str] | None = None,
    strict: bool = False,
    progress: Progress | None = None,
) -> Dataset:
    """Read a list of ``path,x1,y1,x2,y2,class`` lines and check everything in it.

    A header line, blank lines, quotes, Windows line ends and a byte-order mark are fine. A line
    ``path,,,,,`` is an image without objects. Each line that cannot be used is a problem in the
    data set, with its number.

    Args:
        class_names: the known classes, in order; without them, the names found, sorted.
        strict, progress: as of :func:`build_dataset`.

    Returns:
        the images in the order of their first lines; ``image_id`` is the path as written there,
        ``source`` the list's file name.

    Raises:
        UserError: the list is missing or no UTF-8 text, names no object and so no class, or no
            image is left; or ``strict`` and there is a problem.
    """
    written = read(Path(path))
    return check_written(written, class_names=class_names, strict=strict, progress=progress)


def recognises(path: Path) -> bool:
    """Whether it is a file other than an archive: its lines are judged one by one."""
    return path.is_file() and path.suffix.lower() not in ARCHIVES


def read(
    path: Path,
    sets: str | None = None,
    default_split: str = "trainval",
    kept: Mapping[str, str] | None = None,
) -> Written:
    """What the lines of a list say.

    Args:
        sets: parts of a split, see :mod:`keras_frcnn.data.split`; None: all images.
        kept: the split of a run.

    Raises:
        UserError: the list is missing or no UTF-8 text, or has no such part.
    """
    groups, problems = _group_lines(path, _read_rows(path))
    images = [group.image(path, group.file) for group in groups if group.file is not None]
    problems.extend(group.missing(path) for group in groups if group.file is None)
    names = names_found(written for group in groups for written in group.objects)
    if sets is None:
        return Written(images, problems, names, (path.name,))
    if ":" in sets:
        raise UserError(
            f"Image sets belong to VOC devkits; {path} is a list: leave them out, or give `sets` "
            "of its split: train, val, test, all."
        )
    return chosen_parts(path, [(image, "") for image in images], problems, sets, kept=kept)


@dataclass
class _Group:
    """The lines of one image."""

    written: str
    tried: tuple[Path, ...]
    file: Path | None
    lines: list[int] = field(default_factory=list)
    objects: list[WrittenObject] = field(default_factory=list)

    def image(self, list_path: Path, file: Path) -> WrittenImage:
        objects = tuple(self.objects)
        return WrittenImage(self.written, list_path.name, file, list_path, objects, None, 0)

    def missing(self, list_path: Path) -> DataProblem:
        more = f" and {len(self.lines) - 1} more" if len(self.lines) > 1 else ""
        tried = ", ".join(f"{path!s:.500}" for path in self.tried)
        where, reason = f"line {self.lines[0]}{more}", f"expected the image {self.written:.500}"
        reason += f", found no file; tried {tried}"
        return DataProblem("image missing", str(list_path), where, reason, "image dropped")


def _read_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """(line number from 1, its fields without surrounding blanks) of each line that is not blank.

    Raises:
        UserError: there is no such file, it is no UTF-8 text, or it has too many lines.
    """
    if not path.is_file():
        found = "is a folder" if path.is_dir() else "does not exist"
        raise UserError(
            f"Expected a text file with lines {_FORM}, but {path} {found}; give the path of the "
            "list, or use -o pascal_voc for a VOC devkit."
        )
    with reading(path, f"a UTF-8 text file with lines {_FORM}", "save it as UTF-8"):
        text = read_text_bounded(path, MOST_LIST_BYTES)
    for number, line in enumerate(io.StringIO(text), start=1):
        if number > MOST_LINES:
            raise UserError(f"{path} has more than {MOST_LINES:,} lines; take a part of them.")
        if line.strip():
            # One line at a time: an unclosed quote then spoils its own line only.
            yield number, _fields(line.strip())


def _fields(line: str) -> list[str]:
    """The fields of one line; none where it is no such line at all (a binary file, say)."""
    try:
        return [text.strip() for text in next(csv.reader([line], skipinitialspace=True))]
    except csv.Error:
        return []


def _group_lines(
    list_path: Path, rows: Iterable[tuple[int, list[str]]]
) -> tuple[list[_Group], Problems]:
    """The lines by image, in the order of their first mention, and the lines that are no good."""
    groups: dict[Path, _Group] = {}
    resolved: dict[str, Path] = {}  # 20 lines of one image ask the disk once
    listings: dict[Path, dict[str, Path | None]] = {}
    problems = Problems()
    for index, (number, fields) in enumerate(rows):
        if index == 0 and _is_header(list_path, fields):
            continue
        if len(fields) != 6 or not fields[0]:
            problems.append(_bad_line(list_path, number, fields))
            continue
        written, *corners, class_name = fields
        if written not in resolved:
            group = _locate(list_path, written, listings)
            resolved[written] = group.file.resolve() if group.file else group.tried[0]
            groups.setdefault(resolved[written], group)
        group = groups[resolved[written]]
        group.lines.append(number)
        if any(corners) or class_name:
            where = f"line {number} ({class_name:.80})" if class_name else f"line {number}"
            xmin, ymin, xmax, ymax = corners
            group.objects.append(WrittenObject(where, class_name, (xmin, ymin, xmax, ymax)))
    return list(groups.values()), problems


def _bad_line(list_path: Path, number: int, fields: Sequence[str]) -> DataProblem:
    found = f"{len(fields)} fields" if len(fields) != 6 else "an empty path"
    if len(fields) == 10:
        found += ": decimal commas?"
    reason = f"expected {_FORM}, found {found} (a path with a comma needs quotes)"
    return DataProblem("line unreadable", str(list_path), f"line {number}", reason, "line dropped")


def _is_header(list_path: Path, fields: Sequence[str]) -> bool:
    """Whether the first line names the columns: words for corners and no image of that name."""
    if len(fields) != 6 or not all(fields[1:5]) or not all(map(isnan, corner_numbers(fields[1:5]))):
        return False
    return _locate(list_path, fields[0], {}).file is None


def _locate(list_path: Path, written: str, listings: dict[Path, dict[str, Path | None]]) -> _Group:
    """A new group for a path as written: from the list's folder, then from the current one.

    A list made on Windows may separate folders by backslashes, which is tried after the path as
    it stands (elsewhere a file name may hold a backslash).

    Args:
        listings: as of ``alike``.
    """
    spellings = dict.fromkeys((written, written.replace("\\", "/")))
    folders = (list_path.parent, Path.cwd())
    tried = tuple(
        dict.fromkeys(folder.absolute() / text for text in spellings for folder in folders)
    )
    files = chain(tried, (alike(path, listings) for path in tried))
    file = next((file for file in files if file is not None and os.path.isfile(file)), None)
    return _Group(written, tried, file)
