"""Reading of a PASCAL VOC devkit, and of any data in its layout.

    VOCdevkit/VOC2007/ImageSets/Main/trainval.txt   ids, one a line
                     /Annotations/000005.xml
                     /JPEGImages/000005.jpg

Only ids listed in ``ImageSets/Main`` are used. Nothing is ever written there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from xml.etree.ElementTree import Element

from keras_frcnn.data.checks import Progress, check_written, names_found
from keras_frcnn.data.dataset import (
    DataProblem,
    Dataset,
    Problems,
    Written,
    WrittenImage,
    WrittenObject,
)
from keras_frcnn.data.names import PICTURE_SUFFIXES, FilesOfFolder
from keras_frcnn.data.voc_layout import (
    available_sets,
    chosen_sets,
    devkit_at,
    devkit_near,
    list_file,
    other_test_ids,
    unique_ids,
    year_folders,
)
from keras_frcnn.data.voc_xml import objects_of, read_annotation, text_of, written_size
from keras_frcnn.errors import UserError

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
    written = read(Path(devkit), sets, default_split)
    return check_written(written, class_names=class_names, strict=strict, progress=progress)


def recognises(path: Path) -> bool:
    """Whether a folder is a devkit, holds one, or lies in one."""
    return path.is_dir() and bool(devkit_at(path) or devkit_near(path))


def read(
    devkit: Path, sets: str | None, default_split: str, kept: Mapping[str, str] | None = None
) -> Written:
    """What the lists and annotations of a devkit say; as of :func:`load_voc`."""
    folders = year_folders(devkit)
    chosen = chosen_sets(devkit, sets, default_split)
    problems = Problems()
    images: list[WrittenImage] = []
    objects: list[WrittenObject] = []
    for year in dict.fromkeys(year for year, _ in chosen):
        lists = [list_file(folders[year], split) for each, split in chosen if each == year]
        files = FilesOfFolder(folders[year] / "JPEGImages", PICTURE_SUFFIXES)
        for image_id, annotation, root, written in _annotated(folders[year], lists, problems):
            objects += written
            image_path = _image_path(folders[year], image_id, root, files, problems)
            if image_path is not None:
                source, size = f"VOC{year}", written_size(root)
                images.append(
                    WrittenImage(image_id, source, image_path, annotation, written, size, 1)
                )
    names = _class_list(names_found(objects), [folders[year] for year, _ in chosen])
    return Written(images, problems, names, [f"{year}:{split}" for year, split in chosen])


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
    return _class_list(names_found(objects), folders.values())


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
        if annotation is None:
            continue
        root = read_annotation(annotation, problems)
        if root is not None:
            yield image_id, annotation, root, tuple(objects_of(root, annotation, problems))


def _image_path(
    folder: Path, image_id: str, root: Element, files: FilesOfFolder, problems: Problems
) -> Path | None:
    """``JPEGImages/<id>.<suffix>``, else the annotation's ``filename`` there, else a problem."""
    filename = text_of(root, "filename").replace("\\", "/")
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


def _class_list(found: tuple[str, ...], folders: Iterable[Path]) -> tuple[str, ...]:
    """The classes of names found: the official VOC list for VOC's own data, else as found."""
    official = {folder.absolute().name for folder in folders} <= {"VOC2007", "VOC2012"}
    return VOC_CLASSES if official and set(found) <= set(VOC_CLASSES) else found
