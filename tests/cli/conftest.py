"""A hand-made devkit of 120-pixel pictures, one run trained on it, one export: made once a session.

Shapes and names
----------------
flags  words of a command line.
"""

from __future__ import annotations

import io
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keras_frcnn.cli import export as export_command
from keras_frcnn.cli import train as train_command
from keras_frcnn.cli.common import run_main

OBJECT = """<object><name>{name}</name><difficult>{difficult}</difficult><bndbox><xmin>{xmin}</xmin>
<ymin>{ymin}</ymin><xmax>{xmax}</xmax><ymax>{ymax}</ymax></bndbox></object>"""

# 96-pixel input, four anchors a position, a handful of iterations: seconds on one core.
TINY = (
    *("--network", "tiny", "--weights", "random", "--short_side", "96", "--long_side", "160"),
    *("--anchor_scales", "1.5,3", "--anchor_ratios", "0.7,1.4", "--seed", "3"),
)
SCHEDULE = ("--iterations", "8,8,4,8", "--learning_rate", "0.01")


@dataclass(frozen=True)
class Outcome:
    """What a command did."""

    code: int
    out: str
    err: str

    def refused(self, *words: str) -> bool:
        """Whether it was refused as a mistake of the user: one line, code 2, no traceback."""
        text = self.err.strip()
        one_line = "\n" not in text and text.startswith("error: ")
        return (
            self.code == 2
            and one_line
            and "Traceback" not in self.out + text
            and all(word in text for word in words)
        )


def run_command(main, *flags: object) -> Outcome:
    """Runs a command in this process as its entry point does."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = run_main(main, [str(flag) for flag in flags])
    assert code != 1, err.getvalue()  # what nobody expected is a bug, whatever a test looks for
    return Outcome(code, out.getvalue(), err.getvalue())


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of last change of everything below a folder, the folder included."""
    paths = [folder, *folder.rglob("*")]
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in paths}


def write_picture(
    year: Path, image_id: str, objects: list[tuple], *, size=(100, 120), seed: int
) -> None:
    """A grey noise picture with one-coloured rectangles, and its annotation.

    Args:
        objects: (name, (y1, x1, y2, x2)) or (name, box, difficult).
        size: height and width.
    """
    pixels = np.random.default_rng(seed).integers(90, 130, (*size, 3), np.uint8)
    elements = []
    for name, (y1, x1, y2, x2), *difficult in objects:
        pixels[y1:y2, x1:x2] = (220, 40, 40) if name == "disc" else (40, 60, 230)
        elements.append(
            OBJECT.format(
                name=name,
                difficult=int(bool(difficult)),
                xmin=x1 + 1,
                ymin=y1 + 1,
                xmax=x2,
                ymax=y2,
            )
        )
    for folder in ("Annotations", "JPEGImages"):
        (year / folder).mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(year / "JPEGImages" / f"{image_id}.jpg", quality=95)
    text = f"<annotation><filename>{image_id}.jpg</filename>{''.join(elements)}</annotation>"
    (year / "Annotations" / f"{image_id}.xml").write_text(text)


def write_devkit(root: Path, names: tuple[str, str] = ("disc", "square")) -> Path:
    """``VOC2007``: nine training pictures, one empty, one with a problem, and three for test."""
    year = root / "VOC2007"
    first, second = names
    for number in range(12):
        shift = 5 * (number % 5)
        objects = [
            (first, (10 + shift, 10, 50 + shift, 60)),
            (second, (40, 70 - shift, 90, 110 - shift)),
        ]
        if number == 4:
            objects = []
        if number == 7:  # it reaches out of the picture, which is clipped and reported
            objects = [(first, (20, 80, 60, 140))]
        if number == 10:
            objects.append((first, (5, 5, 30, 30), True))
        size = (120, 100) if number == 5 else (100, 120)
        if number == 5:
            objects = [(second, (30, 20, 100, 80))]
        write_picture(year, f"{number:06d}", objects, size=size, seed=number)
    lists = year / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    ids = [f"{number:06d}\n" for number in range(12)]
    (lists / "trainval.txt").write_text("".join(ids[:9]))
    (lists / "test.txt").write_text("".join(ids[9:]))
    return root


@pytest.fixture(scope="session")
def devkit(tmp_path_factory) -> Path:
    """A devkit that no command may change."""
    return write_devkit(tmp_path_factory.mktemp("data") / "VOCdevkit")


@dataclass(frozen=True)
class TrainedRun:
    """A finished training."""

    path: Path
    flags: tuple[str, ...]
    outcome: Outcome
    weights_copy: Path
    config_copy: Path
    data_unchanged: bool


@pytest.fixture(scope="session")
def trained(devkit, tmp_path_factory) -> TrainedRun:
    """A run of all four stages, by the command line with the flags of the lineage."""
    folder = tmp_path_factory.mktemp("trained")
    run, weights, config = folder / "run", folder / "sub" / "model.hdf5", folder / "my.pickle"
    before = listing(devkit)
    flags = (
        *("-p", str(devkit), "-o", "pascal_voc", "--hf", "--out", str(run), *TINY, *SCHEDULE),
        *("-n", "16", "--output_weight_path", str(weights), "--config_filename", str(config)),
    )
    outcome = run_command(train_command.main, *flags)
    assert outcome.code == 0, outcome.err
    return TrainedRun(run, flags, outcome, weights, config, listing(devkit) == before)


@dataclass(frozen=True)
class Export:
    """A finished export."""

    path: Path
    outcome: Outcome


@pytest.fixture(scope="session")
def exported(trained, tmp_path_factory) -> Export:
    """The export of the trained run, with a low threshold: eight iterations teach little."""
    folder = tmp_path_factory.mktemp("exported") / "model"
    flags = ("--run", trained.path, "--out", folder, "--score_thresh", "0.02")
    outcome = run_command(export_command.main, *flags)
    assert outcome.code == 0, outcome.err
    return Export(folder, outcome)


@pytest.fixture(scope="session")
def command():
    """``command(main, *flags) -> Outcome``."""
    return run_command


@pytest.fixture(scope="session")
def make_devkit():
    """``make_devkit(root, names=("disc", "square"))``: another devkit like ``devkit``."""
    return write_devkit


@pytest.fixture(scope="session")
def list_files():
    """``list_files(folder)``: what must be equal before and after."""
    return listing


@pytest.fixture(scope="session")
def tiny_flags() -> tuple[str, ...]:
    """Flags of a network that trains in seconds."""
    return TINY
