"""Features of the frozen base, computed once for stages 3 and 4.

Neither stage changes a convolution, so both read what one pass computed: in memory where there is
room, else in a file of the run folder that is removed at the end, else not at all.

Shapes and names
----------------
U  units (images in both orientations), (h, w, F)  features of one, 16-bit floats.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import tensorflow as tf

from keras_frcnn.data.pipeline import image_scale
from keras_frcnn.network.faster_rcnn import FasterRcnn
from keras_frcnn.system.files import reserve
from keras_frcnn.training.units import TrainingUnit

# The share of what is free that the cache may take: training itself needs the rest.
MEMORY_SHARE = 0.5
DISK_SHARE = 0.8
GIBIBYTE = 2**30


@dataclass(frozen=True)
class CachePlan:
    """Where the features go and why.

    Attributes:
        place: ``"memory"``, ``"disk"`` or ``"off"``.
        size: bytes needed.
        reason: one clause for the screen.
    """

    place: str
    size: int
    reason: str

    def text(self) -> str:
        """One line for the start screen."""
        return f"{self.place} ({self.size / GIBIBYTE:.2f} GiB): {self.reason}"


def feature_shapes(model: FasterRcnn, units: Sequence[TrainingUnit]) -> np.ndarray:
    """(U, 3) int64 shapes (h, w, F) of the units' features."""
    backbone = model.backbone
    shapes = []
    for unit in units:
        size, _ = image_scale(unit.example.height, unit.example.width, model.recipe.image)
        height, width = (int(backbone.feature_size(int(side))) for side in size)
        shapes.append((height, width, backbone.channels))
    return np.array(shapes, np.int64)


def plan_cache(
    size: int, folder: Path, choice: str, budget: float | None, kept_free: int = 0
) -> CachePlan:
    """Chooses the place.

    Args:
        size: bytes needed.
        folder: existing folder of the run, whose disk would take the file.
        choice: ``"auto"``, ``"memory"``, ``"disk"`` or ``"off"``.
        budget: the most GiB to use; ``None``: half of the free memory or 80 % of the free disk.
        kept_free: bytes of the disk that are not for caches.
    """
    memory = psutil.virtual_memory().available * MEMORY_SHARE
    disk = max(0, shutil.disk_usage(folder).free - kept_free) * DISK_SHARE
    if budget is not None:
        memory, disk = min(memory, budget * GIBIBYTE), min(disk, budget * GIBIBYTE)
    if choice != "auto":
        room = {"memory": memory, "disk": disk, "off": float("inf")}[choice]
        if size <= room:
            return CachePlan(choice, size, "as asked")
        return CachePlan("off", size, f"{choice} has room for {room / GIBIBYTE:.2f} GiB only")
    if size <= memory:
        return CachePlan("memory", size, f"{memory / GIBIBYTE:.2f} GiB may be used")
    if size <= disk:
        return CachePlan("disk", size, f"memory has {memory / GIBIBYTE:.2f} GiB to spare")
    reason = f"memory and disk have {memory / GIBIBYTE:.2f} and {disk / GIBIBYTE:.2f} GiB to spare"
    return CachePlan("off", size, f"{reason}; nothing is kept")


class FeatureCache:
    """Storage for the features of all units, filled once, unit by unit.

    Args:
        shapes: (U, 3) from :func:`feature_shapes`.
        dtype: ``tf.bfloat16`` (exact where the base computes in it) or ``tf.float16``.
        file: where to keep it; ``None`` keeps it in memory.
    """

    def __init__(self, shapes: np.ndarray, dtype: tf.DType, file: Path | None):
        self.shapes = shapes
        self.dtype = dtype
        self.file = file
        lengths = np.prod(shapes, axis=1)
        self._offsets = np.concatenate(([0], np.cumsum(lengths)))
        if file is None:
            self._values = np.empty(self._offsets[-1], np.uint16)
        else:
            reserve(file, int(self._offsets[-1]) * 2)
            self._values = np.memmap(file, np.uint16, "r+", shape=(int(self._offsets[-1]),))

    def put(self, index: int, features: tf.Tensor) -> None:
        """Stores the (h, w, F) features of unit ``index``, rounded to 16 bits."""
        if tuple(features.shape) != tuple(self.shapes[index]):
            raise ValueError(
                f"features of unit {index} have the shape {tuple(features.shape)}, "
                f"expected {tuple(self.shapes[index].tolist())}"
            )
        limit = self.dtype.max
        rounded = tf.cast(tf.clip_by_value(features, -limit, limit), self.dtype)
        start, end = self._offsets[index], self._offsets[index + 1]
        self._values[start:end] = tf.bitcast(rounded, tf.uint16).numpy().ravel()

    def get(self, index: int) -> np.ndarray:
        """(h, w, F) 16-bit floats as uint16."""
        start, end = self._offsets[index], self._offsets[index + 1]
        return np.asarray(self._values[start:end]).reshape(self.shapes[index])

    def close(self) -> None:
        """Frees the memory or removes the file."""
        self._values = np.empty(0, np.uint16)
        if self.file is not None:
            self.file.unlink(missing_ok=True)
