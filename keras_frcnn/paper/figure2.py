"""Figure 2: recall of proposals against the overlap asked for, for 300, 1000 and 2000 proposals.

Shapes and names
----------------
T  IoU thresholds from 0.5 to 1.
method  a line of the figure.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from keras_frcnn.data.dataset import Dataset
from keras_frcnn.evaluation.recall import ProposalRecall, proposal_recall, recall_contrast
from keras_frcnn.paper.sheet import Column, Sheet, interval
from keras_frcnn.paper.table1 import boxes_of, points
from keras_frcnn.paper.workshop import TEST_SETS, Absent, Workshop
from keras_frcnn.plots import save_figure

NUMBERS = (300, 1000, 2000)
COLOURS = {"ss": "tab:blue", "eb": "tab:green", "rpn-zf": "tab:orange", "rpn-vgg16": "tab:red"}


def make(workshop: Workshop) -> Sheet:
    """The figure, its numbers, and how much each method loses from 2000 to 300 proposals."""
    dataset = workshop.data(TEST_SETS["07"])
    boxes: dict[str, dict[str, np.ndarray]] = {}
    curves: dict[str, dict[int, ProposalRecall]] = {}
    labels: dict[str, str] = {}
    absent: dict[str, str] = {}
    for key, (label, source) in _sources(workshop).items():
        labels[key] = label
        try:
            proposals = source()
        except Absent as reason:
            absent[key] = str(reason)
            continue
        boxes[key] = boxes_of(workshop, proposals)
        curves[key] = {number: proposal_recall(dataset, boxes[key], number) for number in NUMBERS}
    rows = []
    for key, label in labels.items():
        for number in NUMBERS:
            if key in absent:
                rows.append((label, number, None, absent[key], None, None, "-"))
                continue
            found = curves[key][number]
            rows.append(
                (
                    label,
                    number,
                    100 * _at(found, 0.5),
                    interval(found.recall_low[0], found.recall_high[0]),
                    100 * _at(found, 0.7),
                    100 * found.average_recall,
                    interval(found.average_recall_low, found.average_recall_high),
                )
            )
    figure = workshop.folder / "figure2.png"
    draw(curves, labels, figure)
    any_curve = next(iter(curves.values()), None)
    objects = any_curve[NUMBERS[0]].objects if any_curve else 0
    return Sheet(
        name="figure2",
        title="Figure 2: recall against overlap",
        columns=(
            Column("method"),
            Column("proposals", 0),
            Column("recall at IoU 0.5, %", 1),
            Column("95 % interval"),
            Column("recall at IoU 0.7, %", 1),
            Column("average recall, %", 1),
            Column("95 % interval "),
        ),
        rows=tuple(rows),
        caption=f"{workshop.caption()} {len(dataset)} images of "
        f"VOC 2007 test, {objects} objects, difficult ones left out; intervals by the bootstrap "
        "over images.",
        remarks=tuple(_drops(dataset, boxes, labels)),
        figures=(figure.name,),
    )


def _sources(workshop: Workshop):
    """Key to label and a function that gives the proposals; one RPN where one network stands in."""
    test = TEST_SETS["07"]
    sources = {
        "ss": ("Selective Search", lambda: workshop.external("ss", test)),
        "eb": ("EdgeBoxes", lambda: workshop.external("eb", test)),
    }
    networks = dict.fromkeys(workshop.budget.network_or(name) for name in ("zf", "vgg16"))
    for network in networks:
        sources[f"rpn-{network}"] = (f"RPN {network}", _rpn(workshop, network))
    return sources


def _rpn(workshop: Workshop, network: str):
    def proposals():
        run = workshop.four_steps(network)
        return workshop.rpn_proposals(run, TEST_SETS["07"], stage=1, most=max(NUMBERS))

    return proposals


def draw(curves: dict[str, dict[int, ProposalRecall]], labels: dict[str, str], png: Path) -> None:
    """Three panels, as in the paper; the shades are 95 % intervals."""
    figure = Figure(figsize=(12, 4.2), dpi=110, layout="constrained")
    for axis, number in zip(figure.subplots(1, len(NUMBERS), sharey=True), NUMBERS, strict=True):
        for key, by_number in curves.items():
            found = by_number[number]
            colour = COLOURS.get(key, "tab:purple")
            axis.plot(found.iou_thresholds, found.recall, color=colour, label=labels[key])
            ends = (found.recall_low, found.recall_high)
            axis.fill_between(found.iou_thresholds, *ends, color=colour, alpha=0.15, lw=0)
        axis.set_title(f"{number} proposals")
        axis.set_xlabel("IoU")
        axis.set_xlim(0.5, 1)
        axis.set_ylim(0, 1)
        axis.grid(alpha=0.3)
    figure.axes[0].set_ylabel("recall")
    handles, names = figure.axes[0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, names, loc="outside lower center", ncols=len(handles))
    save_figure(figure, png)


def _at(found: ProposalRecall, threshold: float) -> float:
    index = found.iou_thresholds.tolist().index(threshold)
    return float(found.recall[index])


def _drops(dataset: Dataset, boxes: dict[str, dict[str, np.ndarray]], labels: dict[str, str]):
    """What each method loses from 2000 to 300 proposals, and whether RPNs lose less than SS."""

    def drop(key: str):
        return [(1, boxes[key], 2000), (-1, boxes[key], 300)]

    for key in boxes:
        lost = recall_contrast(dataset, drop(key))
        yield (f"{labels[key]}: recall at IoU 0.5 lost from 2000 to 300 proposals: {points(lost)}.")
    for key in boxes:
        if not key.startswith("rpn") or "ss" not in boxes:
            continue
        less = recall_contrast(dataset, drop("ss") + [(-sign, *rest) for sign, *rest in drop(key)])
        yield (
            f"Loss of Selective Search minus that of {labels[key]}: {points(less)}"
            f"{'' if less.resolved else ', not resolved at this budget'}."
        )
