"""The proposal file: HDF5, one for U images (or mirror images) and their T proposals.

``boxes``    (T, 4) float32 half-open (y1, x1, y2, x2) in pixels of the image, best first
``scores``   (T,) float32
``offsets``  (U + 1,) int64: entry ``u`` owns rows ``offsets[u]`` to ``offsets[u + 1]``
``names``    (U,) UTF-8 of fixed length, zero-padded: ``VOC2007/000005``, or with `` flipped`` at
             the end for proposals that were made on the mirror image
attributes   ``format`` (:data:`FORMAT`), ``method``, ``settings`` (JSON), ``made_by`` (versions)

Nothing in it is compressed; compressed copies are read all the same.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from keras_frcnn import __version__
from keras_frcnn.errors import UserError
from keras_frcnn.proposals.given import GivenProposals, ScoredBoxes, merge, ranked
from keras_frcnn.proposals.mat_files import read_mat
from keras_frcnn.runs.config import GivenSource
from keras_frcnn.system.files import digest_of, parse_json, user_path, written_whole
from keras_frcnn.system.hdf5 import find_array, new_hdf5, opened

FORMAT = "keras_frcnn given proposals 1"
_ARRAYS = {"boxes": ("f", 2), "scores": ("f", 1), "offsets": ("i", 1), "names": ("S", 1)}


def write_proposals(path: Path, proposals: GivenProposals) -> None:
    """Writes the file whole or not at all."""
    entries = list(proposals.entries.values())
    lengths = [len(entry.scores) for entry in entries]
    with written_whole(path) as partial, new_hdf5(partial) as file:
        file.attrs["format"] = FORMAT
        file.attrs["method"] = proposals.method
        file.attrs["settings"] = json.dumps(dict(proposals.settings), sort_keys=True)
        file.attrs["made_by"] = f"keras_frcnn {__version__}, numpy {np.__version__}"
        columns = zip(*entries, ranked([]), strict=True)
        for name, parts in zip(("boxes", "scores"), columns, strict=True):
            file[name] = np.concatenate(parts).astype(np.float32)
        file["offsets"] = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
        file["names"] = np.array([name.encode() for name in proposals.entries], dtype="S")


def read_proposals(paths: Path | Sequence[Path]) -> GivenProposals:
    """Reads one or several files: this package's, or ``.mat`` files of Selective Search.

    Raises:
        UserError: a file is missing, unreadable, of another format or inconsistent, holds boxes
            without an area, or two files hold one image.
    """
    paths = [paths] if isinstance(paths, Path) else list(paths)
    return merge([_read_one(path) for path in paths])


def source_of_given(paths: Sequence[Path | str], given: GivenProposals) -> GivenSource:
    """Where proposals that were read come from, by which a run knows them again."""
    files = [user_path(path) for path in paths]
    return GivenSource(
        files=tuple(map(str, files)),
        method=given.method,
        settings=dict(given.settings),
        digest=digest_of(files),
    )


def _read_one(path: Path) -> GivenProposals:
    if path.is_dir():
        raise UserError(f"{path} is a folder; give a file of proposals.")
    proposals = read_mat(path) if path.suffix.lower() == ".mat" else _read_hdf5(path)
    for name, (boxes, _) in proposals.entries.items():
        bad = ~np.isfinite(boxes).all(axis=1) | (boxes[:, 2:] <= boxes[:, :2]).any(axis=1)
        if bad.any():
            raise UserError(
                f"{path} holds the box {boxes[bad][0].tolist()} for {name}, which has no area as "
                "half-open (y1, x1, y2, x2); make the file again."
            )
    return proposals


def _read_hdf5(path: Path) -> GivenProposals:
    with opened(path, FORMAT, "make it with python -m keras_frcnn proposals") as file:
        arrays = {name: find_array(path, file, name, *_ARRAYS[name])[()] for name in _ARRAYS}
        method = str(file.attrs["method"])
        settings = parse_json(file.attrs["settings"])
        names = [name.decode() for name in arrays["names"]]
    offsets, total = arrays["offsets"], len(arrays["scores"])
    consistent = (
        isinstance(settings, dict)
        and offsets.shape == (len(names) + 1,)
        and arrays["boxes"].shape == (total, 4)
        and (offsets[0], offsets[-1]) == (0, total)
        and np.all(np.diff(offsets) >= 0)
        and len(set(names)) == len(names)
    )
    if not consistent:
        raise UserError(
            f"{path} is inconsistent: names, offsets, boxes and scores do not fit together; make "
            "it again."
        )
    boxes = arrays["boxes"].astype(np.float32, copy=False)
    scores = arrays["scores"].astype(np.float32, copy=False)
    entries = {
        name: ScoredBoxes(boxes[start:end], scores[start:end])
        for name, start, end in zip(names, offsets, offsets[1:], strict=False)
    }
    return GivenProposals(entries, method, settings, str(path))
