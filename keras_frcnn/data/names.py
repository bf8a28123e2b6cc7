"""Files found by names as other programs and systems write them."""

from __future__ import annotations

import difflib
import os
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from keras_frcnn.data.images import IMAGE_SUFFIXES, UNREAD_SUFFIXES, files_below

# Before all others of one name: the first ones.
PICTURE_SUFFIXES = tuple(dict.fromkeys((".jpg", ".jpeg", ".png", *IMAGE_SUFFIXES)))

# A name is compared with every other one for its nearest: so often only.
_MOST_NEAREST = 20
_MOST_FOLDERS = 100


def loose(name: str) -> str:
    """The same for names that differ in upper and lower case or in the form of their accents."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def alike(path: Path, listings: dict[Path, dict[str, Path | None]]) -> Path | None:
    """The path if it is there, else the only one that differs from it just so, in any of its parts.

    Args:
        listings: what folders have, filled as they are looked at.
    """
    if os.path.lexists(path):
        return path
    if len(path.parts) > _MOST_FOLDERS:
        return None
    if path.parent not in listings:
        listings[path.parent] = found = {}
        folder = alike(path.parent, listings)
        with suppress(OSError, ValueError):  # no such folder, or no name for one
            if folder is not None:
                for name in os.listdir(folder):
                    found[loose(name)] = None if loose(name) in found else folder / name
    return listings[path.parent].get(loose(path.name))


class FilesOfFolder:
    """The files of some kinds in a folder and all below it, by their paths with / from there.

    A name stands for a file with or without its suffix, or with that of an image; else for the only
    file whose path differs just in upper and lower case, or in the form of its accents (a Mac takes
    letters apart).

    Args:
        folder: may be missing.
        suffixes: in lower case; of files that differ in nothing else the first counts.
    """

    def __init__(self, folder: Path, suffixes: Sequence[str]) -> None:
        self._exact: dict[str, Path] = {}
        self._loose: dict[str, set[Path]] = {}
        self._named: dict[str, list[Path]] = {}
        self._nearest_left = _MOST_NEAREST
        there = list(files_below(folder)) if folder.is_dir() else []
        self._unread = {
            file.relative_to(folder).with_suffix("").as_posix(): file
            for file in there
            if file.suffix.lower() in UNREAD_SUFFIXES
        }
        # macOS leaves "._1.xml" beside "1.xml" on foreign disks.
        whole = (file for file in there if not file.name.startswith("._"))
        files = [file for file in whole if file.suffix.lower() in suffixes]
        files.sort(key=lambda file: (suffixes.index(file.suffix.lower()), str(file)))
        # All names without suffixes first: "a.jpg" is first of all what "a.jpg.xml" belongs to.
        names = [(file.relative_to(folder).with_suffix(""), file) for file in files]
        names += [(file.relative_to(folder), file) for file in files]
        for name, file in names:
            if self._exact.setdefault(name.as_posix(), file) == file:
                self._loose.setdefault(loose(name.as_posix()), set()).add(file)
                self._named.setdefault(loose(name.name), []).append(file)

    def __iter__(self) -> Iterator[Path]:
        """All files, sorted by their paths."""
        return iter(sorted(set(self._exact.values())))

    def find_named(self, written: str, near: Sequence[str]) -> Path | None:
        """The file of a name in whatever folder; of several the one in folders most like others.

        Args:
            written: its folders do not count.
            near: names of the other folders.
        """
        for name in _names(written):
            files = list(dict.fromkeys(self._named.get(loose(name.rpartition("/")[2]), [])))
            shared = [len({loose(part) for part in near} & set(_folders(file))) for file in files]
            if files and shared.count(max(shared)) == 1:
                return files[shared.index(max(shared))]
        return None

    def find_near(self, names: Sequence[str], near: Sequence[str]) -> Path | None:
        """The first file that one of several paths names, else by :meth:`find_named`."""
        named = (self.find_named(name, near) for name in names)
        return next(filter(None, (*map(self.find, names), *named)), None)

    def find(self, written: str) -> Path | None:
        """The file of a name, if there is just one."""
        for name in _names(written):
            if name in self._exact:
                return self._exact[name]
        for name in _names(written):
            files = self._loose.get(loose(name), set())
            if len(files) == 1:
                return next(iter(files))
        return None

    def nearest(self, written: str) -> str:
        """``"; the nearest is PATH"`` for a name that is not found, or ``""``.

        Or that there is a picture of a kind that is not read.
        """
        for name in _names(written):
            if name in self._unread:
                return f"; {self._unread[name]} is of a kind that is not read, convert it"
        self._nearest_left -= 1
        last = loose(_names(written)[-1].rpartition("/")[2])
        near = self._nearest_left >= 0 and difflib.get_close_matches(last, self._loose, n=1)
        files = sorted(map(str, self._loose[near[0]])) if near else ()
        return f"; the nearest is {' or '.join(files)}" if files else ""


def _folders(file: Path) -> Iterator[str]:
    return map(loose, file.parent.parts)


def _names(written: str) -> tuple[str, ...]:
    """What a name may stand for: itself, and itself without the suffix of a known kind of file."""
    written = written.replace("\\", "/")
    stem, dot, suffix = written.rpartition(".")
    known = f"{dot}{suffix}".lower() in (*IMAGE_SUFFIXES, ".xml")
    return (written, stem) if known else (written,)
