"""``training_images.txt`` of a run folder: what the run was trained on, image by image."""

from __future__ import annotations

import hashlib
from pathlib import Path

from keras_frcnn.data.dataset import Dataset, Example
from keras_frcnn.errors import UserError
from keras_frcnn.files import digest_of, write_text

# What the fields after the key are called where they differ.
_PARTS = ("the name of its file", "its file", "its objects")


def keep_training_images(file: Path, dataset: Dataset) -> None:
    """Writes the list when a run begins; a run that goes on must find its images as they were.

    Raises:
        UserError: a file or an annotation has changed since the run began.
    """
    lines = [
        (example.key, *_identity(example), _objects_digest(example)) for example in dataset.examples
    ]
    if not file.is_file():
        write_text(file, "".join("\t".join(fields) + "\n" for fields in lines))
        return
    stored = {key: fields for key, *fields in _read(file)}
    changed = []
    for key, *now in lines:
        before = stored.get(key, now)
        parts = [part for part, a, b in zip(_PARTS, before, now, strict=False) if a != b]
        if parts:
            changed.append(f"{key}: {' and '.join(parts)}")
    if changed:
        raise UserError(
            f"{len(changed)} of the {len(lines)} training images changed since {file.parent} was "
            f"started ({'; '.join(changed[:3])}), and a training goes on with what it began with. "
            "Put them back, or start a new run without --resume."
        )


def check_not_trained_on(file: Path, dataset: Dataset) -> None:
    """Makes sure that no image of a test set is in the list, if there is one.

    An image is the same where the name and the contents of its file are, whichever list or
    devkit it is read from; another devkit may well have its own ``VOC2007/000001``.

    Raises:
        UserError: naming the first images in both.
    """
    if not file.is_file():
        return
    trained = {tuple(fields[1:3]) for fields in _read(file)}
    both = [str(example.path) for example in dataset.examples if _identity(example) in trained]
    if both:
        raise UserError(
            f"{len(both)} of the {len(dataset)} images were in the training set of {file.parent} "
            f"(such as {', '.join(both[:3])}): a figure measured on them says nothing. Choose "
            "other images."
        )


def _read(file: Path) -> list[list[str]]:
    """The fields of every line, as they were written, whatever the names of the files."""
    text = file.read_text(encoding="utf-8", errors="surrogateescape")
    return [line.split("\t") for line in text.split("\n") if line]


def _identity(example: Example) -> tuple[str, str]:
    """Name of the file and digest of its bytes."""
    return example.path.name, digest_of([example.path])


def _objects_digest(example: Example) -> str:
    boxes = example.boxes_image.astype("<f4").tobytes()
    classes = example.classes.astype("<i4").tobytes()
    data = boxes + classes + example.difficult.astype("u1").tobytes()
    return hashlib.blake2b(data, digest_size=16).hexdigest()
