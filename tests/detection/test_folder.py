"""Pictures grouped by what they have in common, each exactly once, never too many waiting.

Shapes and names
----------------
picture  a position and pixels of some size.
"""

from __future__ import annotations

import errno
import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from keras_frcnn.cli.common import make_console
from keras_frcnn.detection.detections import ImageDetections
from keras_frcnn.detection.detector import Detector
from keras_frcnn.detection.folder import Picture, Thresholds, detect_folder
from keras_frcnn.detection.loops import BATCHES_WAITING, in_batches
from keras_frcnn.errors import UserError
from keras_frcnn.system.signals import Terminated

THRESHOLDS = Thresholds(score=0.05, draw=0.6)


def pictures(sizes):
    for position, (height, width) in enumerate(sizes):
        yield Picture(position, Path(f"{position}.jpg"), np.zeros((height, width, 3), np.uint8))


def positions(groups):
    return [[picture.position for picture in group] for group in groups]


def own_size(picture):
    return picture.pixels.shape[:2]


class MadeUp(Detector):
    """A detector that finds what a function says of the images."""

    score_threshold, source = 0.0, "made up"

    def __init__(self, detect, class_names=("cat",), bits=0):
        self.class_names, self.bits = class_names, bits
        self._detect = detect

    def find(self, images, boxes=None):
        return self._detect(images)


def test_one_by_one_in_order():
    assert positions(in_batches(pictures([(2, 3), (4, 5), (2, 3)]), 1, own_size)) == [[0], [1], [2]]


def test_a_group_goes_when_it_is_full_and_the_rest_at_the_end():
    sizes = [(2, 3), (4, 5), (2, 3), (2, 3), (4, 5), (4, 5)]
    assert positions(in_batches(pictures(sizes), 2, own_size)) == [[0, 2], [1, 4], [3], [5]]


def test_height_and_width_are_not_exchanged():
    assert positions(in_batches(pictures([(2, 3), (3, 2)]), 2, own_size)) == [[0], [1]]


def test_the_key_says_which_go_together():
    groups = in_batches(
        pictures([(2, 3), (6, 9), (5, 5), (4, 6)]),
        2,
        lambda picture: picture.pixels.shape[0] * 3 == picture.pixels.shape[1] * 2,
    )
    assert positions(groups) == [[0, 1], [2], [3]]


@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_every_picture_once_and_few_in_memory(size):
    generator = np.random.default_rng(0)
    sizes = [tuple(pair) for pair in generator.integers(1, 4, (100, 2))]
    read, given, waiting = 0, [], 0

    def counted():
        nonlocal read
        for picture in pictures(sizes):
            read += 1
            yield picture

    for group in in_batches(counted(), size, own_size):
        waiting = max(waiting, read - len(given))
        given += group
        assert len({picture.pixels.shape for picture in group}) == 1
        assert len(group) <= size
    assert sorted(picture.position for picture in given) == list(range(100))
    assert waiting <= BATCHES_WAITING * size


def test_a_full_disk_keeps_what_was_found_and_names_the_file(tmp_path, monkeypatch):
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    for number in range(4):
        Image.new("RGB", (40, 30)).save(photos / f"{number}.png")

    def detect(images):
        found = ImageDetections(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int))
        return [found for _ in images]

    saved = Image.Image.save

    def save(image, file, kind):
        if "2.png.png" in Path(file).name:
            raise OSError(errno.ENOSPC, "No space left on device")
        saved(image, file, kind)

    monkeypatch.setattr(Image.Image, "save", save)
    said = io.StringIO()
    with pytest.raises(OSError, match="No space left") as error:
        detect_folder(MadeUp(detect), photos, out, THRESHOLDS, Console(file=said, width=1000))
    assert error.value.filename == str(out / "2.png.png")
    assert said.getvalue().startswith("2 of 4 images are finished, their detections are in")
    assert json.loads((out / "detections-part.json").read_text()) == []


