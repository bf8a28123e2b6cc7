"""The feature cache: what it returns, where it lies, when it is made; passes that fill and use it.

Shapes and names
----------------
(h, w, F)  features of one unit, 16-bit floats as uint16.
"""

from __future__ import annotations

import io
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from rich.console import Console

from keras_frcnn.data.pipeline import decode_unit
from keras_frcnn.network.faster_rcnn import FasterRcnn
from keras_frcnn.training import caches
from keras_frcnn.training.caches import FeatureCache, feature_shapes, plan_cache
from keras_frcnn.training.display import TrainingDisplay
from keras_frcnn.training.feeding import Feed, fill_features, make_proposals
from keras_frcnn.training.units import training_units

GIB = 2**30


@pytest.fixture(scope="module")
def units(demo_dataset):
    return training_units(demo_dataset.examples[1:3], flips=True)


@pytest.fixture(scope="module")
def model(tiny_recipe, demo_dataset):
    return FasterRcnn("tiny", demo_dataset.class_names, tiny_recipe, seed=2)


SILENT = TrainingDisplay(Console(file=io.StringIO()), [])


def feed(model, units, cache=None):
    return Feed(units, model.recipe.image, features=cache)


def computed(model, unit):
    """Features of a unit without the pipeline."""
    from keras_frcnn.network.network_input import prepare_image

    image, _ = prepare_image(decode_unit(unit), model.recipe.image)
    return model.base(image[None])[0].numpy().astype(np.float32)


def read(cache, index):
    return tf.cast(tf.bitcast(cache.get(index), cache.dtype), tf.float32).numpy()


@pytest.mark.parametrize("place", ["memory", "disk"])
def test_equal_to_recomputation_within_half_precision(model, units, place, tmp_path):
    file = tmp_path / "run" / "features.bin" if place == "disk" else None
    shapes = feature_shapes(model, units)
    cache = FeatureCache(shapes, tf.float16, file)
    fill_features(cache, model, feed(model, units), SILENT)
    for index, unit in enumerate(units):
        expected = computed(model, unit)
        assert expected.shape == tuple(shapes[index])
        assert np.abs(expected).max() > 0.1
        # float16 keeps 11 bits; below 2^-14 its step is 2^-24.
        np.testing.assert_allclose(read(cache, index), expected, rtol=2**-10, atol=1e-6)
    # Mirrored images are computed, not mirrored: padding and strides are not symmetric.
    assert not np.allclose(read(cache, 2), read(cache, 0)[:, ::-1], rtol=0.01, atol=0.01)
    if file is not None:
        assert file.stat().st_size == 2 * np.prod(shapes, axis=1).sum()
    cache.close()
    assert file is None or not file.exists()
    cache.close()


def test_bfloat16_is_exact_where_the_base_computes_in_it(tiny_recipe, units):
    model = FasterRcnn("tiny", ("a",), tiny_recipe, precision="bfloat16", seed=2)
    cache = FeatureCache(feature_shapes(model, units), tf.bfloat16, None)
    fill_features(cache, model, feed(model, units), SILENT)
    np.testing.assert_array_equal(read(cache, 1), computed(model, units[1]))


def test_too_large_features_stay_finite():
    cache = FeatureCache(np.array([[1, 1, 3]]), tf.float16, None)
    cache.put(0, tf.constant([[[1e6, -1e6, 2.0]]]))
    np.testing.assert_array_equal(read(cache, 0)[0, 0], [65504, -65504, 2])


def test_features_of_another_shape_are_refused():
    cache = FeatureCache(np.array([[1, 2, 3], [2, 2, 3]]), tf.float16, None)
    with pytest.raises(
        ValueError, match=r"unit 1 have the shape \(2, 1, 3\), expected \(2, 2, 3\)"
    ):
        cache.put(1, tf.zeros((2, 1, 3)))


@pytest.mark.parametrize(
    ("size", "choice", "budget", "place"),
    [
        (4 * GIB, "auto", None, "memory"),  # half of 10 GiB is free for it
        (6 * GIB, "auto", None, "disk"),
        (15 * GIB, "auto", None, "disk"),  # 80 % of 20 GiB
        (17 * GIB, "auto", None, "off"),
        (4 * GIB, "auto", 3.0, "off"),
        (2 * GIB, "auto", 3.0, "memory"),
        (6 * GIB, "auto", 100.0, "disk"),  # a budget makes no room
        (6 * GIB, "memory", None, "off"),
        (4 * GIB, "memory", None, "memory"),
        (1 * GIB, "disk", None, "disk"),
        (17 * GIB, "disk", None, "off"),
        (1 * GIB, "off", None, "off"),
    ],
)
def test_where_it_goes(monkeypatch, tmp_path, size, choice, budget, place):
    free = SimpleNamespace(available=10 * GIB)
    monkeypatch.setattr(caches.psutil, "virtual_memory", lambda: free)
    usage = SimpleNamespace(free=20 * GIB)
    monkeypatch.setattr(caches.shutil, "disk_usage", lambda folder: usage)
    plan = plan_cache(size, tmp_path, choice, budget)
    assert (plan.place, plan.size) == (place, size)
    assert f"{size / GIB:.2f} GiB" in plan.text()
    assert plan.text().startswith(f"{place} (")


def test_what_is_to_be_written_is_not_for_the_cache(monkeypatch, tmp_path):
    free = SimpleNamespace(available=10 * GIB)
    monkeypatch.setattr(caches.psutil, "virtual_memory", lambda: free)
    usage = SimpleNamespace(free=20 * GIB)
    monkeypatch.setattr(caches.shutil, "disk_usage", lambda folder: usage)
    for size, kept_free, place in (
        (12 * GIB, 5 * GIB, "disk"),  # 80 % of 15 GiB
        (12 * GIB + 1, 5 * GIB, "off"),
        (6 * GIB, 21 * GIB, "off"),
        (1 * GIB, 21 * GIB, "memory"),
    ):
        assert plan_cache(size, tmp_path, "auto", None, kept_free).place == place


def test_proposals_from_cached_features(model, units):
    """The pass over all units: keys in order, image pixels, the same from pixels and features."""
    cache = FeatureCache(feature_shapes(model, units), tf.float16, None)
    fill_features(cache, model, feed(model, units), SILENT)
    cached = make_proposals(model, feed(model, units, cache), SILENT)
    direct = make_proposals(model, feed(model, units), SILENT)
    assert list(cached.entries) == list(direct.entries) == [unit.key for unit in units]
    for index, unit in enumerate(units):
        assert 0 < len(direct.boxes_of(index)) <= 60
        boxes = direct.boxes_of(index)
        limits = [unit.example.height, unit.example.width] * 2
        assert np.all(boxes >= 0) and np.all(boxes <= np.array(limits) + 1e-3)
        assert np.all(boxes[:, 2:] - boxes[:, :2] >= 16 - 1e-3)
        # Half precision may swap near-equal proposals; nearly all are the same boxes.
        distance = np.abs(boxes[:, None] - cached.boxes_of(index)[None]).max(axis=2).min(axis=1)
        assert np.mean(distance < 0.5) > 0.9
        assert np.all(np.diff(direct.entries[unit.key].scores) <= 0)
