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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from keras_frcnn.errors import UserError
from keras_frcnn.training.optimizer import LossScale, MomentumOptimizer

FORMAT = "keras_frcnn checkpoint 1"
KEPT = 2


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
        state: dict[str, Any],
    ) -> None:
        """Writes a checkpoint and removes all but the newest two of the stage.

        Args:
            state: JSON-able facts that must be the same again, such as target statistics.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"stage{self.stage}-{iteration:08d}.h5"
        temporary = path.with_name(path.name + ".partial")
        with h5py.File(temporary, "w") as file:
            file.attrs["format"] = FORMAT
            file.attrs["iteration"] = iteration
            file.attrs["state"] = json.dumps(state)
            file.attrs["loss_scale"] = float(loss_scale.scale.numpy())
            file.attrs["good_steps"] = int(loss_scale.good_steps.numpy())
            for index, (variable, velocity) in enumerate(_pairs(optimizer)):
                group = file.create_group(f"{index:04d}")
                group["weight"] = variable.numpy()
                group["velocity"] = velocity.numpy()
        with open(temporary, "rb") as stream:
            os.fsync(stream.fileno())
        os.replace(temporary, path)
        for old in self.files()[KEPT:]:
            old.unlink()

    def restore(
        self, optimizer: MomentumOptimizer, loss_scale: LossScale
    ) -> tuple[int, dict[str, Any], list[str]]:
        """Loads the newest good checkpoint.

        Returns:
            ``(iteration, state, notes)``: 0 and ``{}`` without a checkpoint; ``notes`` has one
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
            # h5py: RuntimeError and TypeError for damaged headers and attributes.
            except (OSError, KeyError, ValueError, RuntimeError, TypeError) as error:
                instead = f"{older.name} is used" if older else "the stage starts again"
                notes.append(f"{path} is damaged ({error}); {instead}.")
        return 0, {}, notes

    def clear(self) -> None:
        """Removes the checkpoints of a stage that is finished."""
        for path in self.files():
            path.unlink()


def _pairs(optimizer: MomentumOptimizer):
    return zip(optimizer.variables_trained, optimizer.velocities, strict=True)


def _read(path: Path, optimizer: MomentumOptimizer, loss_scale: LossScale):
    with h5py.File(path, "r") as file:
        if file.attrs.get("format") != FORMAT:
            raise ValueError(f"its format is {file.attrs.get('format')!r}, not {FORMAT!r}")
        pairs = list(_pairs(optimizer))
        if len(file) != len(pairs):
            raise UserError(
                f"{path} holds {len(file)} variables, this stage trains {len(pairs)}: it belongs "
                "to another network or recipe. Start a new run."
            )
        values = []
        for index, (variable, _) in enumerate(pairs):
            group = file[f"{index:04d}"]
            for name in ("weight", "velocity"):
                if group[name].shape != tuple(variable.shape):
                    raise UserError(
                        f"{path}: variable {index} ({variable.name}) has the shape "
                        f"{group[name].shape}, expected {tuple(variable.shape)}. It belongs to "
                        "another network or recipe. Start a new run."
                    )
            values.append((np.asarray(group["weight"]), np.asarray(group["velocity"])))
        iteration, state = int(file.attrs["iteration"]), json.loads(file.attrs["state"])
        scale = float(file.attrs["loss_scale"]), int(file.attrs["good_steps"])
    for (variable, velocity), (weight, speed) in zip(pairs, values, strict=True):
        variable.assign(weight)
        velocity.assign(speed)
    loss_scale.scale.assign(scale[0])
    loss_scale.good_steps.assign(scale[1])
    return iteration, state
