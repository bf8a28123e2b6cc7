"""``python -m keras_frcnn demo``: from nothing to a trained, evaluated and exported detector.

Generates a small devkit, evaluates a network with random weights on its test images, trains the
four stages, evaluates again, draws the detections and exports. Every step is the command that a
user would type; the flags are printed.

Shapes and names
----------------
out  the demo's folder:
    devkit/           the generated data, VOC layout
    untrained/        run folder of the network with random weights
    run/              run folder of the training
    evaluation.json   what ``evaluate`` found on the test images after training
    detections.json   the detections that this is about
    photos/           the test images
    pictures/         the same with detections drawn, and detections.json
    saved_model/      the export
    summary.json      both mAP and the seconds of every step
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from rich.console import Console
from rich.table import Table

from keras_frcnn.cli import evaluate, export, test, train
from keras_frcnn.cli.common import HelpfulParser, make_console
from keras_frcnn.demo.devkit import claim_folder, write_demo_devkit
from keras_frcnn.errors import UserError
from keras_frcnn.system.files import user_path, write_text

MADE_BY = "keras_frcnn demo"
CONTENTS = (
    "devkit",
    "untrained",
    "run",
    "evaluation.json",
    "detections.json",
    "photos",
    "pictures",
    "saved_model",
    "summary.json",
)


@dataclass(frozen=True)
class DemoSettings:
    """How much data and training.

    Attributes:
        train_images, test_images: numbers of generated pictures.
        schedule: flags of ``train`` that say how long and how fast each stage learns.
    """

    train_images: int
    test_images: int
    schedule: tuple[str, ...]


FULL = DemoSettings(
    train_images=300,
    test_images=48,
    schedule=("--iterations", "1600,2400,600,1000", "--learning_rate", "0.01"),
)
SMALL = DemoSettings(
    train_images=20,
    test_images=6,
    schedule=("--iterations", "30,20,10,20", "--learning_rate", "0.003"),
)

NETWORK = ("--network", "tiny", "--weights", "random")

# Objects are 28 to 112 pixels large, 35 to 140 in the input, and about as high as wide. With these
# anchors (35, 64 and 112) 6% of the objects have none at IoU 0.5; at 240 pixels it would be 17%.
INPUT = ("--short_side", "300", "--anchor_scales", "2.2,4,7", "--anchor_ratios", "0.7,1,1.4")


def build_parser() -> argparse.ArgumentParser:
    """The parser."""
    parser = HelpfulParser(
        prog="python -m keras_frcnn demo",
        description="Generate a small data set, train, evaluate, draw and export on it.",
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="a demo there is replaced")
    parser.add_argument(
        "--seed", type=int, default=0, help="of the data and the training (default: 0)"
    )
    parser.add_argument(
        "--small", action="store_true", help="a minute's run that learns nothing, for tests"
    )
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
    make_demo(out, arguments.seed, settings, make_console())


def make_demo(out: Path, seed: int, settings: DemoSettings, console: Console) -> None:
    """Runs every step in a folder that is claimed."""
    seconds: dict[str, float] = {}
    devkit, untrained, run, photos = (
        out / name for name in ("devkit", "untrained", "run", "photos")
    )

    @contextmanager
    def timed(step: str) -> Iterator[None]:
        console.rule(f"demo: {step}")
        start = time.monotonic()
        yield
        seconds[step] = round(time.monotonic() - start, 1)
        console.print(f"{step}: {seconds[step]:.0f} s", highlight=False)

    def call(name: str, command: ModuleType, *flags: object) -> None:
        """Runs another command as if it had been typed."""
        words = [str(flag) for flag in flags]
        console.print(f"$ python -m keras_frcnn {name} {shlex.join(words)}", highlight=False)
        command.main(words)

    def call_train(run: Path, *flags: str) -> None:
        data = ("-p", devkit, "--out", run, "--seed", seed)
        call("train", train, *data, *NETWORK, *INPUT, *flags)

    def call_evaluate(run: Path, target: Path) -> None:
        data = ("-p", devkit, "--set", "2007:test", "--out", target)
        call("evaluate", evaluate, "--run", run, *data)

    with timed("generate"):
        write_demo_devkit(
            devkit,
            seed=seed,
            train_images=settings.train_images,
            test_images=settings.test_images,
        )
        copy_test_images(devkit / "VOC2007", photos)
    with timed("evaluate untrained"):
        # One joint step at a learning rate of 1e-9 changes no weight visibly.
        call_train(untrained, "--mode", "joint", "--iterations", "1", "--learning_rate", "1e-9")
        call_evaluate(untrained, untrained)
    with timed("train"):
        call_train(run, *settings.schedule)
    with timed("evaluate"):
        call_evaluate(run, out)
    with timed("draw"):
        call("test", test, "-p", photos, "--run", run, "--out", out / "pictures")
    with timed("export"):
        photo = min(photos.iterdir())
        call("export", export, "--run", run, "--out", out / "saved_model", "--image", photo)
    summarise(out, seconds, console)


def summarise(out: Path, seconds: dict[str, float], console: Console) -> None:
    """Prints both results and writes ``summary.json``."""
    before = json.loads((out / "untrained" / "evaluation.json").read_text())
    after = json.loads((out / "evaluation.json").read_text())
    console.print(results_table(before, after))
    console.print(
        f"mAP@0.5 on {after['images']} test images: {after['map_area']:.3f} trained, "
        f"{before['map_area']:.3f} untrained; {sum(seconds.values()):.0f} s in all. Look at "
        f"{out / 'pictures'}",
        highlight=False,
    )
    summary = {
        "map_area": after["map_area"],
        "map_area_untrained": before["map_area"],
        "seconds": seconds,
    }
    write_text(out / "summary.json", json.dumps(summary, indent=2) + "\n")


def copy_test_images(year: Path, target: Path) -> None:
    """Copies the images of ``year/ImageSets/Main/test.txt`` into a new folder."""
    target.mkdir()
    for image_id in (year / "ImageSets" / "Main" / "test.txt").read_text().split():
        shutil.copy(year / "JPEGImages" / f"{image_id}.jpg", target)


def results_table(before: dict, after: dict) -> Table:
    """AP per class and mean, without and with training.

    Args:
        before, after: contents of two ``evaluation.json``.
    """
    table = Table("class", title="AP@0.5 (area)")
    for heading in ("objects", "untrained", "trained"):
        table.add_column(heading, justify="right")
    for name, values in after["per_class"].items():
        untrained = before["per_class"][name]["ap_area"]
        table.add_row(
            name, str(values["ground_truth"]), _number(untrained), _number(values["ap_area"])
        )
    table.add_section()
    objects = sum(values["ground_truth"] for values in after["per_class"].values())
    table.add_row("mean", str(objects), _number(before["map_area"]), _number(after["map_area"]))
    return table


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
