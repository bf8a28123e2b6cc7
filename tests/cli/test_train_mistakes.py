"""Every mistake in a command of ``train_frcnn.py``: one sentence, and nothing is written."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from keras_frcnn.cli import train
from keras_frcnn.proposals.files import write_proposals
from keras_frcnn.proposals.given import GivenProposals, ranked
from keras_frcnn.system import precision

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--network", "vgg19"], ["--network", "vgg19", "vgg16"]),
        (["--num_epochs", "0"], ["--num_epochs", "a number above 0, not '0'"]),
        (["--num_epochs", "nan"], ["--num_epochs", "'nan'"]),
        (["--num_epochs", "inf"], ["--num_epochs", "'inf'"]),
        (["--num_epochs", "2", "--iterations", "1,1,1,1"], ["exclude each other"]),
        (["--iterations", "10"], ["--iterations takes 4 whole numbers"]),
        (["--iterations", "1,2,3,x"], ["--iterations takes whole numbers separated by commas"]),
        (["--mode", "joint", "--iterations", "1,2,3,4"], ["--iterations takes one number, not"]),
        (["--mode", "joint", "--recipe", "paper"], ["py-faster-rcnn recipe only"]),
        (["--mode", "joint", "--stages", "1,2"], ["--stages belongs to --mode alternating"]),
        (["--stages", "2,1"], ["--stages takes 1, 1,2, 1,2,3 or 1,2,3,4, not '2,1'"]),
        (["--stages", "1,2,3,4,5"], ["--stages takes"]),
        (["--learning_rate", "0.1,0.2"], ["--learning_rate takes 1 or 4 numbers, not 2"]),
        (["--learning_rate", "-1"], ["--learning_rate takes numbers above 0"]),
        (["--momentum", "1.5"], ["--momentum", "0 to 1"]),
        (["--weight_decay", "-1"], ["--weight_decay", "from 0"]),
        (["--short_side", "0"], ["--short_side", "whole number from 1 to 20000"]),
        (["--short_side", "six"], ["--short_side", "not 'six'"]),
        (["--short_side", "600", "--long_side", "300"], ["--long_side 300 must not be below"]),
        (["--anchor_scales", "8,0"], ["--anchor_scales takes numbers above 0"]),
        (["--anchor_ratios", "a"], ["--anchor_ratios takes numbers"]),
        (["--rpn_positive_iou", "1.5"], ["--rpn_positive_iou", "0 to 1"]),
        (["--rpn_positive_iou", "0.2"], ["--rpn_negative_iou must not exceed"]),
        (["--background_iou", "0.5,0.1"], ["--background_iou", "LOW < HIGH"]),
        (["--background_iou", "0.5"], ["--background_iou takes LOW,HIGH"]),
        (["--foreground_iou", "nan"], ["--foreground_iou", "0 to 1"]),
        (["-n", "0"], ["--num_rois", "from 1 up"]),
        (["-n", "1"], ["--num_rois 1 must be at least 4 and a multiple of 2, its images: a share"]),
        (["-n", "5"], ["--num_rois 5 must be at least 4 and a multiple of 2"]),
        (["--mode", "joint", "-n", "1"], ["--num_rois 1 must be at least 2: a share of 0.25"]),
        (["--foreground_iou", "0"], ["--foreground_iou", "above 0 to 1"]),
        (["--rpn_positive_iou", "0"], ["--rpn_positive_iou", "above 0 to 1"]),
        (["--num_epochs", "1e300"], ["--num_epochs asks for more than 1,000,000,000 iterations"]),
        (["--num_epochs", "1.7e308"], ["--num_epochs asks for more than"]),
        (["--iterations", f"1,{10**20},1,1"], ["--iterations asks for more than 1,000,000,000"]),
        (["--iterations", f"1,{10**320},1,1"], ["--iterations asks for more than 1,000,000,000"]),
        (["--anchor_scales", "1e38"], ["scales", "at most 100,000"]),
        (["--anchor_ratios", "2000"], ["nearer to 1"]),
        (["--name", ".."], ["--name .. is no plain name"]),
        (["--out", "run\udcff"], ["The run folder run? has a name that is not UTF-8"]),
        (["--rpn_minibatch", "1"], ["--rpn_minibatch", "from 2 up"]),
        (["--seed", "-1"], ["--seed", "whole number from 0"]),
        (["--seed", str(2**40)], ["--seed", "whole number from 0"]),
        (["--workers", "0"], ["--workers"]),
        (["--cache_budget", "-1"], ["--cache_budget"]),
        (["--checkpoint_minutes", "0"], ["--checkpoint_minutes"]),
        (["--name", "a", "--out", "b"], ["--name and --out exclude each other"]),
        (["--name", "../a"], ["--name ../a is no plain name"]),
        (["--weights", "random", "--input_weight_path", "x"], ["exclude each other"]),
        (["--stages", "1,2", "--output_weight_path", "w.h5"], ["after stage 4"]),
        (["--output_weight_path", "."], ["--output_weight_path takes a file"]),
        (["--config_filename", "."], ["--config_filename takes a file"]),
        (["--hff"], ["Did you mean --hf?"]),
        (["--resume"], ["no run called 'vgg16' under runs to resume"]),
        (["--gpu", "7", "--network", "tiny", "--weights", "random"], ["--gpu 7 names a GPU"]),
        (["--train_set", "2012:trainval"], ["VOC2012/ImageSets/Main/trainval.txt"]),
        (["--train_set", "last year"], ["2007:trainval+2012:trainval"]),
        (["-o", "simple"], ["-o pascal_voc for a VOC devkit"]),
        (["-o", "labels"], ["--parser", "labels"]),
        (["-p", "nowhere"], ["The data path nowhere does not exist"]),
    ],
)  # fmt: skip
def test_flags_that_are_wrong(flags, words, devkit, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # What comes first would hide the mistake of the data: no weights need to be fetched for it.
    known = {"--weights", "--input_weight_path", "--network", "--resume"}
    network = () if known & set(flags) else ("--network", "tiny", "--weights", "random")
    outcome = command(train.main, "-p", devkit, *network, *flags)
    assert outcome.refused(*words), outcome
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("flag", ["--config_filename", "--output_weight_path"])
def test_nothing_is_written_into_the_data(flag, devkit, command, tmp_path, tiny_flags):
    flags = ("-p", devkit, *tiny_flags, "--out", tmp_path / "run")
    target = devkit / "VOC2007" / "JPEGImages" / "mine"
    assert command(train.main, *flags, flag, target).refused(flag, "lies in the data folder")
    assert not target.exists() and not (tmp_path / "run").exists()


def test_a_missing_path_flag_is_refused(command):
    assert command(train.main).refused("train_frcnn.py: the following arguments are required", "-p")


def test_layouts_that_are_wrong(command, tmp_path, devkit):
    nothing = ("--network", "tiny", "--weights", "random", "--out", tmp_path / "run")
    (tmp_path / "photos").mkdir()
    (tmp_path / "list.txt").write_text("no such line\n")
    for path, layout, words in (
        (tmp_path / "photos", "pascal_voc", "Expected VOC<year>/ImageSets/Main"),
        (devkit / "VOC2007" / "JPEGImages", "pascal_voc", f"give {devkit} instead"),
        (tmp_path / "list.txt", "pascal_voc", "a text list of boxes needs -o simple"),
        (tmp_path / "list.txt", "simple", "line unreadable"),
    ):
        outcome = command(train.main, "-p", path, "-o", layout, *nothing)
        assert outcome.refused(words), outcome
    assert not (tmp_path / "run").exists()


def test_strict_stops_at_the_first_problems(command, tmp_path, devkit, tiny_flags):
    out = tmp_path / "run"
    outcome = command(train.main, "-p", devkit, "--strict", "--out", out, *tiny_flags)
    assert outcome.code == 2
    assert "1 x box clipped" in outcome.err
    assert "000007.xml, object 1 (disc)" in outcome.err
    assert not out.exists()


def test_data_without_a_sound_object_are_refused(command, tmp_path, devkit, tiny_flags):
    image = devkit / "VOC2007" / "JPEGImages" / "000000.jpg"
    boxes = tmp_path / "boxes.txt"
    boxes.write_text(f"{image},60,10,10,50,disc\n")
    out = tmp_path / "run"
    flags = ("-p", boxes, "-o", "simple", "--out", out, *tiny_flags)
    assert command(train.main, *flags).refused("boxes.txt, line 1")
    outcome = command(train.main, *flags, "--allow_bad")
    assert outcome.refused("nothing to learn", "xmin < xmax")
    assert not out.exists()


def test_an_out_folder_that_is_used_is_refused_before_the_data_are_read(
    command, tmp_path, devkit, tiny_flags
):
    (tmp_path / "notes.txt").write_text("mine")
    flags = ("-p", devkit, *tiny_flags)
    outcome = command(train.main, *flags, "--out", tmp_path)
    assert outcome.refused(f"The run folder {tmp_path} exists and is not empty", "--resume")
    outcome = command(train.main, *flags, "--out", tmp_path / "notes.txt")
    assert outcome.refused("is a file")
    outcome = command(train.main, *flags, "--out", tmp_path, "--resume")
    assert outcome.refused("is not a run folder")
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_damaged_config_is_refused(command, tmp_path, devkit, trained, tiny_flags):
    good = (trained.path / "config.json").read_text()
    values = json.loads(good)
    values["recipe"]["rpn"]["sigma"] = "one"
    missing = {name: value for name, value in json.loads(good).items() if name != "seed"}
    for text, words in (
        (good[:200], "cannot be read as"),
        ("[1, 2]", "not the configuration of a run"),
        (json.dumps(values), "recipe.rpn.sigma should be of type float, not 'one'"),
        (json.dumps(missing), "lacks the field 'seed'"),
        (json.dumps({**json.loads(good), "format": 99}), "install a newer keras_frcnn"),
        (json.dumps({**json.loads(good), "colour": 1}), "unknown field 'colour'"),
    ):
        (tmp_path / "config.json").write_text(text)
        outcome = command(train.main, "-p", devkit, *tiny_flags, "--out", tmp_path, "--resume")
        assert outcome.refused(words), outcome


def test_weights_that_do_not_fit_leave_no_run_folder(
    command, tmp_path, devkit, trained, tiny_flags
):
    out = tmp_path / "run"
    plain = [flag for flag in tiny_flags if flag not in ("--weights", "random")]
    flags = ("-p", devkit, "--out", out, *plain, "--input_weight_path")
    (tmp_path / "weights.h5").write_text("no HDF5")
    (tmp_path / "empty").mkdir()
    assert command(train.main, *flags, tmp_path / "weights.h5").refused("weights.h5")
    assert command(train.main, *flags, tmp_path / "none.h5").refused("none.h5 does not exist")
    assert command(train.main, *flags, tmp_path / "empty").refused("folder without")
    other = ("--anchor_scales", "1,2,3")
    outcome = command(train.main, *flags, trained.weights_copy, *other)
    assert outcome.refused("does not fit the network", "Give a file of the same network")
    assert not out.exists()


def test_a_network_or_precision_that_is_not_there_leaves_no_run_folder(
    command, tmp_path, devkit, tiny_flags, monkeypatch
):
    """The corrected command would be refused for the folder."""
    out = tmp_path / "run"
    flags = ("-p", devkit, *tiny_flags, "--out", out)
    outcome = command(train.main, *flags, "--network", "resnet50", "--dropout", "0.5")
    assert outcome.refused("dropout"), outcome
    monkeypatch.setattr(precision, "_failure", lambda call: "no such kernel")
    outcome = command(train.main, *flags, "--precision", "bfloat16")
    assert outcome.refused("convolution in bfloat16 fails", "no such kernel"), outcome
    assert not out.exists()


def test_offline_without_a_file_names_the_ways_out(command, tmp_path, devkit, monkeypatch):
    from keras_frcnn.network import weights

    def no_network(name, address, **kwargs):
        raise Exception(f"URL fetch failure on {address}: None -- [Errno 101] unreachable")

    monkeypatch.setattr(
        weights, "keras", SimpleNamespace(utils=SimpleNamespace(get_file=no_network))
    )
    out = tmp_path / "run"
    outcome = command(train.main, "-p", devkit, "--network", "resnet50", "--out", out)
    assert outcome.refused("--input_weight_path FILE", "--weights random", "resnet50_weights")
    outcome = command(train.main, "-p", devkit, "--network", "zf", "--out", out)
    assert outcome.refused("no ImageNet weights of zf", "--weights random")
    assert not out.exists()


def test_paths_and_data_are_looked_at_before_weights_are_fetched(
    command, tmp_path, devkit, monkeypatch
):
    def fetch(weights, network):
        raise AssertionError("fetched")

    monkeypatch.setattr("keras_frcnn.runs.networks.weights_file", fetch)
    few = GivenProposals({"VOC2007/000000": ranked([(1, 1, 9, 9)])}, "by hand", {}, "few.h5")
    write_proposals(tmp_path / "few.h5", few)
    flags = ("-p", devkit, "--out", tmp_path / "run", "--gpu", "-1")
    for more, words in (
        (("--proposals", "nowhere.h5"), "--proposals nowhere.h5 does not exist"),
        (("--proposals", tmp_path / "few.h5"), "none for 8 of the 9 images"),
        (("--train_set", "2012:trainval"), "VOC2012/ImageSets/Main/trainval.txt"),
    ):
        outcome = command(train.main, *flags, *more)
        assert outcome.refused(words), outcome
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["train_frcnn.py", "-p", "nowhere"],
        ["train_frcnn.py", "-p", ".", "--num_epoch", "2"],
        ["-m", "keras_frcnn", "train", "-p", ".", "--mode", "joint", "--recipe", "paper"],
    ],
)
def test_the_scripts_exit_with_code_2_and_one_line(words):
    done = subprocess.run(
        [sys.executable, *words], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
