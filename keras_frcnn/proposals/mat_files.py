"""``.mat`` box files of R-CNN and Fast R-CNN: ``voc_2007_trainval.mat`` and the like.

Two cell arrays: ``images``, the ids, and ``boxes``, for each an (P, 4) array of 1-based inclusive
(y1, x1, y2, x2) (fast-rcnn lib/datasets/pascal_voc.py reads ``boxes[:, (1, 0, 3, 2)] - 1`` as
0-based inclusive x1, y1, x2, y2).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from keras_frcnn.errors import UserError, reading
from keras_frcnn.files import read_bounded
from keras_frcnn.proposals.given import GivenProposals, ScoredBoxes, ranked
from keras_frcnn.proposals.mat_format import MOST_BYTES, read_variables


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
