"""Batches: order, scaling, padding, and one preprocessing for training, testing and export."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_frcnn.data import pipeline
from keras_frcnn.data.dataset import Example
from keras_frcnn.data.images import read_image
from keras_frcnn.errors import UserError
from keras_frcnn.recipes import PAPER, ImageConfig
from keras_frcnn.training.units import TrainingUnit

CONFIG = ImageConfig(short_side=60, long_side=100, pixel_means_rgb=(10.0, 20.0, 30.0))


def example(path, height: int, width: int, boxes=((0, 0, 10, 20),)) -> Example:
    count = len(boxes)
    return Example(
        image_id=path.stem,
        source="VOC2007",
        path=path,
        height=height,
        width=width,
        boxes_image=np.array(boxes, np.float32).reshape(-1, 4),
        classes=np.arange(1, count + 1, dtype=np.int32),
        difficult=np.zeros(count, bool),
    )


def write_image(path, height: int, width: int, seed=0) -> np.ndarray:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


# --- in parallel -------------------------------------------------------------------------------


def test_results_come_in_order_though_later_ones_are_ready_first():
    first_may_end = threading.Event()

    def slow_first(number):
        if number == 0:
            assert first_may_end.wait(10)
        if number == 3:
            first_may_end.set()
        return number * number

    results = pipeline.in_parallel(slow_first, range(20), workers=4, ahead=8)
    assert list(results) == [number * number for number in range(20)]


def test_no_more_than_ahead_are_begun():
    begun = []

    def items():
        for number in range(100):
            begun.append(number)
            yield number

    results = pipeline.in_parallel(lambda number: number, items(), workers=2, ahead=5)
    assert not begun
    for taken in range(1, 4):
        next(results)
        assert len(begun) == taken + 4  # five were begun before the first came back


def test_an_error_comes_in_its_place():
    def fail_at_two(number):
        if number == 2:
            raise UserError("the third")
        return number

    results = pipeline.in_parallel(fail_at_two, range(9), workers=3, ahead=6)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(UserError, match="the third"):
        next(results)


# --- sizes and records -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "expected", "scale"),
    [
        ((375, 500), (600, 800), (1.6, 1.6)),
        ((500, 375), (800, 600), (1.6, 1.6)),
        ((300, 900), (333, 1000), (333 / 300, 1000 / 900)),  # 1800 is more than 1000
        ((1200, 1600), (600, 800), (0.5, 0.5)),
        ((1, 1), (600, 600), (600, 600)),
        ((333, 500), (600, 901), (600 / 333, 901 / 500)),
    ],
)
def test_input_size_and_scale_of_each_axis(size, expected, scale):
    found_size, found_scale = pipeline.image_scale(*size, ImageConfig())
    assert found_size.tolist() == list(expected)
    assert found_size.dtype == np.int32
    np.testing.assert_allclose(found_scale, scale, rtol=1e-6)
    assert found_scale.dtype == np.float32


def test_a_mirrored_unit_is_mirrored_in_pixels_and_boxes(tmp_path):
    pixels = write_image(tmp_path / "a.png", 30, 40)
    unit = TrainingUnit(example(tmp_path / "a.png", 30, 40, [(1, 2, 10, 12)]), True)
    record = pipeline.unit_record(7, unit, CONFIG, proposals_image=None, features=None)
    np.testing.assert_array_equal(record["image"], pixels[:, ::-1])
    assert record["gt_boxes"].tolist() == [[1, 28, 10, 38]]  # W - x2, W - x1
    inside = record["image"][1:10, 28:38]
    np.testing.assert_array_equal(inside[:, ::-1], pixels[1:10, 2:12])
    assert (record["unit"], record["gt_count"], record["proposal_count"]) == (7, 1, 0)
    assert record["size"].tolist() == [60, 80]
    plain = pipeline.unit_record(
        0, replace(unit, flipped=False), CONFIG, proposals_image=None, features=None
    )
    np.testing.assert_array_equal(plain["image"], pixels)


def test_features_take_the_place_of_the_image():
    unit = TrainingUnit(example(Path("none.png"), 30, 40), False)
    features = np.zeros((4, 5, 3), np.uint16)
    record = pipeline.unit_record(0, unit, CONFIG, proposals_image=None, features=features)
    assert "image" not in record
    assert record["features"] is features


# --- batches -----------------------------------------------------------------------------------


@pytest.fixture
def units(tmp_path):
    """Three images of other sizes with 2, 0 and 1 objects."""
    write_image(tmp_path / "a.png", 30, 40, seed=1)
    write_image(tmp_path / "b.png", 60, 30, seed=2)
    write_image(tmp_path / "c.png", 20, 20, seed=3)
    return [
        TrainingUnit(example(tmp_path / "a.png", 30, 40, [(0, 0, 15, 20), (10, 8, 30, 40)]), False),
        TrainingUnit(example(tmp_path / "b.png", 60, 30, []), False),
        TrainingUnit(example(tmp_path / "c.png", 20, 20, [(5, 5, 10, 15)]), False),
    ]


def make_batches(units, order, images_per_step, proposals=None):
    def record(index):
        found = None if proposals is None else proposals[index]
        return pipeline.unit_record(
            index, units[index], CONFIG, proposals_image=found, features=None
        )

    return pipeline.batches(record, order, CONFIG, images_per_step=images_per_step)


def test_a_batch_is_scaled_and_padded_with_zeros_after_the_means(units):
    proposals = [
        np.array([[0, 0, 30, 40], [1, 2, 3, 4]], np.float32),
        np.array([[10, 10, 20, 20]], np.float32),
        np.zeros((0, 4), np.float32),
    ]
    batch = next(iter(make_batches(units, [0, 1], 2, proposals)))
    for name, spec in pipeline.batch_signature(2, None, None).items():
        assert spec.is_compatible_with(batch[name]), name
    # 30x40 becomes 60x80; 60x30 would be 120x60, more than 100, and becomes 100x50.
    assert batch["size"].numpy().tolist() == [[60, 80], [100, 50]]
    np.testing.assert_allclose(batch["scale"], [[2, 2], [100 / 60, 50 / 30]], rtol=1e-6)
    assert batch["image"].shape == (2, 100, 80, 3)
    assert not batch["image"][0, 60:].numpy().any()
    assert not batch["image"][1, :, 50:].numpy().any()
    corner = read_image(units[0].example.path)[0, 0] - np.array([10.0, 20.0, 30.0])
    np.testing.assert_allclose(batch["image"][0, 0, 0], corner, atol=1e-4)
    assert batch["gt_count"].numpy().tolist() == [2, 0]
    assert batch["gt_boxes"][0].numpy().tolist() == [[0, 0, 30, 40], [20, 16, 60, 80]]
    assert not batch["gt_boxes"][1].numpy().any()
    assert batch["gt_classes"].numpy().tolist() == [[1, 2], [0, 0]]
    assert batch["proposal_count"].numpy().tolist() == [2, 1]
    assert batch["proposals"][0].numpy().tolist() == [[0, 0, 60, 80], [2, 4, 6, 8]]
    expected = np.array([10, 10, 20, 20]) * (5 / 3)
    np.testing.assert_allclose(batch["proposals"][1, 0], expected, rtol=1e-6)
    assert not batch["proposals"][1, 1].numpy().any()


def test_units_come_in_the_order_asked_for(units):
    order = [2, 0, 1, 1, 2, 0]
    found = [batch["unit"].numpy().tolist() for batch in make_batches(units, order, 2)]
    assert found == [[2, 0], [1, 1], [2, 0]]
    assert [b["unit"].numpy()[0] for b in make_batches(units, order, 1)] == order


@pytest.mark.parametrize("dtype", [tf.bfloat16, tf.float16])
def test_features_come_through_bit_for_bit(units, dtype):
    values = tf.cast(tf.random.stateless_normal((4, 5, 3), (1, 2)), dtype)
    bits = tf.bitcast(values, tf.uint16).numpy()

    def record(index):
        return pipeline.unit_record(
            index, units[index], CONFIG, proposals_image=None, features=bits[: 4 - index]
        )

    batches = pipeline.batches(
        record,
        [0, 1],
        CONFIG,
        images_per_step=2,
        feature_channels=3,
        feature_dtype=dtype,
    )
    (batch,) = batches
    for name, spec in pipeline.batch_signature(2, 3, dtype).items():
        assert spec.is_compatible_with(batch[name]), name
    assert "image" not in batch
    assert batch["features"].dtype == dtype
    np.testing.assert_array_equal(batch["features"][0], values)
    np.testing.assert_array_equal(batch["features"][1, :3], values[:3])
    assert not tf.cast(batch["features"][1, 3], tf.float32).numpy().any()


def test_an_image_that_has_become_unreadable_is_named_in_one_sentence(units):
    units[1].example.path.write_bytes(b"gone bad")
    batches = iter(make_batches(units, [0, 0, 1, 2], 1))
    with pytest.raises(UserError) as caught:
        list(batches)
    assert str(units[1].example.path) in str(caught.value)
    assert "\n" not in str(caught.value)


# --- one preprocessing -------------------------------------------------------------------------

KINDS = ("jpeg", "grey jpeg", "cmyk", "png", "grey", "palette", "alpha", "sixteen", "exif")


def write_kind(path, kind: str):
    image = Image.fromarray(np.random.default_rng(5).integers(0, 256, (37, 53, 3), np.uint8))
    if kind in ("jpeg", "grey jpeg", "cmyk"):
        mode = {"jpeg": "RGB", "grey jpeg": "L", "cmyk": "CMYK"}[kind]
        image.convert(mode).save(path, "JPEG", quality=90)
    elif kind == "exif":
        exif = Image.Exif()
        exif[0x0112] = 8
        image.save(path, "JPEG", exif=exif)
    elif kind == "sixteen":
        values = np.random.default_rng(6).integers(0, 2**16, (37, 53)).astype(np.uint16)
        Image.fromarray(values).save(path, "PNG")
    else:
        mode = {"png": "RGB", "grey": "L", "palette": "P", "alpha": "RGBA"}[kind]
        image.convert(mode).save(path, "PNG")


class Captured(Exception):
    """Carries what a network would have seen."""


def input_when_tested(pixels: np.ndarray) -> np.ndarray:
    """What the compiled function of testing and export feeds to the base."""
    from keras_frcnn.detection.network_detector import NetworkDetector

    class Model:
        recipe, class_names = replace(PAPER, image=CONFIG), ()

        @staticmethod
        def features(inputs):
            raise Captured(inputs.numpy())

    detector = NetworkDetector(Model)
    with pytest.raises(Captured) as caught:
        detector.predict.python_function(tf.constant(pixels[None]))
    return caught.value.args[0][0]


@pytest.mark.parametrize("kind", KINDS)
def test_training_testing_and_export_see_the_same_pixels(kind, tmp_path):
    from keras_frcnn.export.saved_model import decode

    path = tmp_path / "image"
    write_kind(path, kind)
    height, width = (53, 37) if kind == "exif" else (37, 53)
    unit = TrainingUnit(example(path, height, width), False)
    (batch,) = make_batches([unit], [0], 1)
    trained = batch["image"][0].numpy()
    assert trained.shape == ((86, 60, 3) if kind == "exif" else (60, 86, 3))
    np.testing.assert_array_equal(input_when_tested(read_image(path)), trained)
    stored = decode(tf.constant(path.read_bytes())).numpy()
    if kind == "exif":  # the export shows what is stored, training what a viewer shows
        np.testing.assert_array_equal(stored.transpose(1, 0, 2)[::-1], read_image(path))
    else:
        np.testing.assert_array_equal(input_when_tested(stored), trained)
