"""Folders, image sets and lists of ids of a PASCAL VOC devkit."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from keras_frcnn.data.dataset import DataProblem, Problems
from keras_frcnn.data.names import FilesOfFolder
from keras_frcnn.errors import UserError, reading
from keras_frcnn.system.files import read_text_bounded

# What the paper calls its training sets (section 4.1, tables 3 and 4).
_PAPER_SETS = {
    "07": "2007:trainval",
    "12": "2012:trainval",
    "07+12": "2007:trainval+2012:trainval",
    "07++12": "2007:trainval+2007:test+2012:trainval",
}

# What a list may have: each line takes some hundred times its size.
MOST_LIST_BYTES = 2**28
MOST_LINES = 2**21
MOST_LINE = 2**22

# What else the lists of one class have on a line: is there none, a difficult one or one?
_COLUMNS = {"-1", "0", "1", "+1"}
_LAST_COLUMN = re.compile(r"\s+[-+]?[01]$")
_WORD = re.compile(r"\"[^\"]*\"|'[^']*'|\S+")
_SEPARATORS = re.compile(r"[\s,;\"']+")
# Where there is no such file: a folder, which could lie anywhere.
_UNSAFE = re.compile(r"[/\\\0]|\.\.")

# Layouts of other programs by a file in them.
_OTHER_LAYOUTS = {
    "*.xml": "XML files of labelImg or Roboflow beside their images: put the XML files",
    "*coco*.json": "COCO annotations: export the data as Pascal VOC and put the XML files",
    "data.yaml": "YOLO labels: export the data as Pascal VOC and put the XML files",
    "labels/*.txt": "YOLO labels: export the data as Pascal VOC and put the XML files",
    "classes.txt": "YOLO labels: export the data as Pascal VOC and put the XML files",
}

_YEAR_FOLDER = re.compile(r"VOC(\d{4})")


def parse_sets(text: str) -> tuple[tuple[str, str], ...]:
    """(year, split) pairs of ``"2007:trainval+2012:trainval"``, each once, in the order written.

    ``"07"``, ``"12"``, ``"07+12"`` and ``"07++12"`` are the paper's training sets (``07++12``:
    trainval and test of 2007 with trainval of 2012); ``"07:test"`` is short for ``"2007:test"``.

    Raises:
        UserError: the text is none of these.
    """
    text = text.strip()
    pairs = []
    for part in _PAPER_SETS.get(text, text).split("+"):
        match = re.fullmatch(r"(?:20)?(\d\d):([\w-]+)", part.strip(), flags=re.ASCII)
        if match is None:
            raise UserError(
                "Expected image sets such as 2007:trainval+2012:trainval, or one of "
                f"{', '.join(_PAPER_SETS)}, found {text!r}; join YEAR:SPLIT pairs with +."
            )
        pairs.append((f"20{match[1]}", match[2]))
    return tuple(dict.fromkeys(pairs))


def available_sets(devkit: Path | str) -> tuple[tuple[str, str], ...]:
    """(year, split) pairs for which ``VOC<year>/ImageSets/Main/<split>.txt`` exists, sorted.

    The lists of one class (``car_trainval.txt`` beside ``trainval.txt``) are not counted.

    Raises:
        UserError: ``devkit`` is no folder in this layout.
    """
    pairs = []
    for year, folder in year_folders(Path(devkit)).items():
        splits = {file.stem for file in (folder / "ImageSets" / "Main").glob("*.txt")}
        pairs += [(year, s) for s in sorted(splits) if s.rpartition("_")[2] not in splits - {s}]
    return tuple(pairs)


def year_folders(path: Path) -> dict[str, Path]:
    """``VOC<year>`` folders by year, sorted; ``path`` is the devkit or one of these folders.

    Raises:
        UserError: there is none, with the place where one is.
    """
    if not path.is_dir():
        found = "is a file" if path.exists() else "does not exist"
        raise UserError(
            f"Expected the folder of a VOC devkit, but {path} {found}; give the folder that holds "
            "VOC2007 or VOC2012 (a text list of boxes needs -o simple)."
        )
    itself = _YEAR_FOLDER.fullmatch(path.absolute().name)
    if itself and (path / "ImageSets").is_dir():
        return {itself[1]: path}
    folders = {}
    for folder in sorted(path.iterdir()):
        match = _YEAR_FOLDER.fullmatch(folder.name)
        if match and (folder / "ImageSets" / "Main").is_dir():
            folders[match[1]] = folder
    if not folders:
        raise UserError(
            f"Expected VOC<year>/ImageSets/Main (VOC2007, say) in {path}, found none; "
            f"{_layout_hint(path)}."
        )
    return folders


def _layout_hint(path: Path) -> str:
    """What to do about a folder without ``VOC<year>`` folders."""
    if (path / "ImageSets").is_dir():
        return "it holds ImageSets itself: rename it to VOC2007, or another year"
    below = sorted((*path.glob("*/VOC*/ImageSets"), *path.glob("*/*/VOC*/ImageSets")))
    above = [p for p in path.absolute().parents if _YEAR_FOLDER.fullmatch(p.name)]
    if below or above:
        return f"give {below[0].parents[1] if below else above[0].parent} instead"
    for pattern, what in _OTHER_LAYOUTS.items():
        found = next(iter(sorted((*path.glob(pattern), *path.glob(f"*/{pattern}")))), None)
        if found is not None:
            return (
                f"{found} looks like {what} into VOC2007/Annotations, the images into "
                "VOC2007/JPEGImages, and their names without suffixes, one a line, into "
                "VOC2007/ImageSets/Main/trainval.txt"
            )
    return f"it holds {', '.join(sorted(f.name for f in path.iterdir())[:5]) or 'nothing'}"


def chosen_sets(devkit: Path, sets: str | None, default_split: str) -> tuple[tuple[str, str], ...]:
    """The sets asked for, all of which exist; None stands for every year's default split."""
    available = available_sets(devkit)
    folders = year_folders(devkit)
    if sets is None:
        chosen = tuple((year, split) for year, split in available if split == default_split)
        missing = [] if chosen else [f"ImageSets/Main/{default_split}.txt of any year"]
    else:
        chosen = parse_sets(sets)
        missing = [
            f"VOC{year}/ImageSets/Main/{split}.txt"
            for year, split in chosen
            if year not in folders or not list_file(folders[year], split).is_file()
        ]
    if missing:
        there = ", ".join(f"{year}:{split}" for year, split in available) or "none"
        raise UserError(
            f"Expected {' and '.join(missing)} in {devkit}, found the sets: {there}; "
            "choose among these."
        )
    return chosen


