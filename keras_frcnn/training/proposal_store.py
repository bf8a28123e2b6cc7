"""Proposals of every training image in one file, written once and read by the next stage.

The file is HDF5: ``boxes`` (T, 4) float32 half-open (y1, x1, y2, x2) in pixels of the original
image (of its mirror image for keys that end in `` flipped``), ``scores`` (T,) float32, ``offsets``
(U + 1,) int64 so that unit ``u`` owns rows ``offsets[u]`` to ``offsets[u + 1]``, and ``keys`` (U,)
UTF-8 names such as ``VOC2007/000005``; its attribute ``record`` says which run it is of.

Shapes and names
----------------
U  units (images in both orientations), T  proposals of all of them, P  proposals of one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from keras_frcnn.errors import UserError
from keras_frcnn.files import parse_json, written_whole
from keras_frcnn.hdf5_arrays import opened, read_array
from keras_frcnn.proposals.given import GivenProposals
from keras_frcnn.training.units import TrainingUnit

FORMAT = "keras_frcnn proposals 1"
_AGAIN = "delete it to compute them again"


@dataclass(frozen=True, eq=False)
class ProposalStore:
    """Proposals of a list of units, in its order.

    Attributes:
        keys: (U,) names of the units.
        offsets: (U + 1,) int64.
        boxes_image: (T, 4) float32.
        scores: (T,) float32.
        record: which run the file is of, see :mod:`keras_frcnn.provenance`.
    """

    keys: tuple[str, ...]
    offsets: np.ndarray
    boxes_image: np.ndarray
    scores: np.ndarray
    record: Any = None

    @classmethod
    def from_lists(
        cls,
        keys: Sequence[str],
        boxes: Sequence[np.ndarray],
        scores: Sequence[np.ndarray],
    ) -> ProposalStore:
        """From one (P, 4) and one (P,) array for each unit."""
        lengths = [len(entry) for entry in boxes]
        return cls(
            tuple(keys),
            np.concatenate(([0], np.cumsum(lengths))).astype(np.int64),
            np.concatenate([*boxes, np.zeros((0, 4))]).astype(np.float32),
            np.concatenate([*scores, np.zeros(0)]).astype(np.float32),
        )

    @classmethod
    def from_given(cls, given: GivenProposals, units: Sequence[TrainingUnit]) -> ProposalStore:
        """Given proposals of every unit; those of mirrored units are mirrored where none are given.

        Raises:
            UserError: proposals of an image are missing, or are those of another image size.
        """
        given.check_covers([unit.example for unit in units])
        found = [given.of_example(unit.example, flipped=unit.flipped) for unit in units]
        return cls.from_lists(
            [unit.key for unit in units],
            [entry.boxes_image for entry in found],
            [entry.scores for entry in found],
        )

    def boxes_of(self, index: int) -> np.ndarray:
        """(P, 4) float32 proposals of unit ``index``, best first."""
        return self.boxes_image[self.offsets[index] : self.offsets[index + 1]]

    def save(self, path: Path, record: Mapping[str, Any] | None = None) -> None:
        """Writes the file whole or not at all.

        Args:
            record: of :func:`keras_frcnn.provenance.record_of`.
        """
        with written_whole(path) as partial, h5py.File(partial, "w") as file:
            file.attrs["format"] = FORMAT
            file.attrs["record"] = json.dumps(record)
            file["boxes"] = self.boxes_image
            file["scores"] = self.scores
            file["offsets"] = self.offsets
            file["keys"] = np.array([key.encode() for key in self.keys], dtype="S")

    @classmethod
    def load(cls, path: Path, keys: Sequence[str]) -> ProposalStore:
        """Reads a file and checks that it holds the units ``keys`` in this order.

        Raises:
            UserError: the file is unreadable, of another format, inconsistent, or of other images.
        """
        with opened(path, FORMAT, _AGAIN) as file:
            store = cls(
                tuple(key.decode() for key in read_array(path, file, "keys", "S", 1)),
                read_array(path, file, "offsets", "i", 1),
                read_array(path, file, "boxes", "f", 2),
                read_array(path, file, "scores", "f", 1),
                parse_json(file.attrs["record"]),
            )
        if store.keys != tuple(keys):
            raise UserError(
                f"{path} holds proposals of {len(store.keys)} other images than the {len(keys)} of "
                f"this run; {_AGAIN}."
            )
        total = len(store.scores)
        consistent = (
            store.offsets.shape == (len(keys) + 1,)
            and store.boxes_image.shape == (total, 4)
            and (store.offsets[0], store.offsets[-1]) == (0, total)
            and np.all(np.diff(store.offsets) >= 0)
        )
        if not consistent:
            raise UserError(
                f"{path} is inconsistent: offsets, boxes and scores do not fit together; {_AGAIN}."
            )
        return store

    def check_boxes(self, path: Path, units: Sequence[TrainingUnit]) -> None:
        """Makes sure that there are proposals, and that they are boxes that lie in their images.

        Args:
            path: the file, for messages.

        Raises:
            UserError: naming the first that does not.
        """
        if not len(self.scores):
            raise UserError(f"{path} holds no proposal at all; {_AGAIN}.")
        for index, unit in enumerate(units):
            height, width = unit.example.height, unit.example.width
            border = np.array((height, width, height, width), np.float32)
            boxes = self.boxes_of(index)
            # An input's sides are rounded, so that its border is not quite that of the image.
            within = (boxes >= -1 - border / 100) & (boxes <= border * 1.01 + 1)
            sound = within.all(axis=1) & (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
            if not sound.all():
                raise UserError(
                    f"{path} holds the proposal {boxes[sound.argmin()].tolist()} for {unit.key}, "
                    f"expected half-open (y1, x1, y2, x2) in an image {height} pixels high and "
                    f"{width} wide; {_AGAIN}."
                )
