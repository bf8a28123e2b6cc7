"""An ONNX file by the command line: made, quantised, checked, run, refused."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from keras_frcnn import errors
from keras_frcnn.cli import benchmark, export
from keras_frcnn.cli import test as test_command
from keras_frcnn.cli.common import make_console
from keras_frcnn.evaluation.agreement import ROUGH, Agreement

needs_onnx = pytest.mark.skipif(
    any(errors.find_spec(name) is None for name in ("onnx", "onnxruntime", "tf2onnx")),
    reason="needs the extra onnx",
)


@dataclass(frozen=True)
class Made:
    """A file and what was said."""

    path: Path
    text: str


@pytest.fixture(scope="module")
def int8(trained, devkit, command, tmp_path_factory) -> Made:
    """The trained run in int8, with a low threshold: eight iterations teach little."""
    out = tmp_path_factory.mktemp("onnx") / "int8.onnx"
    outcome = command(
        export.main,
        *("--run", trained.path, "--out", out, "--score_thresh", "0.02", "--int8"),
        *("-p", devkit, "--set", "2007:trainval", "--calibration_images", "6"),
    )
    assert (outcome.code, outcome.err) == (0, "")
    return Made(out, outcome.out)


@needs_onnx
def test_the_export_says_how_far_it_is_from_the_run(int8, trained):
    line = next(line for line in int8.text.splitlines() if "compared on" in line)
    assert line.startswith("in float32, before int8, run by onnxruntime")
    assert str(trained.path / "samples" / "anchors-1.png") in line
    there, count = line.split(".png, ")[1].split(" detections")[0].split(" of ")
    assert there == count
    assert int(count) > 0
    pixels, scores = line.split("differ by at most ")[1].split(" px, scores by ")
    assert float(pixels) < 0.01
    assert float(scores) < 1e-4


@needs_onnx
def test_int8_says_what_it_was_calibrated_on_and_what_it_kept(int8):
    assert "int8: calibrated on 6 images, weights of " in int8.text
    assert "int8 beside float32 on 3 images not calibrated on: " in int8.text
    assert "(IoU >= 0.8, score within 0.1)" in int8.text
    assert f"exported to {int8.path} (" in int8.text
    assert [file.name for file in int8.path.parent.iterdir()] == ["int8.onnx"]


@pytest.mark.parametrize(
    ("kept", "images", "calibrated", "words"),
    [
        (19, 3, False, ("on 3 images not calibrated on: 95.0 % of 20 detections",)),
        (20, 9, True, ("on 9 images it was calibrated on (there are no others): 100.0 %",)),
        (18, 50, False, ("on 20 images not", "less than 95 %: evaluate the file before")),
    ],
)
def test_what_is_said_of_int8(kept, images, calibrated, words, capsys):
    console = make_console()
    export.print_int8(Agreement(20, kept, ROUGH), images, console, calibrated=calibrated)
    text = capsys.readouterr().out
    assert all(word in text for word in words)
    assert text.count("\n") == len(words)


@needs_onnx
def test_a_file_is_run_by_test_frcnn(int8, devkit, command, tmp_path):
    photos = devkit / "VOC2007" / "JPEGImages"
    outcome = command(
        test_command.main,
        *("-p", photos, "--onnx", int8.path, "--out", tmp_path / "out"),
        *("--score_thresh", "0.02", "--draw_thresh", "0.99"),
    )
    assert (outcome.code, outcome.err) == (0, "")
    assert "12 images, " in outcome.out
    assert "best score per class (0: none from 0.02): " in outcome.out
    records = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert {record["class_name"] for record in records} <= {"disc", "square"}
    assert len(list((tmp_path / "out").glob("*.png"))) == 12


@needs_onnx
def test_float32_needs_no_data(trained, command, tmp_path):
    out = tmp_path / "new" / "model.onnx"
    outcome = command(export.main, "--run", trained.path, "--out", out, "--num_proposals", "5")
    assert (outcome.code, outcome.err) == (0, "")
    assert out.is_file()
    assert f"test_frcnn.py -p IMAGES --onnx {out}" in outcome.out


@needs_onnx
def test_mistakes_are_refused(trained, devkit, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.onnx").mkdir()
    (tmp_path / "text.onnx").write_text("no model")
    run, out = ("--run", trained.path), ("--out", "new.onnx")
    before = sorted(tmp_path.rglob("*"))
    for flags, words in (
        ((*run, "--out", "folder.onnx"), "--out takes a file, and folder.onnx is a folder"),
        ((*run, "--out", "new", "--int8"), "--int8 makes an ONNX file: let --out end in .onnx"),
        ((*run, *out, "--int8"), "--int8 needs images of the training set to calibrate on"),
        ((*run, *out, "--int8", "-p", "none"), "The data path none does not exist"),
        ((*run, *out, "-p", devkit), "--path belongs to --int8"),
        ((*run, *out, "--weight_bits", "7"), "--weight_bits belongs to --int8"),
        ((*run, *out, "--allow_bad"), "--allow_bad belongs to --int8"),
        ((*run, *out, "-o", "simple"), "-o belongs to --int8"),
        (
            (*run, "--out", devkit / "VOC2007" / "a.onnx", "--int8", "-p", devkit),
            "lies in the data folder",
        ),
        ((*run, *out, "--weight_bits", "6", "--int8"), "--weight_bits"),
        ((*run, *out, "--precision", "bfloat16"), "An ONNX file is float32 or --int8"),
    ):
        assert command(export.main, *flags).refused(words), flags
    photos = ("-p", devkit / "VOC2007" / "JPEGImages")
    for flags, words in (
        (("--onnx", "none.onnx"), "--onnx none.onnx does not exist"),
        (("--onnx", "text.onnx"), "text.onnx cannot be read as an ONNX file"),
        (("--onnx", "text.onnx", *run), "--run and --onnx each name a detector"),
        (("--onnx", "text.onnx", "--nms_thresh", "0.5"), "--nms_thresh is fixed in an exported"),
        (("--onnx", "text.onnx", "--scales", "100,200"), "--scales belongs to run folders"),
        (("--onnx", "text.onnx", "--precision", "float32"), "--precision belongs to run folders"),
    ):
        assert command(test_command.main, *photos, *flags).refused(words), flags
    assert sorted(tmp_path.rglob("*")) == before


def test_missing_packages_are_named(trained, devkit, command, tmp_path, monkeypatch):
    monkeypatch.setattr(errors, "find_spec", lambda name: None)
    file = tmp_path / "model.onnx"
    words = ("not installed here: ", "pip install", "onnx")
    assert command(export.main, "--run", trained.path, "--out", file).refused(*words, "tf2onnx")
    file.write_text("a model")
    assert command(test_command.main, "-p", devkit, "--onnx", file).refused(*words, "onnxruntime")
    assert command(benchmark.main, "--onnx").refused(*words, "tf2onnx")
    assert command(benchmark.main, "--onnx", "--work", "training").refused("--onnx is testing")
    flags = ("--compressed", "--work", "training")
    assert command(benchmark.main, *flags).refused("--compressed is testing")


@needs_onnx
def test_the_benchmark_times_both_files(command, tmp_path):
    record = tmp_path / "record.json"
    outcome = command(
        benchmark.main,
        *("--work", "testing", "--network", "tiny", "--short_side", "96", "--long_side", "128"),
        *("--num_proposals", "20", "--repetitions", "1", "--onnx", "--out", record),
    )
    assert (outcome.code, outcome.err) == (0, "")
    found = json.loads(record.read_text())
    assert {"onnx float32/whole", "onnx int8/whole"} <= set(found["parts"])
    assert {"testing, onnx float32 / float32", "testing, onnx int8 / float32"} <= set(
        found["ratios"]
    )
