"""Checkpoints inside a stage: what changes, and nothing else.

A stage's start is rebuilt from the ImageNet file or from the weights of earlier stages, so that a
checkpoint holds only the trained variables, their velocities and the iteration, in one HDF5 file
that is written whole or not at all.

Shapes and names
----------------
iteration  solver iterations already done.
"""

from __future__ import annotations

import json
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from keras_frcnn.errors import UserError
from keras_frcnn.training.optimizer import LossScale, MomentumOptimizer

FORMAT = "keras_frcnn checkpoint 1"
KEPT = 2
PARTS = ("weight", "velocity")
# What h5py and json raise for damaged files, by where the damage lies.
_DAMAGED = (OSError, KeyError, ValueError, RuntimeError, TypeError, AttributeError)


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

    def save(self, iteration: int, optimizer: MomentumOptimizer, loss_scale: LossScale) -> None:
        """Writes a checkpoint and removes all but the newest two of the stage."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"stage{self.stage}-{iteration:08d}.h5"
        temporary = path.with_name(path.name + ".partial")
        header = {
            "iteration": iteration,
            "loss_scale": float(loss_scale.scale.numpy()),
            "good_steps": int(loss_scale.good_steps.numpy()),
        }
        with h5py.File(temporary, "w") as file:
            file.attrs["format"] = FORMAT
            file.attrs["header"] = text = json.dumps(header)
            checksum = zlib.crc32(text.encode())
            for index, pair in enumerate(_pairs(optimizer)):
                group = file.create_group(f"{index:04d}")
                for name, variable in zip(PARTS, pair, strict=True):
                    group[name] = values = variable.numpy()
                    checksum = zlib.crc32(np.ascontiguousarray(values), checksum)
            file.attrs["checksum"] = checksum
        with open(temporary, "rb") as stream:
            os.fsync(stream.fileno())
        os.replace(temporary, path)
        for old in self.files()[KEPT:]:
            old.unlink()

    def restore(self, optimizer: MomentumOptimizer, loss_scale: LossScale) -> tuple[int, list[str]]:
        """Loads the newest good checkpoint.

        Returns:
            ``(iteration, notes)``: 0 without a checkpoint; ``notes`` has one sentence for each
            damaged file that was passed over.

        Raises:
            UserError: the newest good checkpoint is of another network or recipe.
        """
        notes: list[str] = []
        files = self.files()
        for path, older in zip(files, [*files[1:], None], strict=False):
            try:
                return _read(path, optimizer, loss_scale), notes
            except UserError:  # a ValueError, but not a damaged file
                raise
            except _DAMAGED as error:
                instead = f"{older.name} is used" if older else "the stage starts again"
                notes.append(f"{path} is damaged ({error}); {instead}.")
        return 0, notes

    def clear(self) -> None:
        """Removes the checkpoints of a stage that is finished."""
        for path in self.files():
            path.unlink()


def _pairs(optimizer: MomentumOptimizer):
    return zip(optimizer.variables_trained, optimizer.velocities, strict=True)


def _read(path: Path, optimizer: MomentumOptimizer, loss_scale: LossScale) -> int:
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
    return header["iteration"]


def _read_file(path: Path) -> tuple[dict[str, Any], list[tuple[np.ndarray, ...]]]:
    """Header and (weight, velocity) of each variable; ValueError where the checksum differs."""
    with h5py.File(path, "r") as file:
        if file.attrs.get("format") != FORMAT:
            raise ValueError(f"its format is {file.attrs.get('format')!r}, not {FORMAT!r}")
        text = file.attrs["header"]
        values = [tuple(file[name][part][()] for part in PARTS) for name in sorted(file)]
        checksum = zlib.crc32(text.encode())
        for arrays in values:
            for array in arrays:
                checksum = zlib.crc32(np.ascontiguousarray(array), checksum)
        if checksum != file.attrs["checksum"]:
            raise ValueError("its checksum differs")
    return json.loads(text), values
