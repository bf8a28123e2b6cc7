"""Proposals of every training image in one file, written once and read by the next stage.

The file is that of :mod:`keras_frcnn.proposals.files`; its settings say which run it is of.

Shapes and names
----------------
U  units, P  proposals of one, that is of an image in one orientation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
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
        entries: key of each unit to its proposals.
        record: which run the file is of, see :mod:`keras_frcnn.runs.provenance`.
    """

    entries: Mapping[str, ScoredBoxes]
    record: Any = None

    @classmethod
    def from_given(cls, given: GivenProposals, units: Sequence[TrainingUnit]) -> ProposalStore:
        """Given proposals of every unit; those of mirrored units are mirrored where none are given.

        Raises:
            UserError: proposals of an image are missing, or are those of another image size.
        """
        given.check_covers([unit.example for unit in units])
        return cls(
            {unit.key: given.of_example(unit.example, flipped=unit.flipped) for unit in units}
        )

    @cached_property
    def counts(self) -> np.ndarray:
        """(U,) proposals of each unit."""
        return np.array([len(entry.scores) for entry in self.entries.values()])

    @cached_property
    def _boxes(self) -> list[np.ndarray]:
        return [entry.boxes_image for entry in self.entries.values()]

    def boxes_of(self, index: int) -> np.ndarray:
        """(P, 4) float32 proposals of unit ``index``, best first."""
        return self._boxes[index]

    def save(self, path: Path, record: Mapping[str, Any] | None = None) -> None:
        """Writes the file whole or not at all.

        Args:
            record: of :func:`keras_frcnn.runs.provenance.record_of`.
        """
        about = {**(record or {}), "proposals": int(self.counts.sum())}
        write_proposals(path, GivenProposals(self.entries, "training", about, str(path)))

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
        store = cls(given.entries, given.settings)
        found, written = int(store.counts.sum()), given.settings.get("proposals")
        if written != found:
            raise UserError(
                f"{path} holds {found} proposals, and {written!r:.40} were written; {_AGAIN}."
            )
        return store

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
