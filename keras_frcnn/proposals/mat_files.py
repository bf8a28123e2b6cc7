"""``.mat`` box files of R-CNN and Fast R-CNN: ``voc_2007_trainval.mat`` and the like.

Two cell arrays: ``images``, the ids, and ``boxes``, for each an (P, 4) array of 1-based inclusive
(y1, x1, y2, x2) (fast-rcnn lib/datasets/pascal_voc.py reads ``boxes[:, (1, 0, 3, 2)] - 1`` as
0-based inclusive x1, y1, x2, y2).

Of MATLAB's format 5 (versions 5 to 7.2) cell arrays of numbers and of texts are read, no more.
Nothing is believed before it is compared with the bytes that are there: SciPy's reader, which
takes every kind of variable, ends the whole program on some damaged files.

The format ("MAT-File Format", MathWorks): a header of 128 bytes, then elements of a tag (type and
number of bytes, 32 bits each) and data padded to 8 bytes; a tag whose upper 16 bits are not zero
holds up to 4 bytes of data itself. A variable is an element of type 14 with elements for its flags,
dimensions, name and values, or of type 15 that is one compressed by zlib. Only tables, strings,
times and other objects of MATLAB's newer classes, called opaque, have no dimensions: that is in no
document, SciPy's reader shows it.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from math import prod
from pathlib import Path

import numpy as np

from keras_frcnn.errors import UserError, reading
from keras_frcnn.proposals.given import GivenProposals, ScoredBoxes, ranked
from keras_frcnn.system.files import read_bounded

HEADER_BYTES = 128
# Selective Search's boxes of a whole VOC set have 0.3 GB.
MOST_BYTES = 2**31

_COMPRESSED, _MATRIX = 15, 14
# Types of stored values, which may be narrower than the class of the matrix.
_STORED = {
    **{1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8"},
    13: "u8",
}
_TEXT = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
_CELL, _CHAR, _OPAQUE = 1, 4, 17
_NUMBERS = {
    **{6: "double", 7: "single", 8: "int8", 9: "uint8", 10: "int16", 11: "uint16", 12: "int32"},
    **{13: "uint32", 14: "int64", 15: "uint64"},
}
_COMPLEX = 0x0800
# In place of an element that is not there.
_NOTHING = (0, memoryview(b""))


def read_mat(path: Path) -> GivenProposals:
    """Reads such a file; entries go by the bare id.

    Raises:
        UserError: the file cannot be read, is of MATLAB 7.3, or holds anything else.
    """
    with reading(path, "a .mat file", "save it with save(FILE, 'images', 'boxes', '-v7')"):
        content = read_variables(read_bounded(path, MOST_BYTES))
    for name in ("images", "boxes"):
        if name not in content or content[name].kind != "cell":
            found = ", ".join(f"{n} ({v.kind} {v.shape})" for n, v in content.items()) or "nothing"
            raise UserError(f"{path} should hold the cell array {name}, found {found:.300}.")
    images, boxes = content["images"].cells, content["boxes"].cells
    if len(images) != len(boxes):
        raise UserError(f"{path} holds {len(images)} images but boxes of {len(boxes)}.")
    entries: dict[str, ScoredBoxes] = {}
    for image, image_boxes in zip(images, boxes, strict=True):
        name = _text(image, path)
        if name in entries:
            raise UserError(f"{path} holds the image {name} twice.")
        entries[name] = ranked(from_matlab(image_boxes, f"{name} in {path}"))
    return GivenProposals(entries, "mat", {}, str(path))


def from_matlab(boxes: np.ndarray | str | None, where: str) -> np.ndarray:
    """1-based inclusive (y1, x1, y2, x2) as half-open: the first two become one less.

    Raises:
        UserError: these are no such boxes.
    """
    if not isinstance(boxes, np.ndarray):
        raise UserError(f"The boxes of {where} should be numbers, found {boxes!r:.80}.")
    if boxes.size == 0:
        return np.zeros((0, 4), np.float32)
    if boxes.dtype.kind not in "fiu" or boxes.ndim != 2 or boxes.shape[1] != 4:
        raise UserError(
            f"The boxes of {where} should be numbers of shape (P, 4), found {boxes.dtype} of shape "
            f"{boxes.shape}."
        )
    return (boxes.astype(np.float64) - (1, 1, 0, 0)).astype(np.float32)


def _text(cell: np.ndarray | str | None, path: Path) -> str:
    if not isinstance(cell, str):
        found = "something else" if cell is None else f"{cell.dtype} of shape {cell.shape}"
        raise UserError(f"images in {path} should hold one id in each cell, found {found}.")
    return cell.strip()


@dataclass(frozen=True)
class Variable:
    """A variable of a file.

    Attributes:
        kind: ``"cell"``, ``"char"``, ``"double"``, ... or ``"unknown"``.
        shape: as MATLAB has it; () of an opaque one.
        cells: of a cell array, in MATLAB's order; ``None``: neither numbers nor a text.
    """

    kind: str
    shape: tuple[int, ...]
    cells: tuple[np.ndarray | str | None, ...] = ()


def read_variables(content: bytes) -> dict[str, Variable]:
    """The variables of a file.

    Raises:
        ValueError: it is something else, such as MATLAB 7.3's HDF5, or damaged.
    """
    if content.startswith(b"MATLAB 7.3"):
        raise ValueError("it is of MATLAB 7.3, which is not read")
    order = {b"IM": "<", b"MI": ">"}.get(content[126:HEADER_BYTES])
    if order is None:
        raise ValueError("it has no header of a MATLAB 5 file")
    variables = {}
    for kind, data in _elements(memoryview(content)[HEADER_BYTES:], order):
        if kind == _COMPRESSED:
            kind, data = next(_elements(memoryview(_decompressed(data)), order), _NOTHING)
        if kind == _MATRIX and len(data):
            name, variable = _variable(data, order)
            variables[name] = variable
    return variables


def _decompressed(data: memoryview) -> bytes:
    stream = zlib.decompressobj()
    try:
        whole = stream.decompress(data, MOST_BYTES)
    except zlib.error as error:
        raise ValueError(f"a variable cannot be decompressed ({error})") from error
    if not stream.eof:
        raise ValueError(f"a variable is cut, or larger than {MOST_BYTES} bytes")
    return whole


def _elements(data: memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    """Type and data of each element."""
    place = 0
    while place < len(data):
        if len(data) - place < 8:
            raise ValueError("an element is cut")
        kind, size = (int(word) for word in np.frombuffer(data[place : place + 8], f"{order}u4"))
        small = kind >> 16
        if small:
            kind, size = kind & 0xFFFF, small
            start, following = place + 4, place + 8
        else:
            start = place + 8
            # Compressed variables alone are not padded.
            following = start + (size if kind == _COMPRESSED else -(-size // 8) * 8)
        if start + size > len(data) or (small and size > 4):
            raise ValueError(f"an element claims {size} bytes, {len(data) - start} are there")
        yield kind, data[start : start + size]
        place = following


def _matrix(
    data: memoryview, order: str
) -> tuple[int, tuple[int, ...], str, Iterator[tuple[int, memoryview]]]:
    """Flags, dimensions and name of a matrix, and its elements behind these.

    The lowest byte of the flags is its class. Opaque ones have no dimensions, (), nor values.
    """
    elements = _elements(data, order)
    _, flags = next(elements, _NOTHING)
    if len(flags) != 8:
        raise ValueError("a variable lacks its flags")
    flag_bits = int(np.frombuffer(flags, f"{order}u4")[0])
    if flag_bits & 0xFF == _OPAQUE:
        _, name = next(elements, _NOTHING)
        return flag_bits, (), bytes(name).decode("latin-1"), iter(())
    parts = [part for _, part in islice(elements, 2)]
    if len(parts) < 2 or len(parts[0]) % 4 or len(parts[0]) < 8:
        raise ValueError("a variable lacks its dimensions or name")
    shape = tuple(int(side) for side in np.frombuffer(parts[0], f"{order}i4"))
    if min(shape) < 0:
        raise ValueError(f"a variable has the dimensions {shape}")
    return flag_bits, shape, bytes(parts[1]).decode("latin-1"), elements


def _variable(data: memoryview, order: str) -> tuple[str, Variable]:
    """Name and contents of a matrix element."""
    flags, shape, name, elements = _matrix(data, order)
    what = flags & 0xFF
    if what != _CELL:
        kind = "char" if what == _CHAR else _NUMBERS.get(what, "unknown")
        return name, Variable(kind, shape)
    cells = tuple(_cell(kind, cell, order) for kind, cell in elements)
    if len(cells) != prod(shape):
        raise ValueError(f"{name} should have {prod(shape)} cells, it has {len(cells)}")
    return name, Variable("cell", shape, cells)


def _cell(kind: int, data: memoryview, order: str) -> np.ndarray | str | None:
    if kind != _MATRIX:
        raise ValueError(f"a cell is of the type {kind}, not a matrix")
    if not len(data):
        return np.zeros((0, 0))
    flags, shape, _, elements = _matrix(data, order)
    what = flags & 0xFF
    if what not in (_CHAR, *_NUMBERS) or flags & _COMPLEX:
        return None
    stored, values = next(elements, _NOTHING)
    if what == _CHAR:
        if stored not in _TEXT or shape[0] > 1:
            return None if len(values) else ""
        encoding = _TEXT[stored]
        endian = ("-le" if order == "<" else "-be") if encoding[-2:] in ("16", "32") else ""
        return bytes(values).decode(encoding + endian)
    if stored not in _STORED or len(values) != prod(shape) * np.dtype(_STORED[stored]).itemsize:
        raise ValueError(f"a matrix of shape {shape} has {len(values)} bytes of values")
    return np.frombuffer(values, order + _STORED[stored]).reshape(shape, order="F")
