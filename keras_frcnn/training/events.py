"""TensorBoard's events of a training: the records of ``metrics.jsonl`` once more."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow as tf

from keras_frcnn.errors import reason_of


class EventFile:
    """The event file of a run. Where it cannot be written it ends, and the training goes on.

    Args:
        folder: where the file is made.
        say: takes the sentence that tells of the end.
    """

    def __init__(self, folder: Path, say: Callable[[str], None]):
        self._folder = folder
        self._say = say
        self._writer = None
        try:
            self._writer = tf.summary.create_file_writer(str(folder))
        except tf.errors.OpError as error:
            self._end(error)

    def add(self, record: dict[str, Any]) -> None:
        """Writes the numbers of a record."""
        if self._writer is None:
            return
        try:
            with self._writer.as_default(step=record["iteration"]):
                for name, value in record.items():
                    if name not in ("stage", "iteration"):
                        group = f"stage{record['stage']}" if record["stage"] else "joint"
                        tf.summary.scalar(f"{group}/{name}", value)
        except tf.errors.OpError as error:
            self._end(error)

    def close(self) -> None:
        """Writes what is left; nothing can be added afterwards."""
        writer, self._writer = self._writer, None
        if writer is not None:
            try:
                writer.close()
            except tf.errors.OpError as error:
                self._end(error)

    def _end(self, error: tf.errors.OpError) -> None:
        self._writer = None
        self._say(
            f"TensorBoard's events in {self._folder} end here: {reason_of(error)}. All records are "
            "in metrics.jsonl."
        )
