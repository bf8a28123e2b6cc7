"""What ``evaluate`` evaluates: which images and detections count, and what a signal leaves."""

from __future__ import annotations

import json
import shutil
import signal

import numpy as np
import pytest

from keras_frcnn.cli import evaluate
from keras_frcnn.data.images import read_image
from keras_frcnn.data.voc import load_voc
from keras_frcnn.detection.detections import ImageDetections
from keras_frcnn.detection.loops import keep_best_per_class
from keras_frcnn.detection.network_detector import NetworkDetector, load_run
from keras_frcnn.recipes import RECIPES
from keras_frcnn.system.signals import Terminated
from tests.random_networks import find


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_stopped_evaluation_keeps_what_is_finished(
    trained, devkit, command, tmp_path, monkeypatch, number
):
    boxes = np.tile(np.float32([[10, 10, 50, 60]]), (100, 1))
    scores = np.linspace(0.1, 0.9, 100, dtype=np.float32)
    seen = []

    def find(self, images, boxes_given=None):
        seen.extend(images)
        if len(seen) == 3:
            raise Terminated(number)
        return [ImageDetections(boxes, scores, np.ones(100, np.int64))]

    monkeypatch.setattr(NetworkDetector, "find", find)
    flags = ("-p", devkit, "--set", "2007:test")
    outcome = command(evaluate.main, "--run", trained.path, *flags, "--out", tmp_path)
    assert (outcome.code, outcome.err) == (128 + number, f"{number.name} received: stopped.\n")
    file = tmp_path / "detections-part.json"
    again = f"--detections {file} --images 2 --classes {trained.path}"
    assert again in outcome.out.replace("\n", " ")
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
    again = ("--detections", file, "--images", "2", "--out", tmp_path)
    assert command(evaluate.main, *flags, *again).code == 0
    record = json.loads((tmp_path / "evaluation.json").read_text())
    assert record["images"] == 2
    # As the recipe keeps of a class: 40 an image on average.
    assert sum(values["detections"] for values in record["per_class"].values()) == 80


def test_the_first_images_and_fewer_proposals(trained, devkit, command, tmp_path):
    flags = ("--run", trained.path, "-p", devkit, "--out", tmp_path / "new" / "folder")
    flags = (*flags, "--write", "none")
    assert command(evaluate.main, *flags, "--images", "1", "--num_proposals", "5").code == 0
    record = json.loads((tmp_path / "new" / "folder" / "evaluation.json").read_text())
    assert (record["images"], record["proposals"]) == (1, 5)
    assert all(values["detections"] <= 5 for values in record["per_class"].values())
    assert [path.name for path in (tmp_path / "new" / "folder").iterdir()] == ["evaluation.json"]


@pytest.mark.parametrize("name", ["paper", "py-faster-rcnn"])
def test_which_detections_count(name, trained, devkit, command, tmp_path):
    flags = ("--run", trained.path, "-p", devkit, "--out", tmp_path, "--filter", name)
    assert command(evaluate.main, *flags).code == 0
    values = json.loads((tmp_path / "evaluation.json").read_text())
    assert values["filter"] == name
    data = load_voc(devkit, "2007:test")
    chosen = RECIPES[name].evaluation_filter
    predictor = load_run(trained.path, chosen)
    found = {e.key: find(predictor, read_image(e.path)) for e in data.examples}
    if chosen.mean_per_class is not None:
        found = keep_best_per_class(found, 2, chosen.mean_per_class * len(data))
    written = json.loads((tmp_path / "detections.json").read_text())
    assert len(written) == sum(len(detections) for detections in found.values())


def test_training_images_are_refused_however_they_are_listed(
    trained, devkit, command, tmp_path, make_devkit
):
    flags = ("--run", trained.path, "--out", tmp_path / "out")
    outcome = command(evaluate.main, *flags, "-p", devkit, "--set", "2007:trainval")
    words = ("9 of the 9 images were in the training set", "VOC2007/JPEGImages/000000.jpg")
    assert outcome.refused(*words)
    # By the lineage's text list, where an image has another key.
    image = devkit / "VOC2007" / "JPEGImages" / "000003.jpg"
    (tmp_path / "boxes.txt").write_text(f"{image},10,10,60,50,disc\n")
    outcome = command(evaluate.main, *flags, "-p", tmp_path / "boxes.txt", "-o", "simple")
    assert outcome.refused("1 of the 1 images were in the training set")
    # Another devkit may have its own 000003.
    other = make_devkit(tmp_path / "other")
    shutil.copy(other / "VOC2007/JPEGImages/000010.jpg", other / "VOC2007/JPEGImages/000003.jpg")
    lists = other / "VOC2007" / "ImageSets" / "Main"
    (lists / "test.txt").write_text("000003\n")
    assert command(evaluate.main, *flags, "-p", other).code == 0
    assert not (tmp_path / "evaluation.json").exists()


def test_a_devkit_of_other_classes_is_refused(trained, command, tmp_path, make_devkit):
    other = make_devkit(tmp_path / "VOCdevkit", ("apple", "pear"))
    outcome = command(evaluate.main, "--run", trained.path, "-p", other, "--out", tmp_path / "out")
    assert outcome.refused("of a class that the run knows (disc, square)")
    assert not (tmp_path / "out").exists()
    # Some classes in common: what is unknown is told, and the rest evaluated.
    mixed = make_devkit(tmp_path / "mixed" / "VOCdevkit", ("disc", "pear"))
    # One byte more, so that no picture is one of the training.
    for file in (mixed / "VOC2007" / "JPEGImages").iterdir():
        file.write_bytes(file.read_bytes() + b"\0")
    outcome = command(evaluate.main, "--run", trained.path, "-p", mixed, "--out", tmp_path / "out")
    assert outcome.code == 0, outcome.err
    assert "3 of the 7 objects were left out" in outcome.out
    assert "expected one of the classes disc, square, found 'pear'" in outcome.out
