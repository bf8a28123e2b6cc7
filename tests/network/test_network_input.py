"""Size, pixels and scale of the network's input, against worked numbers and a plain loop.

Shapes and names
----------------
height, width  of an image; ``size`` of the network input.
"""

from __future__ import annotations

from fractions import Fraction
from math import floor

import numpy as np
import pytest
import tensorflow as tf

from keras_frcnn.network.network_input import (
    _input_size_tensor,
    frames_of,
    input_size,
    network_input,
    prepare_image,
)
from keras_frcnn.recipes import ImageConfig

MEANS_RGB = (123.68, 116.779, 103.939)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (375, 500, (600, 800)),
        (500, 375, (800, 600)),
        (333, 500, (600, 901)),  # 500 * 600 / 333 = 900.9
        (300, 500, (600, 1000)),
        (281, 500, (562, 1000)),  # 1067.6 > 1000: factor 2
        (100, 1000, (100, 1000)),
        (600, 1000, (600, 1000)),
        (1200, 2001, (600, 1000)),  # 1000.5 rounds to 1001 > 1000: factor 1000/2001, 599.7
        (1, 5000, (1, 1000)),  # 0.2 is at least 1
        (1, 1, (600, 600)),
    ],
)
def test_input_size_worked(height, width, expected):
    assert input_size(height, width, 600, 1000) == expected


def exact_size(height: int, width: int, short_side: int, long_side: int) -> tuple[int, int]:
    """The rule once more, in fractions."""
    half = Fraction(1, 2)
    factor = Fraction(short_side, min(height, width))
    if floor(max(height, width) * factor + half) > long_side:
        factor = Fraction(long_side, max(height, width))
    return tuple(max(1, floor(side * factor + half)) for side in (height, width))


@tf.function
def all_sizes(sizes: tf.Tensor, short_side: int, long_side: int) -> tf.Tensor:
    return tf.map_fn(lambda size: _input_size_tensor(size, short_side, long_side), sizes)


def test_sizes_of_python_and_tensorflow_agree():
    random = np.random.default_rng(2)
    sizes = np.concatenate(
        [random.integers(1, 1300, (2500, 2)), random.integers(1, 9000, (500, 2))]
    )
    limits = [(600, 1000), (300, 500), (400, 667)]

    @tf.function(input_signature=[tf.TensorSpec((None, None, 3), tf.uint8)])
    def traced_scale(image):
        return prepare_image(
            image, ImageConfig(short_side=60, long_side=100, pixel_means_rgb=MEANS_RGB)
        )[1]

    for short_side, long_side in limits:
        together = all_sizes(tf.constant(sizes, tf.int64), short_side, long_side).numpy()
        for (height, width), found in zip(sizes.tolist(), together.tolist(), strict=True):
            expected = exact_size(height, width, short_side, long_side)
            assert tuple(found) == input_size(height, width, short_side, long_side) == expected
            assert max(found) <= long_side
    for height, width in ((37, 50), (50, 37), (33, 50), (7, 90), (120, 201)):
        scale = traced_scale(np.zeros((height, width, 3), np.uint8)).numpy()
        expected = np.array(input_size(height, width, 60, 100)) / (height, width)
        np.testing.assert_allclose(scale, expected, rtol=1e-7)


