"""A data set from wherever it lies, in the layouts that people have."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from keras_frcnn.data.bad_images import check_share_of_bad
from keras_frcnn.data.checks import Progress
from keras_frcnn.data.dataset import Dataset
from keras_frcnn.data.simple import load_simple
from keras_frcnn.data.voc import load_voc
from keras_frcnn.errors import UserError
from keras_frcnn.system.files import user_path


def load_data(
    path: Path | str,
    sets: str | None = None,
    *,
    parser: str | None = None,
    class_names: Sequence[str] | None = None,
    allow_bad: bool = False,
    strict: bool = False,
    default_split: str = "trainval",
    progress: Progress | None = None,
) -> Dataset:
    """Reads a data set and checks every annotation and image of it.

    What was wrong, and what was done about it, stands in ``problems`` of the result.

    Args:
        path: a VOC devkit, or a text file of ``path,x1,y1,x2,y2,class`` lines.
        sets: image sets of a devkit such as ``2007:test``; default: every ``default_split``.
        parser: ``pascal_voc`` or ``simple``; default: what lies there.
        class_names: the classes to know, in order, such as a detector's; default: those found.
        allow_bad: go on where more than a tenth of the images, lines or objects are bad.
        strict: stop at anything that is bad.
        progress: told how many images are checked, of how many.

    Raises:
        UserError: nothing of the kind lies there, or too much of it is bad.
    """
    path = user_path(path)
    if parser is None:
        parser = "simple" if path.is_file() else "pascal_voc"
    how = {"class_names": class_names, "strict": strict, "progress": progress}
    if parser == "pascal_voc":
        dataset = load_voc(path, sets, default_split=default_split, **how)
    elif sets is not None:
        raise UserError(f"Image sets belong to VOC devkits; {path} is a list: leave them out.")
    else:
        dataset = load_simple(path, **how)
    if not allow_bad:
        check_share_of_bad(dataset)
    return dataclasses.replace(dataset, path=str(path), parser=parser)
