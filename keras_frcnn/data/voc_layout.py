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

# The lists of one class, and layouts of other programs by a file in them.
_CLASS_LIST = re.compile(r"\S.*\s[-+]?[01]\s*")
_OTHER_LAYOUTS = {
    "*.xml": "voc_xml",
    "*coco*.json": "coco",
    "data.yaml": "yolo",
    "labels/*.txt": "yolo",
    "classes.txt": "yolo",
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

    The lists of one class (``car_trainval.txt`` beside ``trainval.txt``) are not counted; alone,
    they are together the list ``trainval``.

    Raises:
        UserError: ``devkit`` is no folder in this layout.
    """
    pairs = []
    for year, folder in year_folders(Path(devkit)).items():
        files = list((folder / "ImageSets" / "Main").glob("*.txt"))
        splits = {file.stem for file in files}
        splits |= {file.stem.rpartition("_")[2] for file in files if _is_of_a_class(file)}
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
    folders = devkit_at(path)
    if not folders:
        raise UserError(
            f"Expected VOC<year>/ImageSets/Main (VOC2007, say) in {path}, found none; "
            f"{_layout_hint(path)}."
        )
    return folders


def devkit_at(path: Path) -> dict[str, Path]:
    """``VOC<year>`` folders by year, sorted, or none.

    A folder of another name that itself holds lists, as CVAT writes it, counts as VOC2007.
    """
    if (path / "ImageSets" / "Main").is_dir():
        itself = _YEAR_FOLDER.fullmatch(path.absolute().name)
        return {itself[1] if itself else "2007": path}
    return {
        match[1]: folder
        for folder in sorted(path.iterdir())
        if (match := _YEAR_FOLDER.fullmatch(folder.name))
        and (folder / "ImageSets" / "Main").is_dir()
    }


def devkit_near(path: Path) -> Path | None:
    """A devkit in a folder, or one that the folder lies in."""
    below = sorted((*path.glob("*/VOC*/ImageSets"), *path.glob("*/*/VOC*/ImageSets")))
    if below:
        return below[0].parents[1]
    years = (p for p in path.absolute().parents if _YEAR_FOLDER.fullmatch(p.name))
    return next((year.parent for year in years if (year / "ImageSets").is_dir()), None)


def _layout_hint(path: Path) -> str:
    """What to do about a folder without ``VOC<year>`` folders."""
    if (path / "ImageSets").is_dir():
        return "it holds ImageSets itself, but no lists in ImageSets/Main"
    near = devkit_near(path)
    if near is not None:
        return f"give {near} instead"
    for pattern, parser in _OTHER_LAYOUTS.items():
        found = next(iter(sorted((*path.glob(pattern), *path.glob(f"*/{pattern}")))), None)
        if found is not None:
            return f"for {found} use the parser {parser}, or leave `parser` out"
    return f"it holds {', '.join(sorted(f.name for f in path.iterdir())[:5]) or 'nothing'}"


def chosen_sets(devkit: Path, sets: str | None, default_split: str) -> tuple[tuple[str, str], ...]:
    """The sets asked for, all of which exist; None stands for every year's default split.

    Where no year has a ``trainval``, that is ``train`` with ``val``, else the only list there is.
    """
    available = available_sets(devkit)
    folders = year_folders(devkit)
    if sets is None:
        chosen = tuple((year, split) for year, split in available if split == default_split)
        if not chosen and default_split == "trainval":
            chosen = tuple(pair for pair in available if pair[1] in ("train", "val"))
            chosen = chosen or (available if len(available) == 1 else ())
        missing = [] if chosen else [f"ImageSets/Main/{default_split}.txt of any year"]
    else:
        chosen = parse_sets(sets)
        missing = [
            f"VOC{year}/ImageSets/Main/{split}.txt"
            for year, split in chosen
            if year not in folders or not _files_of(list_file(folders[year], split))
        ]
    if missing:
        there = ", ".join(f"{year}:{split}" for year, split in available) or "none"
        raise UserError(
            f"Expected {' and '.join(missing)} in {devkit}, found the sets: {there}; "
            "choose among these."
        )
    return chosen


def list_file(folder: Path, split: str) -> Path:
    """The file of an image set in a ``VOC<year>`` folder; where it is missing, its lists of single
    classes stand for it."""
    return folder / "ImageSets" / "Main" / f"{split}.txt"


def _files_of(file: Path) -> list[Path]:
    """The list, else those of single classes that are read for it, or none."""
    if file.is_file():
        return [file]
    return [each for each in sorted(file.parent.glob(f"*_{file.name}")) if _is_of_a_class(each)]


def _is_of_a_class(file: Path) -> bool:
    """Whether the first line has a column that says whether an image has the class."""
    if "_" not in file.stem or not file.is_file():
        return False
    with open(file, encoding="utf-8", errors="replace") as stream:
        return _CLASS_LIST.fullmatch(stream.readline(MOST_LINE)) is not None


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
    for each in lists:
        for file, where, written in _read_list(each, files):
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
    for image_id, (listed_in, annotation) in first.items():
        if annotation is None:
            missing = str(folder / "Annotations" / f"{image_id}.xml")
            reason = "the id is listed, its annotation does not exist" + files.nearest(image_id)
            problems.append(DataProblem("annotation missing", missing, "", reason, "image dropped"))
        if listed[image_id] > 1:
            reason = f"expected {image_id} once, found it {listed[image_id]} times"
            problems.append(DataProblem("id repeated", listed_in, "", reason, "used once"))
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
        if f"{year}:test" not in sets and _files_of(file):
            yield year, file, unique_ids(folders[year], [file], Problems())


def _read_list(file: Path, files: FilesOfFolder) -> Iterator[tuple[Path, str, str]]:
    """File, ``"line 1"`` and id of each id of an image set; of lists of classes each id once."""
    parts = _files_of(file) or [file]
    seen: set[str] = set()
    for part in parts:
        for where, written in _read_ids(part, files):
            if len(parts) == 1 or written not in seen:
                yield part, where, written
            seen.add(written)


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
