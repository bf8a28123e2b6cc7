"""The same pictures in the layouts that people have, for the tests of their reading.

Shapes and names
----------------
part  of a picture: ``train``, ``val``, ``test``, or "" in layouts without parts.
boxes  whole numbers (xmin, ymin, xmax, ymax), half-open, counted from 0.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from tests.data.devkits import annotation, box_xml, object_xml


@dataclass(frozen=True)
class Picture:
    """A picture and its objects, class name and box of each."""

    name: str
    size: tuple[int, int]  # (width, height)
    objects: tuple[tuple[str, tuple[int, int, int, int]], ...]
    part: str = ""

    def save(self, file: Path) -> Path:
        file.parent.mkdir(parents=True, exist_ok=True)
        seed = np.random.default_rng(list(self.name.encode()))
        pixels = seed.integers(0, 256, (self.size[1], self.size[0], 3), np.uint8)
        Image.fromarray(pixels).save(file)
        return file

    def xml(self) -> str:
        width, height = self.size
        objects = (
            object_xml(name, box_xml(x1 + 1, y1 + 1, x2, y2))
            for name, (x1, y1, x2, y2) in self.objects
        )
        size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
        return annotation(f"<filename>{self.name}.png</filename>", size, *objects)

    def labels(self, class_names: Sequence[str], digits: int = 6) -> str:
        lines = []
        for name, (x1, y1, x2, y2) in self.objects:
            width, height = self.size
            numbers = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height)
            numbers += ((x2 - x1) / width, (y2 - y1) / height)
            shares = " ".join(f"{number:.{digits}f}" for number in numbers)
            lines.append(f"{class_names.index(name)} {shares}\n")
        return "".join(lines)


def pictures(number: int = 12, parts: Sequence[str] = ("",), side: int = 97) -> list[Picture]:
    """Pictures with blanks in their names, sorted, of which the last has no object."""
    made = []
    for index in range(number):
        draw = np.random.default_rng(index)
        width, height = side + 7 * index, side + 5 * (index % 3)
        objects = []
        for _ in range(int(draw.integers(1, 5)) if index < number - 1 else 0):
            x1, y1 = (int(draw.integers(0, limit - 20)) for limit in (width, height))
            x2 = int(draw.integers(x1 + 5, width + 1))
            y2 = int(draw.integers(y1 + 5, height + 1))
            objects.append((("white cell", "Red", "platelet")[int(draw.integers(3))],))
            objects[-1] += ((x1, y1, x2, y2),)
        part = parts[index % len(parts)]
        made.append(Picture(f"field {index:02d}", (width, height), tuple(objects), part))
    return made


CLASSES = ("white cell", "platelet", "Red")


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def devkit_of(root: Path, made: Sequence[Picture]) -> Path:
    year = root / "VOC2007"
    lists: dict[str, str] = {}
    for picture in made:
        picture.save(year / "JPEGImages" / f"{picture.name}.png")
        write(year / "Annotations" / f"{picture.name}.xml", picture.xml())
        split = picture.part.replace("train", "trainval") or "trainval"
        lists[split] = lists.get(split, "") + f"{picture.name}\n"
    for split, text in lists.items():
        write(year / "ImageSets/Main" / f"{split}.txt", text)
    return root


def xml_folders_of(root: Path, made: Sequence[Picture]) -> Path:
    for picture in made:
        picture.save(root / picture.part / "images" / f"{picture.name}.png")
        write(root / picture.part / "marks" / f"{picture.name}.xml", picture.xml())
    return root


def coco_of(root: Path, made: Sequence[Picture]) -> Path:
    """Ids with gaps, images and annotations in another order, a class that has no object."""
    for part in {picture.part for picture in made}:
        of_part = [picture for picture in made if picture.part == part]
        images, annotations = [], []
        for index, picture in enumerate(of_part):
            picture.save(root / part / f"{picture.name}.png")
            file_name, (width, height) = f"{picture.name}.png", picture.size
            about = {"id": 7 * index + 3, "file_name": file_name, "width": width, "height": height}
            images.append(about)
            for name, (x1, y1, x2, y2) in picture.objects:
                about = {"image_id": 7 * index + 3, "category_id": 10 * CLASSES.index(name) + 5}
                about["bbox"] = [x1, y1, x2 - x1, y2 - y1]
                annotations.append({"id": len(annotations), "iscrowd": 0, **about})
        categories = [{"id": 0, "name": "cells", "supercategory": "none"}]
        categories += [{"id": 10 * i + 5, "name": name} for i, name in enumerate(CLASSES)]
        annotations.sort(key=lambda each: -each["image_id"])
        content = {"images": images[::-1], "annotations": annotations, "categories": categories}
        name = f"instances_{part or 'default'}2017.json"
        write(root / "annotations" / name, json.dumps(content))
    return root


def yolo_of(root: Path, made: Sequence[Picture]) -> Path:
    for picture in made:
        picture.save(root / "images" / picture.part / f"{picture.name}.png")
        labels = root / "labels" / picture.part / f"{picture.name}.txt"
        write(labels, picture.labels(CLASSES))
    write(root / "classes.txt", "\n".join(CLASSES) + "\n")
    return root


def list_of(root: Path, made: Sequence[Picture]) -> Path:
    lines = []
    for picture in made:
        picture.save(root / "photos" / f"{picture.name}.png")
        written = f"photos/{picture.name}.png"
        for name, (x1, y1, x2, y2) in picture.objects:
            lines.append(f"{written},{x1},{y1},{x2},{y2},{name}\n")
        if not picture.objects:
            lines.append(f"{written},,,,,\n")
    return write(root / "boxes.csv", "".join(lines))
