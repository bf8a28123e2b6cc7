"""What an evaluation leaves on disk."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from keras_frcnn.data.checks import report_text
from keras_frcnn.data.dataset import DataProblem
from keras_frcnn.detection.layouts import write_layouts
from keras_frcnn.evaluation.evaluate import Evaluation, with_report
from keras_frcnn.system.files import write_text


def write_evaluation(
    evaluation: Evaluation,
    folder: Path,
    *,
    suffix: str = "",
    layouts: Sequence[str] = (),
    report_score: float | None = None,
    problems: Sequence[DataProblem] = (),
    about: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Writes ``evaluation.json``, and what else is asked for; returns all files, to be told.

    Args:
        suffix: what all names end in.
        layouts: of the detections, see :func:`keras_frcnn.detection.layouts.write_layouts`.
        report_score: from which detections are shown in the report; ``None``: no report.
        problems: of the data, written where there are any.
        about: added to the record.
    """
    record = {**evaluation.to_json(), **(about or {})}
    written = [folder / f"evaluation{suffix}.json"]
    write_text(written[0], json.dumps(record, indent=2) + "\n")
    written += write_layouts(layouts, folder, evaluation.dataset, evaluation.detections, suffix)
    if report_score is not None:
        report = with_report(evaluation, folder / f"report{suffix}", report_score).report
        written += [] if report is None else [report]
    if problems:
        written.append(folder / f"evaluation_data{suffix}.txt")
        write_text(written[-1], report_text(problems))
    return written
