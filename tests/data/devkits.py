"""VOC devkits in the making, for the tests of their reading.

Shapes and names
----------------
Images are 40 x 60 pixels (height x width).
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image


def box_xml(xmin: object = 5, ymin: object = 3, xmax: object = 7, ymax: object = 9) -> str:
    return (
        f"<bndbox><xmin>{xmin}</xmin><ymin>{ymin}</ymin>"
        f"<xmax>{xmax}</xmax><ymax>{ymax}</ymax></bndbox>"
    )


def object_xml(name: str = "dog", box: str | None = None, more: str = "") -> str:
    return f"<object><name>{name}</name>{more}{box_xml() if box is None else box}</object>"


def annotation(*parts: str) -> str:
    return f"<annotation>{''.join(parts)}</annotation>"


class Devkit:
    """A VOC devkit in the making."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def file(self, year: int, folder: str, name: str) -> Path:
        path = self.root / f"VOC{year}" / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def image(self, name: str, *, year: int = 2007, colour: int = 0) -> Path:
        path = self.file(year, "JPEGImages", name)
        Image.new("RGB", (60, 40), (colour, 0, 0)).save(path)
        return path

    def add(self, image_id: str, *parts: str, year: int = 2007) -> None:
        self.image(f"{image_id}.jpg", year=year)
        xml = annotation(*parts) if parts else annotation(object_xml())
        self.file(year, "Annotations", f"{image_id}.xml").write_text(xml, encoding="utf-8")

    def list(self, split: str, *ids: str, year: int = 2007) -> None:
        text = "".join(f"{image_id}\n" for image_id in ids)
        self.file(year, "ImageSets/Main", f"{split}.txt").write_text(text, encoding="utf-8")


def ids(dataset) -> list[str]:
    return [example.image_id for example in dataset.examples]


def kinds(dataset) -> list[str]:
    return [problem.kind for problem in dataset.problems]
