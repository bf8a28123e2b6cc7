"""Rounding with error feedback, against worked numbers, a loop in NumPy, and photographs.

Shapes and names
----------------
taps  (cells, 5, 6) weights of a kernel, cell by cell.
half  a dtype of half precision.
"""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_frcnn.network.backbones import build_backbone
from keras_frcnn.network.error_feedback import rounded_taps, serpentine
from keras_frcnn.network.weights import load_layers, write_layers

SHARED = Path(__file__).resolve().parents[3] / "shared"
PHOTOGRAPHS = SHARED / "data/voc/VOCdevkit/VOC2007/JPEGImages"
VGG16_FILE = SHARED / "weights/vgg16_imagenet_notop.h5"
HALVES = ("bfloat16", "float16")


def in_half(values, half):
    """float32 of values rounded to the nearest of a half-precision type."""
    return tf.cast(tf.cast(values, half), tf.float32).numpy()


def looped(taps, half):
    """The rule, weight by weight and cell by cell."""
    rounded = np.zeros_like(taps)
    for place in np.ndindex(taps.shape[1:]):
        owed = np.float32(0)
        for cell in range(len(taps)):
            wanted = np.float32(taps[(cell, *place)] + owed)
            rounded[(cell, *place)] = in_half(wanted, half)
            owed = np.float32(wanted - rounded[(cell, *place)])
    return rounded


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (3, 3), (7, 7), (2, 5), (5, 1)])
def test_a_serpentine_goes_from_neighbour_to_neighbour_through_every_cell(rows, columns):
    cells = serpentine(rows, columns)
    assert sorted(cells) == list(range(rows * columns))
    places = np.stack(np.unravel_index(cells, (rows, columns)), axis=1)
    assert (np.abs(np.diff(places, axis=0)).sum(axis=1) == 1).all()


def test_worked_numbers():
    """Between 1 and 2 bfloat16 has steps of 2^-7: what four weights lose makes up one."""
    taps = tf.fill((4, 1), 1.0 + 2**-9)
    rounded = [float(tap[0]) for tap in rounded_taps(tf.unstack(taps), tf.bfloat16)]
    # Wanted, in steps above 1: 1/4, 1/2 (a tie, to the even 0), 3/4 and, with -1/4 owed, 0.
    assert rounded == [1.0, 1.0, 1.0 + 2**-7, 1.0]
    assert [float(tap[0]) for tap in tf.unstack(tf.cast(taps, tf.bfloat16))] == [1.0] * 4


@pytest.mark.parametrize("half", HALVES)
def test_against_a_loop(half):
    taps = np.random.default_rng(0).normal(0, 0.02, (9, 5, 6)).astype(np.float32)
    rounded = np.stack([tf.cast(tap, tf.float32) for tap in rounded_taps(taps, tf.as_dtype(half))])
    np.testing.assert_array_equal(rounded, looped(taps, half))
    assert (rounded != in_half(taps, half)).any()


def spatial_layers(half):
    """A convolution and a dense layer over a 2 x 2 map of 4 channels; one that sees no map."""
    image = keras.Input((2, 2, 3))
    layers = [
        keras.layers.Conv2D(4, (3, 2), padding="same", dtype=half, name="conv"),
        keras.layers.Flatten(dtype=half, name="flatten"),
        keras.layers.Dense(5, dtype=half, name="fc6"),
        keras.layers.Dense(6, dtype=half, name="fc7"),
    ]
    x = image
    for layer in layers:
        x = layer(x)
    return [layer for layer in layers if layer.weights]


@pytest.mark.parametrize("half", HALVES)
def test_what_loading_rounds_so(tmp_path, half):
    source, target, exact = (spatial_layers(kind) for kind in ("float32", half, "float32"))
    write_layers(tmp_path / "weights.h5", source, {})
    for layers in (target, exact):
        load_layers(layers, tmp_path / "weights.h5", maps={"fc6": (2, 2)})
    for before, after in zip(source, exact, strict=True):
        np.testing.assert_array_equal(before.kernel, after.kernel)
    conv, fc6, fc7 = (layer.kernel.numpy() for layer in source)
    order = [0, 1, 3, 2, 4, 5]  # of 3 x 2 cells
    expected = np.zeros((6, 3, 4), np.float32)
    expected[order] = looped(conv.reshape(6, 3, 4)[order], half)
    np.testing.assert_array_equal(in_half(target[0].kernel, half), expected.reshape(conv.shape))
    order = [0, 1, 3, 2]
    expected = np.zeros((4, 4, 5), np.float32)
    expected[order] = looped(fc6.reshape(4, 4, 5)[order], half)
    np.testing.assert_array_equal(in_half(target[1].kernel, half), expected.reshape(fc6.shape))
    np.testing.assert_array_equal(in_half(target[2].kernel, half), in_half(fc7, half))


@pytest.mark.skipif(not VGG16_FILE.is_file(), reason="ImageNet's weights are not at hand")
@pytest.mark.slow
def test_features_of_photographs_are_nearer_to_float32():
    """bfloat16 of VGG-16 over weights that are rounded in one and the other way."""
    bases = [
        build_backbone("vgg16", precision, seed=None, half_weights=half).base
        for precision, half in (("float32", False), ("bfloat16", False), ("bfloat16", True))
    ]
    for base in bases:
        load_layers([layer for layer in base.layers if layer.weights], VGG16_FILE)
    # Compiled, convolution, bias and ReLU are one operation, which rounds once.
    compiled = [tf.function(base, reduce_retracing=True) for base in bases]
    errors = []
    for path in sorted(PHOTOGRAPHS.glob("*.jpg"))[:3]:
        with Image.open(path) as photograph:
            pixels = np.asarray(photograph.convert("RGB").resize((320, 256)), np.float32)
        image = (pixels - (123.68, 116.779, 103.939))[None].astype(np.float32)
        exact, nearest, fed_back = (tf.cast(base(image), tf.float32) for base in compiled)
        errors.append([float(tf.norm(found - exact)) for found in (nearest, fed_back)])
    nearest, fed_back = np.sum(errors, axis=0)
    assert fed_back < 0.85 * nearest
