"""``python -m keras_frcnn evaluate``: keys, figures that agree by every way, mistakes."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from keras_frcnn.cli import evaluate
from keras_frcnn.cli import test as test_command
from keras_frcnn.data.images import read_image
from keras_frcnn.data.load import load_data
from keras_frcnn.data.voc import load_voc
from keras_frcnn.detection.detections import ImageDetections
from keras_frcnn.detection.load import load
from keras_frcnn.detection.loops import keep_best_per_class
from keras_frcnn.detection.network_detector import load_run
from keras_frcnn.detection.write_detections import detection_records
from keras_frcnn.errors import UserError
from keras_frcnn.evaluation.evaluate import evaluate as evaluate_function
from keras_frcnn.evaluation.voc import evaluate_voc
from keras_frcnn.recipes import DetectionFilter
from tests.random_networks import find

ROOT = Path(__file__).parents[2]
FIGURES = ("map_11point", "map_area", "per_class", "images", "iou_threshold", "ids_hash")


@pytest.fixture(scope="module")
def evaluated(trained, devkit, command, list_files):
    """The evaluation of the trained run on the devkit's test list."""
    before = list_files(devkit)
    outcome = command(evaluate.main, "--run", trained.path, "-p", devkit, "--set", "2007:test")
    assert outcome.code == 0, outcome.err
    assert list_files(devkit) == before, "the data folder was written to"
    return outcome, json.loads((trained.path / "evaluation.json").read_text())


def figures(record: dict) -> dict:
    return {name: record[name] for name in FIGURES}


def test_the_keys_of_the_file(evaluated, trained, devkit):
    _, record = evaluated
    assert set(record) >= {"map_11point", "map_area", "per_class", "iou_threshold", "images"}
    assert (record["images"], record["iou_threshold"]) == (3, 0.5)
    assert list(record["per_class"]) == ["disc", "square"]
    for values in record["per_class"].values():
        assert set(values) >= {"ap_11point", "ap_area", "ground_truth", "detections", "recall"}
        best = values["best_f1"]
        assert best is None or set(best) == {"score_threshold", "precision", "recall", "f1"}
        assert 0 <= values["ap_11point"] <= 1
        assert 0 <= values["ap_area"] <= 1
    # Three test images with one of each class; the third disc is difficult and is not counted.
    assert [values["ground_truth"] for values in record["per_class"].values()] == [3, 3]
    means = [
        np.mean([values[name] for values in record["per_class"].values()])
        for name in ("ap_11point", "ap_area")
    ]
    assert [record["map_11point"], record["map_area"]] == pytest.approx(means)
    assert record["ids_hash"] == load_voc(devkit, "2007:test").ids_hash
    assert record["sets"] == ["2007:test"]
    assert (record["run"], record["stage"], record["proposals"]) == (str(trained.path), 4, 300)
    assert record["scales"] == [96]


def test_the_function_gives_the_figures_of_the_command(evaluated, trained, devkit, tmp_path):
    result = evaluate_function(load(trained.path), load_data(devkit, "2007:test"), report=tmp_path)
    record = result.to_json()
    assert figures(record) == figures(evaluated[1])
    assert record.keys() | {"filter"} == evaluated[1].keys()
    assert result.mean_average_precision == record["map_area"]
    assert set(result.detections) == {example.key for example in result.dataset.examples}
    assert result.report == tmp_path / "report.html" and result.report.is_file()
    with pytest.raises(UserError, match="9 of the 9 images were in the training set"):
        evaluate_function(load(trained.path), load_data(devkit, "2007:trainval"))


def test_an_export_is_evaluated_as_it_is(exported, devkit, command, tmp_path):
    flags = ("--saved_model", exported.path, "-p", devkit, "--out", tmp_path)
    outcome = command(evaluate.main, *flags)
    assert outcome.code == 0, outcome.err
    record = json.loads((tmp_path / "evaluation.json").read_text())
    result = evaluate_function(load(exported.path), load_data(devkit, "2007:test"))
    assert figures(record) == figures(result.to_json())
    assert record["detector"] == str(exported.path)
    assert {path.name for path in tmp_path.iterdir()} == {"evaluation.json", "detections.json"}
    for flag, value in (
        *(("stage", "2"), ("filter", "paper"), ("scales", "96"), ("num_proposals", "5")),
        ("precision", "float32"),
    ):
        assert command(evaluate.main, *flags, f"--{flag}", value).refused(f"--{flag} belongs to")


def test_the_table(evaluated, trained):
    outcome, record = evaluated
    for words in ("class", "AP 11-point", "AP area", "disc", "square", "mean"):
        assert words in outcome.out
    assert f"{record['map_area']:.3f}" in outcome.out
    assert f"written to {trained.path / 'evaluation.json'}" in outcome.out
    assert outcome.err == ""


