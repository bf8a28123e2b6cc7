"""The one way from an image file to its pixels, and the image files of a folder."""

from __future__ import annotations

import io
import os
import struct
import warnings
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from keras_frcnn.errors import UserError, reading
from keras_frcnn.system.files import check_bounded

# fmt: off
IMAGE_SUFFIXES = (
    ".bmp", ".gif", ".jfif", ".jif", ".jpe", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp",
)
# Pictures of other kinds, which are named where they lie among images: nobody should miss them.
UNREAD_SUFFIXES = (
    ".avif", ".heic", ".heif", ".j2k", ".jp2", ".jpf", ".jpx", ".jxl", ".jxr",
    ".arw", ".cr2", ".cr3", ".dng", ".nef", ".orf", ".raf", ".raw", ".rw2",
    ".dcm", ".dds", ".exr", ".fits", ".hdr", ".ico", ".npy", ".nii", ".pcx", ".pbm", ".pgm",
    ".pnm", ".ppm", ".psd", ".svg", ".tga",
)
# fmt: on

# Only what the suffixes stand for: Pillow would also start Ghostscript on an EPS file.
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")

# Some decoders take a file as a whole; Pillow's largest image, uncompressed in 16 bits, is half.
MOST_IMAGE_BYTES = 2**31

# Pillow's error guards against bombs, from twice as many pixels on; large photos are none. Not
# around each call: the filters of threads would get into each other's way.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

# Ranges of the cameras whose samples are stored in 16 bits.
RANGES = (8, 10, 12, 14, 16)


def read_image(source: Path | str | bytes, bits: int = 16) -> np.ndarray:
    """Decode an image of any common kind to what a viewer would show, as 8-bit RGB.

    EXIF orientation is applied. Greyscale is repeated over the channels, palettes are looked up,
    alpha is dropped (the colours under it are kept), CMYK is multiplied out, all as TensorFlow's
    decoders do; of an animation or a multi-page file the first frame is read. Greyscale in 32-bit
    integers or floats has no agreed range, see ``_to_bytes``.

    Args:
        source: a file, or the contents of one.
        bits: of samples of 16 bits so many are used, the higher ones are 0, see :func:`bits_used`;
            the highest eight of them are read.

    Returns:
        (H, W, 3) uint8, RGB.

    Raises:
        UserError: the file is missing, damaged, truncated, of another kind, or has more than twice
            ``PIL.Image.MAX_IMAGE_PIXELS`` pixels (Pillow's guard against decompression bombs).
    """
    samples = read_samples(source)
    if samples.dtype == np.uint16:
        samples = np.minimum(samples >> (bits - 8), 255).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(samples, (*samples.shape[:2], 3)))


def read_samples(source: Path | str | bytes) -> np.ndarray:
    """As :func:`read_image`, with what 16 bits hold as it is.

    Returns:
        (H, W, 3) uint8, RGB; or (H, W, 1) uint16 of greyscale in 16 bits; or (H, W, 3) uint16 of
        colours in 16 bits, of which Pillow reads the high byte, so that the low one is 0."""
    with _open(source) as image:
        has_16_bits = _has_16_bits(image)
        image.load()
        samples = _upright(_to_rgb(image), _orientation(image))
    if has_16_bits and samples.dtype == np.uint8:
        return samples.astype(np.uint16) << 8
    return samples


def bits_of(samples: np.ndarray) -> int:
    """How many bits the samples of :func:`read_samples` use: 8, 10, 12, 14 or 16; 0 of uint8."""
    if samples.dtype == np.uint8:
        return 0
    return next(bits for bits in RANGES if int(samples.max()) < 2**bits)


def bits_used(files: Iterable[Path]) -> int:
    """How many bits the files with 16-bit samples use, all together; 0 where there are none.

    Only such files are decoded, and none after the first that uses all; what cannot be read counts
    for nothing.
    """
    bits = 0
    for file in files:
        try:
            with _open(file) as image:
                if not _has_16_bits(image):
                    continue
            bits = max(bits, bits_of(read_samples(file)))
        except UserError:
            continue
        if bits == max(RANGES):
            break
    return bits


def about_bits(bits: int) -> str:
    """What became of 16-bit images that use fewer bits, for the screen and the data report."""
    return (
        f"the samples in 16 bits use {bits} of them: 0 to {2**bits - 1} are read as black to white "
        "(of colours in 16 bits the high byte)"
    )


def exif_orientation(path: Path | str) -> int:
    """1 (upright) to 8; from 5 on the stored pixels have their sides swapped.

    Raises:
        UserError: the file is missing or its header cannot be read.
    """
    with _open(path) as image:
        return _orientation(image)


def upright_size(path: Path | str) -> tuple[int, int]:
    """(height, width) of an image as it is shown, read from its header.

    Raises:
        UserError: the file is missing or its header cannot be read.
    """
    with _open(path) as image:
        width, height = image.size
        return (width, height) if _orientation(image) >= 5 else (height, width)


def find_images(path: Path | str) -> tuple[list[Path], Counter[str]]:
    """Image files of a folder and all folders below it, by suffix in upper or lower case.

    Symbolic links are followed, each folder is visited once. A file given by itself is taken
    whatever its suffix: reading it tells whether it is an image.

    Args:
        path: a file or a folder.

    Returns:
        the files, sorted by their path, and how many other files there were, by suffix. Both may
        be none.

    Raises:
        UserError: nothing is there, or a folder may not be listed.
    """
    path = Path(path)
    if path.is_file():
        return [path], Counter()
    if not path.is_dir():
        raise UserError(
            f"Expected an image or a folder of images, but {path} does not exist; "
            "check the path (relative paths start from the current folder, "
            f"{Path.cwd()})."
        )
    images: list[Path] = []
    skipped: Counter[str] = Counter()
    for file in files_below(path):
        # macOS leaves "._photo.jpg" beside "photo.jpg" on foreign disks; it holds no image.
        suffix = "" if file.name.startswith("._") else file.suffix.lower()
        if suffix in IMAGE_SUFFIXES:
            images.append(file)
        else:
            skipped[suffix] += 1
    return sorted(images), skipped


