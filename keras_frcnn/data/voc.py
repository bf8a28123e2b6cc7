"""Reading of a PASCAL VOC devkit, and of any data in its layout.

    VOCdevkit/VOC2007/ImageSets/Main/trainval.txt   ids, one a line
                     /Annotations/000005.xml
                     /JPEGImages/000005.jpg

Only ids listed in ``ImageSets/Main`` are used. Nothing is ever written there.

Shapes and names
----------------
devkit  the folder that holds VOC2007, VOC2012, ...; the path of one of these is taken too.
set  a (year, split) pair, ``("2007", "trainval")``, written ``2007:trainval``.
xmin, ymin, xmax, ymax  as written: counted from 1, the last pixel included. They become the
    half-open (ymin - 1, xmin - 1, ymax, xmax), float32.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from keras_frcnn.data.checks import (
    Progress,
    WrittenImage,
    WrittenObject,
    build_dataset,
    names_found,
)
from keras_frcnn.data.dataset import DataProblem, Dataset
from keras_frcnn.data.images import IMAGE_SUFFIXES
from keras_frcnn.data.voc_layout import (
    available_sets,
    chosen_sets,
    list_file,
    unique_ids,
    year_folders,
)
from keras_frcnn.errors import UserError
from keras_frcnn.files import read_bounded

# The largest of VOC has 15 kB; what is read as a tree takes some ten times its size.
MOST_ANNOTATION_BYTES = 2**24

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
        strict: stop at any problem.
        default_split: used when ``sets`` is None.
        progress: called with (images checked, images in all).

    Returns:
        the images in the order of their lists.

    Raises:
        UserError: a folder or list is missing, no class is found, or no image is left; or
            ``strict`` and there is a problem.
    """
    devkit = Path(devkit)
    folders = year_folders(devkit)
    chosen = chosen_sets(devkit, sets, default_split)
    problems: list[DataProblem] = []
    images: list[WrittenImage] = []
    objects: list[WrittenObject] = []
    for year in dict.fromkeys(year for year, _ in chosen):
        lists = [list_file(folders[year], split) for each, split in chosen if each == year]
        files = _image_files(folders[year])
        for image_id in unique_ids(folders[year], lists, problems):
            annotation = folders[year] / "Annotations" / f"{image_id}.xml"
            root = _read_annotation(annotation, problems)
            if root is None:
                continue
            written = _objects(root, annotation, problems)
            objects += written
            image_path = _image_path(folders[year], image_id, root, files, problems)
            if image_path is not None:
                size = _written_size(root)
                images.append(
                    WrittenImage(
                        image_id,
                        f"VOC{year}",
                        image_path,
                        annotation,
                        written,
                        size,
                        first_pixel=1,
                    )
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
    problems: list[DataProblem] = []
    objects: list[WrittenObject] = []
    for year, split in available_sets(devkit):
        for image_id in unique_ids(folders[year], [list_file(folders[year], split)], problems):
            annotation = folders[year] / "Annotations" / f"{image_id}.xml"
            root = _read_annotation(annotation, problems)
            if root is not None:
                objects += _objects(root, annotation, problems)
    return _class_list(names_found(objects), set(folders))


def check_test_lists(devkit: Path | str, train: Dataset) -> None:
    """Make sure that no training image is in the ``test.txt`` of its year.

    Where ``test`` itself is trained on, as in the paper's 07++12, that is asked for by name.

    Raises:
        UserError: naming the first ids in both and their number.
    """
    folders = year_folders(Path(devkit))
    keys = {example.key for example in train.examples}
    for year in dict.fromkeys(name.split(":")[0] for name in train.sets):
        file = list_file(folders[year], "test")
        if f"{year}:test" in train.sets or not file.is_file():
            continue
        tested = [f"VOC{year}/{image_id}" for image_id in unique_ids(folders[year], [file], [])]
        both = [key for key in tested if key in keys]
        if both:
            more = f" and {len(both) - 5} more" if len(both) > 5 else ""
            raise UserError(
                f"Expected no image in both {' + '.join(train.sets)} (training) and "
                f"{year}:test, found {len(both)}: {', '.join(both[:5])}{more}; take them out of "
                f"one of the lists in {file.parent}."
            )


def _read_annotation(file: Path, problems: list[DataProblem]) -> Element | None:
    """The ``annotation`` element of an XML file, or None after noting why there is none.

    Document types, entities and external references are refused: none belongs in an annotation,
    and they can read other files or fill the memory.
    """
    try:
        root = fromstring(read_bounded(file, MOST_ANNOTATION_BYTES), forbid_dtd=True)
    except FileNotFoundError:
        kind, reason = (
            "annotation missing",
            "the id is listed, its annotation does not exist",
        )
    except DefusedXmlException as error:
        kind = "annotation refused"
        reason = f"document types and entities are not allowed ({type(error).__name__})"
    except (OSError, ParseError, ValueError, LookupError) as error:
        kind, reason = "annotation unreadable", f"expected well-formed XML, but {error}"
    else:
        if root.tag == "annotation":
            return root
        kind, reason = (
            "annotation unreadable",
            f"expected <annotation>, found <{root.tag[:40]}>",
        )
    problems.append(DataProblem(kind, str(file), "", reason, "image dropped"))
    return None


def _objects(root: Element, file: Path, problems: list[DataProblem]) -> tuple[WrittenObject, ...]:
    """Direct ``object`` children with their direct ``bndbox``: parts of persons are no objects."""
    written = []
    for number, element in enumerate(root.findall("object"), start=1):
        name = _text(element, "name")
        where = f"object {number} ({name})" if name else f"object {number}"
        box = element.find("bndbox")
        corners = tuple(
            None if box is None else box.findtext(tag) for tag in ("xmin", "ymin", "xmax", "ymax")
        )
        flag = _text(element, "difficult").lower()
        if flag not in ("", "0", "1", "false", "true"):
            reason = f"expected difficult to be 0 or 1, found {flag[:40]!r}"
            problems.append(DataProblem("flag unreadable", str(file), where, reason, "taken as 0"))
        written.append(WrittenObject(where, name, corners, difficult=flag in ("1", "true")))
    return tuple(written)


def _text(element: Element, tag: str) -> str:
    return (element.findtext(tag) or "").strip()


def _written_size(root: Element) -> tuple[int, int] | None:
    """(height, width) as written; None when it is absent, empty or 0, as some programs leave it."""
    texts = [_text(root, f"size/{tag}") for tag in ("height", "width")]
    if not all(re.fullmatch(r"\d{1,9}(\.0*)?", text, flags=re.ASCII) for text in texts):
        return None
    height, width = (int(float(text)) for text in texts)
    return (height, width) if height and width else None


def _image_files(folder: Path) -> dict[str, Path]:
    """Files of ``JPEGImages`` by name, and by stem (of several, jpg before jpeg before others)."""
    directory = folder / "JPEGImages"
    names = sorted(os.listdir(directory)) if directory.is_dir() else []
    rank = {".jpg": 0, ".jpeg": 1, ".png": 2}
    images = [Path(name) for name in names if Path(name).suffix.lower() in IMAGE_SUFFIXES]
    files: dict[str, Path] = {}
    for image in sorted(images, key=lambda image: rank.get(image.suffix.lower(), 3)):
        files.setdefault(f"{image.stem}.", directory / image)
        files[image.name] = directory / image
    return files


def _image_path(
    folder: Path,
    image_id: str,
    root: Element,
    files: dict[str, Path],
    problems: list[DataProblem],
) -> Path | None:
    """``JPEGImages/<id>.<suffix>``, else the annotation's ``filename`` there, else a problem."""
    filename = re.split(r"[/\\]", _text(root, "filename"))[-1]
    path = files.get(f"{image_id}.") or files.get(filename)
    if path is None:
        reason = f"expected {image_id}.jpg (or .jpeg, .png, ...)"
        if filename:
            reason += f" or {filename}, the annotation's filename,"
        problems.append(
            DataProblem(
                "image missing",
                str(folder / "JPEGImages"),
                image_id,
                f"{reason} found neither" if filename else f"{reason}, found none",
                "image dropped",
            )
        )
    return path


def _class_list(found: tuple[str, ...], years: set[str]) -> tuple[str, ...]:
    """The classes of names found: the official VOC list for VOC's own data, else as found."""
    if years <= {"2007", "2012"} and set(found) <= set(VOC_CLASSES):
        return VOC_CLASSES
    return found