def test_figures_are_those_of_the_predictors_detections(evaluated, trained, devkit):
    dataset = load_voc(devkit, "2007:test")
    predictor = load_run(
        trained.path,
        DetectionFilter(score_threshold=0.0, per_class_before_nms=100, per_image=None),
    )
    found = {e.key: find(predictor, read_image(e.path)) for e in dataset.examples}
    best = keep_best_per_class(found, 2, 40 * len(dataset))
    assert figures(evaluate_voc(dataset, best).to_json()) == figures(evaluated[1])


@pytest.fixture(scope="module")
def detections_file(trained, devkit, command, tmp_path_factory):
    """detections.json of test_frcnn.py on the pictures of the devkit, all scores kept."""
    out = tmp_path_factory.mktemp("evaluated") / "out"
    photos = tmp_path_factory.mktemp("photos")
    for image_id in ("000009", "000010", "000011"):
        shutil.copy(devkit / "VOC2007" / "JPEGImages" / f"{image_id}.jpg", photos)
    flags = ("-p", photos, "--run", trained.path, "--out", out, "--score_thresh", "0")
    assert command(test_command.main, *flags).code == 0
    return out / "detections.json"


def test_a_detections_file_gives_the_figures_of_its_detections(
    detections_file, trained, devkit, command, tmp_path
):
    flags = ("--detections", detections_file, "-p", devkit, "--out", tmp_path)
    outcome = command(evaluate.main, *flags)
    assert outcome.code == 0, outcome.err
    record = json.loads((tmp_path / "evaluation.json").read_text())
    dataset = load_voc(devkit, "2007:test")
    predictor = load_run(trained.path, DetectionFilter(score_threshold=0.0))
    found = {e.key: find(predictor, read_image(e.path)) for e in dataset.examples}
    assert figures(record) == figures(evaluate_voc(dataset, found).to_json())
    assert record["detections"] == str(detections_file)
    # The same by any other program's fields: image_id and category_id alone.
    records = json.loads(detections_file.read_text())
    bare = [{n: r[n] for n in ("image_id", "category_id", "bbox", "score")} for r in records]
    (tmp_path / "bare.json").write_text(json.dumps(bare))
    flags = ("--detections", tmp_path / "bare.json", "-p", devkit, "--out", tmp_path / "bare")
    assert command(evaluate.main, *flags).code == 0
    again = json.loads((tmp_path / "bare" / "evaluation.json").read_text())
    assert figures(again) == figures(record)


def test_the_detections_of_a_run_are_kept(evaluated, trained, devkit, command, tmp_path):
    _, record = evaluated
    flags = ("--detections", trained.path / "detections.json", "-p", devkit, "--out", tmp_path)
    assert command(evaluate.main, *flags).code == 0
    again = json.loads((tmp_path / "evaluation.json").read_text())
    assert figures(again) == figures(record)
    # The first images only, of detections of all.
    assert command(evaluate.main, *flags[:4], "--images", "1", "--out", tmp_path / "one").code == 0
    one = json.loads((tmp_path / "one" / "evaluation.json").read_text())
    assert one["images"] == 1
    shutil.rmtree(tmp_path / "one")
    # Detections in a file are not written once more, unless it is asked for.
    assert [path.name for path in tmp_path.iterdir()] == ["evaluation.json"]


@pytest.mark.parametrize("kind", ["voc_results", "coco_results/coco_results.json"])
def test_every_layout_gives_the_same_figures(kind, evaluated, trained, devkit, command, tmp_path):
    _, record = evaluated
    flags = ("--detections", trained.path / "detections.json", "-p", devkit, "--out", tmp_path)
    outcome = command(evaluate.main, *flags, "--write", "voc,coco")
    assert outcome.code == 0, outcome.err
    assert f"written to {tmp_path / 'voc_results'}" in outcome.out
    flags = ("--detections", tmp_path / kind, "-p", devkit, "--out", tmp_path / "again")
    assert command(evaluate.main, *flags).code == 0
    again = json.loads((tmp_path / "again" / "evaluation.json").read_text())
    for name in ("map_11point", "map_area"):
        assert again[name] == pytest.approx(record[name], abs=1e-3)
    # With the numbers of the annotations written beside it too.
    if kind.endswith("json"):
        annotations = tmp_path / "coco_results" / "coco_annotations.json"
        assert command(evaluate.main, *flags, "--coco_annotations", annotations).code == 0


