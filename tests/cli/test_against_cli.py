"""``evaluate --against``: two files of detections of the same images."""

from __future__ import annotations

import json
import shutil

from keras_frcnn.cli import evaluate
from keras_frcnn.detection.network_detector import NetworkDetector


def write(path, *rows):
    """Rows are (image, class, [x, y, width, height], score)."""
    records = [
        {"image_id": image, "class_name": name, "bbox": box, "score": score}
        for image, name, box, score in rows
    ]
    path.write_text(json.dumps(records))
    return path


def test_two_files(devkit, command, tmp_path):
    """Images 9 to 11 hold two objects each, and image 10 a difficult disc besides."""
    disc = [10, 30, 50, 40]  # of image 9, as write_devkit puts it
    reference = write(
        tmp_path / "float32.json",
        ("000009", "disc", disc, 0.9),
        ("000009", "square", [50, 40, 40, 50], 0.6),
        ("000010", "disc", [0, 0, 5, 5], 0.4),
        ("000011", "disc", [0, 0, 5, 5], 0.2),
    )
    other = write(
        tmp_path / "int8.json",
        ("000009", "disc", [13, 30, 50, 40], 0.9),  # IoU 47 / 53 = 0.89
        ("000009", "square", [50, 40, 40, 50], 0.6),
    )
    outcome = command(
        evaluate.main,
        *("-p", devkit, "--set", "2007:test", "--detections", other, "--against", reference),
        *("--out", tmp_path / "out"),
    )
    assert (outcome.code, outcome.err) == (0, "")
    assert f"of {reference}: 33.3 % of 3 detections from score 0.3" in outcome.out
    assert f"of {reference}: 66.7 % of 3 detections from score 0.3" in outcome.out
    record = json.loads((tmp_path / "out" / "evaluation.json").read_text())["against"]
    assert record["detections"] == str(reference)
    assert [each["kept"] for each in record["agreement"]] == [1, 2]
    assert [each["iou"] for each in record["agreement"]] == [0.9, 0.8]
    # Two of six objects first, whatever comes after.
    assert record["ap_pooled"] == record["ap_pooled_against"] == 2 / 6
    assert "AP of all classes in one ranking: 0.333, in " in outcome.out

    first = command(
        evaluate.main,
        *("-p", devkit, "--set", "2007:test", "--detections", other, "--against", reference),
        *("--out", tmp_path / "first", "--images", "1"),
    )
    assert first.code == 0
    assert "50.0 % of 2 detections" in first.out  # of image 9 only


def test_what_is_wrong_is_told_before_anything_is_detected(
    trained, devkit, command, tmp_path, monkeypatch
):
    def detect(*arguments):
        raise AssertionError("detected")

    monkeypatch.setattr(NetworkDetector, "find", detect)
    flags = ("--run", trained.path, "-p", devkit, "--out", tmp_path)
    unknown = write(tmp_path / "unknown.json", ("999999", "disc", [0, 0, 5, 5], 0.4))
    assert command(evaluate.main, *flags, "--against", unknown).refused("not in the set")
    ours = write(tmp_path / "detections.json", ("000009", "disc", [0, 0, 5, 5], 0.4))
    text = ours.read_text()
    assert command(evaluate.main, *flags, "--against", ours).refused("would replace --against")
    assert ours.read_text() == text
    (tmp_path / "voc_results").mkdir()
    (tmp_path / "coco_results").mkdir()
    shutil.copy(ours, tmp_path / "coco_results" / "coco_results.json")
    for kind, name in (("voc", "voc_results"), ("coco", "coco_results/coco_results.json")):
        against = ("--write", kind, "--against", tmp_path / name)
        assert command(evaluate.main, *flags, *against).refused("would replace --against")
    monkeypatch.setenv("HOME", str(tmp_path))
    against = "--against=~/detections.json"
    assert command(evaluate.main, *flags, against).refused("would replace --against")

    photos = tmp_path / "photos"
    photos.mkdir()
    shutil.copy(devkit / "VOC2007/JPEGImages/000009.jpg", photos / "my photo.jpg")
    (photos / "list.txt").write_text("my photo.jpg,10,10,50,60,disc\n")
    flags = ("--run", trained.path, "-p", photos / "list.txt", "-o", "simple", "--write", "voc")
    assert command(evaluate.main, *flags, "--out", tmp_path).refused("holds a blank")


def test_classes_of_a_run(trained, devkit, command, tmp_path):
    """The data have no square; the file of a network that knows squares may have them."""
    shutil.copy(devkit / "VOC2007/JPEGImages/000009.jpg", tmp_path / "000009.jpg")
    (tmp_path / "list.txt").write_text("000009.jpg,10,30,60,70,disc\n")
    box = [10, 30, 50, 40]
    file = write(
        tmp_path / "found.json",
        ("000009.jpg", "disc", box, 0.9),
        ("000009.jpg", "square", box, 0.8),
    )
    flags = ("-p", tmp_path / "list.txt", "-o", "simple", "--detections", file)
    flags = (*flags, "--out", tmp_path.with_name("out"))
    assert command(evaluate.main, *flags).refused("class_name 'square', expected one of: disc")
    assert command(evaluate.main, *flags, "--classes", tmp_path).refused("is not a run folder")
    outcome = command(evaluate.main, *flags, "--classes", trained.path)
    assert outcome.code == 0, outcome.err
    record = json.loads((tmp_path.with_name("out") / "evaluation.json").read_text())
    assert record["per_class"]["disc"]["ap_area"] == 1
    run = ("--run", trained.path, "-p", devkit, "--classes", trained.path)
    assert command(evaluate.main, *run).refused("--classes belongs to --detections")


def test_a_file_that_is_not_there(devkit, command, tmp_path):
    file = write(tmp_path / "a.json")
    flags = ("-p", devkit, "--detections", file, "--against", tmp_path / "none.json")
    assert command(evaluate.main, *flags).refused("--against", "does not exist")
