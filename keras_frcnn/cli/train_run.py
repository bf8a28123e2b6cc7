"""The run that ``train_frcnn.py`` makes or goes on with: its folder, configuration and weights."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from keras_frcnn.cli.common import existing_path
from keras_frcnn.cli.given import given_source
from keras_frcnn.cli.shared_flags import usable_precision
from keras_frcnn.cli.train_recipe import recipe_from, stages_of
from keras_frcnn.data.dataset import Dataset
from keras_frcnn.errors import UserError
from keras_frcnn.proposals.given import GivenProposals
from keras_frcnn.run_config import RunConfig, source_of
from keras_frcnn.runs import FINAL, RunFolder, latest_run_folder, new_run_folder

RUNS = Path("runs")


def chosen_precision(asked: str, run: RunFolder, console: Console) -> str:
    """What ``--precision`` means: ``auto`` that of a run that goes on, else what is measured.

    Raises:
        UserError: this machine does not compute in it.
    """
    if asked == "auto" and run.config_file.is_file():
        asked = run.read_config().precision
    return usable_precision(asked, console)


def run_config(
    arguments: argparse.Namespace, dataset: Dataset, given: GivenProposals | None = None
) -> RunConfig:
    """Everything that makes the run."""
    from keras_frcnn.training.units import steps_per_epoch

    with_objects = sum(len(e.without_difficult().classes) > 0 for e in dataset.examples)

    def passes_of(images_per_step: int, only_with_objects: bool) -> int:
        images = with_objects if only_with_objects else len(dataset)
        return steps_per_epoch(images * (2 if arguments.flips else 1), images_per_step)

    recipe = recipe_from(arguments, passes_of, dataset.sets)
    return RunConfig(
        network=arguments.network,
        precision=arguments.precision,
        mode=arguments.mode,
        seed=arguments.seed,
        flips=arguments.flips,
        class_names=dataset.class_names,
        initial_weights=arguments.input_weight_path or arguments.weights or "imagenet",
        stages=stages_of(arguments),
        data=source_of(dataset, given_source(arguments.proposals, given)),
        recipe=recipe,
    )


def initial_weights(arguments: argparse.Namespace, run: RunFolder) -> Path | None:
    """The file that training starts from; ``None`` for random weights, or none is needed any more.

    Raises:
        UserError: it does not exist or cannot be fetched.
    """
    started = {"joint": (FINAL,), "fast-rcnn": ("stage2",)}.get(
        arguments.mode, ("stage1", "stage2")
    )
    if arguments.resume and all(run.weights_file(name).exists() for name in started):
        return None
    weights = arguments.weights or "imagenet"
    if arguments.input_weight_path is not None:
        weights = existing_path(arguments.input_weight_path, "--input_weight_path")
    from keras_frcnn.training.initial_weights import weights_file

    return weights_file(weights, arguments.network)


def run_name(arguments: argparse.Namespace) -> str | None:
    """What runs in :data:`RUNS` are numbered under; ``None`` with ``--out``."""
    return None if arguments.out else arguments.name or arguments.network


def existing_run(arguments: argparse.Namespace) -> RunFolder:
    """The run that ``--resume`` goes on with: the newest of the command's name, or ``--out``."""
    if arguments.out:
        run = RunFolder(arguments.out)
    else:
        run = latest_run_folder(RUNS, run_name(arguments))
    run.check_trainable()
    return run


def new_run(arguments: argparse.Namespace) -> RunFolder:
    """The folder of a new run: ``--out``, or the next number of the command's name."""
    run = RunFolder(arguments.out) if arguments.out else new_run_folder(RUNS, run_name(arguments))
    try:
        str(run.path).encode()
    except UnicodeEncodeError as error:
        shown = str(run.path).encode(errors="replace").decode()
        raise UserError(
            f"The run folder {shown} has a name that is not UTF-8, which the files of a run do not "
            "take; give another --out or --name."
        ) from error
    run.check_unused()
    return run
