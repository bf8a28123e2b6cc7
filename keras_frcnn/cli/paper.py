"""``python -m keras_frcnn paper``: every table and figure of the paper, with our numbers beside."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from typing import Any

from keras_frcnn.cli import flags
from keras_frcnn.cli.common import data_path, existing_path, make_console, start
from keras_frcnn.errors import UserError
from keras_frcnn.paper.budget import Budget
from keras_frcnn.paper.catalogue import EXPERIMENTS, make_sheets, named
from keras_frcnn.recipes import NETWORKS, PAPER, AnchorConfig, DetectorConfig
from keras_frcnn.runs.folder import RunFolder
from keras_frcnn.system.files import user_path

EPILOG = f"""\
{flags.ORIGINS}
examples:
  python -m keras_frcnn paper --list
  python -m keras_frcnn paper table2 -p VOCdevkit --out paper
  python -m keras_frcnn paper all -p VOCdevkit --out paper --run runs/vgg16 \\
      --network vgg16 --budget 0.01 --images 200
"""


def build_parser() -> argparse.ArgumentParser:
    """The parser; every default is named with its origin."""
    parser = flags.HelpfulParser(
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
    flags.add_switch(group, "--list", "name the experiments and stop")
    group.add_argument("-p", "--path", metavar="PATH", help="VOCdevkit folder with VOC2007")
    flags.add(group, "allow_bad")
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
    flags.add_fields(group, Budget, "fraction", "images", "detect_images", "seeds", "network")
    flags.add_fields(group, Budget, "short_side")
    flags.add_fields(group, AnchorConfig)
    flags.add_fields(group, Budget, "learning_rate")
    flags.add_fields(group, DetectorConfig, "dropout")
    flags.add_fields(group, Budget, "precision", "window_stride")


def _add_rest(group) -> None:
    flags.add(
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
    flags.add(
        group,
        "edge_model",
        help="structured forest for EdgeBoxes\ndefault: edges are gradients (ours)",
    )
    flags.add(
        group,
        "workers",
        default=2,
        help="processes and threads for images\ndefault: 2 (ours)",
    )
    flags.add(group, "gpu")


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
    own: dict[str, Any] = {"dropout": arguments.dropout}
    if configs:
        own |= {"base": configs[0].recipe, "precision": configs[0].precision}
    budget = Budget(**{**own, **flags.given_fields(Budget, arguments)})
    if not (arguments.anchor_scales or arguments.anchor_ratios):
        return budget
    anchors = budget.base.anchors if budget.base.anchors.shapes is None else PAPER.anchors
    return dataclasses.replace(budget, anchors=flags.with_flags(anchors, arguments))