def about_skipped(skipped: Mapping[str, int]) -> list[str]:
    """Sentences about the files that :func:`find_images` left out: pictures by their kind."""
    kinds = [f"{skipped[kind]} {kind}" for kind in UNREAD_SUFFIXES if kind in skipped]
    others = sum(number for kind, number in skipped.items() if kind not in UNREAD_SUFFIXES)
    sentences = []
    if kinds:
        sentences.append(f"not read: {', '.join(kinds)}; convert them to JPEG or PNG")
    if others:
        sentences.append(f"{others} files that are no images were skipped")
    return sentences


def _has_16_bits(image: Image.Image) -> bool:
    """Whether samples have (up to) 16 bits.

    Args:
        image: not decoded yet: its tiles then name the layout of the samples.
    """
    if image.format not in ("PNG", "TIFF") or image.mode in ("I", "F"):
        return False
    return image.mode.startswith("I;16") or ";16" in str(getattr(image, "tile", ""))


@contextmanager
def _open(source: Path | str | bytes) -> Iterator[Image.Image]:
    """An opened but not yet decoded image; what goes wrong with it in the context is a sentence."""
    name = f"{len(source)} bytes of data" if isinstance(source, bytes) else source
    with reading(name, "an image (BMP, GIF, JPEG, PNG, TIFF, WebP)", "replace it or take it out"):
        if not isinstance(source, bytes):
            check_bounded(source, MOST_IMAGE_BYTES)
        file = io.BytesIO(source) if isinstance(source, bytes) else source
        with Image.open(file, formats=_FORMATS) as image:
            yield image


def _orientation(image: Image.Image) -> int:
    """EXIF orientation 1 to 8; 1 (upright) when there is none or the EXIF data are damaged."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except (SyntaxError, ValueError, TypeError, KeyError, struct.error):
        return 1  # every other program shows such a photo too
    return orientation if orientation in range(1, 9) else 1


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turn and mirror (H, W, 3) pixels as stored so that the EXIF orientation becomes 1."""
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def _to_rgb(image: Image.Image) -> np.ndarray:
    """(H, W, 3) uint8 of a decoded image of any of Pillow's modes, as stored (not turned).

    (H, W, 1) uint16 where there are 16 bits of greyscale.
    """
    if image.mode == "CMYK" and image.format in ("JPEG", "MPO"):
        return _cmyk_jpeg_to_rgb(np.asarray(image), adobe="adobe" in image.info)
    if image.mode.startswith("I;16"):
        return np.asarray(image).astype(np.uint16)[..., np.newaxis]
    if image.mode in ("I", "F"):
        grey = _to_bytes(np.asarray(image, np.float64))
        return np.repeat(grey[..., np.newaxis], 3, axis=-1)
    if image.mode == "P":
        # Through RGBA: Pillow warns when it has to drop the transparency of a palette.
        return np.asarray(image.convert("RGBA"))[..., :3]
    return np.asarray(image.convert("RGB"))


def _cmyk_jpeg_to_rgb(cmyk: np.ndarray, *, adobe: bool) -> np.ndarray:
    """RGB of Pillow's (H, W, 4) CMYK, equal to TensorFlow's jpeg_mem.cc.

    Adobe's programs store the inks inverted and leave a marker. Pillow inverts every CMYK JPEG,
    marker or not, so that one without the marker would come out as a negative.
    """
    light = (255 - cmyk if adobe else cmyk).astype(np.int32)
    return (light[..., :3] * light[..., 3:] // 255).astype(np.uint8)


def _to_bytes(values: np.ndarray) -> np.ndarray:
    """(H, W) uint8 of greyscale without an agreed range, never saturated.

    Values within 0..255 are kept, others stretched from their least to their greatest; fractions
    that all lie within 0..1 are stretched from 0 to 1. What is not finite becomes the least value.
    """
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    values = np.where(np.isfinite(values), values, low)
    if low >= 0 and high <= 1 and np.any(values % 1):
        low, high = 0.0, 1.0
    elif low >= 0 and high <= 255:
        low, high = 0.0, 255.0
    span = high - low or 1.0  # a constant image becomes black
    return np.floor((values - low) * (255 / span) + 0.5).astype(np.uint8)


def files_below(folder: Path) -> Iterator[Path]:
    """Every file below a folder, through symbolic links, each folder once."""
    visited: set[str] = set()
    pending = deque([folder])
    while pending:
        for directory, subfolders, names in os.walk(pending.popleft(), onerror=_cannot_list):
            real = os.path.realpath(directory)
            if real in visited:
                subfolders.clear()
                continue
            visited.add(real)
            # os.walk names links to folders but does not enter them: they come after the rest.
            links = (os.path.join(directory, name) for name in sorted(subfolders))
            pending.extend(Path(link) for link in links if os.path.islink(link))
            yield from (Path(directory, name) for name in names)


def _cannot_list(error: OSError) -> None:
    """Called by os.walk, which would otherwise leave a folder out without a word."""
    raise UserError(
        f"Expected to list the folder {error.filename}, but {error.strerror}; "
        "change its permissions or choose another folder."
    ) from error
