"""The SavedModel: signatures, batches, files of other sizes, and equality with the predictor."""

from __future__ import annotations

import io
import json
import re
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_frcnn.detection.detections import ImageDetections
from keras_frcnn.detection.exported_model import ExportedModel
from keras_frcnn.detection.network_detector import NetworkDetector
from keras_frcnn.detection.saved_model import load_exported
from keras_frcnn.errors import UserError
from keras_frcnn.export.saved_model import (
    check_unused,
    decode,
    digest_of_export,
    export,
    found_in_outputs,
    largest_difference,
)
from keras_frcnn.recipes import DetectionFilter
from tests.random_networks import find, random_image, random_network

CLASSES = ("disc", "square", "star")
OUTPUTS = {
    "detection_boxes": (None, 100, 4),
    "detection_scores": (None, 100),
    "detection_classes": (None, 100),
    "num_detections": (None,),
}


@pytest.fixture(scope="module")
def predictor(tiny_recipe):
    model = random_network(tiny_recipe, CLASSES, seed=4)
    return NetworkDetector(model, DetectionFilter(score_threshold=0.2))


@pytest.fixture(scope="module")
def folder(predictor, tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "model"
    export(predictor, path)
    return path


@pytest.fixture(scope="module")
def signatures(folder):
    return tf.saved_model.load(str(folder)).signatures


def encode(pixels: np.ndarray, kind: str = "PNG", mode: str = "RGB", **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def assert_equal(outputs: dict, index: int, predictor: NetworkDetector, pixels: np.ndarray) -> int:
    """Compares one image of a batch with the predictor; returns how many detections it has."""
    expected = find(predictor, pixels)
    count = len(expected)
    assert outputs["num_detections"][index] == count
    height, width, _ = pixels.shape
    boxes = outputs["detection_boxes"][index].numpy()
    assert (boxes >= 0).all()
    assert (boxes <= 1).all()
    in_pixels = boxes[:count] * [height, width, height, width]
    np.testing.assert_allclose(in_pixels, expected.boxes_image, atol=0.01)
    scores = outputs["detection_scores"][index].numpy()
    np.testing.assert_allclose(scores[:count], expected.scores, atol=1e-4)
    classes = outputs["detection_classes"][index].numpy()
    np.testing.assert_array_equal(classes[:count], expected.classes)
    assert set(classes[:count]) <= {1.0, 2.0, 3.0}
    for values in (boxes, scores, classes):
        assert not values[count:].any()
    return count


def test_names_types_and_shapes_are_those_of_the_object_detection_api(signatures):
    assert set(signatures) == {"serving_default", "encoded"}
    inputs = signatures["serving_default"].structured_input_signature[1]
    assert set(inputs) == {"input_tensor"}
    assert inputs["input_tensor"].dtype == tf.uint8
    assert inputs["input_tensor"].shape.as_list() == [None, None, None, 3]
    inputs = signatures["encoded"].structured_input_signature[1]
    assert set(inputs) == {"encoded"}
    assert inputs["encoded"].dtype == tf.string
    assert inputs["encoded"].shape.as_list() == [None]
    for signature in signatures.values():
        outputs = signature.structured_outputs
        assert set(outputs) == set(OUTPUTS)
        for name, shape in OUTPUTS.items():
            assert outputs[name].dtype == tf.float32, name
            assert outputs[name].shape.is_compatible_with(shape), name


@pytest.mark.parametrize("size", [(60, 90), (200, 64), (33, 200)])
def test_one_image(signatures, predictor, size):
    pixels = random_image(*size)
    outputs = signatures["serving_default"](input_tensor=tf.constant(pixels[None]))
    for name, shape in OUTPUTS.items():
        assert outputs[name].shape == (1, *shape[1:])
    assert assert_equal(outputs, 0, predictor, pixels) > 0


def test_a_batch_gives_what_its_images_give(signatures, predictor):
    images = np.stack([random_image(70, 100, seed) for seed in range(3)])
    outputs = signatures["serving_default"](input_tensor=tf.constant(images))
    for name, shape in OUTPUTS.items():
        assert outputs[name].shape == (3, *shape[1:])
    for index in range(3):
        assert_equal(outputs, index, predictor, images[index])


def test_files_of_other_kinds_and_sizes(signatures, predictor):
    files = [
        encode(random_image(60, 90)),
        encode(random_image(90, 60, 1), "JPEG", quality=92),
        encode(random_image(120, 40, 2), mode="P"),
        encode(random_image(50, 50, 3), "JPEG", mode="L"),
        encode(random_image(64, 80, 4), mode="RGBA"),
    ]
    outputs = signatures["encoded"](encoded=tf.constant(files))
    for name, shape in OUTPUTS.items():
        assert outputs[name].shape == (5, *shape[1:])
    counts = [assert_equal(outputs, i, predictor, decode(f).numpy()) for i, f in enumerate(files)]
    assert max(counts) > 0


def test_no_file_at_all(signatures):
    outputs = signatures["encoded"](encoded=tf.zeros((0,), tf.string))
    for output, shape in OUTPUTS.items():
        assert outputs[output].shape == (0, *shape[1:])
        assert outputs[output].dtype == tf.float32


def test_an_empty_batch(signatures):
    outputs = signatures["serving_default"](input_tensor=tf.zeros((0, 60, 90, 3), tf.uint8))
    for name, (_, *shape) in OUTPUTS.items():
        assert outputs[name].shape == (0, *shape)


@pytest.mark.parametrize("size", [(0, 90), (60, 0)])
def test_images_without_pixels_are_an_invalid_argument(signatures, size):
    with pytest.raises(tf.errors.InvalidArgumentError, match="H and W > 0"):
        signatures["serving_default"](input_tensor=tf.zeros((1, *size, 3), tf.uint8))


@pytest.mark.parametrize("size", [(1, 1), (1, 200), (3, 2), (1, 5000), (5000, 1), (2, 3)])
def test_the_smallest_images(signatures, predictor, size):
    pixels = random_image(*size)
    outputs = signatures["serving_default"](input_tensor=tf.constant(pixels[None]))
    assert_equal(outputs, 0, predictor, pixels)
    outputs = signatures["encoded"](encoded=tf.constant([encode(pixels)]))
    assert_equal(outputs, 0, predictor, pixels)


@pytest.mark.parametrize(
    "bad",
    [b"", b"garbage", b"GIF89a" + bytes(40), b"BM" + bytes(60)],
    ids=["nothing", "text", "gif", "bmp"],
)
def test_what_is_no_jpeg_or_png_is_named_by_its_index(signatures, bad):
    good = encode(random_image(20, 30))
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        signatures["encoded"](encoded=tf.constant([good, good, bad, good]))
    assert "JPEG or PNG" in str(caught.value)
    assert "(index in the batch):] [2]" in str(caught.value)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_damaged_files_are_named_by_their_index(signatures, kind):
    data = encode(random_image(40, 50), kind)
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        signatures["encoded"](encoded=tf.constant([data, data[: len(data) // 2]]))
    assert "is damaged" in str(caught.value)
    assert "(index in the batch):] [1]" in str(caught.value)


def test_exif_orientation_is_not_applied_to_files(signatures, predictor):
    """As its docstring says: boxes refer to the pixels as they are stored."""
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = random_image(60, 90)
    data = encode(pixels, "JPEG", quality=95, exif=exif)
    stored = decode(data).numpy()
    assert stored.shape == (60, 90, 3)
    outputs = signatures["encoded"](encoded=tf.constant([data]))
    assert_equal(outputs, 0, predictor, stored)


def test_the_loaded_model_is_used_as_a_predictor(folder, predictor):
    loaded = load_exported(folder)
    assert loaded.class_names == CLASSES
    pixels = random_image(70, 100)
    expected = find(predictor, pixels)
    found = find(loaded, pixels)
    differences = largest_difference(expected, found)
    assert differences[0] < 0.01
    assert differences[1] < 1e-4


def test_class_names_are_an_asset_and_nothing_else_is_left(folder):
    names = json.loads((folder / "assets" / "class_names.json").read_text())
    assert names == list(CLASSES)
    assert json.loads((folder / "assets" / "score_threshold.json").read_text()) == 0.2
    assert sorted(path.name for path in folder.iterdir()) == [
        "assets", "assets.extra", "fingerprint.pb", "saved_model.pb", "variables",
    ]  # fmt: skip


def test_a_used_folder_is_refused(predictor, folder, tmp_path):
    before = sorted(folder.rglob("*"))
    with pytest.raises(UserError, match="exists and is not empty; give another `out`"):
        export(predictor, folder)
    assert sorted(folder.rglob("*")) == before
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        check_unused(tmp_path / "file")
    check_unused(tmp_path / "new")
    (tmp_path / "empty").mkdir()
    check_unused(tmp_path / "empty")


def test_what_is_no_export_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"saved_model\.pb"):
        load_exported(tmp_path)
    for contents in (b"no model", b""):
        (tmp_path / "saved_model.pb").write_bytes(contents)
        with pytest.raises(UserError, match=re.escape(str(tmp_path))):
            load_exported(tmp_path)


@pytest.fixture
def copied(folder, tmp_path):
    """A copy of the export, to be spoilt."""
    return Path(shutil.copytree(folder, tmp_path / "copy"))


@pytest.mark.parametrize("text", ["", "[]", '"high"', "{}", "NaN", "-1", "2", "1e999", "[" * 9**5])
def test_a_damaged_score_threshold_is_told(text):
    with pytest.raises(ValueError):
        ExportedModel("model", dict, ['["disc"]', text])


@pytest.mark.parametrize(
    "names",
    [
        *(
            "[",
            "{}",
            "[]",
            "[1]",
            "null",
            "[" * 9**5,
            '[""]',
            '[" "]',
            '["a", "a"]',
            '["a\\ud800"]',
        ),
        *('["a", null]', json.dumps(["a" * 10**4]), json.dumps([str(i) for i in range(10**5)])),
    ],
)
def test_damaged_class_names_are_told(copied, names):
    (copied / "assets" / "class_names.json").write_text(names)
    (copied / "assets.extra" / "digest").write_text(digest_of_export(copied))
    with pytest.raises(UserError, match=re.escape(str(copied))):
        load_exported(copied)


@pytest.fixture(scope="module")
def other(tiny_recipe, tmp_path_factory):
    """An export of the same network with other weights and classes."""
    path = tmp_path_factory.mktemp("other") / "model"
    model = random_network(tiny_recipe, ("ant", "bee", "cow"), seed=5)
    export(NetworkDetector(model, DetectionFilter(score_threshold=0.2)), path)
    return path


@pytest.mark.parametrize(
    "swapped",
    [
        *("variables", "assets", "assets/class_names.json", "assets.extra"),
        *("variables/variables.index", "variables/variables.data-00000-of-00001"),
    ],
)
def test_files_of_another_export_are_refused(copied, other, swapped):
    load_exported(copied)
    if (copied / swapped).is_dir():
        shutil.rmtree(copied / swapped)
        shutil.copytree(other / swapped, copied / swapped)
    else:
        shutil.copy(other / swapped, copied / swapped)
    with pytest.raises(UserError, match=re.escape(str(copied))):
        load_exported(copied)


@pytest.mark.parametrize(
    "lacking", ["assets.extra/digest", "assets/class_names.json", "assets/score_threshold.json"]
)
def test_an_export_that_lacks_a_file_is_refused(copied, lacking):
    (copied / lacking).unlink()
    with pytest.raises(UserError, match=re.escape(str(copied))):
        load_exported(copied)


@pytest.mark.parametrize("name", ["variables.index", "variables.data-00000-of-00001"])
@pytest.mark.parametrize("kept", [0, 0.3, 0.99])
def test_weights_that_are_cut_are_refused(copied, name, kept):
    file = copied / "variables" / name
    file.write_bytes(file.read_bytes()[: int(kept * file.stat().st_size)])
    with pytest.raises(UserError, match=re.escape(str(copied))):
        load_exported(copied)


@pytest.mark.parametrize("letter", ["[1]", "*", "?", "\\", "\udcff"])
def test_a_path_that_tensorflow_takes_for_a_pattern_is_refused(predictor, folder, tmp_path, letter):
    for path in (tmp_path / f"model{letter}", tmp_path / letter / "model"):
        with pytest.raises(UserError, match="at a path with"):
            export(predictor, path)
        shutil.copytree(folder, path)
        with pytest.raises(UserError, match="at a path with"):
            load_exported(path)


def outputs_with(**changes) -> dict[str, np.ndarray]:
    """One detection; a number in place of an array changes what is of it."""
    outputs = {name: np.zeros((1, *shape[1:]), np.float32) for name, shape in OUTPUTS.items()}
    outputs["num_detections"][0] = 1
    outputs["detection_classes"][0, 0] = 3
    outputs["detection_scores"][0, 0] = 0.5
    outputs["detection_boxes"][0, 0] = 0, 0, 0.5, 1
    for name, value in changes.items():
        if value is None:
            del outputs[name]
        elif np.isscalar(value):
            outputs[name].flat[0] = value
        else:
            outputs[name] = value
    return outputs


def test_outputs_of_an_export_are_taken():
    (found,) = found_in_outputs(outputs_with(), (1, 20, 30, 3), 3)
    assert found.boxes_image.tolist() == [[0, 0, 10, 30]]
    assert (found.scores.tolist(), found.classes.tolist()) == ([0.5], [3])


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("num_detections", (-1, 101, 0.5, 1e9, np.nan, np.inf, -np.inf)),
        ("detection_classes", (0, 4, 99, -1, 1.7, 1e20, np.nan, np.inf)),
        ("detection_scores", (-1, 5, np.nan, np.inf, -np.inf)),
        ("detection_boxes", (0.6, -1, 1e30, np.nan, np.inf, -np.inf)),
    ],
)
def test_outputs_that_no_export_gives_are_named(name, values):
    shape = (1, *OUTPUTS[name][1:])
    others = (
        *(np.ones((), np.float32), np.zeros((0, *shape[1:]), np.float32)),
        *(np.zeros((2, *shape[1:]), np.float32), np.zeros((*shape, 5), np.float32)),
        *(np.zeros((1, 5), np.float32), np.zeros(shape, np.int64), np.full(shape, b"x", object)),
    )
    for value in (*values, None, *others):
        with pytest.raises((ValueError, KeyError), match=name):
            found_in_outputs(outputs_with(**{name: value}), (1, 20, 30, 3), 3)


def constant(images: tf.Tensor) -> dict[str, tf.Tensor]:
    return {name: tf.constant(value) for name, value in outputs_with().items()}


def asserting(images: tf.Tensor) -> dict[str, tf.Tensor]:
    with tf.control_dependencies([tf.debugging.Assert(tf.size(images) < 0, ["never"])]):
        return {name: tf.identity(value) for name, value in constant(images).items()}


def enormous(images: tf.Tensor) -> dict[str, tf.Tensor]:
    values = tf.fill((tf.shape(images)[0] * 2**21, 2**20), 1.0)
    return {**constant(images), "detection_scores": tf.reduce_max(values) + tf.zeros((1, 100))}


@pytest.mark.parametrize(
    ("function", "key", "spec"),
    [
        (asserting, "serving_default", {}),
        # TensorFlow waits for room.
        pytest.param(enormous, "serving_default", {}, marks=pytest.mark.slow),
        (lambda images: {"size": tf.size(images)}, "serving_default", {}),
        (constant, "another", {}),
        (constant, "serving_default", {"name": "images"}),
        (constant, "serving_default", {"dtype": tf.float32}),
    ],
)
def test_a_model_that_fails_is_one_sentence(copied, function, key, spec):
    shutil.rmtree(copied / "assets.extra")
    given = {"shape": (None, None, None, 3), "dtype": tf.uint8, "name": "input_tensor"} | spec
    module = tf.Module()
    module.serve = tf.function(function, input_signature=[tf.TensorSpec(**given)])
    tf.saved_model.save(module, str(copied), signatures={key: module.serve})
    with pytest.raises(UserError, match=re.escape(str(copied))):
        find(load_exported(copied), random_image(20, 30))


def test_an_export_knows_its_score_threshold(folder):
    assert load_exported(folder).score_threshold == 0.2


def test_a_full_disk_is_one_sentence(predictor, tmp_path, monkeypatch):
    def full(*arguments, **others):
        raise tf.errors.ResourceExhaustedError(None, None, "No space left on device")

    monkeypatch.setattr(tf.saved_model, "save", full)
    with pytest.raises(UserError, match="could not be written .*No space left .*make room"):
        export(predictor, tmp_path / "model")


def test_a_model_that_touches_files_is_not_loaded(tmp_path):
    """A SavedModel is a program: this one would write a file whenever it detects."""
    target = tmp_path / "written"

    class Hostile(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((None, None, None, 3), tf.uint8)])
        def serve(self, input_tensor):
            tf.io.write_file(str(target), "gotcha")
            return {"num_detections": tf.zeros((tf.shape(input_tensor)[0],))}

    module = Hostile()
    folder = tmp_path / "model"
    tf.saved_model.save(module, str(folder), signatures=module.serve)
    (folder / "assets").mkdir(exist_ok=True)
    (folder / "assets" / "class_names.json").write_text('["disc"]')
    with pytest.raises(UserError, match="operation WriteFile, which no export"):
        load_exported(folder)
    assert not target.exists()


def damaged_bytes(count: int) -> list[bytes]:
    """Photos with some bytes changed, lost or cut."""
    generator = np.random.default_rng(7)
    whole = [encode(random_image(24, 30), kind) for kind in ("JPEG", "PNG")]
    found = []
    for index in range(count):
        data = bytearray(whole[index % 2])
        # Half of the damage lies among the pixels alone, where JPEG notices little.
        start = 0 if index % 4 < 2 else len(data) * 3 // 4
        for place in generator.integers(start, len(data) - 2, 8):
            data[place] = int(generator.integers(0, 256))
        whole_length = index % 8 < 4
        found.append(bytes(data if whole_length else data[: int(generator.integers(1, len(data)))]))
    return found


def test_any_bytes_are_survived(signatures):
    """Detections, or the index of the bad one: nothing else, and never a crash."""
    good = encode(random_image(24, 30))
    refused = 0
    for index, bad in enumerate(damaged_bytes(60)):
        batch = [good, good, bad] if index % 2 else [bad, good]
        try:
            outputs = signatures["encoded"](encoded=tf.constant(batch))
            assert outputs["num_detections"].shape == (len(batch),)
        except tf.errors.InvalidArgumentError as error:
            refused += 1
            assert f"(index in the batch):] [{2 if index % 2 else 0}]" in str(error)
    assert 20 < refused < 60


def test_a_bomb_is_refused_before_it_is_decoded(signatures):
    """A PNG of 20,000 x 20,000 pixels in 49 kB."""
    pixels = zlib.compress(bytes(20000 * 2501), 9)
    header = struct.pack(">IIBBBBB", 20000, 20000, 1, 0, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n"
    for name, data in ((b"IHDR", header), (b"IDAT", pixels), (b"IEND", b"")):
        checksum = struct.pack(">I", zlib.crc32(name + data))
        bomb += struct.pack(">I", len(data)) + name + data + checksum
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"index in the batch\):\] \[0\]"):
        signatures["encoded"](encoded=tf.constant([bomb]))


def detections(boxes, scores, classes) -> ImageDetections:
    return ImageDetections(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(scores, np.float32),
        np.array(classes, np.int32),
    )


def test_largest_difference():
    one = detections([[0, 0, 10, 10], [5, 5, 9, 9]], [0.9, 0.5], [1, 2])
    moved = detections([[0, 0, 10, 10.5], [5, 4.75, 9, 9]], [0.9, 0.25], [1, 2])
    assert largest_difference(one, moved) == (0.5, 0.25)
    assert largest_difference(one, detections([[0, 0, 10, 10]], [0.9], [1]))[0] == float("inf")
    other = detections([[0, 0, 10, 10], [5, 5, 9, 9]], [0.9, 0.5], [1, 1])
    assert largest_difference(one, other)[0] == float("inf")
    nothing = detections([], [], [])
    assert largest_difference(nothing, nothing) == (0.0, 0.0)
    assert np.isnan(largest_difference(one, detections(one.boxes_image, [0.9, np.nan], [1, 2]))[1])
