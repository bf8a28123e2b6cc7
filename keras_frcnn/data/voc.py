"""Reading of a PASCAL VOC devkit, and of any data in its layout.

    VOCdevkit/VOC2007/ImageSets/Main/trainval.txt   ids, one a line
                     /Annotations/000005.xml
                     /JPEGImages/000005.jpg

Only ids listed in ``ImageSets/Main`` are used. Nothing is ever written there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree.ElementTree import Element

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from keras_frcnn.data.checks import Progress, build_dataset, names_found
from keras_frcnn.data.dataset import DataProblem, Dataset, Problems, WrittenImage, WrittenObject
from keras_frcnn.data.images import IMAGE_SUFFIXES
from keras_frcnn.data.names import FilesOfFolder
from keras_frcnn.data.voc_layout import (
    available_sets,
    chosen_sets,
    list_file,
    other_test_ids,
    unique_ids,
    year_folders,
)
from keras_frcnn.errors import UserError, reading
from keras_frcnn.system.files import read_bounded

# The largest of VOC has 15 kB. An element takes up to a hundred times what it is written in: those
# of ten thousand objects are read.
MOST_ANNOTATION_BYTES = 2**24
MOST_MARKS = 2**18

# Before all others of one name.
_SUFFIXES = tuple(dict.fromkeys((".jpg", ".jpeg", ".png", *IMAGE_SUFFIXES)))

# In the order of the devkit (VOCinit.m).
# fmt: off
VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train",
    "tvmonitor",
)
# fmt: on


def load_voc(
    devkit: Path | str,
    sets: str | None,
    *,
    class_names: Sequence[str] | None = None,
    strict: bool = False,
    default_split: str = "trainval",
    progress: Progress | None = None,
) -> Dataset:
    """Read image sets of a devkit and check every annotation and image in them.

    Without ``class_names`` the classes are the 20 of VOC in their official order when every name
    found is one of them and all sets are of VOC2007 or VOC2012; otherwise the names found,
    difficult objects included, sorted.

    Args:
        devkit: the folder that holds ``VOC<year>`` folders, or one of these itself.
        sets: see ``parse_sets``; None for ``default_split`` of every year that has it.
        class_names: the known classes, in order (those of a trained run); objects of others are
            dropped and reported.
        strict, progress: as of :func:`build_dataset`.

    Returns:
        the images in the order of their lists.

    Raises:
        UserError: a folder or list is missing, no class is found, or no image is left; or
            ``strict`` and there is a problem.
    """
    devkit = Path(devkit)
    folders = year_folders(devkit)
    chosen = chosen_sets(devkit, sets, default_split)
    problems = Problems()
    images: list[WrittenImage] = []
    objects: list[WrittenObject] = []
    for year in dict.fromkeys(year for year, _ in chosen):
        lists = [list_file(folders[year], split) for each, split in chosen if each == year]
        files = FilesOfFolder(folders[year] / "JPEGImages", _SUFFIXES)
        for image_id, annotation, root, written in _annotated(folders[year], lists, problems):
            objects += written
            image_path = _image_path(folders[year], image_id, root, files, problems)
            if image_path is not None:
                source, size = f"VOC{year}", _written_size(root)
                images.append(
                    WrittenImage(image_id, source, image_path, annotation, written, size, 1)
                )
    set_names = [f"{year}:{split}" for year, split in chosen]
    if class_names is None:
        class_names = _class_list(names_found(objects), {year for year, _ in chosen})
        if images and not class_names:
            raise UserError(
                f"Expected objects in {' + '.join(set_names)} of {devkit}, but no annotation has "
                "one, so that no class is known; check the Annotations folder."
            )
    return build_dataset(
        images,
        problems,
        class_names=class_names,
        sets=set_names,
        strict=strict,
        progress=progress,
    )


def read_class_names(devkit: Path | str) -> tuple[str, ...]:
    """The classes of a devkit: those of all its image sets together, in the order of ``load_voc``.

    A test set may lack a class that was trained on; numbering classes by it alone would shift
    every class after that one.

    Raises:
        UserError: ``devkit`` is no folder in this layout.
    """
    folders = year_folders(Path(devkit))
    problems = Problems()
    objects: list[WrittenObject] = []
    for year, split in available_sets(devkit):
        lists = [list_file(folders[year], split)]
        for *_, written in _annotated(folders[year], lists, problems):
            objects += written
    return _class_list(names_found(objects), set(folders))


def check_test_lists(devkit: Path | str, train: Dataset) -> None:
    """Make sure that no training image is in the ``test.txt`` of its year.

    Where ``test`` itself is trained on, as in the paper's 07++12, that is asked for by name.

    Raises:
        UserError: naming the first ids in both and their number.
    """
    keys = {example.key for example in train.examples}
    for year, file, tested in other_test_ids(devkit, train.sets):
        both = [key for image_id in tested if (key := f"VOC{year}/{image_id}") in keys]
        if both:
            more = f" and {len(both) - 5} more" if len(both) > 5 else ""
            raise UserError(
                f"Expected no image in both {' + '.join(train.sets)} (training) and "
                f"{year}:test, found {len(both)}: {', '.join(both[:5])}{more}; take them out of "
                f"one of the lists in {file.parent}."
            )


def _annotated(
    folder: Path, lists: Sequence[Path], problems: Problems
) -> Iterator[tuple[str, Path, Element, tuple[WrittenObject, ...]]]:
    """Id, annotation, its root and its objects, of every id of the lists that can be read."""
    for image_id, annotation in unique_ids(folder, lists, problems).items():
        root = annotation and _read_annotation(annotation, problems)
        if root is not None:
            yield image_id, annotation, root, tuple(_objects(root, annotation, problems))


def _read_annotation(file: Path, problems: Problems) -> Element | None:
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


def _objects(root: Element, file: Path, problems: Problems) -> Iterator[WrittenObject]:
    """Direct ``object`` children with their direct ``bndbox``: parts of persons are no objects.

    Each ``bndbox`` of an object is one.
    """
    for number, element in enumerate(root.findall("object"), start=1):
        name = _text(element, "name")
        of = f"object {number} ({name:.80})" if name else f"object {number}"
        fault = ""
        if "\n" in name:
            name, fault = "", f"expected one name without elements in it, found {name!r:.80}"
        flag = _text(element, "difficult").lower()
        if flag not in ("", "0", "1", "false", "true"):
            reason = f"expected difficult to be 0 or 1, found {flag[:40]!r}"
            problems.append(DataProblem("flag unreadable", str(file), of, reason, "taken as 0"))
        boxes = element.findall("bndbox")
        aside = ", ".join(dict.fromkeys(_left_aside(element)))[:80]
        if aside and boxes:
            reason = f"found {aside} beside the bndbox, which is read as an upright box"
            problems.append(DataProblem("shape left aside", str(file), of, reason, "noted"))
        elif not boxes and not fault:
            fault = f"expected a bndbox, found {aside or 'none'}"
        for place, box in enumerate(boxes or [Element("bndbox")], start=1):
            where = f"{of}, box {place}" if len(boxes) > 1 else of
            corners = tuple(_text(box, tag) for tag in ("xmin", "ymin", "xmax", "ymax"))
            parts = ", ".join(box.attrib) + " as attributes" * bool(box.attrib)
            parts = parts or ", ".join(part.tag for part in box)
            missing = f"expected xmin, ymin, xmax, ymax in its bndbox, found {parts:.80}"
            reason = fault or (missing if parts and not any(corners) else "")
            yield WrittenObject(where, name, corners, flag in ("1", "true"), reason)


def _left_aside(element: Element) -> Iterator[str]:
    """What an object says of its shape besides a bndbox, but for rotations by 0."""
    for part in (*element, *element.findall("bndbox/*"), *element.findall("robndbox/*")):
        if part.tag in ("polygon", "robndbox", "segmentation", "mask"):
            yield part.tag
        elif part.tag in ("angle", "rotation") and (part.text or "").strip(" \n-0."):
            yield f"{part.tag} {part.text!r:.20}"
    for part in element.findall("attributes/attribute"):
        if part.findtext("name") == "rotation" and _text(part, "value").strip("-0."):
            yield f"rotation {_text(part, 'value')!r:.20}"


def _text(element: Element, tag: str) -> str:
    """The text of a child; of several that differ, or with elements in it, all on lines.

    No number and no name has a line end, so that none is read from a part.
    """
    texts = {
        "\n".join([child.text or "", *(f"<{part.tag}>{part.tail or ''}" for part in child)]).strip()
        for child in element.findall(tag)
    }
    return "\n".join(sorted(texts))


def _written_size(root: Element) -> tuple[int, int] | None:
    """(height, width) as written; None when it is absent, empty or 0, as some programs leave it."""
    texts = [_text(root, f"size/{tag}") for tag in ("height", "width")]
    if not all(re.fullmatch(r"\d{1,9}(\.0*)?", text, flags=re.ASCII) for text in texts):
        return None
    height, width = (int(float(text)) for text in texts)
    return (height, width) if height and width else None


def _image_path(
    folder: Path, image_id: str, root: Element, files: FilesOfFolder, problems: Problems
) -> Path | None:
    """``JPEGImages/<id>.<suffix>``, else the annotation's ``filename`` there, else a problem."""
    filename = _text(root, "filename").replace("\\", "/")
    names = (image_id, filename, filename.rpartition("/")[2])
    path = next(filter(None, map(files.find, names)), None)
    if path is None:
        reason = f"expected {image_id}.jpg (or .jpeg, .png, ...)"
        if filename:
            reason += f" or {filename}, the annotation's filename,"
        reason += f" found none{files.nearest(image_id)}"
        where = str(folder / "JPEGImages")
        problems.append(DataProblem("image missing", where, image_id, reason, "image dropped"))
    return path


def _class_list(found: tuple[str, ...], years: set[str]) -> tuple[str, ...]:
    """The classes of names found: the official VOC list for VOC's own data, else as found."""
    if years <= {"2007", "2012"} and set(found) <= set(VOC_CLASSES):
        return VOC_CLASSES
    return found
