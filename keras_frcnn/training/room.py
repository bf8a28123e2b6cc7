"""Whether the disk has room for what a training is still to write, asked before the hours.

Shapes and names
----------------
bytes  of files; a float32 number has four.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable

import keras
import numpy as np

from keras_frcnn.errors import UserError
from keras_frcnn.network.faster_rcnn import FasterRcnn
from keras_frcnn.run_config import RunConfig
from keras_frcnn.runs import FINAL, RunFolder
from keras_frcnn.stopping import GO_ON
from keras_frcnn.training.checkpoint import KEPT, Checkpoints

FLOAT_BYTES = 4
GIBIBYTE = 2**30
# Pictures, events, metrics, the headers of the files.
OTHER_BYTES = 32 * 2**20
# A proposal is a box and a score.
PROPOSAL_FLOATS = 5


def check_room(run: RunFolder, config: RunConfig, model: FasterRcnn, stage: int, units: int) -> int:
    """Makes sure that checkpoints, weights and proposals of this stage and the later ones fit.

    Args:
        stage: that is about to be trained; 0 is joint training.
        units: training images in both orientations.

    Returns:
        the bytes that will be written, at most.

    Raises:
        UserError: naming what is needed and what is free.
    """
    needed = bytes_to_write(run, config, model, stage, units)
    free = shutil.disk_usage(run.path).free
    if needed > free:
        raise UserError(
            f"The training still writes {needed / GIBIBYTE:.2f} GiB to {run.path} (checkpoints, "
            f"weights, proposals), and its disk has {free / GIBIBYTE:.2f} GiB free{_caches(run)}. "
            f"Make room; {GO_ON}. Or start again with --out on another disk."
        )
    return needed


def _caches(run: RunFolder) -> str:
    """A clause on the caches that take room on the disk, if any."""
    sizes = {
        flag: file.stat().st_size / GIBIBYTE
        for flag, file in (
            ("--cache", run.path / "images.bin"),
            ("--feature_cache", run.path / "features.bin"),
        )
        if file.is_file()
    }
    parts = [f"{size:.2f} GiB that {flag} off would give back" for flag, size in sizes.items()]
    return f", besides {' and '.join(parts)} (train_frcnn.py)" if parts else ""


def bytes_to_write(
    run: RunFolder, config: RunConfig, model: FasterRcnn, stage: int, units: int
) -> int:
    """The most that this stage and the later ones will add to the disk."""
    base, rpn, head = model.layers("base", trained=True), model.layers("rpn"), model.layers("head")
    trained = {0: (*base, *rpn, *head), 1: (*base, *rpn), 2: (*base, *head), 3: rpn, 4: head}
    largest = max(_numbers(trained[number]) for number in config.schedules if number >= stage)
    # Weights and velocities; one checkpoint more than is kept, while the newest is written.
    there = min(len(Checkpoints(run.checkpoints, stage).files()), KEPT)
    numbers = 2 * largest * (KEPT + 1 - there)
    for name, layers in _weight_files(model, config):
        if not run.weights_file(name).exists():
            numbers += _numbers(layers)
    for number in (1, 3):
        later = number in config.stages and number + 1 in config.stages
        if later and not run.proposals_file(number).exists():
            numbers += PROPOSAL_FLOATS * config.recipe.training_proposals.after_nms * units
    return FLOAT_BYTES * numbers + OTHER_BYTES


def _weight_files(
    model: FasterRcnn, config: RunConfig
) -> list[tuple[str, Iterable[keras.layers.Layer]]]:
    """What a run of this mode and these stages ends with."""
    if config.mode == "joint":
        return [(FINAL, model.layers())]
    layers = {
        1: (*model.layers("base"), *model.layers("rpn")),
        2: (*model.layers("base"), *model.layers("head")),
        3: model.layers("rpn"),
        4: model.layers("head"),
    }
    files = [(f"stage{stage}", layers[stage]) for stage in config.stages]
    return [*files, (FINAL, model.layers())] if 4 in config.stages else files


def _numbers(layers: Iterable[keras.layers.Layer]) -> int:
    return sum(int(np.prod(weight.shape)) for layer in layers for weight in layer.weights)
