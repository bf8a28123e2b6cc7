"""Finds the image that another program's file name or image id means."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

from keras_frcnn.data.dataset import Example
from keras_frcnn.data.images import IMAGE_SUFFIXES
from keras_frcnn.errors import UserError

_YEAR = re.compile(r"VOC\d{4}")


class ImageIndex:
    """Finds images by file name, else by id.

    Attributes:
        found_by_id: how often the file name did not do.

    Args:
        examples: the images of the set.
    """

    def __init__(self, examples: Sequence[Example]) -> None:
        self.found_by_id = 0
        self._by_stem: dict[str, list[Example]] = {}
        self._by_id: dict[str, list[Example]] = {}
        for example in examples:
            self._by_stem.setdefault(example.path.stem, []).append(example)
            for name in {example.image_id, plain_id(example.image_id), example.key}:
                self._by_id.setdefault(name, []).append(example)

    def find(self, file_name: str, image_id: str, where: str) -> Example:
        """The one image that a record is about.

        Args:
            file_name, image_id: either may be ``""``; an id may be the name of a file, too.
            where: names the record in messages.

        Raises:
            UserError: there is no such image, or several.
        """
        of_this_id = self._by_id.get(image_id) or self._by_id.get(plain_id(image_id), [])
        if not (file_name or of_this_id) and image_id.lower().endswith(IMAGE_SUFFIXES):
            file_name = image_id
        name = PurePosixPath(file_name.replace("\\", "/"))
        if not (file_name or image_id):
            raise UserError(f"{where} needs a file_name or an image_id, it has neither.")
        candidates = self._by_stem.get(name.stem, []) if file_name else []
        candidates = [e for e in candidates if not _is_of_another_year(e, image_id)]
        if not candidates:
            candidates = of_this_id
            self.found_by_id += 1
        if len(candidates) > 1:
            exact = [e for e in candidates if image_id in (e.image_id, e.key)]
            candidates = exact or [e for e in candidates if e in of_this_id] or candidates
            candidates = [e for e in candidates if _in_folder(e, name)] or candidates
            candidates = [e for e in candidates if e.path.name == name.name] or candidates
        if len(candidates) == 1:
            return candidates[0]
        given = (("file_name", file_name), ("image_id", image_id))
        received = ", ".join(f"{field} {text!r:.80}" for field, text in given if text)
        if candidates:
            keys = ", ".join(example.key for example in candidates[:4])
            raise UserError(
                f"{where} ({received}) fits several images ({keys}): give the image_id as "
                f"{candidates[0].key!r} or the folder in file_name."
            )
        raise UserError(
            f"{where} ({received}) is about an image that is not in the set: evaluate on the set "
            "that the detections were made on, or leave the record out; ids of a COCO annotations "
            "file need that file (--coco_annotations)."
        )


def plain_id(image_id: str) -> str:
    """``"5"`` for ``"000005"``, ``"2008000001"`` for ``"2008_000001"``; other ids as they are.

    They are one image to programs that keep ids as numbers, as COCO does.
    """
    digits = image_id.replace("_", "")
    if not (digits.isascii() and digits.isdigit()):
        return image_id
    return digits.lstrip("0") or "0"


def _is_of_another_year(example: Example, image_id: str) -> bool:
    """Whether an id such as ``"VOC2012/000005"`` means an image of another year.

    Other folders say nothing: they may be those of another machine.
    """
    years = {part for part in PurePosixPath(image_id).parts if _YEAR.fullmatch(part)}
    return bool(years and _YEAR.fullmatch(example.source)) and example.source not in years


def _in_folder(example: Example, name: PurePosixPath) -> bool:
    folders = name.parent.parts
    if not folders:
        return False
    return example.source in folders or example.path.parent.parts[-len(folders) :] == folders
