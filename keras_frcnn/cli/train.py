"""``train_frcnn.py``: flags to a run configuration, the screen before training, the training.

Shapes and names
----------------
run  the folder that a training writes; nothing is written anywhere else.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console
from rich.table import Table

from keras_frcnn.cli.common import (
    check_outside,
    choose_devices,
    existing_path,
    make_console,
    quiet_tensorflow,
    run_main,
)
from keras_frcnn.cli.given import given_record, keep_given, load_given
from keras_frcnn.cli.train_flags import build_parser
from keras_frcnn.cli.train_recipe import check_flags, mode_from, recipe_from, stages_of
from keras_frcnn.data.dataset import Dataset
from keras_frcnn.errors import UserError
from keras_frcnn.proposals.given import GivenProposals
from keras_frcnn.run_config import RunConfig, command_line, versions
from keras_frcnn.runs import FINAL, RunFolder, latest_run_folder, new_run_folder

RUNS = Path("runs")


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
    console = make_console()
    with ExitStack() as held:
        if arguments.resume:  # a new folder is made when all else is known to be right
            claim(run, held, console)
        quiet_tensorflow()
        device = choose_devices(arguments.gpu, arguments.deterministic, jit=arguments.jit)
        arguments.roi_pooling = pooling_from(arguments)
        if arguments.precision == "auto":
            arguments.precision = chosen_precision(run, console)
        initial = initial_weights(arguments)
        dataset = load_data(arguments, path, console)
        given = load_given(arguments.proposals, dataset)
        config = run_config(arguments, dataset, given)
        if arguments.resume:
            config = run.resume(config)
        else:
            config = checked_weights(config, initial)
            claim(run, held, console)
            run.create(config, command_line())
        if given is not None and not run.given_proposals_file.exists():
            keep_given(given, dataset, config, run)
        if arguments.config_filename is not None:
            run.copy_config(Path(arguments.config_filename).expanduser())
        train(arguments, dataset, config, run, initial, device, console)


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


def load_data(arguments: argparse.Namespace, path: Path, console: Console) -> Dataset:
    """The checked training images.

    Raises:
        UserError: as :func:`load_dataset`, no object is left to train on, or an image is in the
            test list, too.
    """
    from keras_frcnn.cli.data import load_dataset
    from keras_frcnn.data.voc import check_test_lists

    dataset = load_dataset(
        path,
        arguments.parser,
        arguments.train_set,
        strict=arguments.strict,
        console=console,
        allow_bad=arguments.allow_bad,
    )
    if not any(len(example.without_difficult().classes) for example in dataset.examples):
        first = f"; the first problem: {dataset.problems[0].reason}" if dataset.problems else ""
        raise UserError(
            f"None of the {len(dataset)} images in {' + '.join(dataset.sets)} has an object that "
            f"is sound and not difficult{first}. There is nothing to learn from them."
        )
    check_class_names(dataset)
    if arguments.parser == "pascal_voc":
        check_test_lists(path, dataset)
    return dataset


def check_class_names(dataset: Dataset) -> None:
    """Makes sure that weight files have room for the classes: they are written after a stage.

    Raises:
        UserError: they have not.
    """
    from keras_frcnn.network.weight_files import MAX_METADATA_BYTES

    names = dataset.class_names
    size = len(json.dumps(names))
    if size > 0.9 * MAX_METADATA_BYTES:
        raise UserError(
            f"The data have {len(names)} classes ({names[0]!r:.40}, ...), whose "
            f"names take {size} bytes; a weight file has room for {MAX_METADATA_BYTES}. Look "
            "whether objects have names of their own where their class belongs; else shorten the "
            "names."
        )


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


def train(
    arguments: argparse.Namespace,
    dataset: Dataset,
    config: RunConfig,
    run: RunFolder,
    initial: Path | None,
    device: str,
    console: Console,
) -> None:
    """Shows the start screen, trains, says where the result is."""
    from keras_frcnn.data.bad_images import left_out
    from keras_frcnn.data.checks import without_objects, write_report
    from keras_frcnn.training.display import TrainingDisplay
    from keras_frcnn.training.fitting import Fitting, TrainingOptions
    from keras_frcnn.training.pictures import save_labels
    from keras_frcnn.training.stages import Trainer

    with console.status("reading the training images and their objects ..."):
        run.keep_training_images(dataset)
        notes = [*dataset.problems, *without_objects(dataset)]
        write_report(notes, run.path / "data_report.txt")
        shares = save_labels(dataset, config.recipe, run.path / "labels.png")
    show_start(console, config, dataset, run, initial, device, shares)
    plan = [(stage, schedule.iterations) for stage, schedule in config.schedules.items()]
    options = TrainingOptions(
        initial_weights=initial,
        feature_cache=arguments.feature_cache,
        image_cache=arguments.cache,
        cache_budget=arguments.cache_budget,
        checkpoint_seconds=60 * arguments.checkpoint_minutes,
        workers=arguments.workers,
    )
    bad = len(left_out(dataset))
    display = TrainingDisplay(console, plan, bad)
    Trainer(Fitting(config, dataset, run, options, display)).train()
    final = run.weights_file(FINAL)
    if arguments.output_weight_path is not None:
        target = Path(arguments.output_weight_path).expanduser()
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(final, target)
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

    recipe = config.recipe
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    table.add_row("versions", ", ".join(f"{name} {text}" for name, text in versions().items()))
    table.add_row("device", f"{device}; {config.precision}")
    table.add_row(
        "recipe",
        f"{recipe.name}, {config.mode}; {config.network} from {initial or 'random weights'}; "
        f"short side {recipe.image.short_side}, long side up to {recipe.image.long_side}; "
        f"{recipe.anchors.per_position} anchors a position",
    )
    counts = summary(dataset)
    kinds = counts["problems"]
    table.add_row(
        "data",
        f"{config.data['path']}, {' + '.join(dataset.sets)}: {counts['images']} images "
        f"({counts['images_without_objects']} without objects), {counts['objects']} objects "
        f"({counts['difficult']} difficult, left out), "
        f"{len(dataset.class_names)} classes; mirrored images {'on' if config.flips else 'off'}",
    )
    if "proposals" in config.data:
        record = config.data["proposals"]
        table.add_row("proposals", f"{record['method']}: {', '.join(record['files'])}")
    problems = ", ".join(f"{count} x {kind}" for kind, count in kinds.items()) or "none"
    table.add_row("problems", f"{problems}; see {run.path / 'data_report.txt'}")
    if config.mode != "fast-rcnn":
        table.add_row(
            "anchors",
            f"{shares[0]:.1%} of the objects have no anchor at IoU 0.5, {shares[1]:.1%} at 0.7 "
            f"({run.path / 'labels.png'})",
        )
    for stage, schedule in config.schedules.items():
        table.add_row(
            f"stage {stage}" if stage else "joint",
            f"{schedule.iterations} iterations, learning rate {schedule.learning_rate:g}, a tenth "
            f"after {schedule.drop_at}",
        )
    table.add_row("run folder", str(run.path))
    console.print(table)
