"""``python -m keras_frcnn demo``: from nothing to a trained, evaluated and exported detector.

Every step of :mod:`keras_frcnn.demo.steps` is the command that a user would type; the flags are
printed.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from keras_frcnn.cli import evaluate, export, flags, test, train
from keras_frcnn.cli.common import make_console
from keras_frcnn.demo.devkit import claim_folder
from keras_frcnn.demo.steps import CONTENTS, FULL, SMALL, make_demo
from keras_frcnn.errors import UserError
from keras_frcnn.system.files import user_path

MADE_BY = "keras_frcnn demo"
COMMANDS = {"train": train, "evaluate": evaluate, "test": test, "export": export}


def build_parser() -> argparse.ArgumentParser:
    """The parser."""
    parser = flags.HelpfulParser(
        prog="python -m keras_frcnn demo",
        description="Generate a small data set, train, evaluate, draw and export on it.",
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="a demo there is replaced")
    parser.add_argument(
        "--seed", type=int, default=0, help="of the data and the training (default: 0)"
    )
    flags.add_switch(parser, "--small", "a minute's run that learns nothing, for tests")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the demo.

    Raises:
        UserError: ``--out`` holds something that no demo made, or a seed below 0.
    """
    arguments = build_parser().parse_args(argv)
    if arguments.seed < 0:
        raise UserError(f"--seed must be 0 or larger, but it is {arguments.seed}.")
    settings = SMALL if arguments.small else FULL
    out = user_path(arguments.out)
    claim_folder(out, MADE_BY, CONTENTS, seed=arguments.seed, small=arguments.small)
    make_demo(
        out,
        arguments.seed,
        settings,
        make_console(),
        command=lambda name, words: COMMANDS[name].main(words),
    )
