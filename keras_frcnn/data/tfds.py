"""Data sets of TensorFlow Datasets by name, such as ``tfds:voc/2007``.

Those with the features ``image`` and ``objects``, which has ``bbox`` and ``label``. Images are
files here: they are written once, with the bytes that they have there.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from keras_frcnn.data.dataset import Problems, Written, WrittenImage, WrittenObject
from keras_frcnn.data.images import upright_size
from keras_frcnn.data.split import by_name, chosen_parts, part_named
from keras_frcnn.data.yolo import in_pixels
from keras_frcnn.errors import check_installed, reading
from keras_frcnn.system.files import written_whole

_PREFIX = "tfds:"


def recognises(path: Path) -> bool:
    """Whether it names a data set."""
    return str(path).startswith(_PREFIX)


def read(
    path: Path, sets: str | None, default_split: str, kept: Mapping[str, str] | None = None
) -> Written:
    """What the data set says; it is fetched where it is not on this machine.

    Raises:
        UserError: the package is missing, there is no such data set, or it is none of objects.
    """
    name = str(path).removeprefix(_PREFIX)
    check_installed("Data sets by name", ["tensorflow_datasets"], "tfds")
    with reading(path, "a data set of TensorFlow Datasets", "choose one of objects, such as voc"):
        import tensorflow_datasets

        builder = tensorflow_datasets.builder(name)
        builder.download_and_prepare()
        label = builder.info.features["objects"]["label"]
        decoders = {"image": tensorflow_datasets.decode.SkipDecoding()}
        found = []
        for split in builder.info.splits:
            examples = builder.as_dataset(split=split, decoders=decoders)
            for number, example in enumerate(tensorflow_datasets.as_numpy(examples)):
                image = _image(name, split, number, example, label)
                found.append((image, part_named(split)))
    found.sort(key=lambda pair: by_name(pair[0]))
    return chosen_parts(path, found, Problems(), sets, default_split, kept)


def _image(
    name: str, split: str, number: int, example: Mapping[str, Any], label: Any
) -> WrittenImage:
    """One image, in a file of the user's cache, and its objects."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "keras_frcnn" / "tfds" / name
    data = example["image"]
    suffix = ".jpg" if data.startswith(b"\xff\xd8") else ".png"
    file = folder / split / f"{number:07d}{suffix}"
    if not file.is_file() or file.stat().st_size != len(data):
        with written_whole(file) as partial:
            partial.write_bytes(data)
    height, width = upright_size(file)
    objects = example["objects"]
    written = []
    for place, (box, number_of_class) in enumerate(
        zip(objects["bbox"].tolist(), objects["label"].tolist(), strict=True)
    ):
        class_name = label.int2str(number_of_class)
        y1, x1, y2, x2 = (Decimal(f"{share:.9f}") for share in box)
        corners = (x1 * width, y1 * height, x2 * width, y2 * height)
        a, b, c, d = map(in_pixels, corners)
        flags = (objects.get(flag) for flag in ("is_difficult", "is_crowd"))
        difficult = any(flag is not None and bool(flag[place]) for flag in flags)
        where = f"object {place + 1} ({class_name:.80})"
        written.append(WrittenObject(where, class_name, (a, b, c, d), difficult))
    image_id = file.relative_to(folder).as_posix()
    return WrittenImage(image_id, name, file, file, tuple(written), None, 0)
