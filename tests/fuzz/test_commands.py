"""The command lines on bad data and bad files: one sentence and code 2, or a clean result.

Shapes and names
----------------
Each case has a folder of its own with the data, the files and a run; commands may write into the
folder ``out`` only.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from keras_frcnn.cli import anchors, evaluate, recall, test, train
from keras_frcnn.cli.common import run_main
from keras_frcnn.network.faster_rcnn import FasterRcnn
from keras_frcnn.proposals.files import write_proposals
from keras_frcnn.proposals.given import GivenProposals, ranked
from keras_frcnn.runs.folder import RunFolder
from tests.fuzz.harness import limited, only_touched, snapshot
from tests.random_networks import write_part

ROOT = Path(__file__).parents[2]
XML = """<annotation><object><name>{name}</name><bndbox><xmin>5</xmin><ymin>3</ymin>
<xmax>30</xmax><ymax>20</ymax></bndbox></object></annotation>"""
IMAGES = 12
# TensorFlow is slow to trace, and keeps the memory that it once had.
SECONDS = 120
MEMORY_BYTES = 1536 * 2**20
TINY = (
    *("--network", "tiny", "--short_side", "64", "--long_side", "96", "--seed", "3"),
    *("--gpu", "cpu", "--mode", "joint", "--iterations", "1"),
)


class Place:
    """A folder with everything that a command can be pointed at."""

    def __init__(self, root: Path):
        self.root = root
        self.devkit, self.run, self.out = root / "VOCdevkit", root / "run", root / "out"
        self.photos, self.file = root / "photos", root / "file"
        self.out.mkdir()

    def image(self, number: int) -> Path:
        return self.devkit / f"VOC2007/JPEGImages/{number:06d}.jpg"

    def annotation(self, number: int) -> Path:
        return self.devkit / f"VOC2007/Annotations/{number:06d}.xml"

    def list(self, split: str) -> Path:
        return self.devkit / f"VOC2007/ImageSets/Main/{split}.txt"

    def do(self, main, *flags: object) -> tuple[int, str, str]:
        """Runs a command within its limits; all but ``out`` must be as before."""
        before = self.rest()
        out, err = io.StringIO(), io.StringIO()
        with (
            limited(SECONDS, MEMORY_BYTES),
            redirect_stdout(out),
            redirect_stderr(err),
            only_touched(self.out),
        ):
            code = run_main(main, [str(flag) for flag in flags])
        assert self.rest() == before, "the command touched a file outside its output"
        assert code != 1, err.getvalue()
        return code, out.getvalue(), err.getvalue()

    def rest(self) -> dict:
        found = snapshot(self.root)
        out = str(self.out)
        # The folder above changes its time when the output folder itself is made anew.
        return {name: entry for name, entry in found.items() if not name.startswith(out)}

    def train(self, *flags: object, weights=("--weights", "random")) -> tuple[int, str, str]:
        run = self.out / "run"
        self.list("test").unlink(missing_ok=True)  # it names the training images
        return self.do(train.main, "-p", self.devkit, "--out", run, *TINY, *weights, *flags)

    def test(self, *flags: object) -> tuple[int, str, str]:
        return self.do(test.main, "-p", self.photos, "--out", self.out / "found", *flags)

    def evaluate(self, *flags: object) -> tuple[int, str, str]:
        return self.do(evaluate.main, "-p", self.devkit, "--out", self.out / "figures", *flags)

    def refused(self, outcome: tuple[int, str, str], *words: str) -> None:
        code, _, err = outcome
        assert code == 2 and err.startswith("error: ") and "\n" not in err.strip(), err
        for word in words:
            assert word in err


@pytest.fixture(scope="module")
def made(tmp_path_factory, run_config):
    """What every case gets a copy of."""
    place = Place(tmp_path_factory.mktemp("made"))
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (place.devkit / "VOC2007" / folder).mkdir(parents=True)
    for number in range(IMAGES):
        noise = np.random.default_rng(number).integers(0, 255, (40, 60, 3), np.uint8)
        Image.fromarray(noise).save(place.image(number))
        place.annotation(number).write_text(XML.format(name="dog" if number % 2 else "cat"))
    for split in ("trainval", "test"):
        place.list(split).write_text("".join(f"{number:06d}\n" for number in range(IMAGES)))
    place.photos.mkdir()
    for number in range(2):
        shutil.copy(place.image(number), place.photos / f"{number}.jpg")
    config = run_config(mode="joint", class_names=("cat", "dog"))
    run = RunFolder(place.run)
    run.create(config, ["train_frcnn.py"])
    model = FasterRcnn("tiny", config.class_names, config.recipe, seed=1)
    write_part(run, "final", model.layers())
    return place


@pytest.fixture
def place(made, tmp_path):
    folder = tmp_path / "place"
    shutil.copytree(made.root, folder)
    shutil.rmtree(folder / "out")
    return Place(folder)


def test_training_without_one_bad_image_in_twelve(place):
    place.image(3).write_bytes(b"text")
    code, out, err = place.train()
    assert code == 0, err
    assert "1 bad images left out" in out  # in the progress line
    assert "1 of the 12 images were left out" in out
    report = (place.out / "run" / "data_report.txt").read_text()
    assert "000003.jpg: image unreadable" in report


def test_training_stops_at_two_bad_images_in_twelve(place):
    for number in (3, 4):
        place.image(number).write_bytes(place.image(number).read_bytes()[:200])
    outcome = place.train()
    place.refused(outcome, "2 of the 12 images", "000003.jpg", "--allow_bad")
    assert not any(place.out.iterdir())


def test_training_goes_on_with_them_if_allowed(place):
    for number in (3, 4):
        place.annotation(number).write_text('<!DOCTYPE a [<!ENTITY x "y">]><annotation/>')
    code, out, err = place.train("--allow_bad")
    assert code == 0, err
    assert "2 of the 12 images were left out" in out
    report = (place.out / "run" / "data_report.txt").read_text()
    assert report.count("document types") == 2


def test_training_on_bombs_only(place):
    for number in range(IMAGES):
        Image.new("1", (20000, 20000)).save(place.image(number), "PNG") if number == 0 else (
            shutil.copy(place.image(0), place.image(number))
        )
    place.refused(place.train(), "none is left", "400000000 pixels")


def test_training_on_boxes_that_are_none(place):
    for number in range(IMAGES):
        place.annotation(number).write_text(XML.format(name="dog").replace(">30<", ">NaN<"))
    place.refused(place.train(), "NaN", "no boxes inside their images")


def test_training_on_more_classes_than_a_weight_file_can_name(place):
    """It ended in a traceback when the weights of stage 1 were to be written."""
    one = XML[XML.index("<object>") : XML.index("</annotation>")]
    objects = "".join(one.format(name=f"\u732b{number}") for number in range(6000))
    place.annotation(0).write_text(f"<annotation>{objects}</annotation>", encoding="utf-8")
    place.refused(place.train(), "6002 classes", "shorten the")
    assert not any(place.out.iterdir())


def test_training_on_a_list_of_bytes(place):
    place.list("trainval").write_bytes(bytes(range(256)))
    place.refused(place.train(), "trainval.txt", "UTF-8")


def test_training_on_ids_that_leave_the_folder(place):
    place.list("trainval").write_text("../../../../etc/passwd\n/etc/passwd\n" * 20)
    place.refused(place.train(), "passwd", "id refused")


def test_training_on_a_simple_list_that_is_an_image(place):
    place.refused(place.train("-o", "simple", "-p", place.image(0)), "UTF-8")


def test_training_from_weights_that_are_text(place):
    place.file.write_text("no HDF5")
    place.refused(place.train(weights=("--input_weight_path", place.file)), "HDF5")
    assert not any(place.out.iterdir())


def test_training_from_weights_that_claim_terabytes(place):
    file = place.run / "weights" / "final.weights.h5"
    with h5py.File(file, "r+") as content:
        del content["rpn_conv/rpn_conv/kernel:0"]
        content.create_dataset(
            "rpn_conv/rpn_conv/kernel:0", (10**6, 10**6), "f4", chunks=(8, 8), compression="gzip"
        )
    place.refused(
        place.train(weights=("--input_weight_path", place.run)), "final.weights.h5", "damaged"
    )


def test_training_with_anchors_nested_deeply(place):
    place.file.write_text("[" * 100_000)
    place.refused(place.train("--anchors", place.file), "nested too deeply")


def test_detection_of_bad_and_good_photos(place):
    (place.photos / "cut.jpg").write_bytes((place.photos / "0.jpg").read_bytes()[:300])
    (place.photos / "empty.png").write_bytes(b"")
    (place.photos / os.fsdecode(b"caf\xe9.jpg")).write_bytes(b"text")
    os.mkfifo(place.photos / "pipe.jpg")
    (place.photos / "loop").symlink_to(place.photos)
    code, out, err = place.test("--run", place.run)
    assert code == 0, err
    assert "4 of the 6 images were left out" in out
    assert out.count("not read: ") == 4
    for name in ("cut.jpg", "empty.png", "pipe.jpg"):
        assert name in out
    assert (place.out / "found" / "0.jpg.png").is_file()


def test_detection_of_bad_photos_only(place):
    for photo in place.photos.iterdir():
        photo.write_bytes(b"text")
    place.refused(place.test("--run", place.run), "None of the 2 images")


def test_detection_by_a_run_of_another_kind(place):
    config = place.run / "config.json"
    values = json.loads(config.read_text())
    config.write_text(json.dumps({**values, "seed": [5]}))
    place.refused(place.test("--run", place.run), "config.json.seed", "[5]")


def test_detection_by_a_run_of_a_newer_format(place):
    config = place.run / "config.json"
    config.write_text(config.read_text().replace('"format": 1', '"format": 2'))
    place.refused(place.test("--run", place.run), "format 2", "newer keras_frcnn")


def test_detection_by_weights_that_point_elsewhere(place):
    file = place.run / "weights" / "final.weights.h5"
    with h5py.File(file, "r+") as content:
        del content["fc6"]
        content["fc6"] = h5py.ExternalLink("/etc/passwd", "fc6")
    place.refused(place.test("--run", place.run), "final.weights.h5", "link")


def test_detection_by_an_export_that_is_none(place):
    (place.file / "assets").mkdir(parents=True)
    (place.file / "saved_model.pb").write_bytes(b"\xff" * 100)
    (place.file / "assets" / "class_names.json").write_text("[1]")
    place.refused(place.test("--saved_model", place.file), "cannot be read as an export")


def test_detection_on_proposals_of_a_newer_format(place):
    boxes = ranked([(1, 1, 9, 9)])
    write_proposals(place.file, GivenProposals({"0": boxes, "1": boxes}, "edge-boxes", {}, ""))
    with h5py.File(place.file, "r+") as content:
        content.attrs["format"] = "keras_frcnn given proposals 2"
    outcome = place.test("--run", place.run, "--proposals", place.file)
    place.refused(outcome, "proposals 2", "update keras_frcnn")


def test_evaluation_without_one_bad_image(place):
    place.image(5).write_bytes(b"\xff\xd8\xff")
    code, out, err = place.evaluate("--run", place.run)
    assert code == 0, err
    assert "1 of the 12 images were left out" in out
    report = (place.out / "figures" / "evaluation_data.txt").read_text()
    assert "000005.jpg: image unreadable" in report


def test_evaluation_stops_at_many_bad_images(place):
    for number in range(6):
        place.image(number).unlink()
    outcome = place.evaluate("--run", place.run)
    place.refused(outcome, "6 of the 12 images", "000000.jpg", "--allow_bad")


@pytest.mark.parametrize("text", ["[" * 100_000, '[{"bbox": NaN}]', "{}", '[{"score": 1}]'])
def test_evaluation_of_bad_detections(place, text):
    place.file.write_text(text)
    place.refused(place.evaluate("--detections", place.file), str(place.file))


def test_recall_names_what_it_leaves_out(place):
    place.image(5).write_bytes(b"")
    boxes = {f"{number:06d}": ranked([(1, 1, 30, 30)]) for number in range(IMAGES)}
    write_proposals(place.file, GivenProposals(boxes, "edge-boxes", {}, ""))
    code, out, err = place.do(recall.main, "-p", place.devkit, "--proposals", place.file)
    assert code == 0, err
    assert "000005.jpg" in out and "1 of the 12 images were left out" in out


def test_anchors_name_what_they_leave_out(place):
    place.annotation(7).write_text("<annotation>")
    code, out, err = place.do(
        anchors.main, "-p", place.devkit, "--out", place.out / "anchors.json", "--number", 1
    )
    assert code == 0, err
    assert "000007.xml" in out and "1 of the 12 images were left out" in out


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (
            ("train_frcnn.py", "-p", "VOCdevkit", "--out", "out/run", "--weights", "random", *TINY),
            "12 images",
        ),
        (("test_frcnn.py", "-p", "photos", "--run", "run", "--out", "out/x"), "nested too deeply"),
        (("-m", "keras_frcnn", "evaluate", "-p", "VOCdevkit", "--run", "run"), "nested too deeply"),
    ],
)
def test_as_processes_of_their_own(place, command, words):
    """Code 2, one line, in time, though nothing of this process is shared."""
    (place.run / "config.json").write_text("[" * 100_000)
    for number in (1, 2):
        place.image(number).write_bytes(b"")
    script = [str(ROOT / command[0]), *command[1:]] if command[0] != "-m" else list(command)
    before = place.rest()
    done = subprocess.run(
        [sys.executable, *script],
        cwd=place.root,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    place.refused((done.returncode, done.stdout, done.stderr), words)
    assert place.rest() == before