def list_file(folder: Path, split: str) -> Path:
    """The file of an image set in a ``VOC<year>`` folder."""
    return folder / "ImageSets" / "Main" / f"{split}.txt"


def unique_ids(folder: Path, lists: Sequence[Path], problems: Problems) -> dict[str, Path | None]:
    """The ids of the lists in their order, each once, with their annotations.

    An id is the path of its annotation below ``Annotations`` without ``.xml``, however the list
    spells it; without an annotation it is what the list has. Ids without one, repeated and unsafe
    ones become problems.

    Raises:
        UserError: a list cannot be read.
    """
    files = FilesOfFolder(folder / "Annotations", (".xml",))
    listed: Counter[str] = Counter()
    first: dict[str, tuple[str, Path | None]] = {}
    for file in lists:
        for where, written in _read_ids(file, files):
            annotation = files.find(written)
            image_id = written
            if annotation is not None:
                image_id = annotation.relative_to(folder / "Annotations").with_suffix("").as_posix()
            elif _UNSAFE.search(written):
                reason = (
                    f"expected an id whose annotation lies in {folder / 'Annotations'}, found "
                    f"{written[:80]!r}{files.nearest(written)}"
                )
                problems.append(
                    DataProblem("id refused", str(file), where, reason, "image dropped")
                )
                continue
            listed[image_id] += 1
            first.setdefault(image_id, (str(file), annotation))
    for image_id, (file, annotation) in first.items():
        if annotation is None:
            missing = str(folder / "Annotations" / f"{image_id}.xml")
            reason = "the id is listed, its annotation does not exist" + files.nearest(image_id)
            problems.append(DataProblem("annotation missing", missing, "", reason, "image dropped"))
        if listed[image_id] > 1:
            reason = f"expected {image_id} once, found it {listed[image_id]} times"
            problems.append(DataProblem("id repeated", file, "", reason, "used once"))
    return {image_id: annotation for image_id, (_, annotation) in first.items()}


def other_test_ids(
    devkit: Path | str, sets: Sequence[str]
) -> Iterator[tuple[str, Path, dict[str, Path | None]]]:
    """Year, file and ids of each ``test.txt`` in the years of some sets, but for those in them.

    Raises:
        UserError: ``devkit`` is no folder in this layout, or a list cannot be read.
    """
    folders = year_folders(Path(devkit))
    for year in dict.fromkeys(name.split(":")[0] for name in sets):
        file = list_file(folders[year], "test")
        if f"{year}:test" not in sets and file.is_file():
            yield year, file, unique_ids(folders[year], [file], Problems())


def _read_ids(file: Path, files: FilesOfFolder) -> Iterator[tuple[str, str]]:
    """("line 1", id) of each id of an image set.

    Of a line that reading counts by which everything in it has its annotation: an id that holds
    blanks; an id and the columns of the lists of one class (-1, 0, 1); several ids.
    """
    with reading(file, "a list of image ids in UTF-8", "save it as UTF-8"):
        text = read_text_bounded(file, MOST_LIST_BYTES)
    count = 0
    for number, line in enumerate(io.StringIO(text), start=1):
        if len(line) > MOST_LINE:
            raise UserError(f"Line {number} of {file} is too long; write one id a line.")
        line = line.replace("\ufeff", "").strip()
        words = [word.strip("\"'") for word in _WORD.findall(line)]
        if len(words) > 1 and set(words[1:]) <= _COLUMNS:
            words = words[:1]
        split = [word for word in _SEPARATORS.split(line) if word]
        readings = ([line], [_LAST_COLUMN.sub("", line)], words, split)
        # What is commented out is no id, though there may be its annotation.
        rest = [line] if line.startswith("#") else words
        found = next((ids for ids in readings if all(map(files.find, ids))), rest)
        count += len(found)
        if count > MOST_LINES:
            raise UserError(f"{file} lists more than {MOST_LINES:,} ids; take a part of them.")
        yield from ((f"line {number}", image_id) for image_id in found)
