"""Footnotes 2 and 3 and the cross-boundary rule of section 3.3, as trainings of the RPN.

Shapes and names
----------------
variant  a change of the recipe's RPN; the others differ from the first in one field.
"""

from __future__ import annotations

import dataclasses

from keras_frcnn.evaluation.recall import proposal_recall
from keras_frcnn.paper.records import last_losses
from keras_frcnn.paper.sheet import Column, Sheet, interval
from keras_frcnn.paper.workshop import TEST_SETS, Workshop

PROPOSALS = 300
VARIANTS = {
    "softmax": ("softmax objectness, lambda 10, positions: the recipe", {}),
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
    rows = []
    for name, (label, changes) in VARIANTS.items():
        changed = dataclasses.replace(recipe, rpn=dataclasses.replace(recipe.rpn, **changes))
        run = workshop.rpn_alone(name, network, changed)
        losses = last_losses(run, stage=1)
        proposals = workshop.rpn_proposals(run, TEST_SETS["07"], stage=1, most=PROPOSALS)
        boxes = {e.key: proposals.of_example(e).boxes_image for e in dataset.examples}
        found = proposal_recall(dataset, boxes, PROPOSALS)
        rows.append(
            (
                label,
                losses["rpn_class_loss"],
                losses["rpn_box_loss"],
                100 * float(found.recall[0]),
                interval(found.recall_low[0], found.recall_high[0]),
                100 * found.average_recall,
            )
        )
    return Sheet(
        name="loss",
        title="Losses of the region proposal network (footnotes 2 and 3, section 3.3)",
        columns=(
            Column("training"),
            Column("class loss at the end", 3),
            Column("box loss at the end", 3),
            Column(f"recall at IoU 0.5, {PROPOSALS} proposals, %", 1),
            Column("95 % interval"),
            Column("average recall, %", 1),
        ),
        rows=tuple(rows),
        caption=f"{workshop.caption()} {network}, {len(dataset)} images of VOC 2007 test, "
        f"{found.objects} objects.",
        remarks=(
            "The paper gives no numbers here. It says that logistic objectness is an alternative, "
            "that the result hardly depends on lambda, and that training with cross-boundary "
            "anchors does not converge.",
            "Box losses of different normalisers do not compare with each other; losses are means "
            "over the last fifth of the training.",
        ),
    )
