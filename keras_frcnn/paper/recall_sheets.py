"""Recall of proposals: figure 2, and the losses of the RPN (footnotes 2 and 3, section 3.3)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from keras_frcnn.evaluation.recall import ProposalRecall, proposal_recall, recall_contrast
from keras_frcnn.paper.kept import (
    KeptProposals,
    about_edges,
    external_proposals,
    four_steps,
    rpn_alone,
    rpn_proposals,
)
from keras_frcnn.paper.sheet import (
    RECALL_COLUMNS,
    Cell,
    Sheet,
    columns,
    interval,
    points,
    recall_cells,
)
from keras_frcnn.paper.workshop import TEST_SETS, Workshop, countable_objects, tried
from keras_frcnn.plots import save_figure
from keras_frcnn.recipes import PAPER, Network
from keras_frcnn.runs.folder import RunFolder
from keras_frcnn.runs.metrics import read_records

TEST = TEST_SETS["07"]
NUMBERS = (300, 1000, 2000)  # figure 2
COLOURS = {"ss": "tab:blue", "eb": "tab:green", "rpn-zf": "tab:orange", "rpn-vgg16": "tab:red"}

LOSS_PROPOSALS = 300
# What a variant leaves as published, also where the budget's recipe is that of another run.
RULES = ("objectness", "box_normaliser", "box_weight", "keep_cross_boundary")
LOSSES: dict[str, tuple[str, dict[str, Any]]] = {
    "softmax": ("softmax objectness, lambda 10, positions: the paper", {}),
    "logistic": ("logistic objectness (footnote 2)", {"objectness": "logistic"}),
    "sampled": (
        "lambda 1, 256 sampled anchors (footnote 3)",
        {"box_normaliser": "sampled", "box_weight": 1.0},
    ),
    "cross-boundary": (
        "trained on cross-boundary anchors too (section 3.3)",
        {"keep_cross_boundary": True},
    ),
}


def make(workshop: Workshop, name: str) -> Sheet:
    """Figure 2 or the comparison of losses."""
    return _figure2(workshop, name) if name == "figure2" else _losses(workshop, name)


def _figure2(workshop: Workshop, name: str) -> Sheet:
    """The figure, its numbers, and how much each method loses from 2000 to 300 proposals."""
    dataset = workshop.data(TEST)
    labels, sources = _sources(workshop)
    kept, absent = tried(sources)
    curves: dict[str, dict[int, ProposalRecall]] = {}
    rows: list[tuple[Cell, ...]] = []
    for key, label in labels.items():
        if key in absent:
            nothing = (None, *recall_cells(None), None, None, "-", absent[key])
            rows += [(label, number, *nothing) for number in NUMBERS]
            continue
        boxes = kept[key].boxes
        curves[key] = {number: proposal_recall(dataset, boxes, number) for number in NUMBERS}
        for number, found in curves[key].items():
            rows.append(
                (
                    label,
                    number,
                    kept[key].mean_number(number),
                    *recall_cells(found),
                    100 * float(found.recall[found.iou_thresholds.tolist().index(0.7)]),
                    100 * found.average_recall,
                    interval(found.average_recall_low, found.average_recall_high),
                    "",
                )
            )
    figure = workshop.folder / f"{name}.png"
    draw(curves, labels, figure)
    return Sheet(
        name=name,
        title="Figure 2: recall against overlap",
        columns=columns(
            "method",
            ("proposals", 0),
            ("ours in the mean", 0),
            *RECALL_COLUMNS,
            ("recall at IoU 0.7, %", 1),
            ("average recall, %", 1),
            "95 % interval ",
            "remark",
        ),
        rows=tuple(rows),
        caption=f"{workshop.caption()} {len(dataset)} images of VOC 2007 test, "
        f"{countable_objects(dataset)} objects, difficult ones left out; intervals by the "
        "bootstrap over images. A small input has fewer anchors, so an RPN may have fewer "
        "proposals than are asked for.",
        remarks=(*_drops(kept, labels), *about_edges(workshop)),
        figures=(figure.name,),
    )


def _sources(
    workshop: Workshop,
) -> tuple[dict[str, str], dict[str, Callable[[], KeptProposals]]]:
    """Names and makers of proposals; one RPN where one network stands for both of the paper."""
    labels = {"ss": "Selective Search", "eb": "EdgeBoxes"}
    sources = {key: partial(external_proposals, workshop, key, TEST) for key in labels}
    for network in (workshop.budget.network_or("zf"), workshop.budget.network_or("vgg16")):
        labels[f"rpn-{network}"] = f"RPN {network}"
        sources[f"rpn-{network}"] = partial(_of_rpn, workshop, network)
    return labels, dict(sources)


def _of_rpn(workshop: Workshop, network: Network) -> KeptProposals:
    return rpn_proposals(workshop, four_steps(workshop, network), TEST, stage=1)


def draw(
    curves: Mapping[str, Mapping[int, ProposalRecall]], labels: Mapping[str, str], png: Path
) -> None:
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


def _drops(kept: Mapping[str, KeptProposals], labels: Mapping[str, str]) -> Iterator[str]:
    """What each method loses from 2000 to 300 proposals, and whether RPNs lose less than SS."""

    def drop(key: str, sign: float = 1):
        return [(sign, kept[key].boxes, 2000), (-sign, kept[key].boxes, 300)]

    for key, entry in kept.items():
        lost = recall_contrast(entry.dataset, drop(key))
        yield f"{labels[key]}: recall at IoU 0.5 lost from 2000 to 300 proposals: {points(lost)}."
    for key, entry in kept.items():
        if key.startswith("rpn") and "ss" in kept:
            less = recall_contrast(entry.dataset, drop("ss") + drop(key, sign=-1))
            yield f"Loss of Selective Search minus that of {labels[key]}: {points(less)}."


def _losses(workshop: Workshop, name: str) -> Sheet:
    """Losses at the end of training and recall of the proposals, for each variant."""
    network = workshop.budget.network_or("vgg16")
    dataset = workshop.data(TEST)
    # A training that diverges is absent, too: the paper expects one to.
    runs, absent = tried({key: partial(_trained_by, workshop, network, key) for key in LOSSES})
    kept: dict[str, Mapping[str, np.ndarray]] = {}
    rows: list[tuple[Cell, ...]] = []
    for key, (label, _) in LOSSES.items():
        if key in absent:
            rows.append((label, None, None, *recall_cells(None), None, absent[key]))
            continue
        losses = last_losses(runs[key], stage=1)
        kept[key] = rpn_proposals(workshop, runs[key], TEST, stage=1).boxes
        found = proposal_recall(dataset, kept[key], LOSS_PROPOSALS)
        ends = (losses["rpn_class_loss"], losses["rpn_box_loss"])
        rows.append((label, *ends, *recall_cells(found), 100 * found.average_recall, ""))
    own = kept.pop("softmax", None)
    contrasts = {
        key: recall_contrast(dataset, [(1, boxes, LOSS_PROPOSALS), (-1, own, LOSS_PROPOSALS)])
        for key, boxes in kept.items()
        if own is not None
    }
    return Sheet(
        name=name,
        title="Losses of the region proposal network (footnotes 2 and 3, section 3.3)",
        columns=columns(
            "training",
            ("class loss at the end", 3),
            ("box loss at the end", 3),
            *RECALL_COLUMNS,
            ("average recall, %", 1),
            "remark",
        ),
        rows=tuple(rows),
        caption=f"{workshop.caption()} {network}, stage 1 alone; {LOSS_PROPOSALS} proposals of "
        f"{len(dataset)} images of VOC 2007 test, {countable_objects(dataset)} objects.",
        remarks=(
            "The paper gives no numbers here. It says that logistic objectness is an alternative, "
            "how both normalisations balance the two losses, and that training with cross-boundary "
            "anchors does not converge.",
            "Box losses of different normalisers do not compare with each other; losses are means "
            "over the last fifth of the training.",
            *(
                f"Recall, {LOSSES[key][0]} minus the first row: {points(found)}."
                for key, found in contrasts.items()
            ),
        ),
    )


def _trained_by(workshop: Workshop, network: Network, key: str) -> RunFolder:
    recipe = workshop.budget.recipe()
    rules = {name: getattr(PAPER.rpn, name) for name in RULES} | LOSSES[key][1]
    rpn = dataclasses.replace(recipe.rpn, **rules)
    return rpn_alone(workshop, key, network, dataclasses.replace(recipe, rpn=rpn))


def last_losses(run: RunFolder, stage: int) -> dict[str, float]:
    """Mean of every loss of a stage over the last fifth of its records: single images jump.

    Raises:
        ValueError: the run has no record of the stage.
    """
    records = [record for record in read_records(run.metrics_file) if record["stage"] == stage]
    if not records:
        raise ValueError(f"{run.metrics_file} has no record of stage {stage}")
    last = records[-max(1, round(len(records) / 5)) :]
    names = [name for name in last[0] if name.endswith("loss")]
    return {name: float(np.mean([record[name] for record in last])) for name in names}
