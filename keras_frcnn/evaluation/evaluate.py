"""Evaluation of a detector, or of detections in a file, on a data set."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_frcnn.data.dataset import Dataset
from keras_frcnn.detection.detections import ImageDetections
from keras_frcnn.detection.detector import Detector
from keras_frcnn.detection.loops import best_of_all, detect_dataset
from keras_frcnn.evaluation.coco import CocoEvaluation, check_available, evaluate_coco
from keras_frcnn.evaluation.report import write_report
from keras_frcnn.evaluation.voc import VocEvaluation, evaluate_voc
from keras_frcnn.proposals.given import GivenProposals
from keras_frcnn.system.signals import held_back

Passes = Callable[[Iterable, str], Iterable]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Detections and what they amount to.

    Attributes:
        voc: the VOC metric, with the data set and the detections.
        about: what was evaluated and how.
        subject: the same in a few words.
        coco: COCO's metrics, where they were asked for.
        report: the page that was written, if any.
    """

    voc: VocEvaluation
    about: dict[str, Any]
    subject: str
    coco: CocoEvaluation | None = None
    report: Path | None = None

    @property
    def dataset(self) -> Dataset:
        """The images."""
        return self.voc.dataset

    @property
    def detections(self) -> Mapping[str, ImageDetections]:
        """What was found, by ``Example.key``."""
        return self.voc.detections

    @property
    def mean_average_precision(self) -> float | None:
        """Area under the curve, as VOC since 2010; None where no class has objects."""
        return self.voc.map_area

    def write_report(self, folder: Path | str, score_threshold: float = 0.5) -> Path:
        """Writes the page with all of it, see :func:`keras_frcnn.evaluation.report.write_report`.

        Args:
            score_threshold: from which detections are shown; above 0.5 no other class of a box has
                a higher score.
        """
        return write_report(
            folder,
            self.voc,
            subject=self.subject,
            score_threshold=score_threshold,
            coco=self.coco,
        )

    def to_json(self) -> dict[str, Any]:
        """Everything but the detections, for a file."""
        coco = {} if self.coco is None else {"coco": self.coco.to_json()}
        return {**self.voc.to_json(), **self.about, **coco}


def evaluate(
    detector: Detector,
    data: Dataset,
    *,
    proposals: GivenProposals | None = None,
    iou_threshold: float = 0.5,
    coco: bool = False,
    report: Path | str | None = None,
    when_stopped: Callable[[Dataset, dict[str, ImageDetections]], None] | None = None,
    passes: Passes = lambda entries, title: entries,
) -> Evaluation:
    """Runs a detector on every image of a data set and evaluates what it finds.

    A run is evaluated by its recipe's own filter, and never on images that it was trained on.

    Args:
        detector: of :func:`keras_frcnn.load`.
        proposals: boxes to classify in place of the detector's own, all of them; the paper takes
            ``proposals.best(2000)``.
        iou_threshold: least overlap of a true positive.
        coco: adds COCO's metrics; needs the extra ``paper``.
        report: folder for a page with curves, confusion and the worst images.
        when_stopped: called when a signal stops the evaluation, with the images that are finished
            and what was found in them.
        passes: shows progress: ``(entries, title) -> entries``.

    Raises:
        UserError: the detector does not know the class of an object or was trained on an image, an
            image cannot be read or has no proposals, or the extra is not installed.
    """
    if coco:  # before hours of detection, as all that can be known
        check_available()
    if proposals is not None:
        proposals.check_covers(data.examples)
    detector = detector.for_evaluation()
    data = detector.prepared(data.with_classes(detector.class_names))
    start = time.monotonic()
    detections: dict[str, ImageDetections] = {}

    def best() -> dict[str, ImageDetections]:
        return best_of_all(detections, len(data.class_names), detector.mean_per_class)

    found = detect_dataset(detector, data, given=proposals)
    try:
        for example, each in passes(found, "detecting"):
            detections[example.key] = each
    except KeyboardInterrupt:
        if detections and when_stopped is not None:
            finished = dataclasses.replace(data, examples=data.examples[: len(detections)])
            with held_back():
                when_stopped(finished, best())
        raise
    seconds = (time.monotonic() - start) / len(data)
    about = {**detector.about(), "seconds_per_image": seconds}
    if proposals is not None:
        about["proposals"] = max(len(entry.scores) for entry in proposals.entries.values())
    result = evaluate_detections(
        data,
        best(),
        iou_threshold=iou_threshold,
        strictly_greater=detector.strictly_greater,
        coco=coco,
    )
    result = dataclasses.replace(result, about=about, subject=detector.source)
    if report is None:
        return result
    return dataclasses.replace(result, report=result.write_report(report))


def evaluate_detections(
    data: Dataset,
    detections: dict[str, ImageDetections],
    *,
    iou_threshold: float = 0.5,
    strictly_greater: bool = False,
    coco: bool = False,
    source: str = "detections",
) -> Evaluation:
    """Evaluates detections that are there already.

    Args:
        detections: by ``Example.key``; of other images they are left out.
        strictly_greater: whether the overlap must exceed the threshold.
        source: where they come from.
    """
    keys = {example.key for example in data.examples}
    detections = {key: found for key, found in detections.items() if key in keys}
    voc = evaluate_voc(
        data, detections, iou_threshold=iou_threshold, strictly_greater=strictly_greater
    )
    metrics = evaluate_coco(data, detections) if coco else None
    return Evaluation(voc, {"detections": source}, source, metrics)
