"""Images with VOC XML, beside each other or in folders of any names, without lists.

So labelImg, CVAT, Label Studio, VoTT and Roboflow write them. Roboflow's ``train``, ``valid`` and
``test`` folders are parts; otherwise the images are split.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from keras_frcnn.data.dataset import DataProblem, Problems, Written, WrittenImage
from keras_frcnn.data.names import PICTURE_SUFFIXES, FilesOfFolder
from keras_frcnn.data.split import by_name, chosen_parts, part_of
from keras_frcnn.data.voc_xml import objects_of, read_annotation, text_of, written_size
from keras_frcnn.errors import UserError

_HEAD = 2**12
_ROOT = re.compile(rb"<annotation[\s/>]")


def recognises(path: Path) -> bool:
    """Whether there is an annotation in a folder or below it."""
    return any(map(_is_annotation, FilesOfFolder(path, (".xml",))))


def _is_annotation(file: Path) -> bool:
    if not file.is_file():
        return False
    with open(file, "rb") as stream:
        return _ROOT.search(stream.read(_HEAD)) is not None


def read(
    root: Path, sets: str | None, default_split: str, kept: Mapping[str, str] | None = None
) -> Written:
    """What the annotations below a folder say of the images below it.

    An annotation belongs to the image of its name beside it, else in another folder, else to the
    one that its ``filename`` names. Corners count pixels from 1, as in a devkit.

    Raises:
        UserError: there is no XML file, or no part as asked for.
    """
    annotations = list(FilesOfFolder(root, (".xml",)))
    if not annotations:
        raise UserError(f"Expected a folder of images and VOC XML, found no XML file in {root}.")
    images = FilesOfFolder(root, PICTURE_SUFFIXES)
    problems = Problems()
    found: dict[Path, tuple[WrittenImage, str]] = {}
    for annotation in annotations:
        element = read_annotation(annotation, problems)
        if element is None:
            continue
        place = annotation.relative_to(root)
        filename = text_of(element, "filename")
        near = place.parts[:-1]
        file = images.find_near([place.with_suffix("").as_posix()], near)
        if file is None and filename:
            beside = f"{place.parent.as_posix()}/{filename}"
            file = images.find_near([beside, filename], near)
        if file is None or file in found:
            names = " or ".join(filter(None, (place.stem, f"{filename:.200}")))
            reason = f"expected one image named {names}, found none or several"
            reason += images.nearest(place.stem)
            if file is not None:
                reason = f"{file} belongs to {found[file][0].annotation}"
            where = str(annotation)
            problems.append(DataProblem("image missing", where, "", reason, "image dropped"))
            continue
        written = tuple(objects_of(element, annotation, problems))
        image_id, size = file.relative_to(root).as_posix(), written_size(element)
        image = WrittenImage(image_id, root.absolute().name, file, annotation, written, size, 1)
        found[file] = image, part_of(*file.relative_to(root).parts[:-1], *near)
    for file in images:
        if file not in found:
            reason = "expected an XML file of its name: it has none, and is left out"
            problems.append(DataProblem("image not annotated", str(file), "", reason, "noted"))
    in_order = sorted(found.values(), key=lambda pair: by_name(pair[0]))
    return chosen_parts(root, in_order, problems, sets, default_split, kept)
