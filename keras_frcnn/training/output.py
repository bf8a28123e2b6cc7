"""What a stage writes while it is trained, and who hears of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tensorflow as tf

from keras_frcnn.errors import reason_of
from keras_frcnn.plots import save_curves
from keras_frcnn.runs.folder import RunFolder
from keras_frcnn.runs.metrics import append_record
from keras_frcnn.training.callbacks import StageCallbacks
from keras_frcnn.training.checkpoint import Checkpoints
from keras_frcnn.training.display import StageDisplay, TrainingDisplay
from keras_frcnn.training.step import TrainingStep
from keras_frcnn.training.watch import check_weights


class EventFile:
    """TensorBoard's events of a run: the records of ``metrics.jsonl`` once more.

    Where they cannot be written they end, and the training goes on.
    """

    def __init__(self, folder: Path, display: TrainingDisplay):
        self._folder = folder
        self._display = display
        self._writer: Any = None
        with self._ended_by_errors():
            self._writer = tf.summary.create_file_writer(str(folder))

    def add(self, record: dict[str, Any]) -> None:
        """Writes the numbers of a record."""
        if self._writer is None:
            return
        group = f"stage{record['stage']}" if record["stage"] else "joint"
        with self._ended_by_errors(), self._writer.as_default(step=record["iteration"]):
            for name, value in record.items():
                if name not in ("stage", "iteration"):
                    tf.summary.scalar(f"{group}/{name}", value)

    def close(self) -> None:
        """Writes what is left; nothing can be added afterwards."""
        writer, self._writer = self._writer, None
        if writer is not None:
            with self._ended_by_errors():
                writer.close()

    @contextmanager
    def _ended_by_errors(self) -> Iterator[None]:
        try:
            yield
        except tf.errors.OpError as error:
            self._writer = None
            self._display.say(
                f"TensorBoard's events in {self._folder} end here: {reason_of(error)}. All records "
                "are in metrics.jsonl."
            )


class StageOutput:
    """Records, checkpoints and curves of one stage.

    Args:
        mode: of the run.
        step: whose weights the checkpoints keep.
        events, line: that are given every record, too.
    """

    def __init__(
        self,
        run: RunFolder,
        mode: str,
        checkpoints: Checkpoints,
        checkpoint_seconds: float,
        step: TrainingStep,
        callbacks: StageCallbacks,
        events: EventFile,
        line: StageDisplay,
    ):
        self.callbacks = callbacks
        self._run = run
        self._mode = mode
        self._checkpoints = checkpoints
        self._seconds = checkpoint_seconds
        self._last = time.monotonic()
        self._step = step
        self._events = events
        self._line = line

    def record(self, record: dict[str, Any], *, is_last: bool) -> None:
        """Writes a record, which may be the last of the stage."""
        append_record(self._run.metrics_file, record)
        self._events.add(record)
        self._line.update(record)
        self.callbacks.record(record, is_last=is_last)

    @property
    def checkpoint_is_due(self) -> bool:
        """Whether the last one was written long ago."""
        return time.monotonic() - self._last > self._seconds

    def checkpoint(self, done: int, state: dict[str, Any]) -> None:
        """Keeps what ``done`` iterations have made, and the state of the log.

        Raises:
            TrainingDiverged: they are of no use.
        """
        check_weights(self._step.optimizer.variables_trained, done, self._checkpoints.stage)
        self._checkpoints.save(done, self._step.optimizer, self._step.loss_scale, state)
        self._last = time.monotonic()
        self.draw_curves()

    def draw_curves(self) -> None:
        """Writes ``curves.png`` of all records that are there."""
        if self._run.metrics_file.exists():
            save_curves(self._run.metrics_file, self._run.path / "curves.png", self._mode)
