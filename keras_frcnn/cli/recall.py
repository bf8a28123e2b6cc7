"""``python -m keras_frcnn recall``: how many objects the proposals of files cover.

Shapes and names
----------------
N  proposals of each image that count, the best ones.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from keras_frcnn.cli import flags
from keras_frcnn.cli.common import data_path, output_file, start
from keras_frcnn.cli.inputs import load_dataset, load_given
from keras_frcnn.proposals.given import GivenProposals
from keras_frcnn.system.files import write_text

IOU_THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)
NUMBERS = "50,100,300,1000,2000"

EPILOG = f"""\
{flags.ORIGINS}
One proposal covers one object, difficult objects are left out; the average
recall is over IoU 0.5 to 1. After each value stand the ends of its 95 %
interval, by bootstrap over the images.

examples:
  python -m keras_frcnn recall -p VOCdevkit --set 2007:test \\
      --proposals ss.h5 rpn.h5
"""


def build_parser() -> argparse.ArgumentParser:
    """The parser; every default is named with its origin."""
    parser = flags.HelpfulParser(
        prog="python -m keras_frcnn recall",
        usage="python -m keras_frcnn recall -p PATH --proposals FILE [FILE ...] [flags]",
        description="Recall of the best N proposals of each image at several IoU thresholds.",
        epilog=EPILOG,
    )
    group = parser.add_argument_group("of what on what")
    flags.add_path(group)
    flags.add(group, "set")
    flags.add(
        group,
        "proposals",
        required=True,
        help="files of python -m keras_frcnn proposals, or .mat files of Selective Search; each is "
        "a table of its own",
    )
    group = parser.add_argument_group("what to tell")
    group.add_argument(
        "--numbers",
        default=NUMBERS,
        metavar="N,N,...",
        help=f"how many of each image count\ndefault: {NUMBERS} (figure 2 and table 1)",
    )
    group.add_argument(
        "--out", metavar="FILE", help="write the figures as JSON\ndefault: none (ours)"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Prints a table for each file.

    Raises:
        UserError: for anything that the user can mend.
    """
    arguments = build_parser().parse_args(argv)
    counts = flags.numbers(arguments.numbers, int, "--numbers")
    out = None if arguments.out is None else output_file(arguments.out, "--out")
    data_path(arguments.path, out)
    console, _ = start("-1")
    from keras_frcnn.evaluation.recall import recall_rows

    dataset = load_dataset(arguments, console, default_split="test")
    # All before the first table: the last file's name may be mistyped.
    given = {text: load_given([text], dataset) for text in arguments.proposals}
    tables = {}
    for text, proposals in given.items():
        boxes = {each.key: proposals.of_example(each).boxes_image for each in dataset.examples}
        tables[text] = recall_rows(dataset, boxes, counts, IOU_THRESHOLDS)
    if out is not None:
        write_text(out, json.dumps(tables, indent=2) + "\n")
    for text, rows in tables.items():
        print_rows(text, given[text], rows, console)
    first = next(iter(tables.values()))[0]
    console.print(
        f"{len(dataset)} images of {' + '.join(dataset.sets)}, {first['objects']} objects, "
        "difficult ones left out"
    )
    if out is not None:
        console.print(f"written to {out}", soft_wrap=True)


def print_rows(name: str, given: GivenProposals, rows: Sequence[dict], console: Console) -> None:
    """One table."""
    table = Table(title=f"{Path(name).name} ({given.method})", title_justify="left")
    table.add_column("best N", justify="right")
    table.add_column("mean N", justify="right")
    for iou in IOU_THRESHOLDS:
        table.add_column(f"IoU {iou:g}", justify="right")
    table.add_column("average recall", justify="right")
    for row in rows:
        cells = [*row["recall"].values(), row["average_recall"]]
        table.add_row(
            str(row["proposals"]),
            f"{row['mean_proposals']:.0f}",
            *(f"{value:.3f} ({low:.3f}-{high:.3f})" for value, low, high in cells),
        )
    console.print(table)
