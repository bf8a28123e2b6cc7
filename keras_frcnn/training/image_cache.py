"""Decoded images of a run, each read from its file once.

Kept as 8-bit pixels of the original size, a quarter of what the network's float32 input would take
at that size: in memory, or in a file of the run folder that is removed at the end.

Shapes and names
----------------
I  images of the run, (H, W, 3)  uint8 pixels of one, EXIF orientation applied.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from keras_frcnn.data.dataset import Example
from keras_frcnn.system.files import reserve


class ImageCache:
    """Reads images, and keeps them; threads may share it.

    Args:
        examples: the images, with their true sizes.
        file: where to keep them; ``None`` keeps them in memory.
    """

    def __init__(self, examples: Sequence[Example], file: Path | None):
        self.file = file
        paths = {example.path: (example.height, example.width, 3) for example in examples}
        ends = np.cumsum([np.prod(shape) for shape in paths.values()], dtype=np.int64)
        self._shapes = paths
        self._starts = dict(zip(paths, [0, *ends[:-1].tolist()], strict=True))
        self._present: set[Path] = set()
        size = int(ends[-1])
        if file is None:
            self._pixels = np.empty(size, np.uint8)
        else:
            reserve(file, size)
            self._pixels = np.memmap(file, np.uint8, "r+", shape=(size,))

    @staticmethod
    def size_of(examples: Sequence[Example]) -> int:
        """Bytes that these images take."""
        sizes = {example.path: example.height * example.width * 3 for example in examples}
        return sum(sizes.values())

    def read(self, example: Example) -> np.ndarray:
        """(H, W, 3) uint8 pixels; do not write to them.

        Raises:
            UserError: as :meth:`Example.pixels`, when the image is read for the first time.
        """
        path = example.path
        shape, start = self._shapes[path], self._starts[path]
        place = self._pixels[start : start + int(np.prod(shape))].reshape(shape)
        if path in self._present:
            return place
        pixels = example.pixels()
        if pixels.shape == shape:  # else the file was exchanged since it was checked
            place[:] = pixels
            self._present.add(path)
        return pixels

    def close(self) -> None:
        """Frees the memory or removes the file."""
        self._present.clear()
        self._pixels = np.empty(0, np.uint8)
        if self.file is not None:
            self.file.unlink(missing_ok=True)
