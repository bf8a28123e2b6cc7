"""``train_frcnn.py``: flags to a run, its data, the training."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from keras_frcnn.cli.common import (
    check_outside,
    existing_path,
    make_console,
    run_main,
)
from keras_frcnn.cli.given import load_given
from keras_frcnn.cli.train_flags import build_parser
from keras_frcnn.cli.train_recipe import check_flags, mode_from
from keras_frcnn.cli.train_run import (
    chosen_precision,
    existing_run,
    initial_weights,
    new_run,
    run_config,
    run_name,
)
from keras_frcnn.cli.train_screen import show_start
from keras_frcnn.data.dataset import Dataset
from keras_frcnn.devices import choose_devices, quiet_tensorflow
from keras_frcnn.errors import UserError, counted, shown
from keras_frcnn.files import user_path, written_whole
from keras_frcnn.proposals.given import GivenProposals
from keras_frcnn.run_config import RunConfig, command_line
from keras_frcnn.runs import FINAL, RunFolder
from keras_frcnn.training_images import copies_in_test_lists


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
