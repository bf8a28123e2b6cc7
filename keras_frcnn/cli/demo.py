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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from keras_frcnn.cli import evaluate, export, test, train
from keras_frcnn.cli.common import HelpfulParser, make_console
from keras_frcnn.data.owned_folder import claim_folder
from keras_frcnn.data.synthetic import write_demo_devkit
from keras_frcnn.errors import UserError
from keras_frcnn.files import user_path, write_text

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
    steps = DemoSteps(out, arguments.seed, settings, make_console())
    steps.generate()
    steps.evaluate_untrained()
    steps.train()
    steps.evaluate()
    steps.draw()
    steps.export()
    steps.summarise()


class DemoSteps:
    """The steps of the demo, each timed.

    Args:
        out: the demo's folder, claimed.
        seed: of data and training.
        settings: how much of both.
        console: where to print.
    """

    def __init__(self, out: Path, seed: int, settings: DemoSettings, console: Console):
        self.out = out
        self.seed = seed
        self.settings = settings
        self.console = console
        self.seconds: dict[str, float] = {}
        self.devkit = out / "devkit"
        self.run = out / "run"
        self.untrained = out / "untrained"

    def generate(self) -> None:
        """Writes the devkit and copies its test images to ``photos/``."""
        with self._timed("generate"):
            write_demo_devkit(
                self.devkit,
                seed=self.seed,
                train_images=self.settings.train_images,
                test_images=self.settings.test_images,
            )
            copy_test_images(self.devkit / "VOC2007", self.out / "photos")

    def evaluate_untrained(self) -> None:
        """Evaluates a network with random weights, for comparison.

        It comes from one joint step at a learning rate of 1e-9, which changes no weight visibly.
        """
        with self._timed("evaluate untrained"):
            nothing = ("--mode", "joint", "--iterations", "1", "--learning_rate", "1e-9")
            self._call("train", train.main, *self._training_flags(self.untrained), *nothing)
            self._evaluate(self.untrained, self.untrained)

    def train(self) -> None:
        """Trains the four stages."""
        with self._timed("train"):
            flags = (*self._training_flags(self.run), *self.settings.schedule)
            self._call("train", train.main, *flags)

    def evaluate(self) -> None:
        """Writes ``evaluation.json``."""
        with self._timed("evaluate"):
            self._evaluate(self.run, self.out)

    def draw(self) -> None:
        """Draws the detections on the test images."""
        with self._timed("draw"):
            flags = ("-p", self.out / "photos", "--run", self.run, "--out", self.out / "pictures")
            self._call("test", test.main, *flags)

    def export(self) -> None:
        """Writes ``saved_model/`` and compares it with the run on a test image."""
        with self._timed("export"):
            photo = min((self.out / "photos").iterdir())
            flags = ("--run", self.run, "--out", self.out / "saved_model", "--image", photo)
            self._call("export", export.main, *flags)

    def summarise(self) -> None:
        """Prints both results and writes ``summary.json``."""
        before = json.loads((self.untrained / "evaluation.json").read_text())
        after = json.loads((self.out / "evaluation.json").read_text())
        self.console.print(results_table(before, after))
        total = sum(self.seconds.values())
        self.console.print(
            f"mAP@0.5 on {after['images']} test images: {after['map_area']:.3f} trained, "
            f"{before['map_area']:.3f} untrained; {total:.0f} s in all. Look at "
            f"{self.out / 'pictures'}",
            highlight=False,
        )
        summary = {
            "map_area": after["map_area"],
            "map_area_untrained": before["map_area"],
            "seconds": self.seconds,
        }
        write_text(self.out / "summary.json", json.dumps(summary, indent=2) + "\n")

    def _training_flags(self, run: Path) -> tuple[object, ...]:
        data = ("-p", self.devkit, "--out", run, "--seed", self.seed)
        return (*data, *NETWORK, *INPUT)

    def _evaluate(self, run: Path, out: Path) -> None:
        flags = ("--run", run, "-p", self.devkit, "--set", "2007:test", "--out", out)
        self._call("evaluate", evaluate.main, *flags)

    def _call(self, name: str, main: Callable[[Sequence[str]], None], *flags: object) -> None:
        """Runs another command as if it had been typed."""
        words = [str(flag) for flag in flags]
        self.console.print(f"$ python -m keras_frcnn {name} {shlex.join(words)}", highlight=False)
        main(words)

    @contextmanager
    def _timed(self, step: str) -> Iterator[None]:
        self.console.rule(f"demo: {step}")
        start = time.monotonic()
        yield
        self.seconds[step] = round(time.monotonic() - start, 1)
        self.console.print(f"{step}: {self.seconds[step]:.0f} s", highlight=False)


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
