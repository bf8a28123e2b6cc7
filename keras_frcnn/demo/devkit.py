"""A small VOC devkit of generated pictures, for the demo, the tests and the notebook.

Crosses, rings, stars and triangles of random size, pose, colour and texture lie on textured ground,
overlap, reach out of the picture and share it with things that belong to no class
(:mod:`keras_frcnn.demo.scene`). Test pictures come from another random stream than the
training pictures. With one version of NumPy and Pillow, one seed gives the same files byte for
byte.
"""

from __future__ import annotations

import json
import shutil
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from keras_frcnn.demo.scene import Scene, draw_scene
from keras_frcnn.errors import UserError
from keras_frcnn.system.files import parse_json, write_text

# Least and largest number of objects in a training picture that is not empty, and in a test
# picture: 48 of these have at least 192 objects that are not difficult.
TRAIN_OBJECTS = (3, 7)
TEST_OBJECTS = (4, 7)
_EMPTY_EVERY = 20  # every twentieth training picture has no object in it
_STREAMS = {"trainval": 1, "test": 2}
_SMALLEST_SIDE = 200  # below it, the largest objects leave no room for others
_MADE_BY = "keras_frcnn.demo.devkit"
# Without this file nothing in a folder is ever removed.
MARKER = "made_by.json"


def write_demo_devkit(
    folder: Path,
    *,
    seed: int,
    train_images: int,
    test_images: int,
    size: tuple[int, int] = (240, 320),
) -> None:
    """Write ``VOC2007/{Annotations,ImageSets/Main/{trainval,test}.txt,JPEGImages}`` into a folder.

    Args:
        folder: made if missing. A devkit that this function wrote there before is replaced.
        seed: any whole number from 0 up.
        train_images, test_images: numbers of pictures, at least 1 each.
        size: height and width of every picture in pixels, at least 200 each.

    Raises:
        UserError: ``folder`` holds something else, or a number is out of its range.
    """
    _check_numbers(seed, train_images, test_images, size)
    claim_folder(folder, _MADE_BY, ["VOC2007"], seed=seed)
    year = folder / "VOC2007"
    for name in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (year / name).mkdir(parents=True)
    ids = [f"{number:06d}" for number in range(1, train_images + test_images + 1)]
    sets = {"trainval": ids[:train_images], "test": ids[train_images:]}
    for name, members in sets.items():
        (year / "ImageSets" / "Main" / f"{name}.txt").write_text("".join(f"{i}\n" for i in members))
        for index, image_id in enumerate(members):
            _write_example(year, image_id, devkit_scene(seed, name, index, size))


def devkit_scene(seed: int, name: str, index: int, size: tuple[int, int]) -> Scene:
    """Picture number ``index`` of the set ``trainval`` or ``test``, size (height, width)."""
    objects = TEST_OBJECTS if name == "test" else TRAIN_OBJECTS
    if name == "trainval" and index % _EMPTY_EVERY == _EMPTY_EVERY - 1:
        objects = (0, 0)
    rng = np.random.default_rng([seed, _STREAMS[name], index])
    return draw_scene(rng, *size, objects=objects)


def _check_numbers(seed: int, train_images: int, test_images: int, size: tuple[int, int]) -> None:
    if seed < 0:
        raise UserError(f"The seed must be 0 or larger, but it is {seed}.")
    if min(train_images, test_images) < 1:
        raise UserError(
            "A devkit needs at least one training and one test picture, "
            f"but {train_images} and {test_images} were asked for."
        )
    if min(size) < _SMALLEST_SIDE:
        raise UserError(
            f"Generated pictures must be at least {_SMALLEST_SIDE} pixels high and wide, "
            f"but height and width {size[0]} x {size[1]} were asked for."
        )


def _write_example(year: Path, image_id: str, scene: Scene) -> None:
    """A picture and its annotation, as in VOC 2007."""
    Image.fromarray(scene.picture).save(year / "JPEGImages" / f"{image_id}.jpg", quality=92)
    height, width, depth = scene.picture.shape
    root = ElementTree.Element("annotation")
    _add(root, folder="VOC2007", filename=f"{image_id}.jpg")
    _add(ElementTree.SubElement(root, "source"), database=_MADE_BY)
    _add(ElementTree.SubElement(root, "size"), width=width, height=height, depth=depth)
    _add(root, segmented=0)
    for item in scene.objects:
        y1, x1, y2, x2 = (int(side) for side in item.box_image)
        node = ElementTree.SubElement(root, "object")
        _add(node, name=item.name, pose="Unspecified")
        _add(node, truncated=int(item.truncated), difficult=int(item.difficult))
        box = ElementTree.SubElement(node, "bndbox")
        _add(box, xmin=x1 + 1, ymin=y1 + 1, xmax=x2, ymax=y2)
    ElementTree.indent(root, "\t")
    text = ElementTree.tostring(root, encoding="unicode")
    (year / "Annotations" / f"{image_id}.xml").write_text(text + "\n")


def _add(parent: ElementTree.Element, **fields: object) -> None:
    """Append one element with text for each field."""
    for name, value in fields.items():
        ElementTree.SubElement(parent, name).text = str(value)


def claim_folder(folder: Path, made_by: str, contents: Sequence[str], **about: object) -> None:
    """Make a folder, or take out of it what the same maker wrote there before.

    Only ``contents`` are removed: a file that someone put beside them stays.

    Args:
        about: anything else to write into the marker, such as the seed.

    Raises:
        UserError: the folder is a file, or holds something and was made by somebody else.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"Expected a folder, but {folder} is a file; name another folder.")
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()) and _maker(folder) != made_by:
        raise UserError(
            f"The folder {folder} holds something that {made_by} did not make, and it is not "
            "overwritten; name a new or an empty folder."
        )
    for path in (folder / name for name in contents):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    write_text(folder / MARKER, json.dumps({"made_by": made_by, **about}) + "\n")


def _maker(folder: Path) -> str | None:
    """Who claimed the folder; None where nobody did."""
    try:
        marker = parse_json((folder / MARKER).read_text())
    except (OSError, ValueError):
        return None
    return marker.get("made_by") if isinstance(marker, dict) else None
