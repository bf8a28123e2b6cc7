"""A detector from wherever it lies: a run folder, an exported SavedModel, an ONNX file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from keras_frcnn.detection.detector import Detector
from keras_frcnn.errors import UserError, check_installed
from keras_frcnn.recipes import DetectionFilter
from keras_frcnn.runs.folder import RunFolder, find_run
from keras_frcnn.system.files import user_path

ONNX, MODEL_FILE = ".onnx", "saved_model.pb"


def load(
    place: Path | str,
    detection_filter: DetectionFilter | None = None,
    *,
    stage: int | None = None,
    number_of_proposals: int | None = None,
    short_sides: Sequence[int] = (),
    head_chunk: int | None = None,
    precision: str | None = None,
    boxes_given: bool = False,
) -> Detector:
    """Loads the detector of a run folder, an exported SavedModel or an ONNX file.

    An export is fixed: of the arguments after ``place`` only the filter's score threshold changes
    it, all others are for runs.

    Args:
        place: the folder or file; a run's ``config.json``, or a copy that leads to it, will do.
        detection_filter: which detections are kept; default: the recipe's for testing.
        stage: 2 is the unshared variant, 4 the result; default: the run's result.
        number_of_proposals: of an image; default: the recipe's 300.
        short_sides: scales for the detector; default: the recipe's one.
        head_chunk: the most RoIs that go through the head at once; default: all.
        precision: ``float32``, ``bfloat16`` or ``float16``; default: the run's.
        boxes_given: every image will come with boxes to classify, so no RPN is needed.

    Raises:
        UserError: nothing of the kind lies there, it is damaged or unfinished, or an option is
            given that an export has fixed.
    """
    of_runs: dict[str, Any] = {
        "stage": stage,
        "number_of_proposals": number_of_proposals,
        "short_sides": tuple(short_sides),
        "head_chunk": head_chunk,
        "precision": precision,
        "boxes_given": boxes_given,
    }
    path = user_path(place)
    if path.suffix == ".json" and path.is_file():
        path = find_run(path).path
    is_export = path.suffix == ONNX or path.is_file() or (path / MODEL_FILE).is_file()
    if (path / "config.json").is_file() or not is_export:
        from keras_frcnn.detection.network_detector import load_run

        return load_run(path, detection_filter, **of_runs)
    for name, value in of_runs.items():
        if value not in (None, ()) and value is not False:
            raise UserError(
                f"`{name}` belongs to run folders: the export {path} has its own inside."
            )
    detector = _load_export(path)
    least = None if detection_filter is None else detection_filter.score_threshold
    if least is None:
        return detector
    if least < detector.score_threshold:
        raise UserError(
            f"A `score_threshold` of {least:g} is below {detector.score_threshold:g}, the lowest "
            f"score that {path} returns; export the run with a lower one."
        )
    detector.score_threshold = least
    return detector


def _load_export(path: Path) -> Detector:
    if path.is_dir():
        from keras_frcnn.detection.saved_model import load_exported

        return load_exported(path)
    check_installed("ONNX files", ["onnxruntime"], "onnx")
    from keras_frcnn.detection.onnx_detector import OnnxDetector

    return OnnxDetector(path)


def check_run(place: Path | str, *, boxes_given: bool) -> RunFolder:
    """The run of a folder, checked before TensorFlow starts.

    Raises:
        UserError: there is none, or it makes no proposals and none are given.
    """
    run = RunFolder(place)
    run.read_config() if boxes_given else run.check_makes_proposals()
    return run
