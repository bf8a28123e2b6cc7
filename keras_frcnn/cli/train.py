"""``train_frcnn.py``: flags to a run, its data, the training."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from keras_frcnn.cli.common import check_outside, existing_path, make_console, run_main
from keras_frcnn.cli.given import given_source, load_given
from keras_frcnn.cli.shared_flags import usable_precision
from keras_frcnn.cli.train_flags import build_parser
from keras_frcnn.cli.train_recipe import check_flags, mode_from, recipe_from, stages_of
from keras_frcnn.data.dataset import Dataset
from keras_frcnn.errors import UserError, counted, shown
from keras_frcnn.proposals.given import GivenProposals
from keras_frcnn.runs.config import RunConfig, command_line, source_of, versions
from keras_frcnn.runs.folder import RunFolder, latest_run_folder, new_run_folder
from keras_frcnn.runs.stage_table import FINAL, INITIAL, STAGES, stage_name
from keras_frcnn.runs.training_images import copies_in_test_lists
from keras_frcnn.system.devices import choose_devices, quiet_tensorflow
from keras_frcnn.system.files import user_path, written_whole


def entry_point() -> int:
    """What ``train_frcnn.py`` calls; returns the exit code."""
    return run_main(main)


def main(argv: Sequence[str] | None = None) -> None:
    """Trains as the flags say.

    Raises:
        UserError: for anything that the user can mend.
    """
    arguments = build_parser().parse_args(argv)
    arguments.network = {"vgg": "vgg16"}.get(arguments.network, arguments.network)
    arguments.mode = mode_from(arguments)
    # First what takes no time: nobody should wait for the data's checks to learn of a wrong flag.
    check_flags(arguments)
    path = existing_path(arguments.path, "The data path")
    run = existing_run(arguments) if arguments.resume else new_run(arguments)
    check_outside(run.path, path, "The run folder")
    for flag in ("output_weight_path", "config_filename"):
        if getattr(arguments, flag) is not None:
            check_outside(user_path(getattr(arguments, flag)), path, f"--{flag}")
    console = make_console()
    if arguments.resume:  # nobody should wait for the data's checks to learn that it is in use
        with run.claimed():
            pass
    quiet_tensorflow()
    device = choose_devices(arguments.gpu, arguments.deterministic, jit=arguments.jit)
    arguments.roi_pooling = pooling_from(arguments)
    arguments.precision = chosen_precision(arguments.precision, run, console)
    initial = initial_weights(arguments, run)
    dataset = load_data(arguments, path, console)
    given = load_given(arguments.proposals, dataset)
    config = run_config(arguments, dataset, given)
    train(arguments, dataset, given, config, run, initial, device, console)


def pooling_from(arguments: argparse.Namespace) -> str | None:
    """``--roi_pooling``; on a GPU ``--deterministic`` chooses the one it can be had with.

    The gradient of ``crop_and_resize`` adds in any order there, and TensorFlow refuses it.

    Raises:
        UserError: another one was asked for.
    """
    import tensorflow as tf

    if not arguments.deterministic or not tf.config.get_visible_devices("GPU"):
        return arguments.roi_pooling
    if arguments.roi_pooling not in (None, "max"):
        raise UserError(
            f"--deterministic cannot be had with --roi_pooling {arguments.roi_pooling} on a GPU: "
            "its gradient is not repeatable there. Leave --roi_pooling out (max is taken), or "
            "train with --gpu -1."
        )
    return "max"


def load_data(arguments: argparse.Namespace, path: Path, console: Console) -> Dataset:
    """The checked training images.

    Raises:
        UserError: as :func:`load_dataset`, or an image is in the test list, too.
    """
    from keras_frcnn.cli.data import load_dataset
    from keras_frcnn.data.voc import check_test_lists

    dataset = load_dataset(arguments, console)
    if arguments.parser == "pascal_voc":
        check_test_lists(path, dataset)
        copies = copies_in_test_lists(path, dataset)
        if copies:
            note(
                f"{counted(len(copies), 'image')} of the test list are byte copies of training "
                f"images ({', '.join(copies[:3])}): leave them out before you evaluate.",
                console,
            )
    return dataset


def note(sentence: str | None, console: Console) -> None:
    """Prints what the user should know, if there is anything."""
    if sentence is not None:
        console.print(shown(sentence), style="yellow", soft_wrap=True)


def train(
    arguments: argparse.Namespace,
    dataset: Dataset,
    given: GivenProposals | None,
    config: RunConfig,
    run: RunFolder,
    initial: Path | None,
    device: str,
    console: Console,
) -> None:
    """Shows the start screen, trains, says where the result is."""
    from keras_frcnn.data.bad_images import number_left_out
    from keras_frcnn.training.options import TrainingOptions
    from keras_frcnn.training.session import Origin, display_of, train_run

    def on_start(config: RunConfig, shares: tuple[float, float]) -> None:
        if arguments.config_filename is not None:
            run.copy_config(user_path(arguments.config_filename))
        show_start(console, config, dataset, run, initial, device, shares)

    options = TrainingOptions(
        initial_weights=initial,
        feature_cache=arguments.feature_cache,
        image_cache=arguments.cache,
        cache_budget=arguments.cache_budget,
        checkpoint_seconds=60 * arguments.checkpoint_minutes,
        workers=arguments.workers,
    )
    train_run(
        run,
        config,
        dataset,
        options,
        display_of(config, dataset, console),
        given=given,
        origin=Origin(command_line(), run_name(arguments)),
        on_start=on_start,
    )
    bad = number_left_out(dataset)
    final = run.weights_file(FINAL)
    if arguments.output_weight_path is not None:
        target = user_path(arguments.output_weight_path)
        if not (target.exists() and target.samefile(final)):
            with written_whole(target) as partial:
                shutil.copyfile(final, partial)
    console.print(f"Done. The run is in {run.path}", soft_wrap=True)
    if bad:
        console.print(
            f"{bad} of the {len(dataset) + bad} images were left out, see "
            f"{run.path / 'data_report.txt'}",
            style="yellow",
            soft_wrap=True,
        )
    if final.exists() or run.weights_file("stage2").exists():
        given = " --proposals FILE" if config.mode == "fast-rcnn" else ""
        console.print(
            f"Try it: python test_frcnn.py -p IMAGES --run {run.path}{given}", soft_wrap=True
        )


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
    from_initial = [
        stage.weights for stage in STAGES[arguments.mode] if INITIAL in stage.starts.values()
    ]
    if arguments.resume and all(run.weights_file(name).exists() for name in from_initial):
        return None
    weights = arguments.weights or "imagenet"
    if arguments.input_weight_path is not None:
        weights = existing_path(arguments.input_weight_path, "--input_weight_path")
    from keras_frcnn.runs.networks import weights_file

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
    counts = summary(dataset)
    kinds = counts["problems"]
    table.add_row(
        "data",
        f"{config.data.path}, {' + '.join(dataset.sets)}: {counts['images']} images "
        f"({counts['images_without_objects']} without objects), {counts['objects']} objects "
        f"({counts['difficult']} difficult, left out), "
        f"{len(dataset.class_names)} classes; mirrored images {'on' if config.flips else 'off'}",
    )
    problems = ", ".join(f"{count} x {kind}" for kind, count in kinds.items()) or "none"
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
