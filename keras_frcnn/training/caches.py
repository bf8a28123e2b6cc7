"""What a run computes once: decoded images, and the features that stages 3 and 4 share.

In memory where there is room, else in a file of the run folder that is removed at the end, else not
at all.

Shapes and names
----------------
U  units (images in both orientations), (h, w, F)  features of one, 16-bit floats.
(H, W, 3)  uint8 pixels of an image of its original size, a quarter of the network's float32 input.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import tensorflow as tf

from keras_frcnn.data.dataset import Example
from keras_frcnn.data.pipeline import image_scale
from keras_frcnn.network.faster_rcnn import FasterRcnn
from keras_frcnn.system.files import reserve
from keras_frcnn.training.units import TrainingUnit

# The share of what is free that a cache may take: training itself needs the rest.
MEMORY_SHARE = 0.5
DISK_SHARE = 0.8
GIBIBYTE = 2**30


@dataclass(frozen=True)
class CachePlan:
    """Where a cache goes and why.

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
    has = f"memory has {memory / GIBIBYTE:.2f} GiB to spare"
    if choice == "off" or (choice != "auto" and size <= {"memory": memory, "disk": disk}[choice]):
        return CachePlan(choice, size, "as asked")
    if choice == "auto" and size <= memory:
        return CachePlan("memory", size, has)
    if choice == "auto" and size <= disk:
        return CachePlan("disk", size, has)
    return CachePlan("off", size, f"{has}, the disk {disk / GIBIBYTE:.2f}; nothing is kept")


class _Storage:
    """Numbers in memory, or in a file.

    Args:
        size: how many.
        dtype: of them.
        file: where to keep them; ``None``: in memory.
    """

    def __init__(self, size: int, dtype: type[np.unsignedinteger], file: Path | None):
        self._file = file
        self._values: np.ndarray
        if file is None:
            self._values = np.empty(size, dtype)
        else:
            reserve(file, size * np.dtype(dtype).itemsize)
            self._values = np.memmap(file, dtype, "r+", shape=(size,))

    def close(self) -> None:
        """Frees the memory or removes the file."""
        self._values = np.empty(0, self._values.dtype)
        if self._file is not None:
            self._file.unlink(missing_ok=True)


class ImageCache(_Storage):
    """Reads images, and keeps them; threads may share it.

    Args:
        examples: the images, with their true sizes.
        file: as :class:`_Storage`.
    """

    def __init__(self, examples: Sequence[Example], file: Path | None):
        self._shapes = {e.path: (e.height, e.width, 3) for e in examples}
        ends = np.cumsum([np.prod(shape) for shape in self._shapes.values()], dtype=np.int64)
        self._starts = dict(zip(self._shapes, [0, *ends[:-1].tolist()], strict=True))
        self._present: set[Path] = set()
        super().__init__(int(ends[-1]), np.uint8, file)

    @staticmethod
    def size_of(examples: Sequence[Example]) -> int:
        """Bytes that these images take."""
        sizes = {example.path: example.height * example.width * 3 for example in examples}
        return sum(sizes.values())

    def read(self, example: Example) -> np.ndarray:
        """(H, W, 3) uint8 pixels, EXIF orientation applied; do not write to them.

        Raises:
            UserError: as :meth:`Example.pixels`, when the image is read for the first time.
        """
        path = example.path
        shape, start = self._shapes[path], self._starts[path]
        place = self._values[start : start + int(np.prod(shape))].reshape(shape)
        if path in self._present:
            return place
        pixels = example.pixels()
        if pixels.shape == shape:  # else the file was exchanged since it was checked
            place[:] = pixels
            self._present.add(path)
        return pixels


def feature_shapes(model: FasterRcnn, units: Sequence[TrainingUnit]) -> np.ndarray:
    """(U, 3) int64 shapes (h, w, F) of the units' features."""
    backbone = model.backbone
    shapes = []
    for unit in units:
        size, _ = image_scale(unit.example.height, unit.example.width, model.recipe.image)
        height, width = (int(backbone.feature_size(int(side))) for side in size)
        shapes.append((height, width, backbone.channels))
    return np.array(shapes, np.int64)


class FeatureCache(_Storage):
    """The features of all units, filled once, unit by unit.

    Args:
        shapes: (U, 3) from :func:`feature_shapes`.
        dtype: ``tf.bfloat16`` (exact where the base computes in it) or ``tf.float16``.
        file: as :class:`_Storage`.
    """

    def __init__(self, shapes: np.ndarray, dtype: tf.DType, file: Path | None):
        self.shapes = shapes
        self.dtype = dtype
        self._offsets = np.concatenate(([0], np.cumsum(np.prod(shapes, axis=1))))
        super().__init__(int(self._offsets[-1]), np.uint16, file)

    def put(self, index: int, features: tf.Tensor) -> None:
        """Stores the (h, w, F) features of unit ``index``, rounded to 16 bits."""
        place = self.get(index)
        if tuple(features.shape) != place.shape:
            raise ValueError(
                f"features of unit {index} have the shape {tuple(features.shape)}, "
                f"expected {place.shape}"
            )
        limit = self.dtype.max
        rounded = tf.cast(tf.clip_by_value(features, -limit, limit), self.dtype)
        place[:] = tf.bitcast(rounded, tf.uint16).numpy()

    def get(self, index: int) -> np.ndarray:
        """(h, w, F) 16-bit floats as uint16."""
        start, end = self._offsets[index], self._offsets[index + 1]
        return np.asarray(self._values[start:end]).reshape(self.shapes[index])
