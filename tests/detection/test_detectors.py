"""What a run, an exported SavedModel and an ONNX file have in common, and where they differ."""

from __future__ import annotations

import io
import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from keras_frcnn.data.images import read_image
from keras_frcnn.detection.detections import Detections
from keras_frcnn.detection.detector import Detector
from keras_frcnn.detection.load import load
from keras_frcnn.detection.network_detector import NetworkDetector
from keras_frcnn.errors import UserError
from keras_frcnn.export.saved_model import export
from keras_frcnn.recipes import DetectionFilter
from keras_frcnn.runs.folder import RunFolder
from tests.random_networks import find, random_image, random_network, write_part

CLASSES = ("disc", "square", "star")
LEAST = DetectionFilter(score_threshold=0.2)
EXPORTS = ("saved_model", "onnx")


@pytest.fixture(scope="module")
def model(tiny_recipe):
    return random_network(tiny_recipe, CLASSES, seed=4)


@pytest.fixture(scope="module")
def places(model, run_config, tmp_path_factory):
    """``places(kind)``: where the one network lies as a run, SavedModel or ONNX file."""
    folder = tmp_path_factory.mktemp("detectors")
    run = RunFolder(folder / "run")
    run.create(run_config(class_names=CLASSES), [])
    write_part(run, "final", model.layers())
    made = {"run": run.path}

    def place(kind):
        if kind == "onnx":
            pytest.importorskip("tf2onnx", reason="needs the extra onnx")
        if kind not in made:
            made[kind] = folder / (kind + ".onnx" * (kind == "onnx"))
            detector = NetworkDetector(model, LEAST)
            if kind == "saved_model":
                export(detector, made[kind])
            else:
                from keras_frcnn.export.onnx.convert import to_onnx, write_onnx

                write_onnx(to_onnx(detector), made[kind])
        return made[kind]

    return place


@pytest.fixture(scope="module", params=["run", *EXPORTS])
def detector(request, places) -> Detector:
    return load(places(request.param), LEAST)


def assert_same(found: Detections, expected: Detections) -> None:
    np.testing.assert_array_equal(found.image, expected.image)
    np.testing.assert_array_equal(found.classes, expected.classes)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=0.02)


def test_what_it_says_of_itself(detector):
    assert isinstance(detector, Detector)
    assert tuple(detector.class_names) == CLASSES
    assert detector.score_threshold == 0.2
    assert detector.source in detector.about().values()
    assert detector.for_evaluation().class_names == detector.class_names


def test_all_find_what_the_network_finds(detector, model):
    pixels = random_image(60, 90)
    expected = find(NetworkDetector(model, LEAST), pixels)
    found = detector.detect(pixels)
    assert len(found) == len(expected) > 5
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)
    assert (np.diff(found.scores) <= 0).all()
    assert (found.boxes >= 0).all() and (found.boxes <= (60, 90, 60, 90)).all()


def test_every_form_of_an_image(detector, tmp_path):
    pixels = random_image(60, 90)
    expected = detector.detect(pixels)
    image = Image.fromarray(pixels)
    image.save(tmp_path / "a.png")
    encoded = (tmp_path / "a.png").read_bytes()
    with_alpha = np.dstack((pixels, np.full(pixels.shape[:2], 7, np.uint8)))
    forms = (
        *(tmp_path / "a.png", str(tmp_path / "a.png"), encoded, image, image.convert("RGBA")),
        *(with_alpha, pixels.astype(np.uint16) << 8, pixels / 255, pixels.astype(np.float32)),
    )
    for form in forms:
        assert_same(detector.detect(form), expected)
    grey = np.asarray(image.convert("L"))
    expected = detector.detect(np.dstack([grey] * 3))
    for form in (grey, grey[..., None], image.convert("L"), grey / 255.0):
        assert_same(detector.detect(form), expected)


def test_a_list_of_images_of_several_sizes(detector):
    images = [random_image(60, 90), random_image(40, 30, 1), random_image(60, 90, 2)]
    found = detector.detect(images)
    assert isinstance(found, list) and len(found) == 3
    for image, each in zip(images, found, strict=True):
        assert_same(each, detector.detect(image))
    assert len(detector.find([images[0], images[2]])) == 2  # of one size, together
    assert detector.detect([]) == []


def test_what_is_no_image_is_one_sentence(detector, tmp_path):
    (tmp_path / "a.jpg").write_text("a text")
    for form in (tmp_path / "a.jpg", tmp_path / "none.jpg", b"a text", np.zeros((2, 60, 90, 3))):
        with pytest.raises(UserError):
            detector.detect(form)


@pytest.mark.parametrize("kind", EXPORTS)
def test_an_export_takes_no_boxes(places, kind):
    with pytest.raises(UserError, match="makes its own proposals; boxes need a run"):
        load(places(kind)).detect(random_image(60, 90), boxes=np.array([[0, 0, 9, 9]]))


