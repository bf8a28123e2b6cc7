"""What a reader makes of a file of annotations: every number is still the text of the file."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# Python's own float would also read 1_0, 1e1, inf and digits of other scripts.
_DECIMAL = re.compile(r"\s*[-+]?(\d+\.?\d*|\.\d+)\s*", re.ASCII)


@dataclass(frozen=True, slots=True)
class WrittenObject:
    """One object as a file has it.

    Attributes:
        where: its place in the file, ``"object 3 (dog)"`` or ``"line 12"``.
        class_name: may be empty.
        corners: texts of (xmin, ymin, xmax, ymax); None for one that is missing.
        difficult: of a VOC annotation.
        fault: why its reader can make no box of it, or ``""``.
    """

    where: str
    class_name: str
    corners: tuple[str | None, str | None, str | None, str | None]
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


def corner_numbers(texts: Sequence[str | None]) -> list[float]:
    """The numbers of (xmin, ymin, xmax, ymax), in plain decimal notation; NaN for others."""
    found = [float(text) if _DECIMAL.fullmatch(text or "") else math.nan for text in texts]
    return [number if math.isfinite(number) else math.nan for number in found]
