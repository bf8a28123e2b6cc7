"""``python -m keras_frcnn compress``: a run with fc6 and fc7 as truncated SVD."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from keras_frcnn.cli import flags
from keras_frcnn.cli.common import data_path, start
from keras_frcnn.cli.inputs import first_images, load_test_data, passes_of
from keras_frcnn.data.dataset import Dataset
from keras_frcnn.errors import UserError
from keras_frcnn.recipes import Compression
from keras_frcnn.runs.config import command_line
from keras_frcnn.runs.folder import RunFolder
from keras_frcnn.runs.training_images import check_not_trained_on
from keras_frcnn.system.files import write_text

ROIS = 300
DATA_FLAGS = ("set", "images", "allow_bad")

EPILOG = f"""\
{flags.ORIGINS}
examples:
  python -m keras_frcnn compress --run runs/vgg16 --fc6 1024 --fc7 256
  python -m keras_frcnn compress --run runs/vgg16 --out runs/vgg16-svd \\
    --fc6 1024 --fc7 256 -p VOCdevkit --set 2007:test
"""


def build_parser() -> argparse.ArgumentParser:
    """The parser; every default is named with its origin."""
    parser = flags.HelpfulParser(
        prog="python -m keras_frcnn compress",
        usage="python -m keras_frcnn compress --run DIR [flags]",
        description="Split fc6 and fc7 of a run into two smaller layers each, by truncated SVD.",
        epilog=EPILOG,
    )
    group = parser.add_argument_group("from where to where")
    flags.add(group, "run", required=True)
    group.add_argument(
        "--out", metavar="DIR", help="new run folder\ndefault: RUN-svd beside the run (ours)"
    )
    flags.add_fields(group, Compression)
    group = parser.add_argument_group("what to compare both on")
    flags.add_path(
        group,
        required=False,
        help=f"{flags.DATA_PATH}: mAP before and after\ndefault: only the times are compared",
    )
    flags.add(group, "set", "images")
    group = parser.add_argument_group("machine")
    flags.add(group, "gpu")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Compresses, times both networks and evaluates them where data are given.

    Raises:
        UserError: for anything that the user can mend.
    """
    arguments = build_parser().parse_args(argv)
    ranks = flags.with_flags(Compression(), arguments)
    run = RunFolder(arguments.run)
    if arguments.out is None:
        unnamed = run.path.name in ("", "..")  # the working folder, or one above it
        arguments.out = f"{run.path.resolve() if unnamed else run.path}-svd"
    out = RunFolder(arguments.out)
    run.read_config()
    out.check_unused("give another --out")
    check_data_flags(arguments, run, out)
    console, _ = start(arguments.gpu)
    data = None
    if arguments.path is not None:
        # Both are evaluated on them after all work: a mistake in the data is told before it.
        whole = load_test_data(arguments, run.read_config().class_names, console)
        data = first_images(whole, arguments.images)
        check_not_trained_on(run.training_images_file, data)
    from keras_frcnn.runs.compress import compress_run, head_parameters, region_seconds

    with console.status("singular value decomposition ..."):
        models = compress_run(run, out, ranks, command_line())
    table = Table("", title=f"fc6 at rank {ranks.fc6}, fc7 at rank {ranks.fc7}")
    for heading in ("before", "after"):
        table.add_column(heading, justify="right")
    table.add_row("weights of the head", *(f"{head_parameters(model):,}" for model in models))
    seconds = region_seconds(models, rois=ROIS)
    table.add_row(
        f"RoI pooling and head, {ROIS} RoIs", *(f"{1000 * second:.1f} ms" for second in seconds)
    )
    del models
    if data is not None:
        before, after = (mean_precisions(place, data, console) for place in (run.path, out.path))
        write_text(out.path / "evaluation.json", json.dumps(after, indent=2) + "\n")
        for kind in ("map_area", "map_11point"):
            cells = (f"{record[kind]:.4f}" for record in (before, after))
            table.add_row(f"mAP ({kind.removeprefix('map_')})", *cells)
    console.print(table)
    console.print(f"the compressed run is in {out.path}", soft_wrap=True)


def check_data_flags(arguments: argparse.Namespace, run: RunFolder, out: RunFolder) -> None:
    """Refuses data that both runs cannot be compared on, and flags of data without any.

    Raises:
        UserError: see above.
    """
    if arguments.path is None:
        for flag in DATA_FLAGS:
            if getattr(arguments, flag) not in (None, False):
                raise UserError(f"--{flag} belongs to -p, the data to compare both runs on.")
        if arguments.parser is not None:
            raise UserError("-o belongs to -p, the data to compare both runs on.")
        return
    data_path(arguments.path, out.path)
    if run.read_config().mode == "fast-rcnn":
        raise UserError(
            f"{run.path} was trained on given proposals: compress it without -p, and compare both "
            "runs by evaluate --proposals FILE."
        )


def mean_precisions(run: Path, dataset: Dataset, console: Console) -> dict[str, Any]:
    """The record of an evaluation of a run, with a progress bar."""
    from keras_frcnn.detection.load import load
    from keras_frcnn.evaluation.evaluate import evaluate

    return evaluate(load(run), dataset, passes=passes_of(console, dataset)).to_json()
