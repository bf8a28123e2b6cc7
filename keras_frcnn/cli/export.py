"""``python -m keras_frcnn export``: a SavedModel from a run.

Shapes and names
----------------
run  a finished run folder.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from keras_frcnn.cli.common import (
    HelpfulParser,
    choose_devices,
    existing_path,
    make_console,
    quiet_tensorflow,
)
from keras_frcnn.errors import UserError


def build_parser() -> argparse.ArgumentParser:
    """The parser."""
    parser = HelpfulParser(
        prog="python -m keras_frcnn export",
        description="Export a run to a SavedModel that serves without this package.",
    )
    parser.add_argument("--run", required=True, metavar="DIR", help="run folder of train_frcnn.py")
    parser.add_argument("--out", required=True, metavar="DIR", help="new folder for the SavedModel")
    parser.add_argument(
        "--image", metavar="FILE", help="image to compare on (default: a generated one)"
    )
    parser.add_argument(
        "--score_thresh", type=float, default=0.05, help="lowest score (default: 0.05, test.py:227)"
    )
    parser.add_argument(
        "--num_proposals", type=int, default=300, help="default: 300, config.py:162"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Exports, loads what was written and prints the largest difference to the run.

    Raises:
        UserError: for anything that the user can mend, and where the export differs from the run.
    """
    arguments = build_parser().parse_args(argv)
    console = make_console()
    quiet_tensorflow()
    choose_devices(None, deterministic=False)
    import numpy as np

    from keras_frcnn.data.images import read_image
    from keras_frcnn.export import export, largest_difference, load_exported
    from keras_frcnn.inference import load_predictor
    from keras_frcnn.recipes import DetectionFilter

    if arguments.image is None:
        image = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
    else:
        image = read_image(existing_path(arguments.image, "--image"))
    predictor = load_predictor(
        arguments.run,
        DetectionFilter(score_threshold=arguments.score_thresh),
        number_of_proposals=arguments.num_proposals,
    )
    out = Path(arguments.out)
    with console.status("exporting ..."):
        export(predictor, out)
    expected, _ = predictor.detect(image)
    found, _ = load_exported(out).detect(image)
    pixels, scores = largest_difference(expected, found)
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    console.print(f"exported to {out} ({size / 2**20:.0f} MiB)", highlight=False)
    console.print(
        f"loaded again and compared on {arguments.image or 'a generated image'}, "
        f"{len(expected.scores)} detections: boxes differ by at most {pixels:.2g} px, scores by "
        f"{scores:.2g}",
        highlight=False,
    )
    if pixels > 0.01 or scores > 1e-4:
        raise UserError(f"The exported model differs from the run; do not use {out}.")
    console.print(
        f"serve it with TensorFlow Serving, or: test_frcnn.py -p IMAGES --saved_model {out}",
        highlight=False,
    )
