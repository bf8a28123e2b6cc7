"""The run that ``train_frcnn.py`` makes or goes on with: its folder, configuration and weights.

Shapes and names
----------------
run  the folder that a training writes; nothing is written anywhere else.
"""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

from keras_frcnn.cli.common import existing_path
from keras_frcnn.cli.given import given_record
from keras_frcnn.cli.train_recipe import recipe_from, stages_of
from keras_frcnn.data.dataset import Dataset
from keras_frcnn.errors import UserError
from keras_frcnn.proposals.given import GivenProposals
from keras_frcnn.run_config import RunConfig
from keras_frcnn.runs import FINAL, RunFolder, latest_run_folder, new_run_folder

RUNS = Path("runs")


def claim(run: RunFolder, held: ExitStack, console: Console) -> None:
    """Holds the run folder until ``held`` is closed.

    Raises:
        UserError: another process trains there.
    """
    note = held.enter_context(run.claimed())
    if note is not None:
        console.print(note, style="yellow", soft_wrap=True)


def chosen_precision(run: RunFolder, console: Console) -> str:
    """What ``--precision auto`` means: the precision of a run that goes on, else measured."""
    if run.config_file.is_file():
        return run.read_config().precision
    from keras_frcnn.precision import fastest_precision

    precision, reason = fastest_precision()
    console.print(reason, soft_wrap=True)
    return precision


def run_config(
    arguments: argparse.Namespace, dataset: Dataset, given: GivenProposals | None = None
) -> RunConfig:
    """Everything that makes the run."""
    from keras_frcnn.training.units import steps_per_epoch

    units = len(dataset) * (2 if arguments.flips else 1)
    recipe = recipe_from(arguments, lambda images: steps_per_epoch(units, images), dataset.sets)
    return RunConfig(
        network=arguments.network,
        precision=arguments.precision,
        mode=arguments.mode,
        seed=arguments.seed,
        flips=arguments.flips,
        class_names=dataset.class_names,
        initial_weights=arguments.input_weight_path or arguments.weights or "imagenet",
        stages=stages_of(arguments),
        data={
            "path": str(arguments.path),
            "parser": arguments.parser,
            "sets": list(dataset.sets),
            "images": len(dataset),
            "ids_hash": dataset.ids_hash,
            **given_record(arguments.proposals, given),
        },
        recipe=recipe,
    )


def initial_weights(arguments: argparse.Namespace) -> Path | None:
    """The file that training starts from; ``None`` for random weights.

    Raises:
        UserError: it does not exist or cannot be fetched.
    """
    if arguments.input_weight_path is not None:
        path = existing_path(arguments.input_weight_path, "--input_weight_path")
        if not path.is_dir():
            return path
        file = RunFolder(path).weights_file(FINAL)
        if not file.exists():
            raise UserError(f"--input_weight_path {path} is a folder without {file.name}.")
        if RunFolder(path).config_file.is_file():
            RunFolder(path).check_trainable()
        return file
    if arguments.weights == "random":
        return None
    from keras_frcnn.network.weights import imagenet_file

    return imagenet_file(arguments.network)


def existing_run(arguments: argparse.Namespace) -> RunFolder:
    """The run that ``--resume`` goes on with: the newest of the command's name, or ``--out``."""
    if arguments.out:
        run = RunFolder(arguments.out)
    else:
        run = latest_run_folder(RUNS, arguments.name or arguments.network)
    run.check_trainable()
    return run


def new_run(arguments: argparse.Namespace) -> RunFolder:
    """The folder of a new run: ``--out``, or the next number of the command's name."""
    if arguments.out:
        run = RunFolder(arguments.out)
    else:
        run = new_run_folder(RUNS, arguments.name or arguments.network)
    run.check_unused()
    return run


def checked_weights(config: RunConfig, initial: Path | None) -> RunConfig:
    """Loads the initial weights once before there is a run folder: they may not fit.

    Returns:
        The configuration, which knows the file by its contents.

    Raises:
        UserError: they do not.
    """
    from keras_frcnn.network.faster_rcnn import FasterRcnn
    from keras_frcnn.training.initial_weights import load_initial_weights, with_digest

    if initial is not None:
        model = FasterRcnn(config.network, config.class_names, config.recipe)
        load_initial_weights(model, initial)
    return with_digest(config, initial)