def test_report_and_coco(trained, devkit, command, tmp_path):
    pytest.importorskip("faster_coco_eval", reason="faster-coco-eval is not installed")
    file = tmp_path / "mine.json"
    records = perfect(load_voc(devkit, "2007:test"))
    file.write_text(json.dumps(records[:-1]))
    flags = ("--detections", file, "-p", devkit, "--out", tmp_path / "out")
    outcome = command(evaluate.main, *flags, "--report", "--score_thresh", "0.3", "--coco")
    assert outcome.code == 0, outcome.err
    page = (tmp_path / "out" / "report" / "report.html").read_text()
    assert "a score of at least 0.3" in page
    assert str(file) in page
    record = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert 0 < record["coco"]["ap"] < 1
    assert f"{record['coco']['ap']:.3f}" in page
    assert "difficult" in record["coco"]["difficult_rule"]
    assert "AR100" in outcome.out
    assert "difficult objects" in outcome.out
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"evaluation.json", "report"}


def test_coco_without_its_package_is_refused_first(trained, devkit, command, monkeypatch):
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    outcome = command(evaluate.main, "--run", trained.path, "-p", devkit, "--coco")
    assert outcome.refused("pip install", "paper")


def perfect(dataset) -> list[dict]:
    """Records that find every object where it is."""
    records = []
    for example in dataset.examples:
        count = len(example.classes)
        exact = ImageDetections(example.boxes_image, np.ones(count, np.float32), example.classes)
        name = f"{example.image_id}.jpg"
        records += detection_records(name, example.image_id, exact, dataset.class_names)
    return records


