"""Figure 2: recall of proposals against the overlap asked for, for 300, 1000 and 2000 proposals.

Shapes and names
----------------
T  IoU thresholds from 0.5 to 1.
method  a line of the figure.
"""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from keras_frcnn.evaluation.recall import ProposalRecall
from keras_frcnn.paper.sheet import Column, Sheet, interval
from keras_frcnn.paper.table1 import recall_of
from keras_frcnn.paper.workshop import TEST_SETS, Absent, Workshop
from keras_frcnn.plots import save_figure

NUMBERS = (300, 1000, 2000)
COLOURS = {"ss": "tab:blue", "eb": "tab:green", "rpn-zf": "tab:orange", "rpn-vgg16": "tab:red"}


def make(workshop: Workshop) -> Sheet:
    """The figure, its numbers, and how much each method loses from 2000 to 300 proposals."""
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
        curves[key] = {number: recall_of(workshop, proposals, number) for number in NUMBERS}
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
        caption=f"{workshop.caption()} {len(workshop.data(TEST_SETS['07']))} images of "
        f"VOC 2007 test, {objects} objects, difficult ones left out; intervals by the bootstrap "
        "over images.",
        remarks=tuple(_drops(curves, labels)),
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
        axis.legend(loc="upper right")
    figure.axes[0].set_ylabel("recall")
    save_figure(figure, png)


def _at(found: ProposalRecall, threshold: float) -> float:
    index = found.iou_thresholds.tolist().index(threshold)
    return float(found.recall[index])


def _drops(curves, labels):
    for key, by_number in curves.items():
        many, few = by_number[2000], by_number[300]
        yield (
            f"{labels[key]}: recall at IoU 0.5 goes from {100 * many.recall[0]:.1f} to "
            f"{100 * few.recall[0]:.1f} % from 2000 to 300 proposals, average recall from "
            f"{100 * many.average_recall:.1f} to {100 * few.average_recall:.1f} %."
        )
