"""``train_frcnn.py``: flags, the run folder, going on, and what --deterministic takes."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import h5py
import pytest
from PIL import Image

from keras_frcnn.cli import train
from keras_frcnn.cli.common import make_console
from keras_frcnn.cli.train_flags import build_parser
from keras_frcnn.runs.folder import RunFolder, find_run


def parse(*flags: object):
    return build_parser().parse_args(["-p", "data", *map(str, flags)])


def test_the_simple_layout_is_read(devkit, tmp_path):
    image = devkit / "VOC2007" / "JPEGImages" / "000000.jpg"
    text = tmp_path / "boxes.txt"
    text.write_text(f"path,x1,y1,x2,y2,class\n{image},10,10,60,50,disc\n{image},1,2,30,40,square\n")
    arguments = build_parser().parse_args(["-p", str(text), "-o", "simple"])
    dataset = train.load_training_data(arguments, text, RunFolder(tmp_path), make_console())
    assert dataset.class_names == ("disc", "square")
    assert dataset.examples[0].boxes_image.tolist() == [[10, 10, 50, 60], [2, 1, 40, 30]]


def test_nothing_is_written_into_the_data_folder(trained):
    assert trained.data_unchanged


def test_the_screen_before_training(trained):
    screen = trained.outcome.out
    # Long paths wrap lines, and lines end in blanks.
    start = " ".join(screen[: screen.index("stage 1/4")].split())
    for words in (
        *("tensorflow 2.", "keras ", "numpy ", "CPU", "float32", "paper, alternating; tiny"),
        *("from random weights", "2007:trainval: 9 images (1 without objects)", "2 classes"),
        *("mirrored images on", "1 x box clipped", "data_report.txt", "have no anchor at IoU 0.5"),
        *("stage 1 8 iterations, learning rate 0.01, a tenth after 6", "stage 3 4 iter"),
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
            assert len(file["names"]) == 18
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


def test_initial_weights_are_needed_until_no_stage_starts_from_them(
    trained, devkit, command, tmp_path, tiny_flags, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    shutil.copyfile(trained.weights_copy, "start.h5")
    plain = [flag for flag in tiny_flags if flag not in ("--weights", "random")]
    flags = ("-p", devkit, *plain, "--iterations", "1,1,1,1", "--out", "run")
    weights = ("--input_weight_path", "start.h5")
    assert command(train.main, *flags, *weights, "--stages", "1").code == 0
    other_spelling = ("--input_weight_path", tmp_path / "start.h5")
    assert command(train.main, *flags, *other_spelling, "--stages", "1,2", "--resume").code == 0
    Path("start.h5").unlink()
    final = Path("run/weights/final.weights.h5")
    outcome = command(
        train.main, *flags, *weights, "--resume", "--output_weight_path", tmp_path / final
    )
    assert outcome.code == 0, outcome.err
    assert "tiny from start.h5" in outcome.out
    assert final.is_file()  # as the copy of itself


def test_runs_are_numbered_and_never_overwritten(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert train.run_of(parse()).path == Path("runs/vgg16")
    for name in ("vgg16", "vgg16-2", "vgg16-old"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    assert train.run_of(parse()).path == Path("runs/vgg16-3")
    assert train.run_of(parse("--name", "mine")).path == Path("runs/mine")
    assert train.run_of(parse("--out", "elsewhere")).path == Path("elsewhere")


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
    assert refused.refused("in the mode joint", "--stage 2")


def evaluate_main():
    from keras_frcnn.cli.evaluate import main

    return main