def test_perfect_detections_score_one(devkit, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    records = perfect(load_voc(devkit, "2007:test"))
    Path("mine.json").write_text(json.dumps(records))
    outcome = command(evaluate.main, "--detections", "mine.json", "-p", devkit, "--iou", "0.9")
    assert outcome.code == 0, outcome.err
    record = json.loads(Path("evaluation.json").read_text())
    assert (record["map_11point"], record["map_area"], record["iou_threshold"]) == (1.0, 1.0, 0.9)
    # Half of the objects found: 6 of the 11 recalls and half of the area.
    first = [r for r in records if not (r["class_name"] == "disc" and r["image_id"] != "000009")]
    Path("mine.json").write_text(json.dumps(first))
    assert command(evaluate.main, "--detections", "mine.json", "-p", devkit).code == 0
    disc = json.loads(Path("evaluation.json").read_text())["per_class"]["disc"]
    assert disc["ap_11point"] == pytest.approx(4 / 11)
    assert disc["ap_area"] == pytest.approx(1 / 3)


def test_the_unshared_stage(trained, devkit, command, evaluated):
    outcome = command(evaluate.main, "--run", trained.path, "-p", devkit, "--stage", "2")
    assert outcome.code == 0, outcome.err
    record = json.loads((trained.path / "evaluation-stage2.json").read_text())
    assert record["stage"] == 2
    assert (trained.path / "detections-stage2.json").is_file()
    # The result of stage 4 is not overwritten.
    assert json.loads((trained.path / "evaluation.json").read_text()) == evaluated[1]
    predictor = load_run(trained.path, stage=2)
    assert predictor.detector_model is not predictor.model
    stage_4 = load_run(trained.path)
    images = [read_image(e.path) for e in load_voc(devkit, "2007:test").examples]
    two, four = (find(p, images[0]).scores for p in (predictor, stage_4))
    assert len(two) != len(four) or not np.allclose(two, four, atol=1e-6)


def test_several_scales_and_the_runs_own(trained, devkit, command, tmp_path, evaluated):
    flags = ("--run", trained.path, "-p", devkit, "--out", tmp_path, "--scales")
    found = {}
    for scales in ("96", "200,96"):
        assert command(evaluate.main, *flags, scales).code == 0
        record = json.loads((tmp_path / "evaluation.json").read_text())
        assert record["scales"] == [int(side) for side in scales.split(",")]
        found[scales] = figures(record)
    assert found["96"] == figures(evaluated[1])
    assert set(found["200,96"]) == set(FIGURES)


def test_mistakes_are_refused(trained, devkit, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("no.json").write_text("{")
    Path("list.json").write_text("{}")
    Path("detections.json").write_text("[]")
    record = {"file_name": "000009.jpg", "class_name": "disc", "bbox": [1, 2, 3, 4], "score": 0.5}
    for name, change in (
        ("class", {"class_name": "cat"}),
        ("image", {"file_name": "x.jpg"}),
        ("box", {"bbox": [1, 2, -3, 4]}),
        ("score", {"score": "high"}),
    ):
        Path(f"{name}.json").write_text(json.dumps([{**record, **change}]))
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "config.json").write_text("{")
    run, data = ("--run", trained.path), ("-p", devkit)
    before = sorted(tmp_path.rglob("*"))
    for flags, words in (
        (data, "Give one of --run DIR, --saved_model DIR, --onnx FILE and --detections"),
        ((*run, *data, "--detections", "no.json"), "Give one of --run DIR"),
        ((*run, "-p", "nowhere"), "The data path nowhere does not exist"),
        ((*run, "-p", devkit / "VOC2007" / "Annotations"), f"give {devkit} instead"),
        ((*run, *data, "-o", "simple"), "use -o pascal_voc for a VOC devkit"),
        ((*run, *data, "--set", "2012:test"), "VOC2012/ImageSets/Main/test.txt"),
        (("--run", "nowhere", *data), "nowhere is not a run folder"),
        (("--run", damaged, *data), "cannot be read as"),
        ((*run, *data, "--stage", "3"), "--stage"),
        ((*run, *data, "--iou", "2"), "--iou"),
        ((*run, *data, "--iou", "nan"), "--iou"),
        ((*run, *data, "--images", "0"), "--images"),
        ((*run, *data, "--num_proposals", "0"), "--num_proposals"),
        ((*run, *data, "--out", "no.json"), "--out no.json is a file"),
        ((*run, *data, "--sets", "2007:test"), "Did you mean --set?"),
        (("--detections", "none.json", *data), "--detections none.json does not exist"),
        (("--detections", ".", *data), "holds no file named like comp4_det_test_disc.txt"),
        ((*run, *data, "--coco_annotations", "no.json"), "belongs to --detections"),
        (
            ("--detections", "list.json", *data, "--coco_annotations", "none.json"),
            "--coco_annotations none.json does not exist",
        ),
        ((*run, *data, "--score_thresh", "0.3"), "--score_thresh is for the report"),
        ((*run, *data, "--report", "--score_thresh", "inf"), "--score_thresh"),
        ((*run, *data, "--write", "yolo"), "expected json, voc, coco"),
        ((*run, *data, "--write", "none,voc"), "--write"),
        (
            ("--detections", "detections.json", *data, "--write", "json"),
            "--write would replace --detections detections.json",
        ),
        (("--detections", "no.json", *data, "--stage", "2"), "--stage belongs to --run"),
        (("--detections", "no.json", *data, "--scales", "480"), "--scales belongs to --run"),
        ((*run, *data, "--scales", "0"), "--scales takes whole numbers above 0"),
        (("--detections", "no.json", *data), "no.json"),
        (("--detections", "list.json", *data), "list.json"),
        (("--detections", "class.json", *data), "has the class_name 'cat', expected one of"),
        (("--detections", "image.json", *data), "about an image that is not in the set"),
        (("--detections", "box.json", *data), "negative width or height"),
        (("--detections", "score.json", *data), "needs a finite number as score"),
    ):
        assert command(evaluate.main, *flags).refused(words), flags
    assert sorted(tmp_path.rglob("*")) == before


def test_all_is_saved_before_it_is_printed(detections_file, devkit, command, tmp_path, monkeypatch):
    def terminal_goes(*arguments):
        signal.raise_signal(signal.SIGHUP)

    monkeypatch.setattr(evaluate, "print_table", terminal_goes)
    flags = ("-p", devkit, "--detections", detections_file, "--out", tmp_path, "--report")
    outcome = command(evaluate.main, *flags, "--write", "json,voc", "--against", detections_file)
    assert outcome.code == 129
    names = {"evaluation.json", "detections.json", "voc_results", "report"}
    assert {path.name for path in tmp_path.iterdir()} == names
    assert "against" in json.loads((tmp_path / "evaluation.json").read_text())


@pytest.mark.parametrize("name", ["report", "voc_results", "coco_results"])
def test_nothing_is_written_through_a_link(name, detections_file, devkit, command, tmp_path):
    out, other = tmp_path / "out", tmp_path / "other"
    out.mkdir()
    other.mkdir()
    (out / name).symlink_to(other)
    flags = ("-p", devkit, "--detections", detections_file, "--out", out, "--report")
    assert command(evaluate.main, *flags, "--write", "coco,voc").refused(str(out / name))
    assert not any(other.iterdir())


@pytest.mark.parametrize(
    "flags",
    [("-p", "~nobody-here/x"), ("--detections", "~nobody-here/x"), ("--out", "~nobody-here")],
)
def test_the_home_of_nobody_is_one_sentence(flags, detections_file, devkit, command, tmp_path):
    given = {"-p": devkit, "--detections": detections_file, "--out": tmp_path, flags[0]: flags[1]}
    words = [word for pair in given.items() for word in pair]
    assert command(evaluate.main, *words).refused("~nobody-here")


def test_the_command_exits_with_code_2():
    words = ("-m", "keras_frcnn", "evaluate", "--run", "nowhere", "-p", ".")
    done = subprocess.run(
        [sys.executable, *words], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: nowhere is not a run folder")
    assert done.stderr.count("\n") == 1
