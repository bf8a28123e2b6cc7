"""Figure 2: recall of proposals against the overlap asked for, for 300, 1000 and 2000 proposals."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from keras_frcnn.evaluation.recall import ProposalRecall, proposal_recall, recall_contrast
from keras_frcnn.paper.kept_proposals import (
    KeptProposals,
    about_edges,
    external_proposals,
    rpn_proposals,
)
from keras_frcnn.paper.sheet import (
    NO_RECALL,
    RECALL_COLUMNS,
    Column,
    Sheet,
    interval,
    points,
    recall_cells,
)
from keras_frcnn.paper.trainings import four_steps
from keras_frcnn.paper.workshop import TEST_SETS, Absent, Workshop, countable_objects
from keras_frcnn.plots import save_figure

NUMBERS = (300, 1000, 2000)
COLOURS = {"ss": "tab:blue", "eb": "tab:green", "rpn-zf": "tab:orange", "rpn-vgg16": "tab:red"}


def make(workshop: Workshop) -> Sheet:
    """The figure, its numbers, and how much each method loses from 2000 to 300 proposals."""
    dataset = workshop.data(TEST_SETS["07"])
    kept: dict[str, KeptProposals] = {}
    curves: dict[str, dict[int, ProposalRecall]] = {}
    labels: dict[str, str] = {}
    rows = []
    for key, (label, source) in _sources(workshop).items():
        labels[key] = label
        try:
            proposals = kept[key] = source()
        except Absent as reason:
            nothing = (None, *NO_RECALL, None, None, "-", str(reason))
            rows += [(label, number, *nothing) for number in NUMBERS]
            continue
        boxes = proposals.boxes
        curves[key] = {number: proposal_recall(dataset, boxes, number) for number in NUMBERS}
        for number, found in curves[key].items():
            rows.append(
                (
                    label,
                    number,
                    proposals.mean_number(number),
                    *recall_cells(found),
                    100 * float(found.recall[found.iou_thresholds.tolist().index(0.7)]),
                    100 * found.average_recall,
                    interval(found.average_recall_low, found.average_recall_high),
                    "",
                )
            )
    figure = workshop.folder / "figure2.png"
    draw(curves, labels, figure)
    return Sheet(
        name="figure2",
        title="Figure 2: recall against overlap",
        columns=(
            Column("method"),
            Column("proposals", 0),
            Column("ours in the mean", 0),
            *RECALL_COLUMNS,
            Column("recall at IoU 0.7, %", 1),
            Column("average recall, %", 1),
            Column("95 % interval "),
            Column("remark"),
        ),
        rows=tuple(rows),
        caption=f"{workshop.caption()} {len(dataset)} images of VOC 2007 test, "
        f"{countable_objects(dataset)} objects, difficult ones left out; intervals by the "
        "bootstrap over images. A small input has fewer anchors, so an RPN may have fewer "
        "proposals than are asked for.",
        remarks=(*_drops(kept, labels), *about_edges(workshop)),
        figures=(figure.name,),
    )


def _sources(workshop: Workshop):
    """Key to label and a function that gives the proposals; one RPN where one network stands in."""
    test = TEST_SETS["07"]
    sources = {
        "ss": ("Selective Search", lambda: external_proposals(workshop, "ss", test)),
        "eb": ("EdgeBoxes", lambda: external_proposals(workshop, "eb", test)),
    }
    networks = dict.fromkeys(workshop.budget.network_or(name) for name in ("zf", "vgg16"))
    for network in networks:
        sources[f"rpn-{network}"] = (f"RPN {network}", _rpn(workshop, network))
    return sources


def _rpn(workshop: Workshop, network: str):
    return lambda: rpn_proposals(workshop, four_steps(workshop, network), TEST_SETS["07"], stage=1)


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


def _drops(kept: dict[str, KeptProposals], labels: dict[str, str]):
    """What each method loses from 2000 to 300 proposals, and whether RPNs lose less than SS."""
    drops = {key: [(1, entry.boxes, 2000), (-1, entry.boxes, 300)] for key, entry in kept.items()}
    for key, drop in drops.items():
        lost = recall_contrast(kept[key].dataset, drop)
        yield f"{labels[key]}: recall at IoU 0.5 lost from 2000 to 300 proposals: {points(lost)}."
    for key, drop in drops.items():
        if not key.startswith("rpn") or "ss" not in drops:
            continue
        terms = drops["ss"] + [(-sign, *rest) for sign, *rest in drop]
        less = recall_contrast(kept[key].dataset, terms)
        yield f"Loss of Selective Search minus that of {labels[key]}: {points(less)}."
