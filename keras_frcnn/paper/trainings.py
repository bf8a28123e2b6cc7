"""Trained runs, each made once and kept: four steps, the RPN alone, Fast R-CNN alone."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

from keras_frcnn.data.voc import check_test_lists
from keras_frcnn.paper.kept_proposals import external_proposals
from keras_frcnn.paper.workshop import TRAINING_SETS, Absent, Workshop
from keras_frcnn.proposals.given import GivenProposals
from keras_frcnn.recipes import Compression, Recipe
from keras_frcnn.runs.compress import compress_run
from keras_frcnn.runs.config import DataSource, RunConfig, command_line
from keras_frcnn.runs.folder import RunFolder
from keras_frcnn.runs.stage_table import FINAL, planned
from keras_frcnn.system.signals import TrainingStopped
from keras_frcnn.training.options import TrainingOptions
from keras_frcnn.training.session import Origin, display_of, train_run
from keras_frcnn.training.watch import TrainingDiverged

# Units of fc6 and fc7.
FULLY_CONNECTED = {"vgg16": 4096, "zf": 4096, "tiny": 256}


def four_steps(workshop: Workshop, network: str, training: str = "07", seed: int = 0) -> RunFolder:
    """The finished alternating training of a network; a run that was given is preferred."""
    sets = TRAINING_SETS[training].split("+")
    for run in workshop.runs:
        config = run.read_config()
        if config.network == network and list(config.data.sets) == sets:
            return run
    return trained(
        workshop, _four_steps_name(network, training, seed), network, training, seed=seed
    )


def rpn_alone(workshop: Workshop, name: str, network: str, recipe: Recipe) -> RunFolder:
    """A run of stage 1, by a recipe of its own; that of the four steps where it is the same."""
    whole = RunFolder(workshop.folder / "runs" / _four_steps_name(network, "07", 0))
    if whole.weights_file("stage1").exists() and whole.read_config().recipe == recipe:
        return whole
    return trained(workshop, f"rpn-{network}-{name}", network, stages=(1,), recipe=recipe)


def fast_rcnn(
    workshop: Workshop, network: str, source: str, training: str = "07", seed: int = 0
) -> RunFolder:
    """Fast R-CNN trained on ``ss``, ``eb`` or ``windows``."""
    workshop.initial_weights(network)  # absent weights should not cost a search for proposals
    proposals = external_proposals(workshop, source, TRAINING_SETS[training])
    name = f"fast-rcnn-{network}-{proposals.name}-{seed}"
    given = proposals.given
    return trained(workshop, name, network, training, seed=seed, stages=(2,), given=given)


def trained(
    workshop: Workshop,
    name: str,
    network: str,
    training: str = "07",
    *,
    seed: int = 0,
    stages: Sequence[int] = (1, 2, 3, 4),
    recipe: Recipe | None = None,
    given: GivenProposals | None = None,
) -> RunFolder:
    """A finished run of this name, trained now as far as it is not there.

    Args:
        name: its folder under ``runs``; everything that makes it different stands in it.
        stages: of the four steps.
        recipe: default: the paper's at the budget.
        given: train stage 2 alone, on these proposals.
    """
    run = RunFolder(workshop.folder / "runs" / name)
    mode = "alternating" if given is None else "fast-rcnn"
    last = planned(mode, stages)[-1]
    if run.weights_file(FINAL if last.number == 4 else last.weights).exists():
        return run
    initial = workshop.initial_weights(network)
    dataset = workshop.data(TRAINING_SETS[training])
    check_test_lists(workshop.devkit, dataset)
    config = RunConfig(
        network=network,
        precision=workshop.budget.precision,
        mode=mode,
        seed=seed,
        flips=True,
        class_names=dataset.class_names,
        initial_weights="random" if initial is None else str(initial),
        stages=tuple(stages),
        data=DataSource(
            path=str(workshop.devkit),
            ids_hash=dataset.ids_hash,
            sets=dataset.sets,
            images=len(dataset),
        ),
        recipe=recipe or workshop.budget.recipe(dataset.sets),
    )
    workshop.say(f"training {run.path}")
    options = TrainingOptions(initial_weights=initial, workers=workshop.workers)
    display = display_of(config, dataset, workshop.console)
    origin = Origin(command_line())
    try:
        train_run(run, config, dataset, options, display, given=given, origin=origin)
    except TrainingStopped as stop:
        advice = "the same command goes on there"
        raise TrainingStopped(stop.received, stop.happened, advice) from stop
    except TrainingDiverged as diverged:
        workshop.say(str(diverged))
        raise Absent(
            f"the training {run.path.name} diverged: {diverged.what} at iteration "
            f"{diverged.iteration:,} of stage {diverged.stage}"
        ) from diverged
    return run


def compressed(workshop: Workshop, run: RunFolder) -> RunFolder:
    """The run with fc6 and fc7 by truncated SVD: 1024 and 256 of 4096 (Fast R-CNN, 4.4)."""
    out = RunFolder(workshop.folder / "runs" / f"{run.path.name}-svd")
    if out.weights_file(FINAL).exists():
        return out
    width = FULLY_CONNECTED.get(run.read_config().network)
    if width is None:
        raise Absent("the network has no fully connected layers to compress")
    if out.path.exists():  # interrupted; nothing but this command writes here
        shutil.rmtree(out.path)
    compress_run(run, out, Compression(width // 4, width // 16), command_line())
    return out


def _four_steps_name(network: str, training: str, seed: int) -> str:
    return f"four-steps-{network}-{training}-{seed}"
