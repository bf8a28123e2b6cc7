"""Runs that go on elsewhere, and data or weights that a run must not be mixed with: by commands."""

from __future__ import annotations

import json
import shutil

import pytest

from keras_frcnn.cli import evaluate, test, train
from keras_frcnn.runs.folder import RunFolder
from tests.cli.conftest import write_devkit, write_picture

JOINT = ("--mode", "joint", "--iterations", "2")


@pytest.fixture
def kit(tmp_path):
    return write_devkit(tmp_path / "kit")


@pytest.fixture
def stopped(kit, command, tiny_flags, tmp_path):
    """``stopped(path)``: a run on a devkit whose weights are gone, and the flags that go on."""

    def make(path=kit):
        flags = ("-p", path, *tiny_flags, *JOINT, "--out", tmp_path / "run")
        outcome = command(train.main, *flags)
        assert outcome.code == 0, outcome.err
        run = RunFolder(tmp_path / "run")
        run.weights_file("final").unlink()
        return run, (*flags, "--resume")

    return make


def test_data_may_lie_elsewhere_and_other_threads_are_said(
    stopped, kit, command, tmp_path, monkeypatch
):
    run, flags = stopped()
    before = (run.path / "training_images.txt").read_bytes()
    kit.rename(tmp_path / "other")
    monkeypatch.chdir(run.path)
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "77")
    outcome = command(train.main, *flags, "-p", "../other")
    assert outcome.code == 0, outcome.err
    assert "intra_op_threads" in outcome.out and "'77'" in outcome.out
    assert run.weights_file("final").is_file()
    assert run.read_config().data.path == "../other"
    assert (run.path / "training_images.txt").read_bytes() == before


def test_other_data_are_refused_by_the_name_of_the_image(stopped, kit, command):
    run, flags = stopped()
    image = kit / "VOC2007/JPEGImages/000003.jpg"
    image.write_bytes(image.read_bytes()[:200])
    before = run.config_file.read_bytes()
    outcome = command(train.main, *flags, "--allow_bad")
    assert outcome.refused("1 of the 9 training images changed", "VOC2007/000003"), outcome
    assert run.config_file.read_bytes() == before


def test_a_run_goes_on_whatever_the_name_of_an_image(stopped, kit, command):
    year = kit / "VOC2007"
    picture = year / "JPEGImages/000002.jpg"
    picture.rename(picture.with_name("a\tb.jpg"))
    annotation = year / "Annotations/000002.xml"
    annotation.write_text(annotation.read_text().replace("000002.jpg", "a&#9;b.jpg"))
    run, flags = stopped()
    outcome = command(train.main, *flags)
    assert outcome.code == 0, outcome.err
    assert run.weights_file("final").is_file()


def test_byte_copies_in_the_test_list_are_said_and_not_evaluated(
    kit, command, tiny_flags, tmp_path
):
    images = kit / "VOC2007/JPEGImages"
    shutil.copyfile(images / "000001.jpg", images / "000010.jpg")
    run = tmp_path / "run"
    outcome = command(train.main, "-p", kit, *tiny_flags, *JOINT, "--out", run)
    assert outcome.code == 0, outcome.err
    assert (
        "1 image of the test list" in outcome.out and "000010.jpg is VOC2007/000001" in outcome.out
    )
    outcome = command(evaluate.main, "--run", run, "-p", kit, "--out", tmp_path / "evaluation")
    assert outcome.refused("1 of the 3 images were in the training set", "000010.jpg"), outcome


def strips(root):
    """Pictures in which no anchor fits."""
    for number in range(3):
        objects = [("disc", (2, 10, 18, 60))]
        write_picture(root / "VOC2007", f"{number:06d}", objects, size=(20, 400), seed=number)
    lists = root / "VOC2007/ImageSets/Main"
    lists.mkdir(parents=True)
    (lists / "trainval.txt").write_text("000000\n000001\n000002\n")
    return root


@pytest.mark.parametrize("small", [False, True], ids=["strips", "short side"])
def test_a_training_without_any_anchor_is_refused(kit, command, tiny_flags, tmp_path, small):
    path = kit if small else strips(tmp_path / "strips")
    flags = ("-p", path, *tiny_flags, "--out", tmp_path / "run", "--iterations", "1,1,1,1")
    if small:
        flags = (*flags, "--short_side", "20", "--long_side", "30")
    outcome = command(train.main, *flags)
    assert outcome.refused("anchor", "--anchor_scales", "--short_side"), outcome
    assert not (tmp_path / "run").exists()
    kept = command(train.main, *flags, "--keep_cross_boundary", "--stages", "1")
    # In joint training the detector learns all the same.
    joint = command(train.main, *flags[:-2], *JOINT, "--out", tmp_path / "joint")
    assert kept.code == 0 or "anchor lies" not in kept.err, kept.err
    assert "anchor lies inside" in joint.out


def test_weights_of_another_run_are_refused_by_every_command(trained, devkit, command, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained.path, run)
    config = run / "config.json"
    values = json.loads(config.read_text())
    config.write_text(json.dumps({**values, "seed": 99}))
    photos = devkit / "VOC2007/JPEGImages/000009.jpg"
    for main, flags in (
        (test.main, ("-p", photos, "--out", tmp_path / "found")),
        (evaluate.main, ("-p", devkit, "--out", tmp_path / "evaluation")),
    ):
        outcome = command(main, "--run", run, *flags)
        assert outcome.refused("final.weights.h5", "another run"), outcome


def test_a_run_is_tested_by_other_settings(trained, devkit, command, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained.path, run)
    values = json.loads((run / "config.json").read_text())
    values["recipe"]["test_proposals"]["after_nms"] = 20
    (run / "config.json").write_text(json.dumps(values))
    photo = devkit / "VOC2007/JPEGImages/000009.jpg"
    outcome = command(test.main, "--run", run, "-p", photo, "--out", tmp_path / "found")
    assert outcome.code == 0, outcome.err
