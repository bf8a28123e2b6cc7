"""Checkpoints inside a stage: what changes, and nothing else.

A stage's start is rebuilt from the ImageNet file or from the weights of earlier stages, and all
randomness is a function of the seed and the iteration, so that a checkpoint holds only the trained
variables, their velocities, the iteration and what the next record needs, in one HDF5 file that is
written whole or not at all and begins with a checksum of the rest.

Shapes and names
----------------
iteration  solver iterations already done.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np

from keras_frcnn.errors import UserError
from keras_frcnn.files import written_whole
from keras_frcnn.training.optimizer import LossScale, MomentumOptimizer

FORMAT = "keras_frcnn checkpoint 1"
KEPT = 2
# HDF5 leaves this much at the start of a file to its writer.
HEAD_BYTES = 512
BLOCK_BYTES = 2**20


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one stage in a folder of the run.

    Attributes:
        folder: where they lie.
        stage: 1 to 4, 0 for joint training.
    """

    folder: Path
    stage: int

    def files(self) -> list[Path]:
        """Existing checkpoints of this stage, newest first."""
        return sorted(self.folder.glob(f"stage{self.stage}-*.h5"), reverse=True)

    def save(
        self,
        iteration: int,
        optimizer: MomentumOptimizer,
        loss_scale: LossScale,
        window: dict[str, Any],
    ) -> None:
        """Writes a checkpoint and removes all but the newest two of the stage.

        Args:
            window: of :meth:`keras_frcnn.training.window.Window.state`.
        """
        path = self.folder / f"stage{self.stage}-{iteration:08d}.h5"
        header = {
            "iteration": iteration,
            "loss_scale": float(loss_scale.scale.numpy()),
            "good_steps": int(loss_scale.good_steps.numpy()),
            "window": window,
        }
        with written_whole(path) as partial:
            with h5py.File(partial, "w", userblock_size=HEAD_BYTES) as file:
                file.attrs["header"] = json.dumps(header)
                for index, (variable, velocity) in enumerate(_pairs(optimizer)):
                    group = file.create_group(f"{index:04d}")
                    group["weight"] = variable.numpy()
                    group["velocity"] = velocity.numpy()
            with open(partial, "r+b") as stream:
                head = _head(stream)
                stream.seek(0)
                stream.write(head)
        for old in self.files()[KEPT:]:
            old.unlink()

    def restore(
        self, optimizer: MomentumOptimizer, loss_scale: LossScale
    ) -> tuple[int, dict[str, Any], list[str]]:
        """Loads the newest good checkpoint.

        Returns:
            ``(iteration, window, notes)``: 0 and nothing without a checkpoint; ``notes`` has one
            sentence for each damaged file that was passed over.

        Raises:
            UserError: the newest good checkpoint is of another network or recipe.
        """
        notes: list[str] = []
        files = self.files()
        for path, older in zip(files, [*files[1:], None], strict=False):
            try:
                return *_read(path, optimizer, loss_scale), notes
            except UserError:  # a ValueError, but not a damaged file
                raise
            except (OSError, ValueError) as error:
                instead = f"{older.name} is used" if older else "the stage starts again"
                notes.append(f"{path} is damaged ({error}); {instead}.")
        return 0, {}, notes

    def clear(self) -> None:
        """Removes the checkpoints of a stage that is finished."""
        for path in self.files():
            path.unlink()


def _pairs(optimizer: MomentumOptimizer):
    return zip(optimizer.variables_trained, optimizer.velocities, strict=True)


def _read(
    path: Path, optimizer: MomentumOptimizer, loss_scale: LossScale
) -> tuple[int, dict[str, Any]]:
    header, values = _read_file(path)
    pairs = list(_pairs(optimizer))
    if len(values) != len(pairs):
        raise UserError(
            f"{path} holds {len(values)} variables, this stage trains {len(pairs)}: it belongs "
            "to another network or recipe. Start a new run."
        )
    for index, ((variable, _), (weight, _)) in enumerate(zip(pairs, values, strict=True)):
        if weight.shape != tuple(variable.shape):
            raise UserError(
                f"{path}: variable {index} ({variable.name}) has the shape {weight.shape}, "
                f"expected {tuple(variable.shape)}. It belongs to another network or recipe. "
                "Start a new run."
            )
    for pair, arrays in zip(pairs, values, strict=True):
        for variable, array in zip(pair, arrays, strict=True):
            variable.assign(array)
    loss_scale.scale.assign(header["loss_scale"])
    loss_scale.good_steps.assign(header["good_steps"])
    # Checkpoints of the first versions have no window; their next record is a mean of fewer.
    return header["iteration"], header.get("window", {})


def _read_file(path: Path) -> tuple[dict[str, Any], list[tuple[np.ndarray, np.ndarray]]]:
    """Header, and weight and velocity of each variable.

    Raises:
        ValueError: the checksum differs. It is compared before HDF5 sees the file, whose library
            can run forever on a damaged one.
    """
    with open(path, "rb") as stream:
        expected = _head(stream)
        stream.seek(0)
        if stream.read(HEAD_BYTES).rstrip(b"\0") != expected:
            raise ValueError("its checksum differs")
    with h5py.File(path, "r") as file:
        groups = [file[name] for name in sorted(file)]
        values = [(group["weight"][()], group["velocity"][()]) for group in groups]
        return json.loads(file.attrs["header"]), values


def _head(stream: BinaryIO) -> bytes:
    """What the first :data:`HEAD_BYTES` of a checkpoint say: format, checksum of the rest."""
    stream.seek(HEAD_BYTES)
    checksum = 0
    while block := stream.read(BLOCK_BYTES):
        checksum = zlib.crc32(block, checksum)
    return f"{FORMAT} {checksum:08x}\n".encode()
