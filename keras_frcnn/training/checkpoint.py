"""Checkpoints inside a stage: what changes, and nothing else.

A stage's start is rebuilt from the ImageNet file or from the weights of earlier stages, and all
randomness is a function of the seed and the iteration, so that a checkpoint holds only the trained
variables, their velocities, the iteration and what the next record needs, in one HDF5 file that is
written whole or not at all and begins with a checksum of the rest. It names the run that it belongs
to by a digest of its configuration.
"""

from __future__ import annotations

import json
import math
import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np
import tensorflow as tf

from keras_frcnn.errors import UserError
from keras_frcnn.system.files import check_bounded, parse_json, written_whole
from keras_frcnn.system.hdf5 import MOST_BYTES, find_array, find_member, new_hdf5
from keras_frcnn.training.optimizer import LossScale, MomentumOptimizer

FORMAT = "keras_frcnn checkpoint 1"
KEPT = 2
# HDF5 leaves this much at the start of a file to its writer.
HEAD_BYTES = 512
BLOCK_BYTES = 2**20


class _Foreign(UserError):
    """The checkpoint is whole, and of another run."""

    def __init__(self, path: Path, reason: str, advice: str):
        super().__init__(f"{path} {reason}: {advice}")
        self.reason = reason


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one stage in a folder of the run.

    Attributes:
        identity: of the run and of what the stage is made from, as any text.
    """

    folder: Path
    stage: int
    identity: str = ""

    def files(self) -> list[Path]:
        """Existing checkpoints of this stage, newest first."""
        found = self.folder.glob(f"stage{self.stage}-*.h5")
        return sorted((path for path in found if not path.is_dir()), reverse=True)

    def save(
        self,
        iteration: int,
        optimizer: MomentumOptimizer,
        loss_scale: LossScale,
        window: dict[str, Any],
    ) -> None:
        """Writes a checkpoint and removes all but the newest two of the stage.

        Args:
            window: of :meth:`keras_frcnn.training.log.Log.state`.
        """
        path = self._file(iteration)
        header = {
            "run": self.identity,
            "iteration": iteration,
            "loss_scale": float(loss_scale.scale.numpy()),
            "good_steps": int(loss_scale.good_steps.numpy()),
            "window": window,
        }
        with written_whole(path) as partial:
            with new_hdf5(partial, userblock_size=HEAD_BYTES) as file:
                file.attrs["header"] = json.dumps(header)
                for index, (variable, velocity) in enumerate(_pairs(optimizer)):
                    group = file.create_group(f"{index:04d}")
                    group["weight"] = variable.numpy()
                    group["velocity"] = velocity.numpy()
            with open(partial, "r+b") as stream:
                checksum = _checksum(stream)
                stream.seek(0)
                stream.write(f"{FORMAT} {checksum:08x}\n".encode())
        for old in self.files()[KEPT:]:
            old.unlink()

    def restore(
        self,
        optimizer: MomentumOptimizer,
        loss_scale: LossScale,
        check: Callable[[int, Any], None],
    ) -> tuple[int, dict[str, Any], list[str]]:
        """Loads the newest good checkpoint of the run.

        Args:
            check: takes the iteration and the window; a ``ValueError`` says what is wrong with
                them.

        Returns:
            ``(iteration, window, notes)``: 0 and nothing without a checkpoint; ``notes`` has one
            sentence for each damaged or foreign file that was passed over.

        Raises:
            UserError: none is good, and one of them is of another run; or the newest good one is
                of another format.
        """
        notes: list[str] = []
        foreign: _Foreign | None = None
        files = self.files()
        for path, older in zip(files, [*files[1:], None], strict=False):
            instead = f"{older.name} is used" if older else "the stage starts again"
            try:
                return *self._read(path, optimizer, loss_scale, check), notes
            except _Foreign as error:
                foreign = foreign or error
                notes.append(f"{path} is of another run (it {error.reason}); {instead}.")
            except UserError:  # a ValueError, but not a damaged file
                raise
            except (OSError, ValueError) as error:
                notes.append(f"{path} is damaged ({error}); {instead}.")
        if foreign is not None:
            raise foreign
        return 0, {}, notes

    def clear(self) -> None:
        """Removes the checkpoints of a stage that is finished."""
        for path in self.files():
            path.unlink()

    def _file(self, iteration: int) -> Path:
        return self.folder / f"stage{self.stage}-{iteration:08d}.h5"

    def _read(
        self,
        path: Path,
        optimizer: MomentumOptimizer,
        loss_scale: LossScale,
        check: Callable[[int, Any], None],
    ) -> tuple[int, dict[str, Any]]:
        """Reads the file as a whole, then assigns; see :meth:`restore`.

        Raises:
            _Foreign: it is of another run.
            ValueError, OSError: the file is damaged.
        """
        check_bounded(path, MOST_BYTES)
        _check_head(path)
        pairs = list(_pairs(optimizer))
        try:
            with h5py.File(path, "r") as file:
                header = _read_header(file)
                arrays = _find_variables(path, file, [variable for variable, _ in pairs])
                if header["run"] != self.identity:
                    raise _Foreign(
                        path,
                        "was written with another configuration or after other weights",
                        "it belongs to another run. Take it out of the folder, or start a new run.",
                    )
                values = [(weight[()], velocity[()]) for weight, velocity in arrays]
                iteration, window = header["iteration"], header["window"]
        except UserError:
            raise
        # What h5py raises where a member is missing, unreadable or of another type.
        except (KeyError, TypeError, AttributeError, RuntimeError) as error:
            raise ValueError(f"it lacks what a checkpoint holds: {error}") from error
        if path != self._file(iteration):
            raise ValueError(f"its name is not that of iteration {iteration}")
        check(iteration, window)
        if not all(np.isfinite(array).all() for pair in values for array in pair):
            raise ValueError("its weights are not finite")
        for (variable, velocity), (weight, of_velocity) in zip(pairs, values, strict=True):
            variable.assign(weight)
            velocity.assign(of_velocity)
        loss_scale.scale.assign(header["loss_scale"])
        loss_scale.good_steps.assign(header["good_steps"])
        return iteration, window


def _pairs(optimizer: MomentumOptimizer):
    return zip(optimizer.variables_trained, optimizer.velocities, strict=True)


def _read_header(file: h5py.File) -> dict[str, Any]:
    header = parse_json(file.attrs["header"])
    counts = (header["iteration"], header["good_steps"])
    scale = header["loss_scale"]
    if not all(type(count) is int and 0 <= count < 2**31 for count in counts):
        raise ValueError(f"its iteration and good_steps are no counts: {counts!r:.80}")
    if not (type(scale) is float and math.isfinite(scale) and scale > 0):
        raise ValueError(f"its loss_scale is no number above 0: {scale!r:.80}")
    return header


def _find_variables(
    path: Path, file: h5py.File, variables: Sequence[tf.Variable]
) -> list[tuple[h5py.Dataset, h5py.Dataset]]:
    """Weight and velocity of each variable, not read yet; every shape is compared.

    Raises:
        _Foreign: they are those of another network or recipe.
        ValueError: as :func:`find_array`.
    """
    advice = "it belongs to another network or recipe. Start a new run."
    if len(file) != len(variables):
        reason = f"holds {len(file)} variables, this stage trains {len(variables)}"
        raise _Foreign(path, reason, advice)
    found = []
    for index, (name, variable) in enumerate(zip(sorted(file), variables, strict=True)):
        group = find_member(file, name, "group")
        arrays = tuple(find_array(path, group, part, "f", None) for part in ("weight", "velocity"))
        for array in arrays:
            if array.shape != tuple(variable.shape):
                reason = (
                    f"holds as variable {index} ({variable.name}) one that has the shape "
                    f"{array.shape}, expected {tuple(variable.shape)}"
                )
                raise _Foreign(path, reason, advice)
        found.append(arrays)
    return found


def _check_head(path: Path) -> None:
    """Compares format and checksum, before HDF5 sees the file.

    Its library can run forever on a damaged one.

    Raises:
        UserError: the file is whole, and of another format.
        ValueError: it is damaged or no checkpoint.
    """
    with open(path, "rb") as stream:
        checksum = _checksum(stream)
        stream.seek(0)
        found = stream.read(HEAD_BYTES).rstrip(b"\0")
    match = re.fullmatch(rb"(.{1,60}) (\d{1,9}) ([0-9a-f]{8})\n", found)
    name, version = FORMAT.rsplit(" ", 1)
    if not match or match[1] != name.encode() or int(match[3], 16) != checksum:
        raise ValueError("its checksum differs")
    if int(match[2]) != int(version):
        raise UserError(
            f"{path} has the checkpoint format {int(match[2])}, this version of keras_frcnn reads "
            f"{version}; update keras_frcnn."
        )


def _checksum(stream: BinaryIO) -> int:
    """CRC-32 of everything after the first :data:`HEAD_BYTES`."""
    stream.seek(HEAD_BYTES)
    checksum = 0
    while block := stream.read(BLOCK_BYTES):
        checksum = zlib.crc32(block, checksum)
    return checksum
