"""Detections of any program, in whatever layout they come."""

from __future__ import annotations

from pathlib import Path

from keras_frcnn.data.dataset import Dataset
from keras_frcnn.detection.coco_files import with_names
from keras_frcnn.detection.detections import ImageDetections
from keras_frcnn.detection.json_files import from_records, read_list
from keras_frcnn.detection.voc_files import is_voc_detections, read_voc
from keras_frcnn.errors import UserError
from keras_frcnn.evaluation.likely_cause import CORNERS, SIZES, check_plausible


def read_detections(
    path: Path | str, dataset: Dataset, coco_annotations: Path | str | None = None
) -> tuple[dict[str, ImageDetections], list[str]]:
    """Reads a JSON list of records, or a folder or tar archive of VOC text files.

    Args:
        coco_annotations: the annotations file whose numbers a COCO results file uses for images and
            classes; without it they are VOC ids and 1-based positions in the class list.

    Returns:
        The detections by key, and remarks for the screen.

    Raises:
        UserError: as :func:`read_voc`, :func:`from_records`, :func:`with_names` and
            :func:`check_plausible`, or VOC text files with ``coco_annotations``.
    """
    if not is_voc_detections(path):
        records = read_list(path)
        if coco_annotations is not None:
            records = with_names(records, coco_annotations)
        detections, notes = from_records(records, path, dataset)
        return detections, notes + check_plausible(dataset, detections, SIZES, path)
    if coco_annotations is not None:
        raise UserError(f"COCO annotations belong to a JSON file, {path} holds VOC text files.")
    detections, notes = read_voc(path, dataset)
    return detections, notes + check_plausible(dataset, detections, CORNERS, path)
