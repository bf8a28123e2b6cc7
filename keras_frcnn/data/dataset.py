"""What readers make of annotations, what the checks make of that, and everything else consumes.

Shapes and names
----------------
G  objects of one image.
boxes_image  (G, 4) float32, half-open (y1, x1, y2, x2) in pixels of the image after its EXIF
    orientation has been applied.
classes  (G,) int32, 1-based positions in ``class_names``; 0 is background and never stored.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from keras_frcnn.data.images import read_image
from keras_frcnn.errors import UserError

# Python's own float would also read 1_0, 1e1, inf and digits of other scripts.
_DECIMAL = re.compile(r"\s*[-+]?(\d+\.?\d*|\.\d+)\s*", re.ASCII)

# Texts of (xmin, ymin, xmax, ymax); None for one that is missing.
Corners = tuple[str | None, str | None, str | None, str | None]

# Of one kind, those that are named; a hostile file of a few MB can have a million.
MOST_OF_A_FILE = 1_000
MOST_OF_A_KIND = 10_000


@dataclass(frozen=True)
class DataProblem:
    """One thing that was wrong with the data and what was done about it.

    Attributes:
        kind: short name to count by, such as ``"box clipped"`` or ``"image unreadable"``.
        file: the file at fault.
        where: line or object within the file (``"object 3 (dog)"``, ``"line 12"``), or ``""``.
        reason: what was expected and what was found.
        action: what was done: ``"clipped"``, ``"object dropped"``, ``"image dropped"``,
            ``"noted"``, ...
        number: how many it stands for, where too many are alike to name each.
    """

    kind: str
    file: str
    where: str
    reason: str
    action: str
    number: int = 1


class Problems:
    """Problems as they are found: all are counted, and named while they are few."""

    def __init__(self, found: Iterable[DataProblem] = ()) -> None:
        self._named: list[DataProblem] = []
        self._counts: Counter[tuple[str, ...]] = Counter()
        self._more: Counter[tuple[str, str, str]] = Counter()
        self.extend(found)

    def append(self, problem: DataProblem) -> None:
        """Counts one more, or as many as it stands for."""
        kind, file = (problem.kind, problem.action), problem.file
        of_file = (*kind, file)
        full = self._counts[of_file] >= MOST_OF_A_FILE or problem.number > 1
        if full or self._counts[kind] >= MOST_OF_A_KIND:
            self._more[problem.kind, problem.action, file if full else ""] += problem.number
        else:
            self._counts.update([kind, of_file])
            self._named.append(problem)

    def append_once(self, problem: DataProblem) -> None:
        """Names the first of its kind; the others are counted."""
        if self._counts[problem.kind, problem.action]:
            self._more[problem.kind, problem.action, ""] += problem.number
        else:
            self.append(problem)

    def extend(self, found: Iterable[DataProblem]) -> None:
        """Counts each."""
        for problem in found:
            self.append(problem)

    def __iter__(self) -> Iterator[DataProblem]:
        """Those that are named, then the numbers of the others."""
        yield from self._named
        for (kind, action, file), number in self._more.items():
            yield DataProblem(kind, file, "", f"and {number:,} more", action, number)


def number_of(problems: Iterable[DataProblem]) -> int:
    """How many problems there are, those that are not named included."""
    return sum(problem.number for problem in problems)


@dataclass(frozen=True, slots=True)
class WrittenObject:
    """One object as a file has it.

    Attributes:
        where: its place in the file, ``"object 3 (dog)"`` or ``"line 12"``.
        class_name: may be empty.
        corners: what they mean depends on ``first_pixel`` of the image.
        difficult: of a VOC annotation.
        fault: why its reader can make no box of it, or ``""``.
    """

    where: str
    class_name: str
    corners: Corners
    difficult: bool = False
    fault: str = ""


@dataclass(frozen=True)
class WrittenImage:
    """One image as the annotations have it.

    Attributes:
        image_id, source: as in ``Example``.
        path: an image file that exists.
        annotation: the file that the objects were read from.
        objects: in the order of the file.
        size: (height, width) in pixels as written, or None.
        first_pixel: 1 when corners count pixels from 1 and xmax, ymax are inside the object (VOC);
            0 when they count from 0 and xmax, ymax are just outside (half-open).
    """

    image_id: str
    source: str
    path: Path
    annotation: Path
    objects: tuple[WrittenObject, ...]
    size: tuple[int, int] | None
    first_pixel: int


@dataclass(frozen=True)
class Written:
    """What a reader makes of a data set, before anything is checked.

    Attributes:
        images: those chosen, in the order of training.
        problems: what was wrong with the files.
        class_names: the names found, in order.
        sets: the image sets chosen.
        split: as of :class:`Dataset`.
    """

    images: Sequence[WrittenImage]
    problems: Iterable[DataProblem]
    class_names: Sequence[str]
    sets: Sequence[str]
    split: Mapping[str, str] = field(default_factory=dict)


def corner_numbers(texts: Sequence[str | None]) -> list[float]:
    """The numbers of (xmin, ymin, xmax, ymax), in plain decimal notation; NaN for others."""
    whole = ((text or "") for text in texts)
    found = [float(text) if _DECIMAL.fullmatch(text) else math.nan for text in whole]
    return [number if math.isfinite(number) else math.nan for number in found]


@dataclass(frozen=True, eq=False)
class Example:
    """One image and its objects.

    Attributes:
        image_id: the VOC id (``"000005"``), the path as written in a simple text list, or the path
            from the data folder.
        source: the folder of the devkit that it comes from (``"VOC2007"``), the list's name, or
            the data folder's.
        path: the image file.
        height, width: real size in pixels, EXIF orientation applied.
        boxes_image: (G, 4) float32.
        classes: (G,) int32.
        difficult: (G,) bool.
        bits: that the data set's 16-bit images use, as of :func:`read_image`.
    """

    image_id: str
    source: str
    path: Path
    height: int
    width: int
    boxes_image: np.ndarray
    classes: np.ndarray
    difficult: np.ndarray
    bits: int = 16

    @property
    def key(self) -> str:
        """Unique over years: ``"VOC2007/000005"``."""
        return f"{self.source}/{self.image_id}"

    def pixels(self) -> np.ndarray:
        """(H, W, 3) uint8 pixels of the image."""
        return read_image(self.path, self.bits)

    def without_difficult(self) -> Example:
        """The same image without its difficult objects, as training sees it (recipe 4.4)."""
        keep = ~self.difficult
        return replace(
            self,
            boxes_image=self.boxes_image[keep],
            classes=self.classes[keep],
            difficult=self.difficult[keep],
        )


@dataclass(frozen=True, eq=False)
class Dataset:
    """The examples of one or several image sets, in the order of their lists.

    Attributes:
        class_names: names of the foreground classes; class ``k`` is ``class_names[k - 1]``.
        examples: the images.
        sets: where they come from (``("2007:trainval", "2012:trainval")``).
        problems: everything that the checks found.
        doubt: why the data as a whole are likely wrong, a sentence without its end, or ``""``.
        bits: that 16-bit images use, the same for all of them; 0 where there are none.
        path, parser: where they were read from and as what; "" where nobody said.
        split: of data without lists, the part (``train``, ``val``, ``test``) of every image by its
            ``image_id``, chosen or not.
    """

    class_names: tuple[str, ...]
    examples: tuple[Example, ...]
    sets: tuple[str, ...]
    problems: tuple[DataProblem, ...] = field(default=())
    doubt: str = ""
    bits: int = 0
    path: str = ""
    parser: str = ""
    split: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.examples)

    def with_bits(self, bits: int) -> Dataset:
        """The same images, of which 16-bit ones are read with so many bits; 0: as they are."""
        if not bits:
            return self
        examples = tuple(replace(example, bits=bits) for example in self.examples)
        return replace(self, examples=examples, bits=bits)

    def with_classes(self, class_names: Sequence[str]) -> Dataset:
        """The same objects, their classes numbered as in another list of names.

        Raises:
            UserError: an object is of a class that is not in the list.
        """
        if tuple(class_names) == self.class_names:
            return self
        number = {name: index for index, name in enumerate(class_names, start=1)}
        used = {int(index) for example in self.examples for index in example.classes}
        unknown = [
            self.class_names[i - 1] for i in sorted(used) if self.class_names[i - 1] not in number
        ]
        if unknown:
            raise UserError(
                f"The data have objects of {', '.join(unknown[:5])}, expected those of "
                f"{', '.join(class_names)} only; load the data with these `class_names`."
            )
        table = np.array([0, *(number.get(name, 0) for name in self.class_names)], np.int32)
        examples = tuple(
            replace(example, classes=table[example.classes]) for example in self.examples
        )
        return replace(self, class_names=tuple(class_names), examples=examples)

    @property
    def ids_hash(self) -> str:
        """SHA-256 of the sorted keys, one a line: two runs with one hash saw the same images."""
        keys = sorted(example.key for example in self.examples)
        return hashlib.sha256("\n".join(keys).encode()).hexdigest()

    @property
    def number_of_objects(self) -> int:
        """All objects, difficult ones included."""
        return sum(len(example.classes) for example in self.examples)
