"""COCO's average precision and recall, computed by faster-coco-eval."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from keras_frcnn.data.dataset import Dataset
from keras_frcnn.detection.detections import ImageDetections
from keras_frcnn.detection.write_detections import DIFFICULT_RULE, coco_annotations, coco_results
from keras_frcnn.errors import check_installed
from keras_frcnn.evaluation.voc import decimal

# In the order in which COCO summarises them; areas are in square pixels of the original image.
METRICS = {
    "ap": "AP, IoU 0.50 to 0.95",
    "ap50": "AP50, IoU 0.50",
    "ap75": "AP75, IoU 0.75",
    "ap_small": "AP small, area below 32 x 32",
    "ap_medium": "AP medium, 32 x 32 to 96 x 96",
    "ap_large": "AP large, above 96 x 96",
    "ar_1": "AR1, one detection per image and class",
    "ar_10": "AR10, ten detections",
    "ar_100": "AR100, a hundred detections",
    "ar_small": "AR small, a hundred detections",
    "ar_medium": "AR medium",
    "ar_large": "AR large",
}


@dataclass(frozen=True)
class CocoEvaluation:
    """COCO's figures; None where there is nothing to find.

    Attributes:
        metrics: by the names of ``METRICS``.
        per_class: AP over IoU 0.50 to 0.95 by class name.
        difficult: how many objects are difficult, and ignored.
    """

    metrics: dict[str, float | None]
    per_class: dict[str, float | None]
    difficult: int

    @property
    def difficult_rule(self) -> str:
        """How difficult objects were counted, in words."""
        return f"{self.difficult} difficult objects. {DIFFICULT_RULE}"

    def to_json(self) -> dict[str, Any]:
        """The entry ``coco`` of ``evaluation.json``."""
        return {
            **self.metrics,
            "per_class": self.per_class,
            "difficult": self.difficult,
            "difficult_rule": DIFFICULT_RULE,
        }


def check_available() -> None:
    """Makes sure, before hours of work, that faster-coco-eval is installed.

    Raises:
        UserError: it is not.
    """
    check_installed("COCO's metrics (`coco`)", ["faster_coco_eval"], "paper")


def evaluate_coco(dataset: Dataset, detections: Mapping[str, ImageDetections]) -> CocoEvaluation:
    """AP and AR by COCO's protocol, at most 100 detections of an image and class.

    Difficult objects are treated by ``DIFFICULT_RULE``: COCO's evaluators overwrite ``ignore`` with
    ``iscrowd``, and a crowd would change the overlap and swallow any number of detections.

    Args:
        detections: by ``Example.key``; an image that is missing has none.
    """
    check_available()
    from faster_coco_eval import COCO, COCOeval_faster

    truth = COCO(coco_annotations(dataset))
    results = list(coco_results(dataset, detections))
    # loadRes does not take an empty list.
    found = truth.loadRes(results) if results else COCO({**truth.dataset, "annotations": []})
    evaluator = COCOeval_faster(truth, found, "bbox")
    evaluator.run()
    metrics = zip(METRICS, evaluator.stats[: len(METRICS)].tolist(), strict=True)
    # By IoU threshold, recall, class, area range and limit; -1 stands for nothing to find.
    precision = np.asarray(evaluator.eval["precision"])[:, :, :, 0, -1]
    return CocoEvaluation(
        metrics={name: None if value < 0 else value for name, value in metrics},
        per_class={
            name: _mean_of_known(precision[:, :, index])
            for index, name in enumerate(dataset.class_names)
        },
        difficult=sum(int(example.difficult.sum()) for example in dataset.examples),
    )


def print_coco(evaluation: CocoEvaluation, console: Console) -> None:
    """Prints the figures and how difficult objects were counted."""
    table = Table(title="COCO")
    table.add_column("figure")
    table.add_column("value", justify="right")
    for name, words in METRICS.items():
        table.add_row(words, decimal(evaluation.metrics[name]))
    table.add_section()
    for name, value in evaluation.per_class.items():
        table.add_row(f"AP of {name}", decimal(value))
    console.print(table)
    console.print(evaluation.difficult_rule)


def _mean_of_known(values: np.ndarray) -> float | None:
    known = values[values > -1]
    return float(known.mean()) if known.size else None
