"""Training from a program: what ``train_frcnn.py`` does, as a function."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from rich.console import Console

from keras_frcnn.data.dataset import Dataset
from keras_frcnn.errors import UserError
from keras_frcnn.recipes import RECIPES, Recipe, stages_on
from keras_frcnn.runs.config import RunConfig, source_of
from keras_frcnn.runs.folder import RunFolder
from keras_frcnn.runs.initial_weights import weights_file
from keras_frcnn.training.options import TrainingOptions
from keras_frcnn.training.session import display_of, train_run


def train(
    data: Dataset,
    out: Path | str,
    *,
    network: str = "vgg16",
    recipe: str | Recipe = "paper",
    weights: Path | str = "imagenet",
    precision: str = "float32",
    seed: int = 0,
    options: TrainingOptions | None = None,
) -> RunFolder:
    """Trains Faster R-CNN: by the paper's four steps, or jointly with ``py-faster-rcnn``.

    The same call again goes on where a training stopped, and does nothing where it is finished.

    Args:
        data: of :func:`keras_frcnn.load_data`.
        out: the run folder.
        network: ``vgg16``, ``zf``, ``resnet50``, or ``tiny`` for tests.
        recipe: a name of ``RECIPES``, or a recipe of one's own made by ``dataclasses.replace``.
        weights: what to start from: ``imagenet``, ``random``, a weight file or a run folder.
        precision: of convolutions and fc layers: ``float32``, ``bfloat16`` or ``float16``.
        seed: of everything random.
        options: workers, caches, time between checkpoints.

    Returns:
        The run, which :func:`keras_frcnn.load` takes.

    Raises:
        UserError: a name that does not exist, data that nothing can be learnt from, a folder of
            another run, weights that do not fit, or a training that diverged.
        TrainingStopped: after a signal; the same call goes on.
    """
    chosen = _recipe_of(recipe, data)
    is_joint = chosen.name == "py-faster-rcnn"
    config = RunConfig(
        network=network,
        precision=precision,
        mode="joint" if is_joint else "alternating",
        seed=seed,
        flips=True,
        class_names=data.class_names,
        initial_weights=str(weights),
        stages=() if is_joint else (1, 2, 3, 4),
        data=source_of(data),
        recipe=chosen,
    )
    run = RunFolder(out)
    options = dataclasses.replace(
        options or TrainingOptions(initial_weights=None),
        initial_weights=weights_file(weights, network),
    )
    train_run(run, config, data, options, display_of(config, data, Console(markup=False)))
    return run


def _recipe_of(recipe: str | Recipe, data: Dataset) -> Recipe:
    if isinstance(recipe, Recipe):
        return recipe
    if recipe not in RECIPES:
        raise UserError(f"Expected a `recipe` of {', '.join(RECIPES)}, received {recipe!r}.")
    named = RECIPES[recipe]
    return dataclasses.replace(named, stages=stages_on(named, data.sets))
