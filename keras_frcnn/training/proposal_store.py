"""Proposals of every training image in one file, written once and read by the next stage.

The file is that of :mod:`keras_frcnn.proposals.files`; its settings say which run it is of.

Shapes and names
----------------
U  units (images in both orientations), T  proposals of all of them, P  proposals of one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from keras_frcnn.errors import UserError
from keras_frcnn.proposals.files import read_proposals, write_proposals
from keras_frcnn.proposals.given import GivenProposals, ScoredBoxes, fit_to_image
from keras_frcnn.training.units import TrainingUnit

_AGAIN = "delete it to compute them again"


@dataclass(frozen=True, eq=False)
class ProposalStore:
    """Proposals of a list of units, in its order.

    Attributes:
        keys: (U,) names of the units.
        offsets: (U + 1,) int64.
        boxes_image: (T, 4) float32.
        scores: (T,) float32.
        record: which run the file is of, see :mod:`keras_frcnn.runs.provenance`.
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
            record: of :func:`keras_frcnn.runs.provenance.record_of`.
        """
        parts = zip(self.keys, self.offsets, self.offsets[1:], strict=False)
        entries = {
            key: ScoredBoxes(self.boxes_image[start:end], self.scores[start:end])
            for key, start, end in parts
        }
        about = {**(record or {}), "proposals": len(self.scores)}
        write_proposals(path, GivenProposals(entries, "training", about, str(path)))

    @classmethod
    def load(cls, path: Path, keys: Sequence[str]) -> ProposalStore:
        """Reads a file and checks that it holds the units ``keys`` in this order.

        Raises:
            UserError: as :func:`read_proposals`, or the proposals are of other images.
        """
        given = read_proposals(path)
        if tuple(given.entries) != tuple(keys):
            raise UserError(
                f"{path} holds proposals of {len(given.entries)} other images than the "
                f"{len(keys)} of this run; {_AGAIN}."
            )
        found = given.entries.values()
        store = cls.from_lists(keys, [boxes for boxes, _ in found], [scores for _, scores in found])
        written = given.settings.get("proposals")
        if written != len(store.scores):
            raise UserError(
                f"{path} holds {len(store.scores)} proposals, and {written!r:.40} were written; "
                f"{_AGAIN}."
            )
        return replace(store, record=given.settings)

    def check_boxes(self, path: Path, units: Sequence[TrainingUnit]) -> None:
        """Makes sure that proposals lie in their images.

        Args:
            path: the file, for messages.

        Raises:
            UserError: naming the first that does not.
        """
        for index, unit in enumerate(units):
            name, example = f"{unit.key} in {path}", unit.example
            fit_to_image(self.boxes_of(index), example.height, example.width, name)