def test_a_run_takes_boxes(places):
    detector = load(places("run"), DetectionFilter(score_threshold=0.0, nms_iou=1.0))
    pixels, boxes = random_image(60, 90), np.array([[5, 10, 50, 80], [0, 0, 30, 30]])
    assert len(detector.detect(pixels, boxes)) == len(boxes) * len(CLASSES)
    none, one = detector.detect([pixels, pixels], [[], boxes[:1].tolist()])
    assert (len(none), len(one)) == (0, len(CLASSES))
    with pytest.raises(UserError, match="boxes for each of the 2 images, received 1"):
        detector.detect([pixels, pixels], [boxes])
    for bad in (boxes[0], boxes[:, :3], [["a"] * 4], [[np.nan] * 4], [[0, 0, 9], [1]]):
        with pytest.raises(UserError, match="The boxes cannot be read"):
            detector.detect(pixels, bad)
    with pytest.raises(UserError, match="beyond the image"):
        detector.detect(pixels, [[0, 0, 90, 60]])


# --- what detections can do --------------------------------------------------------------------


@pytest.fixture
def found() -> Detections:
    image = np.zeros((40, 50, 3), np.uint8)
    boxes = np.array([[1, 2, 30, 40], [5, 6, 20, 21]], np.float32)
    scores = np.array([0.75, 0.5], np.float32)
    return Detections(boxes, scores, np.array([2, 1], np.int32), CLASSES, image)


def test_detections_as_values(found):
    values = {
        "boxes": [[1, 2, 30, 40], [5, 6, 20, 21]],
        "scores": [0.75, 0.5],
        "class_names": ["square", "disc"],
    }
    assert json.loads(json.dumps(found.to_dict())) == values
    assert found.at_least(0.6).class_names == ["square"]
    assert repr(found) == "<2 detections in 50 x 40 pixels: square 0.75, disc 0.50>"


def test_detections_as_a_picture(found):
    drawn = np.asarray(found.draw().convert("RGB"))
    assert drawn.shape == found.image.shape and drawn.any()
    assert not found.image.any()  # drawing leaves it alone
    with Image.open(io.BytesIO(found._repr_png_())) as shown:
        np.testing.assert_array_equal(np.asarray(shown.convert("RGB")), drawn)


def test_detections_for_supervision(found, monkeypatch):
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(UserError, match="supervision"):
        found.to_supervision()
    package = SimpleNamespace(Detections=SimpleNamespace)
    monkeypatch.setitem(sys.modules, "supervision", package)
    given = found.to_supervision()
    assert given.xyxy.tolist() == [[2, 1, 40, 30], [6, 5, 21, 20]]
    assert given.class_id.tolist() == [1, 0]
    assert given.data["class_name"].tolist() == ["square", "disc"]
    assert len(found.at_least(1.0).to_supervision().xyxy) == 0


# --- where a detector lies ---------------------------------------------------------------------


def test_a_configuration_leads_to_its_run(places, tmp_path):
    run = RunFolder(places("run"))
    run.copy_config(tmp_path / "copy.json")
    for place in (str(run.path), run.config_file, tmp_path / "copy.json"):
        assert load(place).source == str(run.path)


@pytest.mark.parametrize("kind", EXPORTS)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("stage", 2), ("number_of_proposals", 5), ("short_sides", (96,)), ("head_chunk", 7)),
        *(("precision", "float32"), ("boxes_given", True)),
    ],
)
def test_what_is_fixed_in_an_export(places, kind, name, value):
    with pytest.raises(UserError, match=f"`{name}` belongs to run folders"):
        load(places(kind), **{name: value})


@pytest.mark.parametrize("kind", EXPORTS)
def test_the_threshold_of_an_export_may_be_raised_only(places, kind):
    pixels = random_image(60, 90)
    with pytest.raises(UserError, match="`score_threshold` of 0.1 is below 0.2"):
        load(places(kind), DetectionFilter(score_threshold=0.1))
    every = load(places(kind)).detect(pixels)
    limit = float(every.scores[len(every) // 2])
    some = load(places(kind), DetectionFilter(score_threshold=limit)).detect(pixels)
    assert_same(some, every.at_least(limit))
    assert 0 < len(some) < len(every)


def test_nothing_of_the_kind(tmp_path):
    for name, words in (("none", "is not a run folder"), (".", "is not a run folder")):
        with pytest.raises(UserError, match=words):
            load(tmp_path / name)
    pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    for name in ("none.onnx", "text.onnx"):
        (tmp_path / "text.onnx").write_text("no model")
        with pytest.raises(UserError, match=f"{name} cannot be read as an ONNX file"):
            load(tmp_path / name)


def test_16_bit_images_are_read_as_in_training(places, tmp_path):
    samples = np.random.default_rng(0).integers(0, 4096, (60, 90)).astype(np.uint16)
    Image.fromarray(samples).save(tmp_path / "a.png")
    detector = load(places("run"))
    for bits, seen in ((0, samples >> 8), (12, samples >> 4)):
        detector.bits = bits
        for form in (tmp_path / "a.png", samples, Image.fromarray(samples)):
            np.testing.assert_array_equal(detector.detect(form).image[..., 0], seen)
    assert read_image(tmp_path / "a.png", 12).shape == (60, 90, 3)
