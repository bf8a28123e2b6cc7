"""A data set from wherever it lies, in the layouts that people have.

Each layout has a module with two functions: ``recognises(path)`` looks whether it is there, and
``read(path, sets, default_split, kept)`` gives what its files say, as :class:`Written`, to the
checks that all of them share.

Two layouts of the same images train the same, bit for bit, where they give the same order of images
and of their objects, the same names of classes, the same corners as float32 and the same difficult
objects. Keys and paths do not matter. So layouts without lists sort images by their names, classes
are those found, sorted, and corners are computed in decimals.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from keras_frcnn.data import coco, simple, tfds, voc, voc_folder, yolo
from keras_frcnn.data.bad_images import check_share_of_bad
from keras_frcnn.data.checks import Progress, check_written
from keras_frcnn.data.dataset import Dataset, Written
from keras_frcnn.data.images import IMAGE_SUFFIXES, files_below
from keras_frcnn.errors import UserError
from keras_frcnn.system.files import user_path


class Reader(Protocol):
    """A layout."""

    def recognises(self, path: Path, /) -> bool:
        """Whether it is there."""

    def read(
        self, path: Path, sets: str | None, default_split: str, kept: Mapping[str, str] | None, /
    ) -> Written:
        """What its files say, before anything is checked."""


# In the order of looking: what says most first.
READERS: dict[str, Reader] = {
    "tfds": tfds,
    "pascal_voc": voc,
    "coco": coco,
    "voc_xml": voc_folder,
    "yolo": yolo,
    "simple": simple,
}


def load_data(
    path: Path | str,
    sets: str | None = None,
    *,
    parser: str | None = None,
    class_names: Sequence[str] | None = None,
    allow_bad: bool = False,
    strict: bool = False,
    default_split: str = "trainval",
    split: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> Dataset:
    """Reads a data set and checks every annotation and image of it.

    What was wrong, and what was done about it, stands in ``problems`` of the result.

    Args:
        path: a folder or file in one of the layouts of docs/data.md, or ``tfds:NAME``.
        sets: image sets of a devkit such as ``2007:test``; of other layouts ``train``, ``val``,
            ``test``, several with ``+``, ``trainval`` or ``all``. Default: what there is to train
            on; of a list all its images.
        parser: a key of :data:`READERS`; default: what lies there.
        class_names: the classes to know, in order, such as a detector's; default: those found.
        allow_bad: go on where more than a tenth of the images, lines or objects are bad.
        strict: stop at anything that is bad.
        default_split: ``test`` where no ``sets`` stand for what there is to test on.
        split: of a run: images that it has stay in its parts.
        progress: told how many images are checked, of how many.

    Raises:
        UserError: nothing of the kind lies there, or too much of it is bad.
    """
    path = user_path(path)
    if parser is None:
        parser = recognised(path)
    written = READERS[parser].read(path, sets, default_split, split)
    dataset = check_written(written, class_names=class_names, strict=strict, progress=progress)
    if not allow_bad:
        check_share_of_bad(dataset)
    return dataclasses.replace(dataset, path=str(path), parser=parser)


def recognised(path: Path) -> str:
    """The key of the first reader that finds its layout at a path.

    Raises:
        UserError: none does, with what lies there.
    """
    for name, reader in READERS.items():
        if reader.recognises(path):
            return name
    if not path.is_dir():
        what = "an archive, unpack it" if path.exists() else "nothing, check the path"
        raise UserError(f"Expected a data set at {path}, found {what}.")
    files = [file for file in files_below(path) if not file.name.startswith("._")]
    kinds = Counter(file.suffix.lower() or "files without a suffix" for file in files)
    images = sum(kinds[suffix] for suffix in IMAGE_SUFFIXES)
    found = ", ".join(f"{number} {kind}" for kind, number in kinds.most_common(6)) or "no files"
    lists = [file for file in files if file.suffix.lower() in (".csv", ".txt")]
    archives = [file for file in files if file.suffix.lower() in simple.ARCHIVES]
    if archives and not images:
        advice = f"unpack {archives[0]}"
    elif len(lists) == 1:
        advice = f"give {lists[0]} itself if it is a list of path,x1,y1,x2,y2,class"
    elif kinds[".json"]:
        advice = (
            "export the labels as COCO, YOLO or Pascal VOC: these JSON files are none of COCO's"
        )
    elif images:
        advice = (
            "put the labels beside the images, as Pascal VOC (an XML file of each image's name), "
            "YOLO (a text file of its name, and classes.txt) or COCO (one JSON file)"
        )
    else:
        advice = "give a folder that holds images and their labels"
    raise UserError(
        f"Expected images with labels in {path} (a VOC devkit, VOC XML, COCO JSON, YOLO, or a list "
        f"of boxes), found {found}; {advice}."
    )
