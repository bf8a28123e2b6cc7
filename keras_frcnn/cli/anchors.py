"""``python -m keras_frcnn anchors``: anchor shapes that fit a data set, by k-means."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from keras_frcnn.cli.common import (
    ORIGINS,
    HelpfulParser,
    check_outside,
    existing_path,
    make_console,
    output_file,
    whole_number,
)
from keras_frcnn.cli.fields import add_fields
from keras_frcnn.cli.shared_flags import add_path_flags, add_training_set_flag
from keras_frcnn.cli.train_recipe import image_from
from keras_frcnn.data.anchor_clustering import (
    Clustering,
    cluster_shapes,
    count_different,
    mean_best_iou,
)
from keras_frcnn.data.anchor_files import read_anchors, write_anchors
from keras_frcnn.data.dataset import Dataset
from keras_frcnn.errors import UserError
from keras_frcnn.recipes import PAPER, AnchorConfig, ImageConfig
from keras_frcnn.system.devices import choose_devices, quiet_tensorflow

CURVE_TO = 15
LEAST_IOUS = (0.5, 0.7)

EPILOG = f"""\
{ORIGINS}
examples:
  python -m keras_frcnn anchors -p VOCdevkit
  python -m keras_frcnn anchors -p VOCdevkit --short_side 300 -k 6 --out 6.json
  train_frcnn.py -p VOCdevkit --short_side 300 --anchors 6.json
"""


def build_parser() -> argparse.ArgumentParser:
    """The parser; every default is named with its origin."""
    parser = HelpfulParser(
        prog="python -m keras_frcnn anchors",
        usage="python -m keras_frcnn anchors -p PATH [flags]",
        description="Find anchor shapes by k-means over the training objects, the distance\n"
        "being 1 - IoU, and tell how many objects they and the paper's nine cover.",
        epilog=EPILOG,
    )
    group = parser.add_argument_group("data")
    add_path_flags(group)
    add_training_set_flag(group)
    add_fields(group, ImageConfig)
    group = parser.add_argument_group("anchors")
    group.add_argument(
        "-k",
        "--number",
        type=whole_number(1),
        default=9,
        metavar="N",
        help="anchors of a position\ndefault: 9 (section 3.1.1)",
    )
    group.add_argument(
        "--seed",
        type=whole_number(0),
        default=0,
        metavar="N",
        help="of the first centres\ndefault: 0 (ours)",
    )
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
    path = existing_path(arguments.path, "The data path")
    out = output_file(arguments.out, "--out")
    check_outside(out, path, "--out")
    if out.suffix.lower() == ".png":
        raise UserError(f"--out {arguments.out} takes the JSON file; the PNG goes beside it.")
    given = None
    if arguments.anchors is not None:
        given = read_anchors(arguments.anchors, image)
    console = make_console()
    quiet_tensorflow()
    choose_devices("-1", deterministic=False)  # a few boxes an image
    from keras_frcnn.cli.data import load_dataset
    from keras_frcnn.data.coverage import best_ious, shapes_input
    from keras_frcnn.geometry.anchors import configured_anchors
    from keras_frcnn.plots import save_anchor_clusters

    dataset = load_dataset(arguments, console)
    examples = [example.without_difficult() for example in dataset.examples]
    shapes = shapes_input(examples, image)
    if not len(shapes):
        raise UserError(f"{path} has no object that is sound and not difficult: nothing to fit.")
    clusterings = cluster_all(shapes, arguments.number, arguments.seed, console)
    # Whole tenths are what the file holds: so they are also what is measured.
    chosen = np.maximum(np.round(clusterings[arguments.number].centres, 1), 0.1)
    own = AnchorConfig(scales=(), ratios=(), shapes=tuple(map(tuple, chosen.tolist())))
    candidates = {"the paper's nine": PAPER.anchors, f"k-means, {len(chosen)}": own}
    if given is not None:
        candidates[arguments.anchors] = AnchorConfig(scales=(), ratios=(), shapes=given)
    boxes = {name: configured_anchors(config) for name, config in candidates.items()}
    sides = {name: anchors[:, 2:] - anchors[:, :2] for name, anchors in boxes.items()}
    mean_ious = {name: mean_best_iou(shapes, anchors) for name, anchors in sides.items()}
    ious = {name: best_ious(examples, anchors, image) for name, anchors in boxes.items()}
    about = {
        "path": str(arguments.path),
        "sets": list(dataset.sets),
        "ids_hash": dataset.ids_hash,
        "objects": len(shapes),
        "seed": arguments.seed,
    }
    write_anchors(out, own.shapes, image, about)
    png = out.with_suffix(".png")
    published, k_means = list(boxes)[:2]
    save_anchor_clusters(
        png,
        mean_ious={k: clustering.mean_iou for k, clustering in clusterings.items()},
        published_mean_iou=mean_ious[published],
        shapes=shapes,
        best_ious=ious[k_means],
        anchors_input=boxes[k_means],
    )
    show_curve(console, dataset, image, clusterings, len(shapes))
    show_coverage(console, sides, mean_ious, ious)
    show_result(console, own, image, out, png)


def cluster_all(
    shapes: np.ndarray, number: int, seed: int, console: Console
) -> dict[int, Clustering]:
    """k-means for 1 to 15 centres (or as many as there are different shapes), and for ``number``.

    Raises:
        UserError: as :func:`cluster_shapes`.
    """
    curve_to = min(CURVE_TO, count_different(shapes))
    counts = sorted({*range(1, curve_to + 1), number})
    return {
        k: cluster_shapes(shapes, k, seed=seed)
        for k in track(counts, "k-means", console=console, disable=not console.is_terminal)
    }


def show_curve(
    console: Console,
    dataset: Dataset,
    image: ImageConfig,
    clusterings: dict[int, Clustering],
    objects: int,
) -> None:
    """What was clustered, and the mean IoU for every number of anchors."""
    console.print(
        f"{objects} objects in {len(dataset)} images ({' + '.join(dataset.sets)}), difficult ones "
        f"left out; in pixels of an input of short side {image.short_side}, long side up to "
        f"{image.long_side}",
        soft_wrap=True,
    )
    table = Table(title="mean IoU of the objects' shapes with the nearest of k", box=None)
    for k in clusterings:
        table.add_column(str(k), justify="right")
    table.add_row(*(f"{clustering.mean_iou:.3f}" for clustering in clusterings.values()))
    console.print(table)


def show_coverage(
    console: Console,
    sides: dict[str, np.ndarray],
    mean_ious: dict[str, float],
    ious: dict[str, np.ndarray],
) -> None:
    """How many objects each set of anchors covers."""
    table = Table("anchors", title="objects covered, anchors placed as in training")
    for heading in ("a position", "mean IoU of shapes", *(f"IoU >= {iou}" for iou in LEAST_IOUS)):
        table.add_column(heading, justify="right")
    for name, best in ious.items():
        covered = (best >= least for least in LEAST_IOUS)
        table.add_row(
            name,
            str(len(sides[name])),
            f"{mean_ious[name]:.3f}",
            *(f"{hits.sum()} ({hits.mean():.1%})" for hits in covered),
        )
    console.print(table)
    console.print(
        "placed as in training: at every 16th pixel and only where they do not cross the border of "
        "the image",
        soft_wrap=True,
    )


def show_result(
    console: Console, anchors: AnchorConfig, image: ImageConfig, out: Path, png: Path
) -> None:
    """The chosen anchors as a part of a recipe, and how to train with them."""
    shapes = ", ".join(f"({height:g}, {width:g})" for height, width in anchors.shapes)
    comma = "," if len(anchors.shapes) == 1 else ""
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
