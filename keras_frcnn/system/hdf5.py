"""Arrays of HDF5 files that anybody may have made: judged by their headers before they are read.

An array is taken only from the file itself (no link, no other file behind it), with the expected
kind and number of dimensions, and where its bytes are no more than those that are stored can hold:
a header may claim any shape.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py

from keras_frcnn.errors import UserError, reading
from keras_frcnn.system.files import check_bounded

# Deflate, HDF5's compression, makes data at most 1032 times smaller.
MAX_COMPRESSION = 1032
# Proposals of a million images have less.
MOST_BYTES = 2**40


class _Sink(io.FileIO):
    """A file that HDF5 writes to: it never learns of an error, which can end the process there."""

    failure: OSError | None = None

    def write(self, data: Any) -> int:
        left = memoryview(data).cast("B")
        size = len(left)
        try:
            while len(left) and self.failure is None:
                left = left[super().write(left) :]
        except OSError as error:
            self.failure = error
        return size

    def truncate(self, size: int | None = None) -> int:
        return super().truncate(size) if self.failure is None else self.tell()


@contextmanager
def new_hdf5(path: Path, userblock_size: int = 0) -> Iterator[h5py.File]:
    """An HDF5 file to write in the context, where signals must wait, as :func:`written_whole` does.

    Args:
        userblock_size: bytes that are left free at the start.

    Raises:
        OSError: the disk is full, say.
    """
    with _Sink(path, "w+") as sink:
        try:
            with h5py.File(sink, "w", userblock_size=userblock_size) as file:
                yield file
        finally:
            if sink.failure is not None:
                raise sink.failure


@contextmanager
def opened(path: Path, known: str, advice: str) -> Iterator[h5py.File]:
    """An HDF5 file of one format, to be read in the context.

    Args:
        known: its attribute ``format``, words and a version: ``"keras_frcnn proposals 1"``.
        advice: what to do where the file is something else.

    Raises:
        UserError: it is of a newer version, of another kind, or damaged.
    """
    with reading(path, repr(known), advice):
        check_bounded(path, MOST_BYTES)
        with h5py.File(path, "r") as file:
            _check_format(path, file.attrs.get("format"), known, advice)
            yield file


def _check_format(path: Path, found: object, known: str, advice: str) -> None:
    words, version = known.rsplit(" ", 1)
    found_words, _, found_version = str(found).rpartition(" ")
    is_number = found_version.isascii() and found_version.isdigit()
    if found_words == words and is_number and int(found_version[:9]) > int(version):
        raise UserError(
            f"{path} has the format {found!r}, this version of keras_frcnn reads up to {known!r}; "
            "update keras_frcnn."
        )
    if not isinstance(found, str) or found != known:
        raise UserError(f"{path} has the format {found!r:.80}, expected {known!r}; {advice}.")


def find_member(parent: h5py.Group, name: str, what: str) -> h5py.Group | h5py.Dataset:
    """What lies below a group, down hard links only: other links can lead to other files.

    Args:
        name: may hold slashes.
        what: what it should be, for the error.

    Raises:
        ValueError: it is missing, or a link leads to it.
    """
    member = parent
    for part in name.split("/"):
        link = member.get(part, getlink=True) if isinstance(member, h5py.Group) else None
        if link is None:
            raise ValueError(f"it has no {name}")
        if not isinstance(link, h5py.HardLink):
            raise ValueError(f"it does not hold the {what} {name} itself but a link to it")
        member = member[part]
    return member


def find_array(
    path: Path, parent: h5py.Group, name: str, kind: str, dimensions: int | None
) -> h5py.Dataset:
    """An array of an open file, not yet read.

    Args:
        path: the file, for its size.
        name: may hold slashes.
        dimensions: ``None`` for any number.

    Raises:
        ValueError: it is missing, lies elsewhere, is another kind of array, or is larger than what
            is stored can be.
    """
    dataset = find_member(parent, name, "array")
    if not isinstance(dataset, h5py.Dataset) or dataset.external or dataset.is_virtual:
        raise ValueError(f"it does not hold the array {name} itself")
    is_kind = dataset.dtype.kind == kind and dataset.shape is not None
    if not is_kind or (dimensions is not None and dataset.ndim != dimensions):
        raise ValueError(
            f"{name} is {dataset.dtype} of shape {dataset.shape}, which is not what the format says"
        )
    stored, in_file = dataset.id.get_storage_size(), path.stat().st_size
    # HDF5 compresses chunks only.
    most = stored * (1 if dataset.chunks is None else MAX_COMPRESSION)
    if dataset.nbytes > most or stored > in_file:
        raise ValueError(
            f"{name} claims {dataset.nbytes} bytes of which {stored} are stored, in a file of "
            f"{in_file}, so it is damaged"
        )
    return dataset
