"""Folders, image sets and lists of ids of a PASCAL VOC devkit."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from keras_frcnn.data.dataset import DataProblem
from keras_frcnn.errors import UserError
from keras_frcnn.files import read_text_bounded

# What the paper calls its training sets (section 4.1, tables 3 and 4).
_PAPER_SETS = {
    "07": "2007:trainval",
    "12": "2012:trainval",
    "07+12": "2007:trainval+2012:trainval",
    "07++12": "2007:trainval+2007:test+2012:trainval",
}

# Several million lines.
MOST_LIST_BYTES = 2**28

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


def unique_ids(folder: Path, lists: Sequence[Path], problems: list[DataProblem]) -> list[str]:
    """Ids of the lists in their order, each once; unsafe and repeated ones become problems."""
    listed: Counter[str] = Counter()
    first_list: dict[str, Path] = {}
    for file in lists:
        for number, image_id in _read_ids(file, folder / "Annotations"):
            if "/" in image_id or "\\" in image_id or ".." in image_id or "\0" in image_id:
                reason = f"expected an id without folders, found {image_id[:80]!r}"
                problems.append(
                    DataProblem(
                        "id refused",
                        str(file),
                        f"line {number}",
                        reason,
                        "image dropped",
                    )
                )
                continue
            listed[image_id] += 1
            first_list.setdefault(image_id, file)
    for image_id, times in listed.items():
        if times > 1:
            reason = f"expected {image_id} once, found it {times} times"
            file = str(first_list[image_id])
            problems.append(DataProblem("id repeated", file, "", reason, "used once"))
    return list(listed)


def _read_ids(file: Path, annotations: Path) -> list[tuple[int, str]]:
    """(line number from 1, id) of each line of an image set that is not blank.

    Columns after the id, as in the lists of one class, are left aside; an id may hold blanks when
    there is an annotation of that very name.
    """
    try:
        text = read_text_bounded(file, MOST_LIST_BYTES)
    except (OSError, ValueError) as error:
        raise UserError(
            f"Expected a list of image ids in UTF-8 in {file}, but {error}; save it as UTF-8."
        ) from error
    ids = []
    for number, line in enumerate(text.split("\n"), start=1):
        line = line.strip()
        if line:
            first = line.split()[0]
            # Not Path.is_file, which raises on names too long for the disk.
            whole = first != line and os.path.isfile(annotations / f"{line}.xml")
            ids.append((number, line if whole else first))
    return ids