@pytest.mark.parametrize(("batch", "finished"), [(1, 4), (2, 4), (1, 0)])
def test_a_stopped_test_keeps_what_it_has_found(tmp_path, batch, finished):
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    for number in range(6):
        Image.new("RGB", (40, 30)).save(photos / f"{number}.png")
    seen = []

    def detect(images):
        seen.extend(images)
        if len(seen) > finished:
            raise Terminated
        box, score = np.float32([[1, 2, 11, 22]]), np.float32([0.9])
        return [ImageDetections(box, score, np.array([1])) for _ in images]

    out.mkdir()
    (out / "detections.json").write_text("an earlier result")
    said = io.StringIO()
    with pytest.raises(Terminated):
        detector = MadeUp(detect)
        console = Console(file=said, width=1000)
        detect_folder(detector, photos, out, THRESHOLDS, console, batch=batch)
    assert (out / "detections.json").read_text() == "an earlier result"
    if not finished:
        assert said.getvalue() == ""
        assert [path.name for path in out.iterdir()] == ["detections.json"]
        return
    file = out / "detections-part.json"
    assert said.getvalue() == f"4 of 6 images are finished, their detections are in {file}\n"
    records = json.loads(file.read_text())
    assert [record["image_id"] for record in records] == ["0", "1", "2", "3"]
    assert [record["bbox"] for record in records] == [[2, 1, 20, 10]] * 4
    assert len(file.with_suffix(".csv").read_text().splitlines()) == 5
    pictures = sorted(path.name for path in out.glob("*.png"))
    assert pictures == [f"{number}.png.png" for number in range(4)]


def test_nothing_is_drawn_through_a_link(tmp_path):
    photos, out, other = (tmp_path / name for name in ("photos", "out", "other"))
    for folder in (photos / "sub", out, other):
        folder.mkdir(parents=True)
    for name in ("a.png", "sub/b.png"):
        Image.new("RGB", (40, 30)).save(photos / name)
    (other / "victim").write_text("precious")
    (out / "a.png.png").symlink_to(other / "victim")
    found = ImageDetections(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int))
    detector = MadeUp(lambda images: [found for _ in images])
    (out / "sub").symlink_to(other)
    with pytest.raises(UserError, match="out/sub"):
        detect_folder(detector, photos, out, THRESHOLDS, Console(file=io.StringIO()))
    (out / "sub").unlink()
    detect_folder(detector, photos, out, THRESHOLDS, Console(file=io.StringIO()))
    assert (other / "victim").read_text() == "precious" and len(list(other.iterdir())) == 1
    assert {path.name for path in out.rglob("*.png")} == {"a.png.png", "b.png.png"}


@pytest.mark.parametrize("place", ["detect", "draw"])
def test_what_nobody_expected_names_the_image(tmp_path, monkeypatch, place):
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")

    def fail(*arguments):
        raise ZeroDivisionError

    found = ImageDetections(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int))
    monkeypatch.setattr("keras_frcnn.detection.folder.draw", fail)
    detect = fail if place == "detect" else lambda *arguments: [found]
    with pytest.raises(ZeroDivisionError) as error:
        console = Console(file=io.StringIO())
        detect_folder(MadeUp(detect), tmp_path / "a.png", tmp_path / "out", THRESHOLDS, console)
    assert str(tmp_path / "a.png") in error.value.doing


def outcome_of(photos: Path, out: Path, bits: int = 0) -> tuple[str, list[str], list[int]]:
    """What :func:`detect_folder` says, its pictures, and the brightest pixel of each image."""
    seen = []

    def detect(images):
        seen.extend(int(image.max()) for image in images)
        box, score = np.float32([[1, 2, 11, 22]]), np.float32([0.9])
        return [ImageDetections(box, score, np.array([1])) for _ in images]

    said = io.StringIO()
    console = Console(file=said, width=1000)
    detect_folder(MadeUp(detect, bits=bits), photos, out, THRESHOLDS, console)
    pictures = sorted(str(path.relative_to(out)) for path in out.rglob("*.png") if path.is_file())
    return said.getvalue(), pictures, seen


@pytest.mark.parametrize(
    "odd",
    ["l" * 248 + ".jpg", "é" * 124 + ".jpg", "detections.json/x.jpg", "a.jpg.png/x.jpg"],
    ids=range(4),
)
def test_a_name_that_no_picture_can_have_stops_no_other(tmp_path, odd):
    photos, out = tmp_path / "photos", tmp_path / "out"
    for name in ("a.jpg", odd, "z.jpg"):
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30)).save(photos / name)
    said, pictures, _ = outcome_of(photos, out)
    assert len(pictures) == 3
    assert {"a.jpg.png", "z.jpg.png"} < set(pictures)
    (other,) = set(pictures) - {"a.jpg.png", "z.jpg.png"}
    assert f"picture of {odd} is {other}" in said
    records = json.loads((out / "detections.json").read_text())
    assert sorted(record["file_name"] for record in records) == sorted(["a.jpg", odd, "z.jpg"])
    assert outcome_of(photos, out)[1] == pictures  # the second time they have the same names


