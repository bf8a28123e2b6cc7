"""``train_frcnn.py --minutes``, data without lists, and the split that a run keeps."""

from __future__ import annotations

import json
import shlex
import shutil

import numpy as np
import pytest

from keras_frcnn.cli import evaluate, test, train
from keras_frcnn.data.split import read_split
from keras_frcnn.runs.folder import RunFolder
from keras_frcnn.training import plan
from tests.cli.conftest import run_command, write_picture
from tests.training.runs import file_weights, same

# A step is timed at 96 pixels: the plan itself is tested beside it.
SMALL = ("--network", "tiny", "--short_side", "96", "--iterations", "2", "--precision", "float32")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Twenty pictures as labelImg leaves them: two folders, blanks in names, no lists."""
    root = tmp_path_factory.mktemp("pictures")
    year = root / "devkit" / "VOC2007"
    for name in ("Annotations", "JPEGImages"):
        (year / name).mkdir(parents=True)
    for index in range(20):
        objects = [("disc", (10, 10 + index, 50, 50 + index)), ("square", (40, 20, 90, 70))]
        write_picture(year, f"slide {index * 7 % 20:02d}", objects, seed=index)
    cells = root / "my cells"
    cells.mkdir()
    shutil.move(year / "JPEGImages", cells / "images")
    shutil.move(year / "Annotations", cells / "labels")
    return cells


@pytest.fixture(scope="module")
def planned(folder, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "planned"
    command = ("-p", folder, "--minutes", "5", "--out", run, *SMALL)
    return command, RunFolder(run), run_command(train.main, *command)


def test_the_plan_is_told_and_kept(planned):
    command, run, outcome = planned
    assert outcome.code == 0, outcome.err
    config = run.read_config()
    assert (config.mode, config.minutes) == ("joint", 5)
    assert config.initial_weights == "random"  # of tiny there are no others
    # Of a plan, what was given stays.
    assert (config.recipe.image.short_side, config.recipe.joint.iterations) == (96, 2)
    assert config.recipe.joint.learning_rate == plan.RATES[True]
    told = {choice.part for choice in config.choices}
    assert told == {"anchors", "learning_rate", "clip_norm", "dropout"}
    assert "plan for 5 minutes" in outcome.out
    assert f"--anchors {run.path / 'anchors.json'} " in outcome.out
    shapes = json.loads((run.path / "anchors.json").read_text())
    assert len(config.recipe.anchors.shapes) == len(shapes["shapes"]) == 2


def test_the_command_that_is_told_makes_the_same_weights_without_a_plan(planned, tmp_path):
    """So timing a step leaves no trace in what is random, either."""
    _, run, outcome = planned
    told = outcome.out.split("the same without a plan: train_frcnn.py ")[1].split("\n")[0]
    assert "--minutes" not in told
    spelt = run_command(train.main, *shlex.split(told), "--out", tmp_path / "spelt")
    assert spelt.code == 0, spelt.err
    other = RunFolder(tmp_path / "spelt")
    assert other.read_config().recipe == run.read_config().recipe
    one, two = (file_weights(each, "final") for each in (run, other))
    assert one.keys() == two.keys()
    assert all(same(one[layer], two[layer]) for layer in one)


def test_words_of_some_flags_are_left_out():
    words = ["-p", "a", "--minutes", "5", "--out=x", "--minutes=5", "--seed", "3"]
    assert train.without_values(words, ("--minutes", "--out")) == ["-p", "a", "--seed", "3"]


def test_the_same_command_goes_on_with_the_plan_as_it_was(planned, monkeypatch):
    command, run, _ = planned
    monkeypatch.setattr(plan, "joint_seconds", None)  # nothing is timed again
    before = run.read_config()
    again = run_command(train.main, *command, "--resume")
    assert again.code == 0, again.err
    assert run.read_config() == before


def test_a_run_keeps_its_split_and_is_evaluated_by_it(planned, folder):
    _, run, _ = planned
    split = read_split(run.split_file)
    assert len(split) == 20
    held_out = {part for part in split.values()} - {"train"}
    assert held_out == {"test"}
    listed = run.training_images_file.read_text().splitlines()
    assert len(listed) == sum(part == "train" for part in split.values())
    outcome = run_command(evaluate.main, "--run", run.path)
    assert outcome.code == 0, outcome.err
    evaluation = json.loads((run.path / "evaluation.json").read_text())
    assert evaluation["images"] == sum(part == "test" for part in split.values())


def test_evaluation_without_data_or_run_says_what_is_missing(tmp_path):
    (tmp_path / "x.json").write_text("[]")
    outcome = run_command(evaluate.main, "--detections", tmp_path / "x.json")
    assert outcome.refused("-p")


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        (("--mode", "alternating"), "alternating"),
        (("--proposals", "boxes.h5"), "--proposals"),
        (("--recipe", "paper"), "recipe"),
    ],
)
def test_what_does_not_go_with_a_plan(flags, word, folder):
    assert run_command(train.main, "-p", folder, "--minutes", "5", *flags).refused(word)


def test_a_training_without_minutes_says_how_long_it_takes(folder, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(train, "LONG_TRAINING", 1)
    monkeypatch.setattr(
        "keras_frcnn.training.duration.expected_seconds",
        lambda config, dataset: asked.append(config) or 7 * 24 * 3600,
    )
    flags = ("--mode", "joint", *SMALL, "--anchor_scales", "2,4", "--out", tmp_path / "run")
    outcome = run_command(train.main, "-p", folder, *flags)
    assert outcome.code == 0, outcome.err
    assert len(asked) == 1
    assert "takes about 7.0 days" in outcome.out
    assert "--minutes 20" in outcome.out


def test_tiles(planned, folder, tmp_path):
    _, run, _ = planned
    common = ("-p", folder / "images", "--run", run.path, "--score_thresh", "0")
    for name, flags in (("whole", ()), ("tiled", ("--tile", "64,0.25"))):
        outcome = run_command(test.main, *common, "--out", tmp_path / name, *flags)
        assert outcome.code == 0, outcome.err
    found = json.loads((tmp_path / "tiled" / "detections.json").read_text())
    boxes = np.array([each["bbox"] for each in found])
    assert len({each["file_name"] for each in found}) == 20
    assert (boxes[:, 2:] <= 64.01).all()  # each within its tile
    refused = run_command(test.main, *common, "--out", tmp_path / "x", "--tile", "wide")
    assert refused.refused("--tile")
