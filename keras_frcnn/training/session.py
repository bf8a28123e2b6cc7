"""One training of a run, from the claim of its folder to its weights: for programs and commands."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from keras_frcnn.data.bad_images import number_left_out
from keras_frcnn.data.checks import report_text, without_objects
from keras_frcnn.data.dataset import Dataset
from keras_frcnn.data.split import write_split
from keras_frcnn.errors import UserError
from keras_frcnn.network.faster_rcnn import FasterRcnn
from keras_frcnn.proposals.given import GivenProposals
from keras_frcnn.recipes import RECIPES, Network, Precision, Recipe, stages_on
from keras_frcnn.runs.config import RunConfig, source_of
from keras_frcnn.runs.folder import RunFolder
from keras_frcnn.runs.networks import load_initial_weights, weights_file, with_digest
from keras_frcnn.runs.provenance import record_of
from keras_frcnn.runs.training_images import keep_training_images
from keras_frcnn.system.files import write_text
from keras_frcnn.training.callbacks import check_callbacks
from keras_frcnn.training.display import TrainingDisplay
from keras_frcnn.training.options import TrainingOptions
from keras_frcnn.training.pictures import save_labels
from keras_frcnn.training.preflight import check_anchors, check_class_names, check_objects
from keras_frcnn.training.proposal_store import ProposalStore
from keras_frcnn.training.stages import Trainer
from keras_frcnn.training.units import training_units

# Of the configuration, and of the objects the shares that nothing covers at IoU 0.5 and at 0.7.
OnStart = Callable[[RunConfig, tuple[float, float]], None]


@dataclass(frozen=True)
class Origin:
    """What is kept of how a run came to be.

    Attributes:
        command: that started it.
        name: what the folder's name is a number of, if it is.
    """

    command: Sequence[str] = ()
    name: str | None = None


def train(
    data: Dataset,
    out: Path | str,
    *,
    network: Network = "vgg16",
    recipe: str | Recipe = "paper",
    weights: Path | str = "imagenet",
    precision: Precision = "float32",
    seed: int = 0,
    callbacks: Sequence[Any] = (),
    **options: Any,
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
        callbacks: of ``keras.callbacks``, or your own: every stage is to them what a ``fit`` is,
            see :class:`keras_frcnn.training.callbacks.StageCallbacks`.
        options: fields of :class:`TrainingOptions`, such as ``workers=4``.

    Returns:
        The run, which :func:`keras_frcnn.load` takes.

    Raises:
        UserError: a name that does not exist, something that is no callback, data that nothing can
            be learnt from, a folder of another run, weights that do not fit, or a training that
            diverged.
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
    initial = weights_file(weights, network)
    how = TrainingOptions(initial_weights=initial, callbacks=tuple(callbacks), **options)
    train_run(run, config, data, how, display_of(config, data, Console(markup=False)))
    return run


def _recipe_of(recipe: str | Recipe, data: Dataset) -> Recipe:
    if isinstance(recipe, Recipe):
        return recipe
    if recipe not in RECIPES:
        raise UserError(f"Expected a `recipe` of {', '.join(RECIPES)}, received {recipe!r}.")
    named = RECIPES[recipe]
    stages: Any = stages_on(named, data.sets)  # four of them
    return dataclasses.replace(named, stages=stages)


def train_run(
    run: RunFolder,
    config: RunConfig,
    dataset: Dataset,
    options: TrainingOptions,
    display: TrainingDisplay,
    *,
    given: GivenProposals | None = None,
    origin: Origin | None = None,
    on_start: OnStart = lambda config, shares: None,
) -> RunConfig:
    """Trains a run to its end, from where it stopped if it is there.

    Args:
        config: of a run that is there it must be its own.
        given: train Fast R-CNN alone, on these proposals.
        on_start: called when all is checked, before the first iteration.

    Returns:
        The run's configuration.

    Raises:
        UserError: the folder is in use, holds another run or other files, the weights do not fit,
            or the training cannot go on.
        TrainingStopped: after a signal; all that was finished is written.
    """
    check_callbacks(options.callbacks)
    check_objects(dataset)
    check_class_names(dataset)
    if (sentence := check_anchors(config, dataset)) is not None:
        display.say(sentence, style="yellow")
    if not run.config_file.is_file():
        # Before there is a folder: a mistake must not leave one behind.
        run.check_unused()
        config = _with_checked_weights(config, options.initial_weights)
    with run.claimed() as note:
        if note is not None:
            display.say(note, style="yellow")
        if run.config_file.is_file():
            listed = run.training_images_file.is_file()
            if listed:  # first: it names the image where a number of images would differ, too
                keep_training_images(run.training_images_file, dataset)
            config = run.resume(config)
            if not listed:
                keep_training_images(run.training_images_file, dataset)
            if (computing := run.other_computing()) is not None:
                display.say(computing, style="yellow")
        else:
            origin = origin or Origin()
            run.create(config, origin.command, origin.name)
            keep_training_images(run.training_images_file, dataset)
        if given is not None and not run.given_proposals_file.exists():
            units = training_units(dataset.examples, config.flips)
            store = ProposalStore.from_given(given, units)
            store.save(run.given_proposals_file, record_of(run, config, "given"))
        if dataset.split and not run.split_file.exists():
            write_split(run.split_file, dataset.split)
        notes = [*dataset.problems, *without_objects(dataset)]
        write_text(run.path / "data_report.txt", report_text(notes))
        shares = save_labels(dataset, config.recipe, run.path / "labels.png", given)
        on_start(config, shares)
        Trainer(config, dataset, run, options, display).train()
    return config


def display_of(config: RunConfig, dataset: Dataset, console) -> TrainingDisplay:
    """The progress of a training on a console."""
    plan = [(stage, schedule.iterations) for stage, schedule in config.schedules.items()]
    return TrainingDisplay(console, plan, number_left_out(dataset))


def _with_checked_weights(config: RunConfig, initial: Path | None) -> RunConfig:
    """The configuration, which knows the initial weights by their contents.

    Raises:
        UserError: there is no such network, or the weights do not fit.
    """
    model = FasterRcnn(config.network, config.class_names, config.recipe)
    if initial is not None:
        load_initial_weights(model, initial)
    return with_digest(config, initial)
