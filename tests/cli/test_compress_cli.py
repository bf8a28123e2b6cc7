"""``python -m keras_frcnn compress``: what it prints and writes, and every other command on it."""

from __future__ import annotations

import json
import shutil

import pytest

from keras_frcnn.cli import compress, evaluate, export, train
from keras_frcnn.cli import test as test_command
from keras_frcnn.runs.folder import RunFolder


@pytest.fixture(scope="module")
def compressed(trained, devkit, command, tmp_path_factory):
    """The trained run at full rank, so that nothing changes."""
    out = tmp_path_factory.mktemp("compressed") / "svd"
    flags = ("--run", trained.path, "--out", out, "--fc6", "256", "--fc7", "256")
    outcome = command(compress.main, *flags, "-p", devkit, "--set", "2007:test")
    assert outcome.code == 0, outcome.err
    return outcome, out


def cells(text: str, title: str) -> list[str]:
    line = next(line for line in text.splitlines() if title in line)
    return [part.strip() for part in line.strip("│").split("│")][1:]


def test_what_is_told(compressed):
    outcome, out = compressed
    assert cells(outcome.out, "weights of the head") != []
    for number in cells(outcome.out, "RoI pooling and head, 300 RoIs"):
        assert float(number.removesuffix(" ms")) > 0
    record = json.loads((out / "evaluation.json").read_text())
    for title, name in (("mAP (area)", "map_area"), ("mAP (11point)", "map_11point")):
        before, after = cells(outcome.out, title)
        assert before == after == f"{record[name]:.4f}"
    assert record["run"] == str(out)
    assert f"the compressed run is in {out}" in outcome.out
    assert outcome.err == ""


@pytest.mark.slow
def test_every_other_command_takes_it(compressed, devkit, command, tmp_path):
    run = ("--run", compressed[1])
    picture = devkit / "VOC2007" / "JPEGImages" / "000009.jpg"
    for main, flags in (
        (test_command.main, ("-p", picture, "--out", tmp_path / "found")),
        (evaluate.main, ("-p", devkit, "--out", tmp_path / "evaluated")),
        (export.main, ("--out", tmp_path / "exported", "--score_thresh", "0.02")),
    ):
        outcome = command(main, *run, *flags)
        assert outcome.code == 0, outcome.err
    again = json.loads((tmp_path / "evaluated" / "evaluation.json").read_text())
    record = json.loads((compressed[1] / "evaluation.json").read_text())
    assert again["per_class"] == record["per_class"]
    refused = command(evaluate.main, *run, "-p", devkit, "--set", "2007:trainval")
    assert refused.refused("9 of the 9 images were in the training set")


def test_training_does_not_go_on(compressed, trained, devkit, command, tmp_path, tiny_flags):
    out = compressed[1]
    flags = list(trained.flags)
    flags[flags.index("--out") + 1] = str(out)
    outcome = command(train.main, *flags, "--resume")
    assert outcome.refused(f"{out} is a compressed run, whose training cannot go on")
    plain = [flag for flag in tiny_flags if flag not in ("--weights", "random")]
    flags = ("-p", devkit, *plain, "--out", tmp_path / "new", "--input_weight_path", out)
    assert command(train.main, *flags).refused("is a compressed run")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], ["--fc6 1024 exceeds the largest rank of fc6, which is 6272 x 256: give at most 256"]),
        (["--fc6", "0"], ["--fc6", "from 1 to 100000"]),
        (["--fc6", "9", "--fc7", "257"], ["--fc7 257 exceeds"]),
        (["--set", "2007:test"], ["--set belongs to -p"]),
        (["--images", "3"], ["--images belongs to -p"]),
        (["--allow_bad"], ["--allow_bad belongs to -p"]),
        (["-p", "nowhere"], ["The data path nowhere does not exist"]),
        (["--run", "nowhere"], ["nowhere is not a run folder"]),
        (["--out", "."], ["exists and is not empty; give another --out."]),
    ],
)
def test_flags_that_are_wrong(flags, words, trained, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    outcome = command(compress.main, "--run", trained.path, "--out", "svd", *flags)
    assert outcome.refused(*words), outcome
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("out", "flags", "words"),
    [
        ("svd", ["--set", "2007:bogus"], ["bogus.txt"]),
        ("svd", ["--set", "2007:trainval"], ["9 of the 9 images were in the training set"]),
        ("VOC2007/svd", ["--set", "2007:test"], ["lies in the data folder"]),
    ],
)
def test_mistakes_in_the_data_are_told_before_all_work(
    out, flags, words, trained, devkit, command, tmp_path
):
    data = shutil.copytree(devkit, tmp_path / "devkit")
    flags = ("-p", data, "--out", data / out if "/" in out else tmp_path / out, *flags)
    ranks = ("--fc6", "256", "--fc7", "256")
    assert command(compress.main, "--run", trained.path, *ranks, *flags).refused(*words)
    assert [path.name for path in tmp_path.iterdir()] == ["devkit"]
    assert not (data / out).exists()


def test_from_within_the_run(trained, command, tmp_path, monkeypatch):
    run = shutil.copytree(trained.path, tmp_path / "run")
    monkeypatch.chdir(run)
    outcome = command(compress.main, "--run", ".", "--fc6", "256", "--fc7", "256")
    assert outcome.code == 0, outcome.err
    assert {path.name for path in tmp_path.iterdir()} == {"run", "run-svd"}


def test_without_out_the_new_run_lies_beside_the_old(trained, command, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained.path, run)
    (tmp_path / "run-svd").mkdir()
    (tmp_path / "run-svd" / "notes.txt").write_text("mine")
    outcome = command(compress.main, "--run", run, "--fc6", "256", "--fc7", "256")
    assert outcome.refused(f"{run}-svd exists and is not empty")
    shutil.rmtree(tmp_path / "run-svd")
    outcome = command(compress.main, "--run", run, "--fc6", "256", "--fc7", "256")
    assert outcome.code == 0, outcome.err
    assert RunFolder(tmp_path / "run-svd").read_config().compression is not None


def test_the_run_itself_is_left_alone(trained, compressed):
    assert RunFolder(trained.path).read_config().compression is None
