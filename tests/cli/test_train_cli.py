"""``train_frcnn.py``: the lineage's flags, schedules, the run folder, and every mistake refused."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import h5py
import pytest
from PIL import Image

from keras_frcnn.cli import train, train_run
from keras_frcnn.cli.train_flags import build_parser
from keras_frcnn.cli.train_recipe import recipe_from
from keras_frcnn.errors import UserError
from keras_frcnn.runs import RunFolder, find_run

ROOT = Path(__file__).parents[2]


def parse(*flags: object):
    return build_parser().parse_args(["-p", "data", *map(str, flags)])


def test_the_simple_layout_is_read(devkit, tmp_path):
    image = devkit / "VOC2007" / "JPEGImages" / "000000.jpg"
    text = tmp_path / "boxes.txt"
    text.write_text(f"path,x1,y1,x2,y2,class\n{image},10,10,60,50,disc\n{image},1,2,30,40,square\n")
    arguments = build_parser().parse_args(["-p", str(text), "-o", "simple"])
    dataset = train.load_data(arguments, text, train.make_console())
    assert dataset.class_names == ("disc", "square")
    assert dataset.examples[0].boxes_image.tolist() == [[10, 10, 50, 60], [2, 1, 40, 30]]


# --- a finished run ----------------------------------------------------------------------------


def test_nothing_is_written_into_the_data_folder(trained):
    assert trained.data_unchanged


def test_the_screen_before_training(trained):
    screen = trained.outcome.out
    start = screen[: screen.index("stage 1/4")]
    for words in (
        *("tensorflow 2.", "keras ", "numpy ", "CPU", "float32", "paper, alternating; tiny"),
        *("from random weights", "2007:trainval: 9 images (1 without objects)", "2 classes"),
        *("mirrored images on", "1 x box clipped", "data_report.txt", "have no anchor at IoU 0.5"),
        *("stage 1     8 iterations, learning rate 0.01, a tenth after 6", "stage 3     4 iter"),
        *("run folder", str(trained.path)),
    ):
        assert words in start, words


def test_the_progress_tells_stage_losses_speed_and_time(trained):
    lines = [line for line in trained.outcome.out.splitlines() if " 8/8 " in line]
    assert [line.split(",")[0] for line in lines] == ["stage 1/4", "stage 2/4", "stage 4/4"]
    for words in ("loss ", "rpn cls", "rpn box", "img/s", "wait ", "left ", "all "):
        assert words in lines[0]
    for words in ("loss ", "det cls", "det box", "fg/bg "):
        assert words in lines[1]


def test_every_stage_traces_its_step_once(trained):
    assert trained.outcome.out.count("traces of the step: 1 for all image sizes\n") == 4


def test_the_run_folder_holds_everything(trained):
    run = trained.path
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [(record["stage"], record["iteration"]) for record in metrics] == [
        (1, 8), (2, 8), (3, 4), (4, 8),
    ]  # fmt: skip
    assert all(record["loss"] > 0 and record["images_per_second"] > 0 for record in metrics)
    events = list((run / "tensorboard").glob("events.out.tfevents.*"))
    assert sum(file.stat().st_size for file in events) > 1000
    pictures = ["curves.png", "labels.png"]
    pictures += [f"samples/anchors-{number}.png" for number in (1, 2, 3)]
    pictures += [f"samples/stage{stage}-rois-{n}.png" for stage in (2, 4) for n in (1, 2, 3)]
    for name in pictures:
        with Image.open(run / name) as picture:
            picture.load()
            assert min(picture.size) >= 96, name
    for name in ("stage1", "stage2", "stage3", "stage4", "final"):
        assert (run / "weights" / f"{name}.weights.h5").stat().st_size > 10_000
    for stage in (1, 3):
        with h5py.File(run / "proposals" / f"stage{stage}.h5") as file:
            assert len(file["keys"]) == 18
    report = (run / "data_report.txt").read_text()
    assert "1  box clipped" in report
    assert "000007.xml, object 1 (disc): box clipped: expected a box inside" in report
    assert not list(run.rglob("*.partial"))
    assert not list((run / "checkpoints").glob("*"))


def test_the_configuration_is_complete(trained):
    values = json.loads((trained.path / "config.json").read_text())
    assert values["class_names"] == ["disc", "square"]
    assert (values["network"], values["seed"], values["flips"]) == ("tiny", 3, True)
    assert (values["mode"], values["stages"], values["precision"]) == (
        "alternating", [1, 2, 3, 4], "float32",
    )  # fmt: skip
    assert (values["initial_weights"], values["initial_weights_digest"]) == ("random", None)
    assert values["data"]["sets"] == ["2007:trainval"]
    assert values["data"]["images"] == 9
    assert set(values["versions"]) >= {"keras_frcnn", "python", "tensorflow", "keras", "numpy"}
    assert values["recipe"]["anchors"]["scales"] == [1.5, 3.0]
    assert values["recipe"]["detector"]["rois_per_step"] == 16
    assert values["recipe"]["stages"][2] == {"iterations": 4, "drop_at": 3, "learning_rate": 0.01}
    assert isinstance(values["command"], list)


def test_the_copies_that_the_lineage_knows(trained):
    final = trained.path / "weights" / "final.weights.h5"
    assert trained.weights_copy.suffix == ".hdf5"
    assert trained.weights_copy.read_bytes() == final.read_bytes()
    assert json.loads(trained.config_copy.read_text())["class_names"] == ["disc", "square"]
    assert find_run(trained.config_copy).path == trained.path.resolve()
    assert RunFolder(trained.path).read_config().network == "tiny"


def test_resuming_a_finished_run_changes_nothing(trained, command, list_files):
    before = list_files(trained.path / "weights")
    outcome = command(train.main, *trained.flags, "--resume")
    assert outcome.code == 0, outcome.err
    assert "Done." in outcome.out
    assert "8/8" not in outcome.out
    assert list_files(trained.path / "weights") == before


def test_resuming_with_another_configuration_is_refused(trained, command):
    for change, name in (
        (("--seed", "4"), "seed = 3, this command asks for 4"),
        (("--learning_rate", "0.02"), "recipe.stages"),
        (("--no-hf",), "flips = True"),
        (("--precision", "bfloat16"), "precision = 'float32'"),
    ):
        assert command(train.main, *trained.flags, *change, "--resume").refused(name, "--resume")


def test_resuming_on_changed_annotations_is_refused(
    command, tmp_path, make_devkit, tiny_flags, list_files
):
    devkit, run = make_devkit(tmp_path / "VOCdevkit"), tmp_path / "run"
    flags = ("-p", devkit, *tiny_flags, "--mode", "joint", "--iterations", "1", "--out", run)
    assert command(train.main, *flags).code == 0
    before = list_files(run)
    file = devkit / "VOC2007" / "Annotations" / "000003.xml"
    file.write_text(file.read_text().replace("<xmin>", "<xmin>1", 1))
    outcome = command(train.main, *flags, "--resume")
    assert outcome.refused("1 of the 9 training images", "VOC2007/000003: its objects")
    changed = {name for name, entry in list_files(run).items() if before.get(name) != entry}
    assert {name.rsplit("/")[-1] for name in changed} <= {"training.lock"}


def test_runs_are_numbered_and_never_overwritten(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert train_run.new_run(parse()).path == Path("runs/vgg16")
    for name in ("vgg16", "vgg16-2", "vgg16-old"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    assert train_run.new_run(parse()).path == Path("runs/vgg16-3")
    assert train_run.new_run(parse("--name", "mine")).path == Path("runs/mine")
    assert train_run.new_run(parse("--out", "elsewhere")).path == Path("elsewhere")


@pytest.mark.slow
def test_joint_training_from_another_runs_weights(trained, devkit, command, tmp_path, tiny_flags):
    flags = [flag for flag in tiny_flags if flag not in ("--weights", "random")]
    joint = tmp_path / "joint"
    outcome = command(
        train.main,
        *("-p", devkit, "--out", joint, "--mode", "joint", "--iterations", "2", "--no-hf"),
        *(*flags, "--input_weight_path", trained.path, "--train_set", "2007:trainval"),
    )
    assert outcome.code == 0, outcome.err
    assert "loaded: " in outcome.out
    assert "joint training 2/2" in outcome.out
    values = json.loads((joint / "config.json").read_text())
    assert (values["mode"], values["recipe"]["name"]) == ("joint", "py-faster-rcnn")
    weights = (trained.path / "weights" / "final.weights.h5").read_bytes()
    digest = hashlib.blake2b(weights, digest_size=16).hexdigest()
    assert values["initial_weights_digest"] == digest
    assert (joint / "weights" / "final.weights.h5").is_file()
    refused = command(evaluate_main(), "--run", joint, "-p", devkit, "--stage", "2")
    assert refused.refused("was trained with --mode joint, which has no stage 2")


def evaluate_main():
    from keras_frcnn.cli.evaluate import main

    return main


# --- mistakes ----------------------------------------------------------------------------------


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
        (["--short_side", "0"], ["--short_side", "whole number from 1 up"]),
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
        (["-n", "1"], ["--num_rois must be at least 2"]),
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
        (["-o", "coco"], ["--parser", "coco"]),
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
    outcome = command(train.main, "-p", boxes, "-o", "simple", "--out", out, *tiny_flags)
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
        (good[:200], "not readable JSON"),
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


@pytest.mark.parametrize("gpus", [0, 1])
@pytest.mark.parametrize("kind", [None, "max", "crop", "align"])
def test_deterministic_takes_the_pooling_that_can_be_so_on_a_gpu(kind, gpus, monkeypatch):
    flags = ("--roi_pooling", kind) if kind else ()
    visible = ["GPU:0"] * gpus
    monkeypatch.setattr("tensorflow.config.get_visible_devices", lambda kind: visible)
    assert train.pooling_from(parse(*flags)) == kind
    arguments = parse(*flags, "--deterministic")
    if gpus == 0:
        assert train.pooling_from(arguments) == kind
    elif kind in (None, "max"):
        arguments.roi_pooling = train.pooling_from(arguments)
        assert recipe_from(arguments, lambda images: 1).detector.roi_pooling == "max"
    else:
        with pytest.raises(UserError, match=f"--deterministic cannot .* --roi_pooling {kind} on a"):
            train.pooling_from(arguments)
