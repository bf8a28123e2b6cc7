"""``python -m keras_frcnn proposals``: a file of boxes for a data set, by any method."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from keras_frcnn.cli import flags
from keras_frcnn.cli.common import data_path, output_file, progress_bar, start
from keras_frcnn.cli.inputs import load_dataset
from keras_frcnn.errors import UserError
from keras_frcnn.recipes import ProposalConfig
from keras_frcnn.runs.folder import RunFolder

EPILOG = f"""\
{flags.ORIGINS}
The file (HDF5, described in keras_frcnn/proposals/files.py) is what
train_frcnn.py, test_frcnn.py, evaluate and recall take as --proposals.
An interrupted command goes on where it stopped.

examples:
  python -m keras_frcnn proposals -p VOCdevkit --set 2007:trainval \\
      --method selective-search --out ss.h5
  python -m keras_frcnn proposals -p VOCdevkit --set 2007:test \\
      --method rpn --run runs/vgg16 --num_proposals 300 --out rpn.h5
of table 1 of the paper:
  --num_proposals 6000 --no-nms, --num_proposals 300 --no-cls, --no-reg
"""
METHODS = ("selective-search", "edge-boxes", "rpn")
_RPN_FLAGS = ("run", "stage", "before_nms", "nms_iou", "min_size", "seed", "gpu")


def build_parser() -> argparse.ArgumentParser:
    """The parser; every default is named with its origin."""
    parser = flags.HelpfulParser(
        prog="python -m keras_frcnn proposals",
        usage="python -m keras_frcnn proposals -p PATH --method NAME --out FILE [flags]",
        description="Compute proposals of all images of some image sets.",
        epilog=EPILOG,
    )
    group = parser.add_argument_group("of what, how, where to")
    flags.add_path(group)
    flags.add_training_set(group, "--set")
    group.add_argument(
        "--method", required=True, metavar="NAME", choices=METHODS, help=", ".join(METHODS)
    )
    group.add_argument("--out", required=True, metavar="FILE", help="the file to write")
    flags.add(
        group,
        "num_proposals",
        default=2000,
        help="most of an image, the best\ndefault: 2000 (section 4.1)",
    )
    flags.add_switch(
        group,
        "--flips",
        "compute those of the mirror images, too (imdb_from_voc.m:49-64 does)\n"
        "default: off; training mirrors the boxes (imdb.py:102-117)",
    )
    group = parser.add_argument_group("selective-search, edge-boxes")
    flags.add(
        group,
        "workers",
        help="processes; the result does not depend on it\ndefault: the number of cores (ours)",
    )
    flags.add(
        group,
        "edge_model",
        help="structured forest of OpenCV (model.yml.gz) for the edges of edge-boxes\n"
        "default: none, edges from gradients, which is not the published method (ours)",
    )
    _add_rpn(parser.add_argument_group("rpn"))
    return parser


def _add_rpn(group) -> None:
    flags.add(group, "run")
    flags.add(
        group,
        "stage",
        choices=(1, 3),
        metavar="1|3",
        help="whose RPN\ndefault: 3, or 1 where the run stopped before (section 3.2)",
    )
    group.add_argument(
        "--before_nms",
        type=flags.whole_number(0),
        metavar="N",
        help="boxes that go into the suppression, 0: all\n"
        "default: 6000 (config.py:160), or --num_proposals where that is more",
    )
    flags.add_fields(group, ProposalConfig)
    flags.add_switch(group, "--no-nms", "no suppression: the best N by score (table 1)")
    flags.add_switch(
        group, "--no-cls", "no scores: N drawn from all boxes, no suppression (table 1)"
    )
    flags.add_switch(group, "--no-reg", "the anchors, clipped, instead of boxes (table 1)")
    flags.add(
        group,
        "seed",
        type=flags.whole_number(0, 2**31 - 1),
        help="of the draw of --no-cls\ndefault: 0 (ours)",
    )
    flags.add(group, "gpu")


def main(argv: Sequence[str] | None = None) -> None:
    """Computes proposals and writes their file.

    Raises:
        UserError: for anything that the user can mend.
    """
    arguments = build_parser().parse_args(argv)
    check(arguments)
    out = output_file(arguments.out, "--out")
    data_path(arguments.path, out)
    if out.exists():
        raise UserError(f"--out {out} exists; give another file, or delete it.")
    is_rpn = arguments.method == "rpn"
    console, _ = start(arguments.gpu if is_rpn else "-1")
    method = make_method(arguments)
    method.settings()  # an edge model that cannot be used is known before the data is read
    dataset = load_dataset(arguments, console)
    if is_rpn:
        dataset = dataset.with_bits(RunFolder(arguments.run).read_config().data.bits)
    processes = None if is_rpn else arguments.workers or os.cpu_count()
    compute(arguments, dataset, method, out, processes, console)


def check(arguments: argparse.Namespace) -> None:
    """Refuses flags that do not belong together.

    Raises:
        UserError: see above.
    """
    if arguments.method == "rpn":
        if arguments.run is None:
            raise UserError("--method rpn needs the run whose RPN it is: --run DIR.")
        RunFolder(arguments.run).check_makes_proposals()
        given = [name for name in ("workers", "edge_model") if getattr(arguments, name) is not None]
    else:
        given = [name for name in _RPN_FLAGS if getattr(arguments, name) is not None]
        given += [f"no-{n}" for n in ("nms", "cls", "reg") if getattr(arguments, f"no_{n}")]
        if arguments.method != "edge-boxes" and arguments.edge_model is not None:
            given.append("edge_model")
    if given:
        raise UserError(f"--{given[0]} does not belong to --method {arguments.method}.")
    if arguments.no_nms or arguments.no_cls:
        flag = "--no-nms" if arguments.no_nms else "--no-cls"
        if arguments.nms_iou is not None or arguments.before_nms is not None:
            raise UserError(f"{flag} suppresses nothing; leave --nms_iou and --before_nms out.")


def make_method(arguments: argparse.Namespace):
    """The method that the flags ask for.

    Raises:
        UserError: OpenCV is missing, or the run is not finished so far.
    """
    most = arguments.num_proposals
    if arguments.method != "rpn":
        from keras_frcnn.proposals.methods import EdgeBoxes, SelectiveSearch

        if arguments.method == "edge-boxes":
            return EdgeBoxes(most=most, edge_model=arguments.edge_model)
        return SelectiveSearch(most=most)
    from keras_frcnn.proposals.region_proposal_network import (
        Ablation,
        RegionProposalNetwork,
        load_rpn,
    )

    model, about = load_rpn(RunFolder(arguments.run), arguments.stage)
    config = flags.with_flags(model.recipe.test_proposals, arguments)
    config = config.at_most(most, arguments.before_nms)
    ablation = Ablation(
        not arguments.no_nms, not arguments.no_cls, not arguments.no_reg, arguments.seed or 0
    )
    return RegionProposalNetwork(model, config, ablation, about)


def compute(
    arguments: argparse.Namespace,
    dataset,
    method,
    out: Path,
    processes: int | None,
    console: Console,
) -> None:
    """Computes with a progress bar and says what was written."""
    from keras_frcnn.proposals.generation import compute_proposals, jobs_for

    jobs = jobs_for(dataset.examples, arguments.flips)
    with progress_bar(console, f"proposals by {method.name}", len(jobs)) as report:
        proposals, unreadable = compute_proposals(
            jobs,
            method,
            out,
            processes=processes,
            about={"sets": list(dataset.sets)},
            report=report,
        )
    for sentence in unreadable:
        console.print(f"not read: {sentence}", style="yellow", soft_wrap=True)
    counts = np.array([len(entry.scores) for entry in proposals.entries.values()])
    console.print(
        f"{counts.sum()} proposals of {len(counts)} images, {counts.mean():.0f} an image "
        f"({counts.min()} to {counts.max()}), written to {out}",
        soft_wrap=True,
    )
