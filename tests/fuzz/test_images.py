"""Image files from anywhere: all kinds and orientations, bombs, odd sizes, random damage.

Shapes and names
----------------
A devkit of two images, of which the second is the case; the first must always come through.
"""

from __future__ import annotations

import io
import os
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keras_frcnn.data.images import find_images, read_image
from keras_frcnn.data.voc import load_voc
from keras_frcnn.errors import UserError
from tests.fuzz.harness import damaged, is_reported, watched

XML = """<annotation><object><name>dog</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax>
<ymax>9</ymax></bndbox></object></annotation>"""
SMOOTH = np.add.outer(np.arange(40), np.arange(60))[..., None] * np.array([1, 2, 3]) % 256
PHOTO = Image.fromarray(SMOOTH.astype(np.uint8))

# Pillow remarks on some damage that it can pass over.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image.save(buffer, kind, **options)
    return buffer.getvalue()


def exif(orientation: int) -> Image.Exif:
    data = Image.Exif()
    data[0x0112] = orientation
    return data


def animation(kind: str) -> bytes:
    others = [PHOTO.rotate(90 * number) for number in (1, 2)]
    return encoded(PHOTO, kind, save_all=True, append_images=others, duration=50)


def sixteen_bits() -> bytes:
    return encoded(Image.fromarray((SMOOTH[..., 0] * 257).astype(np.uint16)), "PNG")


