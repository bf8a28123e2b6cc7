"""Detections of a data set as files, in every layout that other programs read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from keras_frcnn.data.dataset import Dataset
from keras_frcnn.detection.coco_files import write_coco
from keras_frcnn.detection.detections import ImageDetections
from keras_frcnn.detection.json_files import dataset_records, write_json
from keras_frcnn.detection.voc_files import write_voc

LAYOUTS = ("json", "voc", "coco")


def place_of_layout(layout: str, folder: Path, suffix: str = "") -> Path:
    """The file, or folder of files, that detections in a layout are."""
    names = {
        "json": f"detections{suffix}.json",
        "voc": f"voc_results{suffix}",
        "coco": f"coco_results{suffix}/coco_results.json",
    }
    return folder / names[layout]


def write_layouts(
    layouts: Sequence[str],
    folder: Path,
    dataset: Dataset,
    detections: Mapping[str, ImageDetections],
    suffix: str = "",
) -> list[Path]:
    """Writes detections in some of :data:`LAYOUTS`; returns what to tell of them.

    Args:
        detections: by ``Example.key``.
        suffix: what the names of the files end in.
    """
    places = {layout: place_of_layout(layout, folder, suffix) for layout in layouts}
    written: list[Path] = []
    if "json" in places:
        write_json(places["json"], dataset_records(dataset, detections))
        written.append(places["json"])
    if "voc" in places:
        write_voc(places["voc"], dataset, detections)
        written.append(places["voc"])
    if "coco" in places:
        written.extend(write_coco(places["coco"].parent, dataset, detections))
    return written
