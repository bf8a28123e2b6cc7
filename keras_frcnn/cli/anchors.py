"""``python -m keras_frcnn anchors``: anchor shapes that fit a data set, by k-means."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import track
from rich.table import Table

from keras_frcnn.cli import flags
from keras_frcnn.cli.common import data_path, output_file, start
from keras_frcnn.cli.inputs import load_dataset
from keras_frcnn.cli.train_flags import image_from
from keras_frcnn.data.anchor_files import read_anchors, write_anchors
from keras_frcnn.data.dataset import Dataset
from keras_frcnn.errors import UserError
from keras_frcnn.recipes import PAPER, AnchorConfig, ImageConfig

if TYPE_CHECKING:
    from keras_frcnn.data.anchor_fit import AnchorFit

PUBLISHED = "the paper's nine"
LEAST_IOUS = (0.5, 0.7)

EPILOG = f"""\
{flags.ORIGINS}
examples:
  python -m keras_frcnn anchors -p VOCdevkit
  python -m keras_frcnn anchors -p VOCdevkit --short_side 300 -k 6 --out 6.json
  train_frcnn.py -p VOCdevkit --short_side 300 --anchors 6.json
"""


def build_parser() -> argparse.ArgumentParser:
    """The parser; every default is named with its origin."""
    parser = flags.HelpfulParser(
        prog="python -m keras_frcnn anchors",
        usage="python -m keras_frcnn anchors -p PATH [flags]",
        description="Find anchor shapes by k-means over the training objects, the distance\n"
        "being 1 - IoU, and tell how many objects they and the paper's nine cover.",
        epilog=EPILOG,
    )
    group = parser.add_argument_group("data")
    flags.add_path(group)
    flags.add_training_set(group)
    flags.add_fields(group, ImageConfig)
    group = parser.add_argument_group("anchors")
    group.add_argument(
        "-k",
        "--number",
        type=flags.whole_number(1),
        default=9,
        metavar="N",
        help="anchors of a position\ndefault: 9 (section 3.1.1)",
    )
    flags.add(group, "seed", default=0, help="of the first centres\ndefault: 0 (ours)")
    group.add_argument(
        "--anchors",
        metavar="FILE",
        help="compare with the anchors of this file, too\ndefault: none",
    )
    group.add_argument(
        "--out",
        metavar="FILE",
        default="anchors.json",
        help="file of the chosen anchors for train_frcnn.py --anchors; the curve goes beside it, "
        "as PNG\ndefault: anchors.json (ours)",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Clusters, prints tables, writes the anchors and the curve.

    Raises:
        UserError: for anything that the user can mend.
    """
    arguments = build_parser().parse_args(argv)
    image = image_from(PAPER.image, arguments)
    out = output_file(arguments.out, "--out")
    path = data_path(arguments.path, out)
    if out.suffix.lower() == ".png":
        raise UserError(f"--out {arguments.out} takes the JSON file; the PNG goes beside it.")
    others = {PUBLISHED: PAPER.anchors}
    if arguments.anchors is not None:
        shapes = read_anchors(arguments.anchors, image)
        others[arguments.anchors] = AnchorConfig(scales=(), ratios=(), shapes=shapes)
    console, _ = start("-1")  # a few boxes an image
    from keras_frcnn.data.anchor_fit import fit_anchors
    from keras_frcnn.plots import save_anchor_clusters

    dataset = load_dataset(arguments, console)
    passes = partial(track, console=console, disable=not console.is_terminal)
    fit = fit_anchors(
        dataset, image, arguments.number, seed=arguments.seed, others=others, passes=passes
    )
    if fit is None:
        raise UserError(f"{path} has no object that is sound and not difficult: nothing to fit.")
    write_anchors(
        out,
        fit.anchors,
        image,
        {
            "path": str(arguments.path),
            "sets": list(dataset.sets),
            "ids_hash": dataset.ids_hash,
            "objects": len(fit.shapes),
            "seed": arguments.seed,
        },
    )
    save_anchor_clusters(
        out.with_suffix(".png"),
        mean_ious={k: clustering.mean_iou for k, clustering in fit.clusterings.items()},
        published_mean_iou=fit.others[PUBLISHED].mean_iou,
        shapes=fit.shapes,
        best_ious=fit.own.best_ious,
        anchors_input=fit.own.anchors_input,
    )
    show_curve(console, dataset, image, fit)
    show_coverage(console, fit)
    show_result(console, fit.anchors, image, str(out), str(out.with_suffix(".png")))


def show_curve(console: Console, dataset: Dataset, image: ImageConfig, fit: AnchorFit) -> None:
    """What was clustered, and the mean IoU for every number of anchors."""
    console.print(
        f"{len(fit.shapes)} objects in {len(dataset)} images ({' + '.join(dataset.sets)}), "
        f"difficult ones left out; in pixels of an input of short side {image.short_side}, long "
        f"side up to {image.long_side}",
        soft_wrap=True,
    )
    table = Table(title="mean IoU of the objects' shapes with the nearest of k", box=None)
    for k in fit.clusterings:
        table.add_column(str(k), justify="right")
    table.add_row(*(f"{clustering.mean_iou:.3f}" for clustering in fit.clusterings.values()))
    console.print(table)


def show_coverage(console: Console, fit: AnchorFit) -> None:
    """How many objects each set of anchors covers."""
    table = Table("anchors", title="objects covered, anchors placed as in training")
    for heading in ("a position", "mean IoU of shapes", *(f"IoU >= {iou}" for iou in LEAST_IOUS)):
        table.add_column(heading, justify="right")
    published, *given = fit.others.items()
    for name, coverage in (published, (f"k-means, {len(fit.anchors)}", fit.own), *given):
        covered = [coverage.best_ious >= least for least in LEAST_IOUS]
        table.add_row(
            name,
            str(len(coverage.anchors_input)),
            f"{coverage.mean_iou:.3f}",
            *(f"{hits.sum()} ({hits.mean():.1%})" for hits in covered),
        )
    console.print(table)
    console.print(
        "placed as in training: at every 16th pixel and only where they do not cross the border of "
        "the image",
        soft_wrap=True,
    )


def show_result(
    console: Console,
    anchors: Sequence[Sequence[float]],
    image: ImageConfig,
    out: str,
    png: str,
) -> None:
    """The chosen anchors as a part of a recipe, and how to train with them."""
    shapes = ", ".join(f"({height:g}, {width:g})" for height, width in anchors)
    comma = "," if len(anchors) == 1 else ""
    console.print(
        "in a recipe, (height, width): "
        f"AnchorConfig(scales=(), ratios=(), shapes=({shapes}{comma}))",
        soft_wrap=True,
    )
    console.print(f"written to {out}; curve and sizes in {png}", soft_wrap=True)
    size = ""
    if image != PAPER.image:
        size = f"--short_side {image.short_side} --long_side {image.long_side} "
    console.print(f"train with them: train_frcnn.py -p ... {size}--anchors {out}", soft_wrap=True)
