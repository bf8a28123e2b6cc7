"""Given proposals: made once, by any method, and looked up by the name of their image.

Shapes and names
----------------
P  proposals of one image, best first.
boxes_image  (P, 4) float32 half-open (y1, x1, y2, x2) in pixels of the image.
name  ``VOC2007/000005`` or the bare ``000005``, with `` flipped`` at the end for the mirror image.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, NamedTuple

import numpy as np

from keras_frcnn.data.dataset import Example
from keras_frcnn.errors import UserError

FLIPPED = " flipped"
# Selective Search's boxes at test, section 4.1.
NUMBER_OF_BOXES = 2000
# Boxes made in a resized image come back with rounding; more than a pixel is another image's size.
_TOLERANCE = 1.0


class ScoredBoxes(NamedTuple):
    """Proposals of one image, best first.

    Attributes:
        boxes_image: (P, 4) float32.
        scores: (P,) float32, never rising; minus the place where only the order is known.
    """

    boxes_image: np.ndarray
    scores: np.ndarray

    def best(self, count: int | None) -> ScoredBoxes:
        """The first ``count``; all with ``None``."""
        return ScoredBoxes(self.boxes_image[:count], self.scores[:count])


def ranked(boxes_image: Sequence | np.ndarray) -> ScoredBoxes:
    """Boxes of which only the order is known: minus their place becomes their score."""
    boxes = np.asarray(boxes_image, np.float32).reshape(-1, 4)
    return ScoredBoxes(boxes, -np.arange(len(boxes), dtype=np.float32))


@dataclass(frozen=True, eq=False)
class GivenProposals:
    """Proposals of many images.

    Attributes:
        entries: name to proposals, in the order of the file.
        method: what made them: ``selective-search``, ``edge-boxes``, ``rpn``, ``mat``.
        settings: of the method, as JSON.
        source: the file or files, for messages.
    """

    entries: Mapping[str, ScoredBoxes]
    method: str
    settings: Mapping[str, Any]
    source: str

    def best(self, count: int | None) -> GivenProposals:
        """The first ``count`` of each image; all with ``None``."""
        entries = {name: boxes.best(count) for name, boxes in self.entries.items()}
        return dataclasses.replace(self, entries=entries)

    def of_example(self, example: Example, *, flipped: bool = False) -> ScoredBoxes:
        """Proposals of an image of a data set, or of its mirror image.

        Where the file has none of the mirror image, those of the image are mirrored, as PY does
        (imdb.py:102-117).

        Raises:
            UserError: the file lacks the image, or its boxes are those of another image size.
        """
        names = (example.key, example.image_id)
        mirrored = False
        name = next((n + FLIPPED for n in names if flipped and n + FLIPPED in self.entries), None)
        if name is None:
            name = next((n for n in names if n in self.entries), None)
            mirrored = flipped
        if name is None:
            raise UserError(f"{self.source} holds no proposals of {example.key}.")
        boxes, scores = self.entries[name]
        boxes = fit_to_image(boxes, example.height, example.width, f"{name} in {self.source}")
        return ScoredBoxes(mirror(boxes, example.width) if mirrored else boxes, scores)

    def of_files(self, files: Sequence[PurePath]) -> dict[PurePath, ScoredBoxes]:
        """Proposals of image files: an entry's last part is the file's name, or its stem.

        Raises:
            UserError: naming the first five files without proposals, one with several entries, or
                two of one name.
        """
        by_last: dict[str, list[str]] = {}
        for name in self.entries:
            by_last.setdefault(name.rsplit("/", 1)[-1], []).append(name)
        names = {file: by_last.get(file.stem, by_last.get(file.name, [])) for file in files}
        missing = [file.name for file, found in names.items() if not found]
        if missing:
            raise UserError(self._lacks(missing, len(files)))
        owners: dict[str, PurePath] = {}
        for file, found in names.items():
            if len(found) > 1:
                raise UserError(
                    f"{self.source} holds {' and '.join(found[:3])}, each of which could be "
                    f"{file.name}; give a file with one of them."
                )
            other = owners.setdefault(found[0], file)
            if other != file:
                raise UserError(
                    f"{self.source} holds {found[0]}, which could be {other} or {file}; test their "
                    "folders one at a time."
                )
        return {file: self.entries[found[0]] for file, found in names.items()}

    def boxes_of_files(
        self, files: Sequence[PurePath]
    ) -> Callable[[PurePath, np.ndarray], np.ndarray]:
        """File and (H, W, 3) pixels of an image to its boxes, within it; see :meth:`of_files`."""
        found = self.of_files(files)

        def boxes(file: PurePath, image: np.ndarray) -> np.ndarray:
            height, width = image.shape[:2]
            name = f"{file.name} in {self.source}"
            return fit_to_image(found[file].boxes_image, height, width, name)

        return boxes

    def check_covers(self, examples: Sequence[Example]) -> None:
        """Makes sure that every image has its own proposals.

        Raises:
            UserError: naming the first five images without, or two images that share a bare id of
                the file.
        """
        missing = [
            example.key
            for example in examples
            if example.key not in self.entries and example.image_id not in self.entries
        ]
        if missing:
            raise UserError(self._lacks(missing, len(examples)))
        owners: dict[str, str] = {}
        for example in examples:
            if example.key in self.entries:
                continue
            other = owners.setdefault(example.image_id, example.key)
            if other != example.key:
                raise UserError(
                    f"{self.source} holds {example.image_id} without its folder, which could be "
                    f"{other} or {example.key}; use one of the two data sets at a time."
                )

    def _lacks(self, missing: Sequence[str], total: int) -> str:
        return (
            f"{self.source} holds {len(self.entries)} entries, but none for {len(missing)} of the "
            f"{total} images here: {', '.join(missing[:5])}{' ...' if len(missing) > 5 else ''}. "
            "Compute them with python -m keras_frcnn proposals, or give their file too."
        )


def merge(parts: Sequence[GivenProposals]) -> GivenProposals:
    """Several files as one.

    Raises:
        UserError: two of them hold one image.
    """
    if len(parts) == 1:
        return parts[0]
    entries: dict[str, ScoredBoxes] = {}
    for part in parts:
        both = [name for name in part.entries if name in entries]
        if both:
            raise UserError(
                f"{part.source} holds {len(both)} images that another of the files holds, too "
                f"(such as {both[0]}); give one file for each image."
            )
        entries.update(part.entries)
    return GivenProposals(
        entries,
        " + ".join(dict.fromkeys(part.method for part in parts)),
        {part.source: dict(part.settings) for part in parts},
        " + ".join(part.source for part in parts),
    )


def mirror(boxes_image: np.ndarray, width: int) -> np.ndarray:
    """(P, 4) boxes as they lie in the mirrored image: ``x1' = width - x2``.

    Half-open form of ``W - x2 - 1`` (PY imdb.py:109-110; ML roidb_from_voc.m:169).
    """
    y1, x1, y2, x2 = np.split(np.asarray(boxes_image, np.float32), 4, axis=1)
    return np.concatenate((y1, np.float32(width) - x2, y2, np.float32(width) - x1), axis=1)


def fit_to_image(boxes_image: np.ndarray, height: int, width: int, name: str) -> np.ndarray:
    """Clips (P, 4) boxes to the image; up to a pixel beyond its border is rounding.

    Raises:
        UserError: a box lies further beyond.
    """
    border = np.array((height, width, height, width), np.float32)
    beyond = np.maximum(-boxes_image, boxes_image - border).max(axis=1, initial=0.0)
    if beyond.max(initial=0.0) > _TOLERANCE:
        worst = np.round(boxes_image[beyond.argmax()], 1).tolist()
        raise UserError(
            f"The proposal {worst} (y1, x1, y2, x2) of {name} lies beyond the image, "
            f"{height} pixels high and {width} wide: the boxes belong to another version of the "
            "image, or their coordinates stand in another order."
        )
    lower = np.maximum(np.minimum(boxes_image[:, :2], border[:2] - 1), 0)
    upper = np.minimum(np.maximum(boxes_image[:, 2:], 1), border[2:])
    return np.concatenate((lower, upper), axis=1)
