"""``python -m keras_frcnn paper``: every table and figure of the paper, with our numbers beside."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from keras_frcnn.cli.common import data_path, existing_path, make_console, start
from keras_frcnn.cli.flags import (
    ORIGINS,
    HelpfulParser,
    add_fields,
    add_flags,
    add_switch,
    number,
    whole_number,
    with_flags,
)
from keras_frcnn.errors import UserError
from keras_frcnn.paper.budget import Budget
from keras_frcnn.paper.catalogue import EXPERIMENTS, make_sheets, named
from keras_frcnn.recipes import NETWORKS, PAPER, PRECISIONS, AnchorConfig, DetectorConfig
from keras_frcnn.runs.folder import RunFolder
from keras_frcnn.system.files import user_path

EPILOG = f"""\
{ORIGINS}
examples:
  python -m keras_frcnn paper --list
  python -m keras_frcnn paper table2 -p VOCdevkit --out paper
  python -m keras_frcnn paper all -p VOCdevkit --out paper --run runs/vgg16 \\
      --network vgg16 --budget 0.01 --images 200
"""


def build_parser() -> argparse.ArgumentParser:
    """The parser; every default is named with its origin."""
    parser = HelpfulParser(
        prog="python -m keras_frcnn paper",
        usage="python -m keras_frcnn paper NAME -p VOCDEVKIT --out DIR [flags]\n"
        "       python -m keras_frcnn paper --list",
        description="Tables and figures of the paper, its numbers beside ours.\n"
        "What is trained is kept and used again; stopped, a command goes on where it was.",
        epilog=EPILOG,
    )
    _add_experiment(parser.add_argument_group("which experiment on what"))
    _add_budget(parser.add_argument_group("how much of the paper's work (said in the captions)"))
    _add_rest(parser.add_argument_group("the rest"))
    return parser


def _add_experiment(group) -> None:
    group.add_argument("name", nargs="?", metavar="NAME", help="of --list, or all")
    add_switch(group, "--list", "name the experiments and stop")
    group.add_argument("-p", "--path", metavar="PATH", help="VOCdevkit folder with VOC2007")
    add_flags(group, "allow_bad")
    group.add_argument("--out", metavar="DIR", help="where results, runs and proposals are kept")
    group.add_argument(
        "--run",
        action="append",
        default=[],
        metavar="DIR",
        help="a finished four-step run to use in place of training; may be repeated. The other "
        "trainings then have its recipe and precision, but for their lengths, unless flags say "
        "otherwise",
    )


def _add_budget(group) -> None:
    group.add_argument(
        "--budget",
        type=number(0, above=True),
        default=1.0,
        metavar="FRACTION",
        help="of the iterations of every training\ndefault: 1, the paper's schedules",
    )
    add_flags(
        group,
        "images",
        help="the first N images of every training and test set\ndefault: all",
    )
    group.add_argument(
        "--detect_images",
        type=whole_number(1),
        metavar="N",
        help="of the test images, the first N that detectors are run on, for mAP and figures 1 "
        "and 3; recall takes all\ndefault: all",
    )
    group.add_argument(
        "--seeds",
        type=whole_number(1, 100),
        default=1,
        metavar="N",
        help="runs of every system of tables 1 to 3; mean and deviation are shown\n"
        "default: 1 (the paper has six of one system)",
    )
    add_flags(
        group,
        "network",
        help=f"in place of the paper's: {', '.join(NETWORKS)}\ndefault: zf and vgg16 as published",
    )
    add_flags(
        group,
        "short_side",
        help="of the input, the long side in proportion\ndefault: 600 (config.py:38)",
    )
    add_fields(group, AnchorConfig)
    group.add_argument(
        "--learning_rate",
        type=number(0, above=True),
        metavar="LR",
        help="default: 0.001 (stage1_rpn_solver60k80k.pt:3-10)",
    )
    add_fields(group, DetectorConfig, "dropout")
    add_flags(
        group, "precision", choices=PRECISIONS, metavar="KIND", help="default: float32 (ours)"
    )
    group.add_argument(
        "--window_stride",
        type=whole_number(1),
        default=1,
        metavar="N",
        help="dense windows of table 5 at every Nth position\ndefault: 1 (table 5)",
    )


def _add_rest(group) -> None:
    add_flags(
        group,
        "input_weight_path",
        help="ImageNet weights of --network, or of vgg16\ndefault: fetched (vgg16, resnet50)",
    )
    group.add_argument(
        "--zf_weight_path",
        metavar="FILE",
        help="ImageNet weights of zf, which cannot be fetched\n"
        "default: none, the rows with zf then say so",
    )
    group.add_argument(
        "--weights",
        choices=("random",),
        metavar="random",
        help="start every network from random weights\ndefault: ImageNet's (section 3.2)",
    )
    add_flags(
        group,
        "edge_model",
        help="structured forest for EdgeBoxes\ndefault: edges are gradients (ours)",
    )
    add_flags(
        group,
        "workers",
        default=2,
        help="processes and threads for images\ndefault: 2 (ours)",
    )
    add_flags(group, "gpu")


def main(argv: Sequence[str] | None = None) -> None:
    """Makes one experiment, or all.

    Raises:
        UserError: for anything that the user can mend.
    """
    arguments = build_parser().parse_args(argv)
    if arguments.list:
        for name, (_, title) in EXPERIMENTS.items():
            make_console().print(f"{name:9s} {title}", soft_wrap=True)
        return
    names = named(arguments.name)
    for flag in ("path", "out"):
        if getattr(arguments, flag) is None:
            raise UserError(f"--{flag} is needed; python -m keras_frcnn paper --help tells more.")
    path = data_path(arguments.path, user_path(arguments.out))
    runs = tuple(RunFolder(existing_path(run, "--run")) for run in arguments.run)
    files = {
        network: existing_path(getattr(arguments, flag), f"--{flag}")
        for flag, network in (
            ("input_weight_path", arguments.network or "vgg16"),
            ("zf_weight_path", "zf"),
        )
        if getattr(arguments, flag) is not None
    }
    budget = budget_of(arguments, runs)
    console, _ = start(arguments.gpu)
    from keras_frcnn.paper.workshop import Workshop, devkit_of, initial_weights

    workshop = Workshop(
        devkit=devkit_of(path),
        folder=user_path(arguments.out),
        budget=budget,
        weights=dict.fromkeys(NETWORKS),
        runs=runs,
        console=console,
        workers=arguments.workers,
        edge_model=arguments.edge_model,
        allow_bad=arguments.allow_bad,
    )
    if arguments.weights != "random":
        workshop.weights = initial_weights(workshop, files)
    workshop.check()
    make_sheets(names, workshop)


def budget_of(arguments: argparse.Namespace, runs: Sequence[RunFolder]) -> Budget:
    """The budget of the flags; what they leave open is the first run's, else the paper's.

    Raises:
        UserError: flags that are out of range, or no run lies in a folder.
    """
    configs = [run.read_config() for run in runs]
    base, precision = PAPER, "float32"
    if configs:
        base, precision = configs[0].recipe, configs[0].precision
    anchors = None
    if arguments.anchor_scales or arguments.anchor_ratios:
        own = base.anchors if base.anchors.shapes is None else PAPER.anchors
        anchors = with_flags(own, arguments)
    return Budget(
        fraction=arguments.budget,
        images=arguments.images,
        detect_images=arguments.detect_images,
        seeds=arguments.seeds,
        network=arguments.network,
        short_side=arguments.short_side,
        anchors=anchors,
        learning_rate=arguments.learning_rate,
        dropout=arguments.dropout,
        base=base,
        precision=arguments.precision or precision,
        window_stride=arguments.window_stride,
    )
