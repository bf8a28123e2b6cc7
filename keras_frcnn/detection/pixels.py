"""The pixels of an image, in any form that a program may have it in."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from keras_frcnn.data.images import read_image
from keras_frcnn.errors import UserError, reading
from keras_frcnn.system.files import user_path


def pixels_of(image: Any, bits: int = 16) -> np.ndarray:
    """(H, W, 3) uint8 RGB of an image in any common form.

    Args:
        image: a path; encoded bytes; a PIL image (EXIF orientation is applied); or what NumPy takes
            for an array of shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), whose alpha is dropped.
            Values are bool, uint8, uint16, or floats in 0..1 (stretched to 0..255) or in 0..255.
        bits: how many 16-bit images use, see :func:`read_image`.

    Raises:
        UserError: a file that is no image, another shape, or values that are neither.
    """
    if isinstance(image, (str, Path)):
        return read_image(user_path(image), bits)
    if isinstance(image, (bytes, bytearray)):
        return read_image(bytes(image), bits)
    if isinstance(image, Image.Image):
        with reading(getattr(image, "filename", "") or "The image", "pixels", "give another"):
            return _of_pil(image, bits)
    with reading("The image", "an array", "give numbers in rows of equal length"):
        array = np.asarray(image)
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or 0 in array.shape:
        raise UserError(
            "Expected an image of shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), received "
            f"{np.shape(image)}; give several images as a list."
        )
    array = _as_bytes(array[..., :3], bits)
    return np.repeat(array, 3, axis=2) if array.shape[2] == 1 else np.ascontiguousarray(array)


def _of_pil(image: Image.Image, bits: int) -> np.ndarray:
    """As the same image in a file: TIFF has every mode of Pillow, and its EXIF data."""
    stream = io.BytesIO()
    exif = image.getexif()
    if image.mode in ("RGB", "L") and not exif:
        return pixels_of(np.asarray(image))
    if image.mode.startswith("I;16"):  # in any order of bytes, of which TIFF is written in one
        image = Image.fromarray(np.asarray(image).astype(np.uint16))
    mode = image.mode if image.mode in ("1", "I", "F", "I;16", "CMYK") else "RGBA"
    image.convert(mode).save(stream, "TIFF", exif=exif)
    return read_image(stream.getvalue(), bits)


def _as_bytes(array: np.ndarray, bits: int) -> np.ndarray:
    """Values of an array as uint8, where what they mean is certain."""
    if array.dtype == np.uint8:
        return array
    if array.dtype == bool:
        return array.astype(np.uint8) * 255
    if array.dtype.kind == "u" and array.dtype.itemsize == 2:
        return np.minimum(array >> (bits - 8), 255).astype(np.uint8)
    if array.dtype.kind not in "fiu":
        raise UserError(f"Expected an image of numbers, received an array of {array.dtype}.")
    low, high = float(array.min()), float(array.max())
    if not (np.isfinite(low) and np.isfinite(high) and low >= 0 and high <= 255):
        raise UserError(
            "Expected an image with values in 0..255, or floats in 0..1, received values from "
            f"{low:g} to {high:g}; give the pixels as they are, the network subtracts the means."
        )
    is_unit = array.dtype.kind == "f" and high <= 1
    scaled = array.astype(np.float64) * (255 if is_unit else 1)
    return np.floor(scaled + 0.5).astype(np.uint8)