def png(width: int, height: int, depth: int, colour: int, pixels: bytes) -> bytes:
    """A PNG of any header over compressed pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(pixels, 9))
        + chunk(b"IEND", b"")
    )


def jpeg_that_claims(height: int, width: int) -> bytes:
    data = bytearray(encoded(PHOTO, "JPEG"))
    place = data.index(b"\xff\xc0") + 5
    data[place : place + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def bmp_that_claims(height: int, width: int) -> bytes:
    data = bytearray(encoded(PHOTO, "BMP"))
    data[18:26] = struct.pack("<ii", width, height)
    return bytes(data)


def gif_that_claims(height: int, width: int) -> bytes:
    data = bytearray(encoded(PHOTO, "GIF"))
    data[6:10] = struct.pack("<HH", width, height)
    return bytes(data)


def tiff_that_claims(height: int, width: int) -> bytes:
    image = Image.new("L", (60, 40))
    image.encoderinfo = {}
    data = encoded(image, "TIFF")
    return data.replace(
        struct.pack("<HHII", 256, 4, 1, 60), struct.pack("<HHII", 256, 4, 1, width)
    ).replace(struct.pack("<HHII", 257, 4, 1, 40), struct.pack("<HHII", 257, 4, 1, height))


KINDS = {
    "jpg": encoded(PHOTO, "JPEG"),
    "progressive.jpg": encoded(PHOTO, "JPEG", progressive=True),
    "grey.jpg": encoded(PHOTO.convert("L"), "JPEG"),
    "cmyk.jpg": encoded(PHOTO.convert("CMYK"), "JPEG"),
    "png": encoded(PHOTO, "PNG"),
    "palette.png": encoded(PHOTO.convert("P"), "PNG"),
    "alpha.png": encoded(PHOTO.convert("RGBA"), "PNG"),
    "bits.png": encoded(PHOTO.convert("1"), "PNG"),
    "16.png": sixteen_bits(),
    "gif": encoded(PHOTO, "GIF"),
    "animated.gif": animation("GIF"),
    "animated.webp": animation("WEBP"),
    "webp": encoded(PHOTO, "WEBP"),
    "lossless.webp": encoded(PHOTO, "WEBP", lossless=True),
    "bmp": encoded(PHOTO, "BMP"),
    "tif": encoded(PHOTO, "TIFF"),
    "lzw.tif": encoded(PHOTO, "TIFF", compression="tiff_lzw"),
    "pages.tif": animation("TIFF"),
    "float.tif": encoded(Image.fromarray(SMOOTH[..., 0].astype(np.float32)), "TIFF"),
}
BOMBS = {
    # 50 MB of zeros in 49 kB, honest in everything but its purpose.
    "20,000 x 20,000.png": png(20000, 20000, 1, 0, bytes(20000 * (1 + 2500))),
    "2 billion wide.png": png(2**31 - 1, 1, 8, 2, b"\0"),
    "2 billion high.png": png(1, 2**31 - 1, 8, 2, b"\0"),
    "65,500 x 65,500.jpg": jpeg_that_claims(65500, 65500),
    "65,535 x 65,535.gif": gif_that_claims(65535, 65535),
    "100,000 x 100,000.bmp": bmp_that_claims(100000, 100000),
    "100,000 x 100,000.tif": tiff_that_claims(100000, 100000),
}
NO_IMAGES = {
    "nothing.jpg": b"",
    "text.jpg": b"this is a text",
    "page.png": b"<html><body>404 not found</body></html>",
    "drawing.svg.png": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="/etc/passwd"/></svg>',
    "script.jpg": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(x) run\n",
    "no pixels.png": png(0, 0, 8, 2, b""),
    "no height.jpg": jpeg_that_claims(0, 60),
    "negative.bmp": bmp_that_claims(40, -60),
    "zeros.jpg": bytes(10_000),
    "signature.jpg": b"\xff\xd8\xff",
    "signature.png": b"\x89PNG\r\n\x1a\n",
    "signature.gif": b"GIF89a",
    "signature.tif": b"II*\0\x08\0\0\0",
    "signature.webp": b"RIFF\xff\xff\xff\xffWEBPVP8 ",
    "archive.jpg": b"PK\x03\x04" + bytes(100),
    "half.jpg": KINDS["jpg"][: len(KINDS["jpg"]) // 2],
    "half.png": KINDS["png"][: len(KINDS["png"]) // 2],
    "half.gif": KINDS["gif"][: len(KINDS["gif"]) // 2],
    "half.webp": KINDS["webp"][: len(KINDS["webp"]) // 2],
    "half.tif": KINDS["tif"][: len(KINDS["tif"]) // 2],
    "half.bmp": KINDS["bmp"][: len(KINDS["bmp"]) // 2],
}
SIZES = [(1, 1), (1, 5000), (5000, 1), (2, 3), (1, 65000), (3000, 2)]


@pytest.fixture(scope="module")
def devkit(tmp_path_factory) -> Path:
    """A good image, and the annotation of the second."""
    root = tmp_path_factory.mktemp("fuzz") / "VOCdevkit"
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / "VOC2007" / folder).mkdir(parents=True)
    PHOTO.save(root / "VOC2007/JPEGImages/good.jpg")
    for image_id in ("good", "case"):
        (root / f"VOC2007/Annotations/{image_id}.xml").write_text(XML)
    (root / "VOC2007/ImageSets/Main/trainval.txt").write_text("good\ncase\n")
    return root


def loaded(root: Path, file: Path) -> tuple[int, int] | None:
    """Size of the image as the data set has it; ``None`` where it was left out, by name."""
    with watched(root):
        dataset = load_voc(root, "2007:trainval")
    kept = {example.image_id: example for example in dataset.examples}
    assert (kept["good"].height, kept["good"].width) == (40, 60)
    if "case" not in kept:
        assert is_reported(dataset, str(file)), "left out without a word"
        return None
    return kept["case"].height, kept["case"].width


def survive(root: Path, data: bytes, suffix: str = ".jpg") -> tuple[int, int] | None:
    """As :func:`loaded`, with these contents."""
    file = root / "VOC2007" / "JPEGImages" / f"case{suffix}"
    file.write_bytes(data)
    try:
        size = loaded(root, file)
        if size is not None:
            pixels = read_image(file)
            assert pixels.dtype == np.uint8 and pixels.shape == (*size, 3)
        else:
            with pytest.raises(UserError, match="case"):
                read_image(file)
        return size
    finally:
        file.unlink()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("suffix", [".jpg", ".PNG", ".webp"])
def test_every_kind_under_any_suffix(devkit, kind, suffix):
    assert survive(devkit, KINDS[kind], suffix) == (40, 60)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_orientations(devkit, kind, orientation):
    data = encoded(PHOTO, kind, exif=exif(orientation))
    assert survive(devkit, data) == ((60, 40) if orientation >= 5 else (40, 60))


@pytest.mark.parametrize("orientation", [0, 9, 255, 65535])
def test_orientations_that_do_not_exist(devkit, orientation):
    assert survive(devkit, encoded(PHOTO, "JPEG", exif=exif(orientation))) == (40, 60)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF"])
def test_odd_sizes(devkit, kind, size):
    data = encoded(Image.new("RGB", size[::-1]), kind)
    assert survive(devkit, data) == size


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_before_they_are_decoded(devkit, name):
    assert survive(devkit, BOMBS[name], Path(name).suffix) is None


@pytest.mark.parametrize("name", NO_IMAGES)
def test_what_is_no_whole_image(devkit, name):
    assert survive(devkit, NO_IMAGES[name], Path(name).suffix) is None


@pytest.mark.parametrize(
    "kind", ["folder", "pipe", "loop", "dangling", "zeros without end", "too large"]
)
def test_images_that_are_no_files(devkit, kind):
    """A pipe hung the command for ever."""
    path = devkit / "VOC2007" / "JPEGImages" / "case.webp"
    make = {
        "folder": lambda: path.mkdir(),
        "pipe": lambda: os.mkfifo(path),
        "loop": lambda: path.symlink_to(path.name),
        "dangling": lambda: path.symlink_to("nowhere.webp"),
        "zeros without end": lambda: path.symlink_to("/dev/zero"),
        "too large": lambda: (path.write_bytes(KINDS["webp"]), os.truncate(path, 2**40)),
    }
    make[kind]()
    try:
        # A folder is passed over, as in a listing: the report names where the file was looked for.
        assert loaded(devkit, path.parent if kind == "folder" else path) is None
    finally:
        path.rmdir() if kind == "folder" else path.unlink()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_an_image_that_may_not_be_read(devkit):
    path = devkit / "VOC2007" / "JPEGImages" / "case.jpg"
    path.write_bytes(KINDS["jpg"])
    path.chmod(0)
    try:
        assert loaded(devkit, path) is None
    finally:
        path.chmod(0o644)
        path.unlink()


def test_an_image_that_the_system_refuses(devkit, monkeypatch):
    """What a file without permission gives, also to root."""
    path = devkit / "VOC2007" / "JPEGImages" / "case.jpg"
    path.write_bytes(KINDS["jpg"])
    open_image = Image.open

    def refused(source, *arguments, **options):
        if Path(source).name == "case.jpg":
            raise PermissionError(13, "Permission denied", str(source))
        return open_image(source, *arguments, **options)

    monkeypatch.setattr(Image, "open", refused)
    assert loaded(devkit, path) is None
    path.unlink()


NAMES = [
    *("ö.jpg", "猫.png", "\U0001f415.jpg", "\u202egpj.exe.jpg", "a b.jpg", " .jpg", "[bold].jpg"),
    *("new\nline.jpg", "tab\t.jpg", "\x1b[2J.jpg", "%s.jpg", "-rf.jpg", "'\";&|$(x).jpg", "*.jpg"),
    *("a" * 250 + ".jpg", "caf\udce9.jpg", "..jpg", "a.JPG.jpg"),
]


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_names_of_images(tmp_path, name):
    """Each is found and read; damaged, it is named in one sentence."""
    file = tmp_path / name
    file.write_bytes(KINDS["jpg"])
    with watched(tmp_path):
        (found,), others = find_images(tmp_path)
        assert (found.name, others) == (name, {})
        assert read_image(found).shape == (40, 60, 3)
    file.write_bytes(KINDS["jpg"][:200])
    with watched(tmp_path), pytest.raises(UserError) as error:
        read_image(found)
    assert name in str(error.value)


def test_loops_of_folders_and_what_is_no_image(tmp_path):
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    (below / "good.jpg").write_bytes(KINDS["jpg"])
    (below / "up").symlink_to(tmp_path)
    (below / "self").symlink_to("self")
    (tmp_path / "same").symlink_to(below)
    (tmp_path / "lost.jpg").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    with watched(tmp_path):
        images, others = find_images(tmp_path)
        assert sorted(image.name for image in images) == ["good.jpg", "lost.jpg", "pipe.jpg"]
        for image in images:
            if image.name != "good.jpg":
                with pytest.raises(UserError, match=image.name):
                    read_image(image)
    assert others.total() == 1  # the link to itself


@pytest.mark.parametrize("seed", range(15))
@pytest.mark.parametrize("kind", KINDS)
def test_random_damage(devkit, kind, seed):
    rng = np.random.default_rng([3, seed, len(kind)])
    survive(devkit, damaged(KINDS[kind], rng, most=2))