def test_a_folder_in_the_place_of_the_result_is_told_before_the_work(tmp_path):
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    Image.new("RGB", (40, 30)).save(photos / "a.jpg")
    (out / "detections.csv").mkdir(parents=True)
    with pytest.raises(UserError, match=r"detections\.csv"):
        outcome_of(photos, out)
    assert not list(out.glob("*.png"))


def test_a_result_that_cannot_be_written_is_kept_elsewhere(tmp_path, monkeypatch):
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    Image.new("RGB", (40, 30)).save(photos / "a.jpg")
    replaced = os.replace

    def replace(source, target):
        if Path(target).name == "detections.json":
            raise OSError(errno.EACCES, "Permission denied", str(target))
        replaced(source, target)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(OSError, match="Permission"):
        outcome_of(photos, out)
    assert len(json.loads((out / "detections-part.json").read_text())) == 1


def test_16_bit_images_are_read_as_in_training_else_by_their_own_range(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for name, brightest in (("a.png", 600), ("b.png", 1023)):
        Image.fromarray(np.full((30, 40), brightest, np.uint16)).save(photos / name)
    said, _, seen = outcome_of(photos, tmp_path / "out")
    assert seen == [600 >> 2, 255]
    assert "1023" in said
    assert outcome_of(photos, tmp_path / "out", bits=12)[2] == [600 >> 4, 1023 >> 4]
    said, _, seen = outcome_of(photos, tmp_path / "out", bits=16)
    assert seen == [600 >> 8, 1023 >> 8]
    assert "2 images nearly black" in said
    Image.fromarray(np.full((30, 40), 60000, np.uint16)).save(photos / "c.png")
    said, _, seen = outcome_of(photos, tmp_path / "out")
    assert seen == [600 >> 8, 1023 >> 8, 60000 >> 8]
    assert "2 images nearly black" in said


def test_no_name_moves_the_cursor_or_forges_a_line(tmp_path, capsys):
    forged = "a\x1b]0;x\x07\x9b31m\u202e\nerror: forged"
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / f"{forged}.jpg").write_bytes(b"text")
    Image.new("RGB", (40, 30)).save(photos / "good.jpg")
    found = ImageDetections(np.float32([[1, 2, 11, 22]]), np.float32([0.1]), np.array([1]))
    detector = MadeUp(lambda images: [found for _ in images], class_names=(forged,))
    detect_folder(detector, photos, tmp_path / "out", THRESHOLDS, make_console())
    text = capsys.readouterr().out
    assert text.count("forged") >= 2 and "not read: " in text
    assert text.replace("\n", "").isprintable()
    assert not any(line.startswith("error: ") for line in text.splitlines())


def test_12_bits_in_a_tiff_of_16_are_as_bright_as_16(tmp_path):
    values = np.linspace(0, 2**16 - 1, 30 * 40).reshape(30, 40).astype(np.uint16)
    for name, shift in (("full.tif", 0), ("twelve.tif", 4)):
        Image.fromarray(values >> shift).save(tmp_path / name)
        said, _, seen = outcome_of(tmp_path / name, tmp_path / "out" / name)
        assert seen == [255] and "nearly black" not in said


def test_jpeg_of_all_suffixes_is_read_and_other_kinds_are_named(tmp_path):
    photos, jpeg = tmp_path / "photos", io.BytesIO()
    photos.mkdir()
    Image.new("RGB", (40, 30), (200, 200, 200)).save(jpeg, "jpeg")
    (photos / "a.heic").write_bytes(b"no picture that is read")
    with pytest.raises(UserError, match=r"no image in .*1 \.heic"):
        outcome_of(photos, tmp_path / "out")
    for name in ("b.jfif", "c.JPE"):
        (photos / name).write_bytes(jpeg.getvalue())
    Image.new("RGB", (40, 30), (100, 100, 100)).save(photos / "d.ppm")
    said, pictures, seen = outcome_of(photos, tmp_path / "out")
    assert "1 .heic" in said and "1 .ppm" in said
    assert pictures == ["b.jfif.png", "c.JPE.png"]
