"""Arrays of HDF5 files that anybody may have made: judged by their headers before they are read.

An array is taken only from the file itself (no link, no other file behind it), with the expected
kind and number of dimensions, and where its bytes are no more than the file's: a header may claim
any shape.

Shapes and names
----------------
kind  letter of ``numpy.dtype.kind``: ``"f"``, ``"i"``, ``"S"``.
"""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

from keras_frcnn.errors import UserError


def check_format(path: Path, file: h5py.File, known: str, advice: str) -> None:
    """Compares the attribute ``format``, words and a version number, with the one that is read.

    Args:
        known: such as ``"keras_frcnn proposals 1"``.
        advice: what to do where the file is something else.

    Raises:
        UserError: it is of a newer version, or of another kind.
    """
    found = file.attrs.get("format")
    words, version = known.rsplit(" ", 1)
    found_words, _, found_version = str(found).rpartition(" ")
    newer = found_version.isascii() and found_version.isdigit()
    if found_words == words and newer and int(found_version[:9]) > int(version):
        raise UserError(
            f"{path} has the format {found!r}, this version of keras_frcnn reads up to {known!r}; "
            "update keras_frcnn."
        )
    if not isinstance(found, str) or found != known:
        raise UserError(f"{path} has the format {found!r:.80}, expected {known!r}; {advice}.")


def find_array(
    path: Path, parent: h5py.Group, name: str, kind: str, dimensions: int | None
) -> h5py.Dataset:
    """An array of an open file, not yet read.

    Args:
        path: the file, for its size.
        name: direct member of ``parent``.
        dimensions: ``None`` for any number.

    Raises:
        ValueError: it is missing, lies elsewhere, is another kind of array, or is larger than the
            file.
    """
    link = parent.get(name, getlink=True)
    if link is None:
        raise ValueError(f"it has no {name}")
    dataset = parent[name] if isinstance(link, h5py.HardLink) else None
    if not isinstance(dataset, h5py.Dataset) or dataset.external or dataset.is_virtual:
        raise ValueError(f"it does not hold the array {name} itself")
    is_kind = dataset.dtype.kind == kind and dataset.shape is not None
    if not is_kind or (dimensions is not None and dataset.ndim != dimensions):
        raise ValueError(
            f"{name} is {dataset.dtype} of shape {dataset.shape}, which is not what the format says"
        )
    if dataset.nbytes > path.stat().st_size:
        raise ValueError(
            f"{name} claims {dataset.nbytes} bytes in a file of {path.stat().st_size}, so it is "
            "damaged"
        )
    return dataset


def read_array(path: Path, parent: h5py.Group, name: str, kind: str, dimensions: int) -> np.ndarray:
    """The values of an array that :func:`find_array` accepts.

    Raises:
        ValueError: as :func:`find_array`.
        OSError: its data cannot be read.
    """
    return find_array(path, parent, name, kind, dimensions)[()]
