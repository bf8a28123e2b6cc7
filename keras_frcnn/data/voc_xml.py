"""One VOC annotation: its objects and sizes, as any program writes them in XML."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree.ElementTree import Element

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from keras_frcnn.data.dataset import DataProblem, Problems, WrittenObject, corner_numbers
from keras_frcnn.errors import UserError, reading
from keras_frcnn.system.files import read_bounded

# The largest of VOC has 15 kB. An element takes up to a hundred times what it is written in: those
# of ten thousand objects are read.
MOST_ANNOTATION_BYTES = 2**24
MOST_MARKS = 2**18

_CORNERS = ("xmin", "ymin", "xmax", "ymax")


def read_annotation(file: Path, problems: Problems) -> Element | None:
    """The ``annotation`` element of an XML file, or None after noting why there is none.

    Document types, entities and external references are refused: none belongs in an annotation,
    and they can read other files or fill the memory.
    """
    try:
        with reading(file, "a VOC annotation", "mend it, or take its id out of the list"):
            data = read_bounded(file, MOST_ANNOTATION_BYTES)
            if data.count(b"<") + data.count(b"=") > MOST_MARKS:
                raise ValueError(f"it has more than {MOST_MARKS:,} tags and attributes")
            try:
                root = fromstring(data, forbid_dtd=True)
            except DefusedXmlException as error:
                raise ValueError("document types (<!DOCTYPE ...>) are refused") from error
            if root.tag != "annotation":
                raise ValueError(f"expected <annotation>, found <{root.tag[:40]}>")
            return root
    except UserError as error:
        problems.append(
            DataProblem("annotation unreadable", str(file), "", str(error), "image dropped")
        )
        return None


def objects_of(root: Element, file: Path, problems: Problems) -> Iterator[WrittenObject]:
    """Direct ``object`` children with their direct ``bndbox``: parts of persons are no objects.

    Each ``bndbox`` of an object is one.
    """
    for number, element in enumerate(root.findall("object"), start=1):
        name = text_of(element, "name")
        of = f"object {number} ({name:.80})" if name else f"object {number}"
        fault = ""
        if "\n" in name:
            name, fault = "", f"expected one name without elements in it, found {name!r:.80}"
        flag = text_of(element, "difficult").lower()
        if flag not in ("", "0", "1", "false", "true"):
            reason = f"expected difficult to be 0 or 1, found {flag[:40]!r}"
            problems.append(DataProblem("flag unreadable", str(file), of, reason, "taken as 0"))
        boxes = element.findall("bndbox")
        aside = ", ".join(dict.fromkeys(_left_aside(element)))[:80]
        if aside and boxes:
            reason = f"found {aside} beside the bndbox, which is read as an upright box"
            problems.append(DataProblem("shape left aside", str(file), of, reason, "noted"))
        elif not boxes:
            around = map(_box_around, element.findall("polygon"))
            boxes = [box for box in around if box is not None]
            if boxes and not fault:
                problems.append_once(polygon_problem(file, of))
            elif not fault:
                fault = f"expected a bndbox, found {aside or 'none'}"
        for place, box in enumerate(boxes or [Element("bndbox")], start=1):
            where = f"{of}, box {place}" if len(boxes) > 1 else of
            a, b, c, d = (text_of(box, tag) or box.get(tag, "") for tag in _CORNERS)
            parts = ", ".join(part.tag for part in box) or ", ".join(box.attrib)
            missing = f"expected xmin, ymin, xmax, ymax in its bndbox, found {parts:.80}"
            reason = fault or (missing if parts and not (a or b or c or d) else "")
            yield WrittenObject(where, name, (a, b, c, d), flag in ("1", "true"), reason)


def polygon_problem(file: Path, where: str) -> DataProblem:
    """A note that an object has an outline and no box."""
    reason = "expected a box, found a polygon only: its bounding box is read"
    return DataProblem("polygon for a box", str(file), where, reason, "noted")


def _box_around(polygon: Element) -> Element | None:
    """A ``bndbox`` around the points of a polygon, as texts; None where it has fewer than three.

    Points are ``x`` and ``y`` in parts of any name, or ``x1``, ``y1``, ``x2``, ... .
    """
    axes = [
        [part.text for part in polygon.iter() if re.fullmatch(rf"{axis}\d*", str(part.tag))]
        for axis in "xy"
    ]
    xs, ys = map(corner_numbers, axes)
    if len(xs) != len(ys) or len(xs) < 3 or any(map(math.isnan, xs + ys)):
        return None
    corners = (min(xs), min(ys), max(xs), max(ys))
    return Element("bndbox", {tag: f"{x:f}" for tag, x in zip(_CORNERS, corners, strict=True)})


def _left_aside(element: Element) -> Iterator[str]:
    """What an object says of its shape besides a bndbox, but for rotations by 0."""
    for part in (*element, *element.findall("bndbox/*"), *element.findall("robndbox/*")):
        if part.tag in ("polygon", "robndbox", "segmentation", "mask"):
            yield part.tag
        elif part.tag in ("angle", "rotation") and (part.text or "").strip(" \n-0."):
            yield f"{part.tag} {part.text!r:.20}"
    for part in element.findall("attributes/attribute"):
        if part.findtext("name") == "rotation" and text_of(part, "value").strip("-0."):
            yield f"rotation {text_of(part, 'value')!r:.20}"


def text_of(element: Element, tag: str) -> str:
    """The text of a child; of several that differ, or with elements in it, all on lines.

    No number and no name has a line end, so that none is read from a part.
    """
    texts = {
        "\n".join([child.text or "", *(f"<{part.tag}>{part.tail or ''}" for part in child)]).strip()
        for child in element.findall(tag)
    }
    return "\n".join(sorted(texts))


def written_size(root: Element) -> tuple[int, int] | None:
    """(height, width) as written; None when it is absent, empty or 0, as some programs leave it."""
    texts = [text_of(root, f"size/{tag}") for tag in ("height", "width")]
    if not all(re.fullmatch(r"\d{1,9}(\.0*)?", text, flags=re.ASCII) for text in texts):
        return None
    height, width = (int(float(text)) for text in texts)
    return (height, width) if height and width else None
