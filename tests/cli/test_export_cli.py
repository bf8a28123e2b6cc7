"""``python -m keras_frcnn export``: what it prints, and a process that has no keras_frcnn."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from keras_frcnn.cli import export
from keras_frcnn.data.images import read_image
from keras_frcnn.detection.network_detector import load_run
from keras_frcnn.recipes import DetectionFilter
from tests.random_networks import find

# What a user of the export writes: TensorFlow and NumPy only.
USER_PROGRAM = """
import importlib.util, json, os, sys
import numpy as np
assert importlib.util.find_spec("keras_frcnn") is None, "the package can be imported here"
import tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
files = [tf.io.read_file(name) for name in sys.argv[3:]]
found = {}
for name, data in zip(sys.argv[3:], files):
    if name.endswith(".jpg"):  # Pillow's pixels, where the default differs by up to 4
        image = tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE")
    else:
        image = tf.io.decode_png(data, channels=3)
    outputs = model.signatures["serving_default"](input_tensor=image[None])
    found[name] = {key: value[0].numpy() for key, value in outputs.items()}
    found[name]["size"] = np.array(image.shape[:2])
encoded = model.signatures["encoded"](encoded=tf.stack(files))
found["encoded"] = {key: value.numpy() for key, value in encoded.items()}
flat = {f"{name}|{key}": v for name, values in found.items() for key, v in values.items()}
np.savez(sys.argv[2], **flat)
assert "keras_frcnn" not in sys.modules
"""


def test_the_command_tells_what_it_wrote(exported, trained):
    text = exported.outcome.out
    assert f"exported to {exported.path} (" in text
    assert f"compared on {trained.path / 'samples' / 'anchors-1.png'}" in text
    count = int(text.split(", ")[1].split(" detections")[0])
    assert count > 0, "a comparison without a detection shows nothing"
    pixels, scores = text.split("differ by at most ")[1].split("\n")[0].split(" px, scores by ")
    assert float(pixels) <= 0.01
    assert float(scores) <= 1e-4
    assert exported.outcome.err == ""
    names = json.loads((exported.path / "assets" / "class_names.json").read_text())
    assert names == ["disc", "square"]
    assert sorted(path.name for path in exported.path.iterdir()) == [
        "assets", "assets.extra", "fingerprint.pb", "saved_model.pb", "variables",
    ]  # fmt: skip


@pytest.mark.slow
def test_a_process_without_the_package_detects_the_same(exported, trained, devkit, tmp_path):
    pictures = devkit / "VOC2007" / "JPEGImages"
    png = tmp_path / "other.png"
    Image.open(pictures / "000011.jpg").crop((0, 0, 110, 70)).save(png)
    names = [str(pictures / "000009.jpg"), str(pictures / "000005.jpg"), str(png)]
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    done = subprocess.run(
        [sys.executable, "-I", "-c", USER_PROGRAM, exported.path, tmp_path / "found.npz", *names],
        cwd=tmp_path,
        env=kept,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    found = np.load(tmp_path / "found.npz")
    predictor = load_run(trained.path, DetectionFilter(score_threshold=0.02))
    for index, name in enumerate(names):
        image = read_image(name)
        expected = find(predictor, image)
        count = len(expected)
        assert count > 0
        height, width, _ = image.shape
        assert found[f"{name}|size"].tolist() == [height, width]
        for outputs in (
            {key: found[f"{name}|{key}"] for key in OUTPUTS},
            {key: found[f"encoded|{key}"][index] for key in OUTPUTS},
        ):
            assert outputs["num_detections"] == count
            boxes = outputs["detection_boxes"][:count] * [height, width, height, width]
            np.testing.assert_allclose(boxes, expected.boxes_image, atol=0.01)
            scores = outputs["detection_scores"][:count]
            np.testing.assert_allclose(scores, expected.scores, atol=1e-4)
            np.testing.assert_array_equal(outputs["detection_classes"][:count], expected.classes)
            for key in ("detection_boxes", "detection_scores", "detection_classes"):
                assert not outputs[key][count:].any()


OUTPUTS = ("detection_boxes", "detection_scores", "detection_classes", "num_detections")


def test_an_image_of_the_users_choice_and_other_filters(trained, devkit, command, tmp_path):
    photo = devkit / "VOC2007" / "JPEGImages" / "000010.jpg"
    out = tmp_path / "model"
    outcome = command(
        export.main,
        *("--run", trained.path, "--out", out, "--image", photo, "--score_thresh", "0"),
        *("--nms_thresh", "1", "--num_proposals", "3"),
    )
    assert outcome.code == 0, outcome.err
    # Three proposals, two classes, nothing suppressed.
    assert f"compared on {photo}, 6 detections" in outcome.out


def test_mistakes_are_refused(trained, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "notes.txt").write_text("mine")
    (tmp_path / "text.jpg").write_text("no picture")
    run, out = ("--run", trained.path), ("--out", "new")
    before = sorted(tmp_path.rglob("*"))
    for flags, words in (
        (run, "the following arguments are required: --out"),
        (out, "the following arguments are required: --run"),
        (("--run", "nowhere", *out), "nowhere is not a run folder"),
        ((*run, "--out", "used"), "used exists and is not empty; give another --out"),
        ((*run, "--out", "text.jpg"), "text.jpg is a file"),
        ((*run, "--out", "new [1]"), "TensorFlow reads no weights at a path with '['"),
        ((*run, *out, "--image", "none.jpg"), "--image none.jpg does not exist"),
        ((*run, *out, "--image", "text.jpg"), "text.jpg cannot be read as an image"),
        ((*run, *out, "--score_thresh", "2"), "--score_thresh"),
        ((*run, *out, "--num_proposals", "0"), "--num_proposals"),
        ((*run, *out, "--saved_model", "x"), "unknown argument '--saved_model'"),
    ):
        assert command(export.main, *flags).refused(words), flags
    assert sorted(tmp_path.rglob("*")) == before


def test_a_difference_that_is_no_number_is_refused(trained, command, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "keras_frcnn.export.comparison.largest_difference", lambda *both: (0.0, np.nan)
    )
    outcome = command(export.main, "--run", trained.path, "--out", tmp_path / "model")
    assert outcome.refused("differs from the run")
