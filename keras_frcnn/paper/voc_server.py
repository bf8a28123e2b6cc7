"""VOC 2012's test set: images without annotations, and the archive that its server evaluates."""

from __future__ import annotations

import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from keras_frcnn.data.dataset import Dataset, Example, Problems
from keras_frcnn.data.images import read_image
from keras_frcnn.data.voc_layout import list_file, unique_ids
from keras_frcnn.detection.detections import ImageDetections
from keras_frcnn.detection.write_detections import write_voc


def has_annotations(devkit: Path, sets: str) -> bool:
    """Whether any image of one image set, such as ``2012:test``, has its XML file."""
    _, ids = _ids(devkit, sets)
    return any(ids.values())


def load_unannotated(devkit: Path, sets: str, class_names: Sequence[str]) -> Dataset:
    """The images of a set, without objects.

    Raises:
        UserError: an image cannot be read.
    """
    folder, ids = _ids(devkit, sets)
    examples = []
    for image_id in ids:
        path = folder / "JPEGImages" / f"{image_id}.jpg"
        height, width, _ = read_image(path).shape
        examples.append(
            Example(
                image_id=image_id,
                source=folder.name,
                path=path,
                height=height,
                width=width,
                boxes_image=np.zeros((0, 4), np.float32),
                classes=np.zeros(0, np.int32),
                difficult=np.zeros(0, bool),
            )
        )
    return Dataset(tuple(class_names), tuple(examples), (sets,))


def write_server_files(
    folder: Path, name: str, dataset: Dataset, detections: Mapping[str, ImageDetections]
) -> Path:
    """Writes ``NAME.tar`` with ``results/VOC2012/Main/comp4_det_test_CLASS.txt`` of every class.

    Returns:
        the archive.
    """
    folder.mkdir(parents=True, exist_ok=True)
    archive = folder / f"{name}.tar"
    with tempfile.TemporaryDirectory() as temporary, tarfile.open(archive, "w") as tar:
        for file in write_voc(temporary, dataset, detections):
            tar.add(file, f"results/VOC2012/Main/{file.name}")
    return archive


def _ids(devkit: Path, sets: str) -> tuple[Path, dict[str, Path | None]]:
    year, split = sets.split(":")
    folder = devkit / f"VOC{year}"
    return folder, unique_ids(folder, [list_file(folder, split)], Problems())
