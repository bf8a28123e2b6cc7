"""``.mat`` box files of R-CNN and Fast R-CNN: ``voc_2007_trainval.mat`` and the like.

Two cell arrays: ``images``, the ids, and ``boxes``, for each an (P, 4) array of 1-based inclusive
(y1, x1, y2, x2) (fast-rcnn lib/datasets/pascal_voc.py reads ``boxes[:, (1, 0, 3, 2)] - 1`` as
0-based inclusive x1, y1, x2, y2).

Shapes and names
----------------
P  proposals of one image.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from keras_frcnn.errors import UserError
from keras_frcnn.proposals.given import GivenProposals, ScoredBoxes, ranked


def read_mat(path: Path) -> GivenProposals:
    """Reads such a file; entries go by the bare id.

    Raises:
        UserError: SciPy is missing, the file cannot be read, is of MATLAB 7.3, or holds anything
            else.
    """
    try:
        from scipy import io
        from scipy.io.matlab import MatReadError
    except ImportError as error:
        raise UserError(
            f"SciPy is needed to read {path}: pip install -r requirements-paper.txt."
        ) from error
    wanted = ("images", "boxes")
    try:
        shapes = {name: (shape, kind) for name, shape, kind in io.whosmat(path)}
        content = io.loadmat(path, variable_names=wanted)
    except NotImplementedError as error:
        raise UserError(
            f"{path} is a file of MATLAB 7.3, which is not read; save it in MATLAB with "
            "save(FILE, 'images', 'boxes', '-v7')."
        ) from error
    # SciPy answers damaged files with whatever its parser stumbles on.
    except (OSError, ValueError, TypeError, KeyError, MemoryError, MatReadError) as error:
        raise UserError(f"{path} cannot be read as a .mat file: {error}.") from error
    for name in wanted:
        if name not in content or content[name].dtype != object:
            found = ", ".join(f"{n} ({k} {s})" for n, (s, k) in shapes.items()) or "nothing"
            raise UserError(f"{path} should hold the cell array {name}, found {found}.")
    images, boxes = content["images"].ravel(), content["boxes"].ravel()
    if len(images) != len(boxes):
        raise UserError(f"{path} holds {len(images)} images but boxes of {len(boxes)}.")
    entries: dict[str, ScoredBoxes] = {}
    for image, image_boxes in zip(images, boxes, strict=True):
        name = _text(image, path)
        if name in entries:
            raise UserError(f"{path} holds the image {name} twice.")
        entries[name] = ranked(from_matlab(image_boxes, f"{name} in {path}"))
    return GivenProposals(entries, "mat", {}, str(path))


def from_matlab(boxes: np.ndarray, where: str) -> np.ndarray:
    """1-based inclusive (y1, x1, y2, x2) as half-open: the first two become one less.

    Raises:
        UserError: these are no such boxes.
    """
    boxes = np.asarray(boxes)
    if boxes.size == 0:
        return np.zeros((0, 4), np.float32)
    if boxes.dtype.kind not in "fiu" or boxes.ndim != 2 or boxes.shape[1] != 4:
        raise UserError(
            f"The boxes of {where} should be numbers of shape (P, 4), found {boxes.dtype} of shape "
            f"{boxes.shape}."
        )
    return (boxes.astype(np.float64) - (1, 1, 0, 0)).astype(np.float32)


def _text(cell: np.ndarray, path: Path) -> str:
    cell = np.asarray(cell)
    if cell.dtype.kind != "U" or cell.size != 1:
        raise UserError(
            f"images in {path} should hold one id in each cell, found {cell.dtype} of shape "
            f"{cell.shape}."
        )
    return str(cell.ravel()[0]).strip()
