"""``test_frcnn.py``: any mix of files, what it writes, and the same detections by every way."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keras_frcnn.cli import compress, evaluate, export
from keras_frcnn.cli import test as test_command
from keras_frcnn.data.images import read_image
from keras_frcnn.detection.network_detector import NetworkDetector, load_run
from keras_frcnn.proposals.files import write_proposals
from keras_frcnn.proposals.given import GivenProposals, ranked
from keras_frcnn.recipes import DetectionFilter
from tests.random_networks import find

ROOT = Path(__file__).parents[2]
ORIENTATION = 0x0112


def picture(size=(100, 120), seed=0) -> np.ndarray:
    """(H, W, 3) uint8 noise with a red and a blue rectangle."""
    pixels = np.random.default_rng(seed).integers(90, 130, (*size, 3), np.uint8)
    pixels[20:60, 10:60] = (220, 40, 40)
    pixels[50:90, 60:90] = (40, 60, 230)
    return pixels


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Eight readable images of all kinds, two that are damaged, three files that are none."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "nested" / "deeper").mkdir(parents=True)
    rgb = Image.fromarray(picture())
    rgb.save(folder / "plain.jpg", quality=95)
    rgb.save(folder / "nested" / "plain.PNG")
    rgb.convert("RGBA").save(folder / "nested" / "with alpha [1].png")
    rgb.convert("P", palette=Image.Palette.ADAPTIVE).save(folder / "palette.png")
    rgb.convert("CMYK").save(folder / "nested" / "deeper" / "cmyk.jpeg", quality=95)
    grey = np.asarray(rgb.convert("L")).astype(np.uint16) * 256
    Image.fromarray(grey).save(folder / "sixteen.png")
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # shown after a quarter turn: 100 wide, 120 high
    rgb.save(folder / "turned.jpg", quality=95, exif=exif)
    Image.fromarray(np.zeros((1, 1, 3), np.uint8)).save(folder / "dot.png")
    (folder / "broken.jpg").write_bytes((folder / "plain.jpg").read_bytes()[:400])
    (folder / "text.jpg").write_text("no picture")
    (folder / "notes.txt").write_text("a text")
    (folder / "nested" / "list.csv").write_text("1,2")
    (folder / "nested" / ".DS_Store").write_text("")
    return folder


READABLE = {
    *("plain.jpg", "nested/plain.PNG", "nested/with alpha [1].png", "palette.png", "dot.png"),
    *("nested/deeper/cmyk.jpeg", "sixteen.png", "turned.jpg"),
}


@pytest.fixture(scope="module")
def tested(photos, trained, command, tmp_path_factory, list_files):
    """The command run on that folder, with a threshold that eight iterations reach."""
    out = tmp_path_factory.mktemp("tested") / "new" / "out"
    before = list_files(photos)
    outcome = command(
        test_command.main,
        *("-p", photos, "--run", trained.path, "--out", out),
        *("--score_thresh", "0.02", "--draw_thresh", "0.05"),
    )
    assert outcome.code == 0, outcome.err
    assert list_files(photos) == before, "the image folder was written to"
    return outcome, out, json.loads((out / "detections.json").read_text())


def test_everything_readable_is_done_and_the_rest_is_reported(tested):
    outcome, out, records = tested
    drawn = {str(path.relative_to(out)) for path in out.rglob("*.png")}
    assert drawn == {f"{name}.png" for name in READABLE}
    assert "8 images, " in outcome.out
    assert "3 files that are no images were skipped" in outcome.out
    unreadable = [line for line in outcome.out.splitlines() if line.startswith("not read: ")]
    assert ["broken.jpg" in unreadable[0], "text.jpg" in unreadable[1]] == [True, True]
    assert len(unreadable) == 2
    assert " s an image" in outcome.out
    assert outcome.err == ""
    assert {record["file_name"] for record in records} <= READABLE


def test_the_fields_of_every_detection(tested, photos):
    _, out, records = tested
    assert len(records) > 20
    for record in records:
        assert set(record) == {
            *("image_id", "file_name", "class_name", "category_id", "bbox", "score"),
        }  # fmt: skip
        assert record["class_name"] == ("disc", "square")[record["category_id"] - 1]
        name = record["file_name"]
        unique = name not in ("plain.jpg", "nested/plain.PNG")
        assert record["image_id"] == (Path(name).stem if unique else name)
        assert 0.02 <= record["score"] <= 1
        height, width, _ = read_image(photos / record["file_name"]).shape
        x, y, box_width, box_height = record["bbox"]
        assert 0 <= x < x + box_width <= width + 1e-4
        assert 0 <= y < y + box_height <= height + 1e-4
    with open(out / "detections.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(records)
    for row, record in zip(rows, records, strict=True):
        box = [float(row[name]) for name in ("x", "y", "width", "height")]
        assert (box, float(row["score"])) == (record["bbox"], record["score"])
        assert (row["file_name"], row["class_name"]) == (record["file_name"], record["class_name"])


def test_pictures_show_the_upright_image_with_boxes(tested, photos):
    _, out, records = tested
    with Image.open(out / "turned.jpg.png") as drawn:
        assert drawn.size == (100, 120)
    drawn = np.asarray(Image.open(out / "plain.jpg.png").convert("RGB"))
    plain = read_image(photos / "plain.jpg")
    best = max(record["score"] for record in records if record["file_name"] == "plain.jpg")
    assert (best >= 0.05) == bool((drawn != plain).any())


def test_detections_are_the_predictors(tested, photos, trained):
    _, _, records = tested
    predictor = load_run(trained.path, DetectionFilter(score_threshold=0.02))
    for name in ("turned.jpg", "sixteen.png"):
        expected = find(predictor, read_image(photos / name))
        found = [record for record in records if record["file_name"] == name]
        assert [record["category_id"] for record in found] == expected.classes.tolist()
        scores = np.array([record["score"] for record in found])
        np.testing.assert_allclose(scores, expected.scores, atol=1e-6)
        y1, x1, y2, x2 = expected.boxes_image.T
        boxes = np.array([record["bbox"] for record in found])
        np.testing.assert_allclose(boxes, np.stack([x1, y1, x2 - x1, y2 - y1], 1), atol=1e-4)


def rerun(command, photos, out, *flags):
    outcome = command(
        test_command.main,
        *("-p", photos, "--out", out, "--score_thresh", "0.02", "--draw_thresh", "0.05", *flags),
    )
    assert outcome.code == 0, outcome.err
    return json.loads((out / "detections.json").read_text())


def assert_same(found: list[dict], expected: list[dict]) -> None:
    words = ("image_id", "file_name", "class_name", "category_id")
    assert [[r[w] for w in words] for r in found] == [[r[w] for w in words] for r in expected]
    boxes = [np.array([record["bbox"] for record in records]) for records in (found, expected)]
    scores = [np.array([record["score"] for record in records]) for records in (found, expected)]
    np.testing.assert_allclose(*boxes, atol=0.01)
    np.testing.assert_allclose(*scores, atol=1e-4)


def test_num_rois_is_a_chunk_and_changes_nothing(tested, photos, trained, command, tmp_path):
    found = rerun(command, photos, tmp_path / "out", "--run", trained.path, "-n", "7")
    assert_same(found, tested[2])


@pytest.mark.parametrize("scales", [(), ("--scales", "96,200")])
def test_batches_change_nothing(photos, trained, command, tmp_path, scales):
    flags = ("--run", trained.path, *scales)
    alone = rerun(command, photos, tmp_path / "alone", *flags)
    assert_same(rerun(command, photos, tmp_path / "out", *flags, "--batch", "3"), alone)


def test_batches_of_an_export_change_nothing(tested, photos, exported, command, tmp_path):
    flags = ("--saved_model", exported.path, "--batch", "3")
    assert_same(rerun(command, photos, tmp_path / "out", *flags), tested[2])


def test_photos_of_several_cameras_are_one_batch(trained, command, tmp_path, monkeypatch):
    """50 x 60, 100 x 120 and 200 x 240 pixels are 96 x 115 as inputs."""
    photos, batches = tmp_path / "photos", []
    photos.mkdir()
    for side in (60, 120, 240):
        image = Image.fromarray(picture()).resize((side, side * 5 // 6))
        image.save(photos / f"{side}.png")
    alone = rerun(command, photos, tmp_path / "alone", "--run", trained.path)
    own = NetworkDetector.find
    monkeypatch.setattr(
        NetworkDetector,
        "find",
        lambda self, images, boxes=None: batches.append(len(images)) or own(self, images, boxes),
    )
    found = rerun(command, photos, tmp_path / "out", "--run", trained.path, "--batch", "3")
    assert batches == [3]
    assert len({record["file_name"] for record in found}) == 3
    assert_same(found, alone)


def test_the_runs_own_scale_changes_nothing_and_others_do(
    tested, photos, trained, command, tmp_path
):
    flags = ("--run", trained.path, "--scales")
    assert_same(rerun(command, photos, tmp_path / "one", *flags, "96"), tested[2])
    found = rerun(command, photos, tmp_path / "many", *flags, "96,200,300")
    scores = [[record["score"] for record in records] for records in (found, tested[2])]
    assert len(found) != len(tested[2]) or not np.allclose(*scores, atol=1e-3)


def test_an_export_finds_what_the_run_finds(tested, photos, exported, command, tmp_path):
    found = rerun(command, photos, tmp_path / "out", "--saved_model", exported.path)
    assert_same(found, tested[2])


def test_the_lineages_configuration_leads_to_the_run(tested, photos, trained, command, tmp_path):
    flags = ("--config_filename", trained.config_copy, "--network", "resnet50")
    assert_same(rerun(command, photos, tmp_path / "out", *flags), tested[2])


def test_the_filters(tested, photos, trained, command, tmp_path):
    one = photos / "plain.jpg"
    every = rerun(command, one, tmp_path / "a", "--run", trained.path)
    high = every[len(every) // 2]["score"]
    flags = ("-p", one, "--run", trained.path, "--out", tmp_path / "b", "--score_thresh", high)
    assert command(test_command.main, *flags).code == 0
    some = json.loads((tmp_path / "b" / "detections.json").read_text())
    assert 0 < len(some) < len(every)
    assert min(record["score"] for record in some) >= high
    few = rerun(command, one, tmp_path / "c", "--run", trained.path, "--num_proposals", "2")
    assert len(few) <= 4  # two proposals, two classes
    flags = ("--run", trained.path, "--num_proposals", "20", "--nms_thresh")
    strict = rerun(command, one, tmp_path / "d", *flags, "0")
    loose = rerun(command, one, tmp_path / "e", *flags, "1")
    assert len(strict) < len(loose) <= 40


def test_one_image_is_enough(tested, photos, trained, command, tmp_path):
    found = rerun(command, photos / "turned.jpg", tmp_path / "out", "--run", trained.path)
    assert_same(found, [r for r in tested[2] if r["file_name"] == "turned.jpg"])
    assert (tmp_path / "out" / "turned.jpg.png").is_file()


def test_when_nothing_passes_the_best_score_of_each_class_is_told(
    photos, trained, exported, command, tmp_path
):
    flags = ("-p", photos / "plain.jpg", "--out", tmp_path, "--draw_thresh", "1")
    found = find(load_run(trained.path), read_image(photos / "plain.jpg"))
    best = [found.scores[found.classes == index].max(initial=0) for index in (1, 2)]
    outcome = command(test_command.main, *flags, "--run", trained.path)
    line = next(line for line in outcome.out.splitlines() if line.startswith("nothing passed"))
    assert "nothing passed --draw_thresh; best score per class (0: none from 0.05): " in line
    for name, score in zip(("disc", "square"), best, strict=True):
        assert f"{name} {score:.3f}" in line
    assert (line.index("disc") < line.index("square")) == bool(best[0] >= best[1])
    outcome = command(test_command.main, *flags, "--saved_model", exported.path)
    assert "best score per class (0: none from " in outcome.out


def test_an_unshared_run_is_run_as_it_is(photos, trained, command, tmp_path):
    """``--stages 1,2``: the RPN of stage 1 proposes, the detector of stage 2 decides."""
    run = tmp_path / "unshared"
    shutil.copytree(trained.path, run)
    values = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**values, "stages": [1, 2]}))
    for name in ("stage3", "stage4", "final"):
        (run / "weights" / f"{name}.weights.h5").unlink()
    found = rerun(command, photos / "plain.jpg", tmp_path / "out", "--run", run)
    predictor = load_run(trained.path, DetectionFilter(score_threshold=0.02), stage=2)
    expected = find(predictor, read_image(photos / "plain.jpg"))
    np.testing.assert_allclose([r["score"] for r in found], expected.scores, atol=1e-6)
    (run / "config.json").write_text(json.dumps({**values, "stages": [1]}))
    outcome = command(test_command.main, "-p", photos, "--run", run, "--out", tmp_path / "out")
    assert outcome.refused("holds no detector: it was trained with --stages 1")


# --- mistakes ----------------------------------------------------------------------------------


def test_mistakes_are_refused(photos, trained, exported, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "a.txt").write_text("")
    (tmp_path / "file").write_text("")
    (tmp_path / "config.json").write_text("{")
    run, model = ("--run", trained.path), ("--saved_model", exported.path)
    before = sorted(tmp_path.rglob("*"))
    for flags, words in (
        (run, "the following arguments are required: -p/--path"),
        (("-p", photos), "Give one of --run DIR"),
        (("-p", photos, *run, *model), "--run and --saved_model each name a detector"),
        (("-p", "nowhere", *run), "The image path nowhere does not exist"),
        (("-p", photos, "--run", "nowhere"), "nowhere is not a run folder"),
        (("-p", photos, "--run", photos), "is not a run folder: it has no config.json"),
        (("-p", photos, "--saved_model", photos), "saved_model.pb"),
        (("-p", photos, "--config_filename", "none.json"), "none.json does not exist"),
        (("-p", photos, "--config_filename", "config.json"), "cannot be read as"),
        (("-p", tmp_path / "empty", *run), "There is no image in"),
        (("-p", photos, *run, "--draw_thresh", "60"), "--draw_thresh: expected a number from 0"),
        (("-p", photos, *run, "--score_thresh", "x"), "--score_thresh"),
        (("-p", photos, *run, "--nms_thresh", "-1"), "--nms_thresh"),
        (("-p", photos, *run, "--num_proposals", "0"), "--num_proposals"),
        (("-p", photos, *run, "-n", "0"), "--num_rois"),
        (("-p", photos, *model, "--nms_thresh", "0.5"), "fixed in an exported model"),
        (("-p", photos, *model, "--num_proposals", "5"), "--num_proposals belongs to run"),
        (("-p", photos, *model, "--score_thresh", "0.01"), "is below 0.02, the lowest score that"),
        (("-p", photos, *model, "-n", "4"), "--num_rois belongs to run"),
        (("-p", photos, "--onnx", "file", "--jit"), "--jit compiles TensorFlow's graphs"),
        (("-p", photos, *model, "--scales", "480"), "--scales belongs to run"),
        (("-p", photos, *model, "--stage", "2"), "--stage belongs to run"),
        (("-p", photos, *run, "--scales", "480,0"), "--scales takes whole numbers above 0"),
        (("-p", photos, *run, "--scales", "480,a"), "--scales takes whole numbers separated by"),
        (("-p", photos, *run, "--scales", "480,96,480"), "--scales names a short side twice"),
        (("-p", photos, *run, "--out", "file"), "--out file is a file"),
        (("-p", photos / "dot.png", *run, "--out", photos), "is the folder of"),
        (("-p", tmp_path, *run), "--out detections lies inside the image folder"),
        (("-p", photos, *run, "--out", photos / "x" / "y"), "lies inside the image folder"),
        (("-p", photos, *run, "--draw_tresh", "0.5"), "Did you mean --draw_thresh?"),
    ):
        assert command(test_command.main, *flags).refused(words), flags
    assert sorted(tmp_path.rglob("*")) == before


def test_no_readable_image_is_an_error(photos, trained, command, tmp_path):
    outcome = command(
        test_command.main,
        *("-p", photos / "text.jpg", "--run", trained.path, "--out", tmp_path),
    )
    assert outcome.refused("None of the 1 images could be read")
    assert "not read: " in outcome.out


def test_a_run_that_is_not_finished_or_damaged_is_refused(photos, trained, command, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained.path, run)
    flags = ("-p", photos / "plain.jpg", "--run", run, "--out", tmp_path / "out")
    final = run / "weights" / "final.weights.h5"
    final.write_bytes(final.read_bytes()[:5000])
    assert command(test_command.main, *flags).refused("final.weights.h5")
    final.unlink()
    outcome = command(test_command.main, *flags)
    assert outcome.refused("has no final weights yet", "stage4", "--resume; until then --stage 2")
    assert not (tmp_path / "out").exists()


def test_stage_2_is_advised_by_what_chooses_it(trained, devkit, command, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained.path, run)
    (run / "weights" / "final.weights.h5").unlink()
    boxes = tmp_path / "boxes.h5"
    ids = ("000009", "000010", "000011")
    entries = {image_id: ranked(np.array([[0, 0, 50, 50]])) for image_id in ids}
    write_proposals(boxes, GivenProposals(entries, "rpn", {}, "x"))
    photo, out = ("-p", devkit / "VOC2007" / "JPEGImages" / "000009.jpg"), ("--out", tmp_path / "o")
    given = ("--proposals", boxes)
    for main, flags in (
        (test_command.main, (*photo, *out)),
        (test_command.main, (*photo, *out, *given)),
        (evaluate.main, ("-p", devkit, *out)),
        (evaluate.main, ("-p", devkit, *out, *given)),
        (export.main, out),
        (compress.main, (*out, "--fc6", "256", "--fc7", "256")),
    ):
        outcome = command(main, "--run", run, *flags)
        assert outcome.refused("has no final weights yet", "finish the training with --resume")
        assert "--stage 2 can be tested and evaluated" in outcome.err, main


def test_a_damaged_export_is_refused(photos, exported, command, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(exported.path, model)
    (model / "saved_model.pb").write_bytes(b"no model")
    flags = ("-p", photos, "--saved_model", model, "--out", tmp_path / "out")
    assert command(test_command.main, *flags).refused(str(model), "export the run again")
    shutil.copy(exported.path / "saved_model.pb", model)
    (model / "assets" / "class_names.json").unlink()
    assert command(test_command.main, *flags).refused("class_names", str(model))


@pytest.mark.slow
def test_the_script_is_quiet(photos, trained, tmp_path):
    """The only lines on the screen are the command's own, TensorFlow's stay away."""
    environment = {name: text for name, text in os.environ.items() if not name.startswith("TF_")}
    done = subprocess.run(
        [
            *(sys.executable, "test_frcnn.py", "-p", photos / "plain.jpg", "--run", trained.path),
            *("--out", tmp_path),
        ],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("1 image, ")
