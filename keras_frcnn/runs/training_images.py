"""``training_images.txt`` of a run folder: what the run was trained on, image by image.

Each line is a JSON list of four texts: key, name of the file, digest of its bytes, digest of its
objects. JSON, as any letter may stand in the name of a file.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from keras_frcnn.data.dataset import Dataset, Example
from keras_frcnn.data.voc_layout import other_test_ids
from keras_frcnn.errors import UserError, reading
from keras_frcnn.system.files import digest_of, parse_json, read_text_bounded, write_text

_MOST_BYTES = 2**30
# What the last fields of a line are called where they differ.
_PARTS = ("its file", "its objects")


def keep_training_images(file: Path, dataset: Dataset) -> None:
    """Writes the list when a run begins; a run that goes on must find its images as they were.

    They may lie elsewhere, and under other names.

    Raises:
        UserError: an image, its file or its objects are others than when the run began.
    """
    now = {
        example.key: (example.path.name, digest_of([example.path]), _objects_digest(example))
        for example in dataset.examples
    }
    if not file.is_file():
        lines = (json.dumps([key, *fields]) + "\n" for key, fields in now.items())
        write_text(file, "".join(lines))
        return
    stored = {key: fields for key, *fields in _read(file)}
    changed = [f"{key}: {_why_left_out(key, dataset)}" for key in stored if key not in now]
    for key, (_, *found) in now.items():
        before = stored[key][1:] if key in stored else ("", "")
        parts = [part for part, a, b in zip(_PARTS, before, found, strict=True) if a != b]
        if parts:
            changed.append(f"{key}: {' and '.join(parts) if key in stored else 'not in its list'}")
    if changed:
        raise UserError(
            f"{len(changed)} of the {len(stored)} training images changed since {file.parent} was "
            f"started ({'; '.join(changed[:3])}), and a training goes on with what it began with. "
            "Put them back, or start a new run without --resume."
        )


def check_not_trained_on(file: Path, dataset: Dataset) -> None:
    """Makes sure that no image of a test set is in the list, if there is one.

    An image is the same where the contents of its file are, whatever its name and devkit.

    Raises:
        UserError: naming the first images in both.
    """
    if not file.is_file():
        return
    trained = {digest: key for key, _, digest, _ in _read(file)}
    found = [(example.path, trained.get(digest_of([example.path]))) for example in dataset.examples]
    both = [f"{path}, trained on as {key}" for path, key in found if key is not None]
    if both:
        raise UserError(
            f"{len(both)} of the {len(dataset)} images were in the training set of {file.parent} "
            f"(such as {'; '.join(both[:3])}): a figure measured on them says nothing. Choose "
            "other images."
        )


def copies_in_test_lists(devkit: Path, train: Dataset) -> list[str]:
    """Images in the ``test.txt`` of a trained year that are byte copies of training images.

    Returns:
        one phrase for each, which names both.
    """
    by_size: dict[int, list[Example]] = {}
    for example in train.examples:
        by_size.setdefault(example.path.stat().st_size, []).append(example)
    copies = []
    for _, file, ids in other_test_ids(devkit, train.sets):
        for path in sorted((file.parents[2] / "JPEGImages").iterdir()):
            if path.stem not in ids:
                continue
            same_size = by_size.get(path.stat().st_size, [])
            digest = digest_of([path]) if same_size else ""
            copies += [
                f"{path.name} is {example.key}"
                for example in same_size
                if digest_of([example.path]) == digest
            ]
    return copies


def _why_left_out(key: str, dataset: Dataset) -> str:
    image_id = key.split("/", 1)[-1]
    reasons = (
        problem.reason
        for problem in dataset.problems
        if image_id in (problem.where, Path(problem.file).stem, Path(problem.file).name)
    )
    return next(reasons, "no longer among the images")


def _read(file: Path) -> list[list[str]]:
    """The four fields of every line.

    Raises:
        UserError: the file is none of ours.
    """
    with reading(file, "a list of training images", "put the run's own back, or start a new run"):
        lines = [parse_json(line) for line in read_text_bounded(file, _MOST_BYTES).splitlines()]
        for number, line in enumerate(lines, start=1):
            fields = line if isinstance(line, list) else []
            if len(fields) != 4 or not all(isinstance(part, str) for part in fields):
                raise ValueError(f"line {number} is no list of four texts")
        return lines


def _objects_digest(example: Example) -> str:
    boxes = example.boxes_image.astype("<f4").tobytes()
    classes = example.classes.astype("<i4").tobytes()
    data = boxes + classes + example.difficult.astype("u1").tobytes()
    return hashlib.blake2b(data, digest_size=16).hexdigest()
