"""``train_frcnn.py``: flags to a run, its data, the training."""

from __future__ import annotations

import argparse
import dataclasses
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from keras_frcnn.cli import flags
from keras_frcnn.cli.common import check_outside, data_path, existing_path, start
from keras_frcnn.cli.inputs import load_dataset, load_given, usable_precision
from keras_frcnn.cli.train_flags import (
    build_parser,
    check_flags,
    mode_from,
    recipe_from,
    stages_of,
)
from keras_frcnn.data.anchor_files import write_anchors
from keras_frcnn.data.dataset import Dataset
from keras_frcnn.errors import counted
from keras_frcnn.proposals.given import GivenProposals
from keras_frcnn.runs.config import RunConfig, command_line, source_of, versions
from keras_frcnn.runs.folder import RunFolder, latest_run_folder, new_run_folder
from keras_frcnn.runs.stage_table import FINAL, stage_name
from keras_frcnn.runs.training_images import copies_in_test_lists
from keras_frcnn.system.files import user_path
from keras_frcnn.training.options import TrainingOptions

RUNS = Path("runs")
# Iterations from which it is worth knowing how long they take, and hours that are not few.
LONG_TRAINING, FEW_HOURS = 1000, 3
# What a plan leaves as it is, by the flags that say it.
PLANNED = {
    "precision": ("precision",),
    "short_side": ("short_side", "long_side"),
    "anchors": ("anchors", "anchor_scales", "anchor_ratios"),
    "iterations": ("iterations", "num_epochs"),
    "learning_rate": ("learning_rate",),
    "dropout": ("dropout",),
    "clip_norm": ("clip_gradients",),
    "min_size_image": ("min_size",),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Trains as the flags say.

    Raises:
        UserError: for anything that the user can mend.
    """
    arguments = build_parser().parse_args(argv)
    arguments.network = {"vgg": "vgg16"}.get(arguments.network, arguments.network)
    arguments.mode = mode_from(arguments)
    if arguments.network == "tiny" and not (arguments.weights or arguments.input_weight_path):
        arguments.weights = "random"  # there are no others
    arguments.given = parts_given(arguments)
    arguments.typed = list(sys.argv[1:] if argv is None else argv)
    # First what takes no time: nobody should wait for the data's checks to learn of a wrong flag.
    check_flags(arguments)
    run = run_of(arguments)
    path = data_path(arguments.path, run.path, what="The run folder")
    for flag in ("output_weight_path", "config_filename"):
        if getattr(arguments, flag) is not None:
            check_outside(user_path(getattr(arguments, flag)), path, f"--{flag}")
    for text in arguments.proposals or ():
        existing_path(text, "--proposals")
    weights = weights_of(arguments, run)
    if arguments.resume:  # nobody should wait for the data's checks to learn that it is in use
        with run.claimed():
            pass
    console, device = start(arguments.gpu, deterministic=arguments.deterministic, jit=arguments.jit)
    if arguments.deterministic:
        from keras_frcnn.network.roi_pooling import repeatable_rule

        arguments.roi_pooling = repeatable_rule(arguments.roi_pooling)
    precision = arguments.precision or ("float32" if arguments.minutes is None else "auto")
    if precision == "auto" and run.config_file.is_file():
        precision = run.read_config().precision
    arguments.precision = usable_precision(precision, console)
    dataset = load_training_data(arguments, path, run, console)
    given = None
    if arguments.proposals is not None:
        given = load_given(arguments.proposals, dataset)
    from keras_frcnn.runs.networks import weights_file

    # Last: they may have to be fetched.
    initial = weights_file(weights, arguments.network)
    train(arguments, dataset, given, run, initial, device, console)


def run_of(arguments: argparse.Namespace) -> RunFolder:
    """The run's folder: ``--out``, or under the command's name the next number, or the newest.

    Raises:
        UserError: there is none to go on with, or a new run cannot be there.
    """
    if arguments.out:
        run = RunFolder(arguments.out)
    else:
        numbered = latest_run_folder if arguments.resume else new_run_folder
        run = numbered(RUNS, arguments.name or arguments.network)
    if arguments.resume:
        run.check_trainable()
    else:
        run.check_unused()
    return run


def weights_of(arguments: argparse.Namespace, run: RunFolder) -> Path | str:
    """What training starts from; ``random`` where a run that goes on needs nothing any more.

    Raises:
        UserError: the file does not exist.
    """
    if arguments.resume and not run.needs_initial_weights(arguments.mode):
        return "random"
    if arguments.input_weight_path is not None:
        return existing_path(arguments.input_weight_path, "--input_weight_path")
    return arguments.weights or "imagenet"


def load_training_data(
    arguments: argparse.Namespace, path: Path, run: RunFolder, console: Console
) -> Dataset:
    """The checked training images.

    Raises:
        UserError: as :func:`load_dataset`, or an image is in the test list, too.
    """
    from keras_frcnn.data.voc import check_test_lists

    split = run.split() if arguments.resume else None
    dataset = load_dataset(arguments, console, split=split)
    if dataset.parser == "pascal_voc":
        check_test_lists(path, dataset)
        copies = copies_in_test_lists(path, dataset)
        if copies:
            console.print(
                f"{counted(len(copies), 'image')} of the test list are byte copies of training "
                f"images ({', '.join(copies[:3])}): leave them out before you evaluate.",
                style="yellow",
                soft_wrap=True,
            )
    return dataset


def train(
    arguments: argparse.Namespace,
    dataset: Dataset,
    given: GivenProposals | None,
    run: RunFolder,
    initial: Path | None,
    device: str,
    console: Console,
) -> None:
    """Shows the start screen, trains, says where the result is."""
    from keras_frcnn.data.bad_images import number_left_out
    from keras_frcnn.training.session import Origin, display_of, train_run

    def on_start(config: RunConfig, shares: tuple[float, float]) -> None:
        if arguments.config_filename is not None:
            run.copy_config(user_path(arguments.config_filename))
        show_start(console, config, dataset, run, initial, device, shares)
        if config.minutes is None:
            show_duration(console, arguments, config, dataset)
        else:
            show_plan(console, arguments, config, run)

    config = run_config(arguments, dataset, given)
    if arguments.minutes is not None:
        config = planned(arguments, config, dataset, run)
    name = None if arguments.out else arguments.name or arguments.network
    train_run(
        run,
        config,
        dataset,
        TrainingOptions(
            initial_weights=initial,
            checkpoint_seconds=60 * arguments.checkpoint_minutes,
            **flags.given_fields(TrainingOptions, arguments),
        ),
        display_of(config, dataset, console),
        given=given,
        origin=Origin(command_line(), name),
        on_start=on_start,
    )
    if arguments.output_weight_path is not None:
        run.copy_final(user_path(arguments.output_weight_path))
    console.print(f"Done. The run is in {run.path}", soft_wrap=True)
    bad = number_left_out(dataset)
    if bad:
        console.print(
            f"{bad} of the {len(dataset) + bad} images were left out, see "
            f"{run.path / 'data_report.txt'}",
            style="yellow",
            soft_wrap=True,
        )
    if any(run.weights_file(weights).exists() for weights in (FINAL, "stage2")):
        boxes = " --proposals FILE" if config.mode == "fast-rcnn" else ""
        console.print(
            f"Try it: python test_frcnn.py -p IMAGES --run {run.path}{boxes}", soft_wrap=True
        )


def run_config(
    arguments: argparse.Namespace, dataset: Dataset, given: GivenProposals | None = None
) -> RunConfig:
    """Everything that makes the run."""
    from keras_frcnn.proposals.files import source_of_given
    from keras_frcnn.training.units import steps_of_pass

    source = None if given is None else source_of_given(arguments.proposals, given)

    def passes_of(images_per_step: int, needs_objects: bool) -> int:
        return steps_of_pass(dataset.examples, arguments.flips, images_per_step, needs_objects)

    return RunConfig(
        network=arguments.network,
        precision=arguments.precision,
        mode=arguments.mode,
        seed=arguments.seed,
        flips=arguments.flips,
        class_names=dataset.class_names,
        initial_weights=arguments.input_weight_path or arguments.weights or "imagenet",
        stages=stages_of(arguments),
        data=source_of(dataset, source),
        recipe=recipe_from(arguments, passes_of, dataset.sets),
    )


def planned(
    arguments: argparse.Namespace, config: RunConfig, dataset: Dataset, run: RunFolder
) -> RunConfig:
    """With the plan of ``--minutes``: a run that goes on keeps its own, flags keep their part."""
    from keras_frcnn.training.plan import planned_training

    if run.config_file.is_file():
        stored = run.read_config()
        if stored.minutes == arguments.minutes:
            return dataclasses.replace(
                config, recipe=stored.recipe, minutes=stored.minutes, choices=stored.choices
            )
    elapsed = time.time() - psutil.Process().create_time()
    minutes, given = arguments.minutes, arguments.given
    return planned_training(config, dataset, minutes, given=given, elapsed=elapsed)


def parts_given(arguments: argparse.Namespace) -> set[str]:
    """The keys of :data:`PLANNED` that flags say."""
    return {
        part
        for part, names in PLANNED.items()
        if any(getattr(arguments, name) is not None for name in names)
    }


def show_plan(
    console: Console, arguments: argparse.Namespace, config: RunConfig, run: RunFolder
) -> None:
    """Every choice with its reason, and the command that needs no plan."""
    table = Table(title=f"plan for {config.minutes:g} minutes", title_justify="left", box=None)
    for heading in ("what", "choice", "why"):
        table.add_column(heading, overflow="fold")
    for choice in config.choices:
        table.add_row(choice.part.replace("_", " "), choice.value, choice.reason)
    console.print(table)
    recipe, anchors = config.recipe, run.path / "anchors.json"
    flags_of = {
        "precision": ("--precision", config.precision),
        "short_side": ("--short_side", recipe.image.short_side),
        "anchors": ("--anchors", anchors),
        "min_size_image": ("--min_size", f"{recipe.test_proposals.min_size_image:g}"),
        "iterations": ("--iterations", recipe.joint.iterations),
        "learning_rate": ("--learning_rate", f"{recipe.joint.learning_rate:g}"),
        "clip_norm": ("--clip_gradients", f"{recipe.optimizer.clip_norm or 0:g}"),
        "dropout": ("--dropout", f"{recipe.detector.dropout or 0:g}"),
    }
    chosen = {choice.part for choice in config.choices}
    if recipe.anchors.shapes is None:
        chosen -= {"anchors"}  # the paper's
    elif "anchors" in chosen and not anchors.exists():
        about = {"path": config.data.path, "sets": list(config.data.sets)}
        write_anchors(anchors, recipe.anchors.shapes, recipe.image, about)
    typed = without_values(arguments.typed, ("--minutes", "--hours", "--mode", "--out", "--name"))
    words = [*(word for word in typed if word != "--resume"), "--mode", "joint"]
    words += [str(word) for part, pair in flags_of.items() if part in chosen for word in pair]
    console.print(f"the same without a plan: train_frcnn.py {shlex.join(words)}", soft_wrap=True)


def without_values(words: Sequence[str], flags: Sequence[str]) -> list[str]:
    """Words of a command line without some flags and their values."""
    kept: list[str] = []
    rest = iter(words)
    for word in rest:
        if word in flags:
            next(rest, None)
        elif word.partition("=")[0] not in flags:
            kept.append(word)
    return kept


def show_duration(
    console: Console, arguments: argparse.Namespace, config: RunConfig, dataset: Dataset
) -> None:
    """How long a training takes here, before its first iteration; nothing for a short one."""
    from keras_frcnn.training.duration import expected_seconds

    if sum(each.iterations for each in config.schedules.values()) < LONG_TRAINING:
        return
    with console.status("timing a step of each stage"):
        hours = expected_seconds(config, dataset) / 3600
    text = f"{hours / 24:.1f} days" if hours >= 48 else f"{hours:.1f} hours"
    text = text if hours >= 1 else f"{60 * hours:.0f} minutes"
    console.print(f"This training takes about {text} on this machine.", soft_wrap=True)
    if hours > FEW_HOURS and config.mode != "fast-rcnn":
        path = shlex.quote(arguments.path)
        console.print(
            f"For a detector in twenty minutes: train_frcnn.py -p {path} --minutes 20",
            soft_wrap=True,
        )


def show_start(
    console: Console,
    config: RunConfig,
    dataset: Dataset,
    run: RunFolder,
    initial: Path | None,
    device: str,
    shares: tuple[float, float],
) -> None:
    """One screen: versions, device, recipe, data, stages, run folder."""
    from keras_frcnn.data.checks import summary

    recipe, has_rpn = config.recipe, config.mode != "fast-rcnn"
    is_random = config.initial_weights == "random"
    start = "random weights" if is_random else initial or config.initial_weights
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    table.add_row("versions", ", ".join(f"{name} {text}" for name, text in versions().items()))
    table.add_row("device", f"{device}; {config.precision}")
    table.add_row(
        "recipe",
        f"{recipe.name}, {config.mode}; {config.network} from {start}; "
        f"short side {recipe.image.short_side}, long side up to {recipe.image.long_side}"
        + (f"; {recipe.anchors.per_position} anchors a position" if has_rpn else ""),
    )
    counts: dict[str, Any] = summary(dataset)
    table.add_row(
        "data",
        f"{config.data.path}, {' + '.join(dataset.sets)}: {counts['images']} images "
        f"({counts['images_without_objects']} without objects), {counts['objects']} objects "
        f"({counts['difficult']} difficult, left out), "
        f"{len(dataset.class_names)} classes; mirrored images {'on' if config.flips else 'off'}",
    )
    kinds = (f"{count} x {kind}" for kind, count in counts["problems"].items())
    problems = ", ".join(kinds) or "none"
    table.add_row("problems", f"{problems}; see {run.path / 'data_report.txt'}")
    given = config.data.proposals
    if given is not None:
        table.add_row("proposals", f"{given.method}: {', '.join(given.files)}")
    covering = "anchor" if has_rpn else "proposal"
    table.add_row(
        f"{covering}s" if has_rpn else "",
        f"{shares[0]:.1%} of the objects have no {covering} at IoU 0.5, {shares[1]:.1%} at 0.7 "
        f"({run.path / 'labels.png'})",
    )
    for stage, schedule in config.schedules.items():
        table.add_row(
            "Fast R-CNN" if config.mode == "fast-rcnn" else stage_name(stage),
            f"{schedule.iterations} iterations, learning rate {schedule.learning_rate:g}, a tenth "
            f"after {schedule.drop_at}",
        )
    table.add_row("run folder", str(run.path))
    console.print(table)
