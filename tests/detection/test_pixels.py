"""Pixels of what programs call an image, and what is refused."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from keras_frcnn.data.images import read_image
from keras_frcnn.detection.pixels import pixels_of
from keras_frcnn.errors import UserError
from tests.random_networks import random_image

PIXELS = random_image(20, 30)


def saved(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "PA", "RGB", "RGBA", "CMYK", "I", "F"])
def test_an_image_of_pillow_is_its_file(mode):
    image = Image.fromarray(PIXELS).convert("P" if mode == "PA" else mode).convert(mode)
    exif = Image.Exif()
    exif[0x0112] = 6
    kind = "TIFF" if mode in ("CMYK", "F", "I", "PA", "LA") else "PNG"
    upright = read_image(saved(image.convert("RGBA") if mode == "PA" else image, kind))
    np.testing.assert_array_equal(pixels_of(image), upright)
    image.getexif()[0x0112] = 6
    np.testing.assert_array_equal(pixels_of(image), np.rot90(upright, -1))


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I;16L"])
def test_samples_of_16_bits_in_any_order_of_bytes(mode):
    samples = (np.arange(600) * 100).astype(">u2" if mode == "I;16B" else "<u2").reshape(20, 30)
    image = Image.frombytes(mode, (30, 20), samples.tobytes())
    for form in (image, samples, samples.astype(np.uint16)):
        np.testing.assert_array_equal(pixels_of(form)[..., 1], samples >> 8)


def test_numbers_whose_meaning_is_certain():
    expected = pixels_of(PIXELS)
    assert expected.dtype == np.uint8 and expected.flags.c_contiguous
    for form in (PIXELS.astype(int), PIXELS.astype(np.float16), PIXELS / 255.0, PIXELS.tolist()):
        np.testing.assert_array_equal(pixels_of(form), expected)
    assert pixels_of(PIXELS[..., 0] > 99).max() == 255
    assert pixels_of(PIXELS[:, ::-1]).flags.c_contiguous


@pytest.mark.parametrize(
    ("form", "words"),
    [
        (np.zeros((2, 20, 30, 3)), "several images as a list"),
        (np.zeros((20, 30, 2)), "several images as a list"),
        *((np.zeros(shape), "shape") for shape in ((), (5,), (0, 5, 3), (5, 0))),
        (None, "shape"),
        *((np.full((4, 4), value), "0..255") for value in (256, -1, np.nan, np.inf, 255.5)),
        (PIXELS - 114.0, "subtracts the means"),
        (np.full((4, 4), "a"), "image of numbers"),
        (np.zeros((4, 4), complex), "image of numbers"),
        ([[1, 2], [3]], "rows of equal length"),
        (saved(Image.fromarray(PIXELS))[:200], "cannot be read"),
        ("none.png", "none.png"),
    ],
)
def test_what_is_refused(form, words):
    with pytest.raises(UserError, match=words):
        pixels_of(form)


def test_an_image_of_pillow_that_is_cut():
    image = Image.open(io.BytesIO(saved(Image.fromarray(random_image(200, 300)))[:1000]))
    with pytest.raises(UserError, match="truncated"):
        pixels_of(image)