def bilinear(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Half-pixel-centre bilinear resize without antialiasing, pixel by pixel."""
    image = image.astype(np.float64)
    result = np.zeros((height, width, 3))
    for i in range(height):
        for j in range(width):
            y = np.clip((i + 0.5) * image.shape[0] / height - 0.5, 0, image.shape[0] - 1)
            x = np.clip((j + 0.5) * image.shape[1] / width - 0.5, 0, image.shape[1] - 1)
            y0, x0 = int(y), int(x)
            y1, x1 = min(y0 + 1, image.shape[0] - 1), min(x0 + 1, image.shape[1] - 1)
            top = image[y0, x0] * (1 - x + x0) + image[y0, x1] * (x - x0)
            bottom = image[y1, x0] * (1 - x + x0) + image[y1, x1] * (x - x0)
            result[i, j] = top * (1 - y + y0) + bottom * (y - y0)
    return result


@pytest.mark.parametrize(("short_side", "size"), [(30, (30, 45)), (9, (9, 14))])
def test_prepare_image_is_a_plain_bilinear_resize_minus_means(short_side, size):
    image = noise(20, 30, 3)
    image_input, scale = prepare_image(
        tf.constant(image),
        ImageConfig(short_side=short_side, long_side=60, pixel_means_rgb=MEANS_RGB),
    )
    assert image_input.dtype == scale.dtype == tf.float32
    assert tuple(image_input.shape) == (*size, 3)
    np.testing.assert_allclose(image_input, bilinear(image, *size) - MEANS_RGB, atol=1e-3)
    np.testing.assert_allclose(scale, [size[0] / 20, size[1] / 30], rtol=1e-7)


def test_prepare_image_of_a_batch_and_in_tf_data():
    images = noise(2, 20, 30, 3)
    config = ImageConfig(short_side=30, long_side=60, pixel_means_rgb=MEANS_RGB)
    batch, scale = prepare_image(tf.constant(images), config)
    dataset = tf.data.Dataset.from_tensor_slices(images).map(lambda i: prepare_image(i, config))
    for index, (image_input, scale_of_one) in enumerate(dataset):
        np.testing.assert_array_equal(batch[index], image_input)
        np.testing.assert_array_equal(scale, scale_of_one)


def test_prepare_image_of_an_unchanged_size_is_exact():
    image = noise(30, 45, 3)
    image_input, scale = prepare_image(
        tf.constant(image),
        ImageConfig(short_side=30, long_side=60, pixel_means_rgb=(1.0, 2.0, 3.0)),
    )
    np.testing.assert_array_equal(image_input, image.astype(np.float32) - (1, 2, 3))
    assert scale.numpy().tolist() == [1.0, 1.0]


def prepared(image: tf.Tensor, on_host: bool) -> tf.Tensor:
    config = ImageConfig(short_side=90, long_side=150, pixel_means_rgb=MEANS_RGB)
    return prepare_image(image, config, on_host=on_host)[0]


@pytest.fixture(scope="module")
def traced():
    """:func:`prepared` for images of any size, by ``on_host``."""
    image = tf.TensorSpec((None, None, 3), tf.uint8)
    return {
        on_host: tf.function(prepared).get_concrete_function(image, on_host)
        for on_host in (False, True)
    }


def test_bytes_are_resized_on_the_host_to_the_same_bits(traced):
    """Down, up, and where one side or both stay as they are."""
    random = np.random.default_rng(4)
    sides = random.integers(1, 250, (100, 2)).tolist()
    for height, width in [*sides, (90, 90), (90, 130), (130, 90), (1, 1), (1, 200), (200, 1)]:
        image = tf.constant(random.integers(0, 256, (height, width, 3), np.uint8))
        expected = prepared(image, on_host=False)
        # A size that is known is not resized where nothing changes; one that is traced is.
        for found in (prepared(image, on_host=True), traced[False](image), traced[True](image)):
            assert found.dtype == expected.dtype == tf.float32
            np.testing.assert_array_equal(found, expected)


def test_the_whole_image_is_not_held_as_floats_on_the_host(traced):
    for on_host, dtype in ((False, tf.float32), (True, tf.uint8)):
        operations = traced[on_host].graph.get_operations()
        (resize,) = (entry for entry in operations if entry.type == "ResizeBilinear")
        assert resize.inputs[0].dtype == dtype


def test_frames_of_a_batch_of_one_size():
    config = ImageConfig(short_side=30, long_side=60, pixel_means_rgb=MEANS_RGB)
    images = noise(2, 20, 40, 3)
    inputs, frames = network_input(tf.constant(images), config)
    expected, scale = prepare_image(
        tf.constant(images), ImageConfig(short_side=30, long_side=60, pixel_means_rgb=MEANS_RGB)
    )
    np.testing.assert_array_equal(inputs, expected)
    assert frames.sizes_image.numpy().tolist() == [[20, 40]] * 2
    assert frames.sizes_input.numpy().tolist() == [[30, 60]] * 2
    np.testing.assert_array_equal(frames.scales, [scale, scale])


def test_frames_of_images_of_several_sizes():
    frames = frames_of(tf.zeros((2, 30, 60, 3)), tf.constant([[20, 40], [60, 120]]))
    assert frames.sizes_image.numpy().tolist() == [[20, 40], [60, 120]]
    assert frames.sizes_input.numpy().tolist() == [[30, 60]] * 2
    assert frames.scales.numpy().tolist() == [[1.5, 1.5], [0.5, 0.5]]
    assert [entry.dtype for entry in frames] == [tf.int32, tf.float32, tf.int32]
    boxes = tf.constant([[[2.0, 4, 6, 8]], [[2.0, 4, 60, 120]]])
    there = frames.to_input(boxes)
    assert there.numpy().tolist() == [[[3, 6, 9, 12]], [[1, 2, 30, 60]]]
    np.testing.assert_allclose(frames.to_image(there), boxes)
    # A corner beyond the border is back on it: the second image has 60 rows.
    assert frames.to_image(there + 1).numpy()[1, 0, 2] == 60
