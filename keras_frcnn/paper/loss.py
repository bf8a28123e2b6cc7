"""Footnotes 2 and 3 and the cross-boundary rule of section 3.3, as trainings of the RPN."""

from __future__ import annotations

import dataclasses

import numpy as np

from keras_frcnn.evaluation.recall import proposal_recall, recall_contrast
from keras_frcnn.paper.kept_proposals import rpn_proposals
from keras_frcnn.paper.sheet import NO_RECALL, RECALL_COLUMNS, Column, Sheet, points, recall_cells
from keras_frcnn.paper.trainings import rpn_alone
from keras_frcnn.paper.workshop import TEST_SETS, Absent, Workshop, countable_objects
from keras_frcnn.runs.folder import RunFolder
from keras_frcnn.runs.metrics import read_records

PROPOSALS = 300
VARIANTS = {
    "softmax": (
        "softmax objectness, lambda 10, positions: the paper",
        {
            "objectness": "softmax",
            "box_normaliser": "positions",
            "box_weight": 10.0,
            "keep_cross_boundary": False,
        },
    ),
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


def make(workshop: Workshop) -> Sheet:
    """Losses at the end of training and recall of the proposals, for each variant."""
    network = workshop.budget.network_or("vgg16")
    dataset = workshop.data(TEST_SETS["07"])
    recipe = workshop.budget.recipe()
    published_rules = VARIANTS["softmax"][1]
    rows, kept = [], {}
    for name, (label, changes) in VARIANTS.items():
        rpn = dataclasses.replace(recipe.rpn, **{**published_rules, **changes})
        try:
            run = rpn_alone(workshop, name, network, dataclasses.replace(recipe, rpn=rpn))
        except Absent as reason:  # a training that diverges, too: the paper expects one to
            rows.append((label, None, None, *NO_RECALL, None, str(reason)))
            continue
        losses = last_losses(run, stage=1)
        boxes = kept[label] = rpn_proposals(workshop, run, TEST_SETS["07"], stage=1).boxes
        found = proposal_recall(dataset, boxes, PROPOSALS)
        rows.append(
            (
                label,
                losses["rpn_class_loss"],
                losses["rpn_box_loss"],
                *recall_cells(found),
                100 * found.average_recall,
                "",
            )
        )
    own = VARIANTS["softmax"][0]
    contrasts = {
        label: recall_contrast(dataset, [(1, boxes, PROPOSALS), (-1, kept[own], PROPOSALS)])
        for label, boxes in kept.items()
        if label != own and own in kept
    }
    return Sheet(
        name="loss",
        title="Losses of the region proposal network (footnotes 2 and 3, section 3.3)",
        columns=(
            Column("training"),
            Column("class loss at the end", 3),
            Column("box loss at the end", 3),
            *RECALL_COLUMNS,
            Column("average recall, %", 1),
            Column("remark"),
        ),
        rows=tuple(rows),
        caption=f"{workshop.caption()} {network}, stage 1 alone; {PROPOSALS} proposals of "
        f"{len(dataset)} images of VOC 2007 test, {countable_objects(dataset)} objects.",
        remarks=(
            "The paper gives no numbers here. It says that logistic objectness is an alternative, "
            "how both normalisations balance the two losses, and that training with cross-boundary "
            "anchors does not converge.",
            "Box losses of different normalisers do not compare with each other; losses are means "
            "over the last fifth of the training.",
            *(
                f"Recall, {label} minus the first row: {points(found)}."
                for label, found in contrasts.items()
            ),
        ),
    )


def last_losses(run: RunFolder, stage: int) -> dict[str, float]:
    """Mean of every loss of a stage over the last fifth of its records: single images jump."""
    records = [record for record in read_records(run.metrics_file) if record["stage"] == stage]
    if not records:
        raise ValueError(f"{run.metrics_file} has no record of stage {stage}")
    last = records[-max(1, round(len(records) / 5)) :]
    names = [name for name in last[0] if name.endswith("loss")]
    return {name: float(np.mean([record[name] for record in last])) for name in names}
