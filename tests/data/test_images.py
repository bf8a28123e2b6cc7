"""Decoding and finding images, against TensorFlow's decoders and worked numbers.

Shapes and names
----------------
H, W  40, 60 unless said: a size whose two sides cannot be confused.
stored  (H, W, 3) uint8 pixels as an encoder was given them.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from keras_frcnn.data.images import (
    about_skipped,
    bits_used,
    find_images,
    read_image,
)
from keras_frcnn.errors import UserError


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)


def smooth(height: int = 40, width: int = 60) -> np.ndarray:
    """(height, width, 4) uint8 gradients, which JPEG keeps closely."""
    y, x = np.mgrid[:height, :width]
    planes = [y * 255 // height, x * 255 // width, (x + y) * 255 // (height + width), 20 + 2 * x]
    return np.stack(planes, -1).astype(np.uint8)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def without_adobe_marker(jpeg: bytes) -> bytes:
    start = jpeg.index(b"\xff\xee")
    return jpeg[:start] + jpeg[start + 2 + int.from_bytes(jpeg[start + 2 : start + 4], "big") :]


def oriented(kind: str, orientation: int, pixels: np.ndarray) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
    if kind == "WEBP":
        options = {"lossless": True}
    return encoded(Image.fromarray(pixels), kind, exif=exif, **options)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_png_modes_have_the_pixels_of_tensorflow(mode):
    data = encoded(Image.fromarray(noise(40, 60, 4), "RGBA").convert(mode), "PNG")
    np.testing.assert_array_equal(read_image(data), tf.io.decode_png(data, channels=3).numpy())


def test_colours_under_transparency_are_kept():
    rgba = np.array([[[10, 20, 30, 0], [40, 50, 60, 255]]], np.uint8)
    assert read_image(encoded(Image.fromarray(rgba), "PNG")).tolist() == [
        [[10, 20, 30], [40, 50, 60]]
    ]


def test_transparent_palette_is_looked_up():
    image = Image.fromarray(np.array([[0, 1, 2, 1]], np.uint8), "P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    data = encoded(image, "PNG", transparency=1)
    assert read_image(data).tolist() == [[[255, 0, 0], [0, 255, 0], [0, 0, 255], [0, 255, 0]]]


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_jpeg_has_the_pixels_of_tensorflow(mode):
    data = encoded(Image.fromarray(smooth()[..., :3]).convert(mode), "JPEG", quality=80)
    expected = tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE").numpy()
    np.testing.assert_array_equal(read_image(data), expected)


@pytest.mark.parametrize("adobe", [True, False])
def test_cmyk_jpeg_has_the_pixels_of_tensorflow(adobe):
    data = encoded(Image.fromarray(smooth(), "CMYK"), "JPEG", quality=90)
    data = data if adobe else without_adobe_marker(data)
    expected = tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE").numpy()
    assert expected.std() > 20
    np.testing.assert_allclose(read_image(data).astype(int), expected.astype(int), atol=1)


def test_white_cmyk_paper_is_white():
    data = encoded(Image.new("CMYK", (16, 16), (0, 0, 0, 0)), "JPEG")
    assert read_image(data).min() >= 253


def test_16_bit_png_gives_its_high_byte_as_tensorflow():
    grey = np.array([[0, 255, 256, 0x1234, 0x7FFF, 0x80FF, 65535]], np.uint16)
    data = encoded(Image.fromarray(grey), "PNG")
    assert read_image(data)[0, :, 0].tolist() == [0, 0, 1, 0x12, 0x7F, 0x80, 255]
    np.testing.assert_array_equal(read_image(data), tf.io.decode_png(data, channels=3).numpy())


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_16_bit_png_of_every_kind_has_the_pixels_of_tensorflow(channels):
    stored = np.random.default_rng(3).integers(0, 65536, (20, 30, channels)).astype(np.uint16)
    data = tf.io.encode_png(stored).numpy()
    expected = np.broadcast_to(stored[..., : 1 if channels < 3 else 3] >> 8, (20, 30, 3))
    np.testing.assert_array_equal(read_image(data), expected)
    np.testing.assert_array_equal(read_image(data), tf.io.decode_png(data, channels=3).numpy())


def test_16_bit_tiff_gives_its_high_byte():
    grey = np.array([[0, 0x1234, 65535]], np.uint16)
    assert read_image(encoded(Image.fromarray(grey), "TIFF"))[0, :, 1].tolist() == [0, 0x12, 255]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0, 7, 255]], np.int32), [0, 7, 255]),
        (np.array([[-1000, 0, 1000]], np.int32), [0, 128, 255]),
        (np.array([[0, 50_000, 100_000]], np.int32), [0, 128, 255]),
        (np.array([[0.0, 0.25, 1.0]], np.float32), [0, 64, 255]),
        (np.array([[0.0, 12.4, 255.0]], np.float32), [0, 12, 255]),
        (np.array([[-1.0, 0.0, 1.0]], np.float32), [0, 128, 255]),
        (np.array([[np.nan, 100.0, 200.0]], np.float32), [100, 100, 200]),
        (np.array([[300.0, 300.0, 300.0]], np.float32), [0, 0, 0]),
        (np.array([[np.nan, np.inf, -np.inf]], np.float32), [0, 0, 0]),
    ],
)
def test_32_bit_greyscale_is_never_saturated(values, expected):
    assert read_image(encoded(Image.fromarray(values), "TIFF"))[0, :, 2].tolist() == expected


def test_first_frame_of_an_animation():
    colours = ((200, 0, 0), (0, 200, 0))
    first, second = (Image.new("RGB", (8, 6), colour) for colour in colours)
    data = encoded(first, "GIF", save_all=True, append_images=[second], duration=50)
    pixels = read_image(data)
    assert pixels.shape == (6, 8, 3)
    np.testing.assert_array_equal(pixels, np.broadcast_to(colours[0], (6, 8, 3)))
    np.testing.assert_array_equal(pixels, tf.io.decode_gif(data).numpy()[0])


@pytest.mark.parametrize("kind", ["BMP", "TIFF", "WEBP"])
def test_other_kinds(kind):
    stored = noise(6, 8, 3)
    options = {"lossless": True} if kind == "WEBP" else {}
    np.testing.assert_array_equal(
        read_image(encoded(Image.fromarray(stored), kind, **options)), stored
    )


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(kind, orientation):
    data = oriented(kind, orientation, smooth()[..., :3])
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    pixels = read_image(data)
    np.testing.assert_array_equal(pixels, expected)
    assert pixels.shape == ((60, 40, 3) if orientation >= 5 else (40, 60, 3))


def test_orientation_6_is_a_quarter_turn_clockwise():
    stored = np.array([[[1] * 3, [2] * 3, [3] * 3], [[4] * 3, [5] * 3, [6] * 3]], np.uint8)
    assert read_image(oriented("PNG", 6, stored))[..., 0].tolist() == [[4, 1], [5, 2], [6, 3]]


def test_damaged_exif_leaves_the_photo_upright():
    data = encoded(Image.fromarray(smooth()[..., :3]), "JPEG", exif=b"Exif\x00\x00nonsense" * 3)
    assert read_image(data).shape == (40, 60, 3)


@pytest.mark.parametrize(
    ("name", "contents"),
    [
        ("text.jpg", b"not an image"),
        ("empty.png", b""),
        ("cut.png", encoded(Image.fromarray(noise(40, 60, 3)), "PNG")[:2000]),
        ("cut.gif", encoded(Image.fromarray(noise(40, 60)), "GIF")[:1200]),
        ("cut.webp", encoded(Image.fromarray(noise(40, 60, 3)), "WEBP")[:300]),
        ("drawing.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n"),
    ],
)
def test_damaged_files_are_named(tmp_path, name, contents):
    path = tmp_path / name
    path.write_bytes(contents)
    with pytest.raises(UserError, match=name):
        read_image(path)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")
def test_random_damage_raises_nothing_but_user_error():
    random = np.random.default_rng(1)
    image = Image.fromarray(smooth()[..., :3])
    for kind in ("JPEG", "PNG", "TIFF", "WEBP", "GIF", "BMP"):
        data = np.frombuffer(encoded(image, kind), np.uint8)
        for _ in range(60):
            damaged = data.copy()
            damaged[random.integers(0, min(400, len(data)), 6)] = random.integers(0, 256, 6)
            try:
                read_image(damaged.tobytes())
            except UserError as error:
                assert "object at 0x" not in str(error)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(UserError, match=r"(?i)gone\.jpg.*no such file"):
        read_image(tmp_path / "gone.jpg")
    with pytest.raises(UserError):
        read_image(tmp_path)


def test_decompression_bomb_is_refused(monkeypatch):
    assert Image.MAX_IMAGE_PIXELS is not None
    data = encoded(Image.new("RGB", (100, 100)), "PNG")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4_999)
    with pytest.raises(UserError, match="10000 pixels"):
        read_image(data)


def test_find_images(tmp_path):
    (tmp_path / "b" / "deep").mkdir(parents=True)
    for name in ("z.JPG", "b/deep/a.Png", "b/c.tiff", "b/x.webp", "b/._c.tiff", "n.txt", "none"):
        (tmp_path / name).write_bytes(b"")
    images, skipped = find_images(tmp_path)
    relative = [image.relative_to(tmp_path).as_posix() for image in images]
    assert relative == ["b/c.tiff", "b/deep/a.Png", "b/x.webp", "z.JPG"]
    assert skipped.total() == 3
    assert find_images(tmp_path / "n.txt") == ([tmp_path / "n.txt"], {})
    with pytest.raises(UserError, match="missing"):
        find_images(tmp_path / "missing")


@pytest.mark.skipif(sys.platform == "win32", reason="symbolic links need a privilege on Windows")
def test_symbolic_links_are_followed_once(tmp_path):
    outside, folder = tmp_path / "outside", tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    outside.mkdir()
    (outside / "far.jpg").write_bytes(b"")
    (folder / "sub" / "near.jpg").write_bytes(b"")
    os.symlink(folder, folder / "sub" / "loop")
    os.symlink(outside, folder / "a")
    os.symlink(outside, folder / "again")
    os.symlink(folder, outside / "back")
    os.symlink(folder / "sub", folder / "a_sub")
    images, skipped = find_images(folder)
    relative = [image.relative_to(folder).as_posix() for image in images]
    assert relative == ["a/far.jpg", "sub/near.jpg"]
    assert not skipped


def test_reading_writes_nothing(tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(oriented("JPEG", 6, noise(20, 30, 3)))
    before = (path.read_bytes(), path.stat().st_mtime_ns)
    read_image(str(path))
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    assert [Path(entry) for entry in tmp_path.iterdir()] == [path]


RAMP = np.linspace(0, 2**16 - 1, 40 * 50).reshape(40, 50).astype(np.uint16)


def sixteen_bits(path: Path, values: np.ndarray, *, colour: bool = False) -> Path:
    """Writes uint16 values as an image whose samples have 16 bits."""
    if colour:
        path.write_bytes(tf.io.encode_png(np.stack([values] * 3, axis=-1)).numpy())
    else:
        Image.fromarray(values).save(path)
    return path


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize(("suffix", "colour"), [("png", False), ("tif", False), ("png", True)])
def test_16_bits_are_as_bright_however_many_are_used(tmp_path, bits, suffix, colour):
    file = sixteen_bits(tmp_path / f"a.{suffix}", RAMP >> (16 - bits), colour=colour)
    dim = sixteen_bits(tmp_path / f"b.{suffix}", RAMP >> (18 - bits), colour=colour)
    assert bits_used([dim, file]) == bits  # the brightest says it for all
    expected = np.repeat((RAMP >> 8).astype(np.uint8)[..., np.newaxis], 3, axis=-1)
    # Of colours the decoder reads the high byte alone.
    lost = 2 ** (16 - bits) - 1 if colour else 0
    difference = expected.astype(int) - read_image(file, bits)
    assert difference.min() >= 0
    assert difference.max() <= lost
    assert np.abs(read_image(dim, bits).astype(int) - expected // 4).max() <= lost


def test_images_of_8_bits_have_no_range_and_one_beyond_the_range_is_white(tmp_path):
    Image.fromarray(np.full((4, 5), 7, np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"damaged")
    assert bits_used(sorted(tmp_path.iterdir())) == 0
    assert read_image(tmp_path / "a.png", 10).max() == 7
    file = sixteen_bits(tmp_path / "c.png", np.full((4, 5), 5000, np.uint16))
    assert read_image(file, 12).min() == 255


def test_kinds_of_pictures_that_are_not_read_are_named(tmp_path):
    for name in ("a.heic", "b.HEIC", "c.avif", "n.txt", "j.jfif", "k.JPE"):
        (tmp_path / name).write_bytes(b"")
    images, skipped = find_images(tmp_path)
    assert [image.name for image in images] == ["j.jfif", "k.JPE"]
    pictures, others = about_skipped(skipped)
    assert "2 .heic" in pictures
    assert "1 .avif" in pictures
    assert others.startswith("1 ")


def test_a_large_photo_is_read_without_a_word(tmp_path):
    Image.new("L", (40, 30)).save(tmp_path / "large.png")
    code = (
        "import sys; from PIL import Image; from keras_frcnn.data.images import read_image; "
        "Image.MAX_IMAGE_PIXELS = int(sys.argv[2]); print(read_image(sys.argv[1]).shape)"
    )
    for most, code_expected, said in ((1000, 0, "(30, 40, 3)\n"), (500, 1, "")):
        words = [sys.executable, "-c", code, str(tmp_path / "large.png"), str(most)]
        done = subprocess.run(words, capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (code_expected, said)
        assert "Warning" not in done.stderr
