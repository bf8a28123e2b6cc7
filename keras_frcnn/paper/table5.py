"""Table 5: one-stage detection (dense windows) against two-stage (proposals), ZF.

Shapes and names
----------------
windows  dense windows, to which the one-stage system's Fast R-CNN gives classes and boxes.
"""

from __future__ import annotations

import numpy as np

from keras_frcnn.paper import published
from keras_frcnn.paper.sheet import Column, Sheet
from keras_frcnn.paper.systems import claim, difference
from keras_frcnn.paper.workshop import TEST_SETS, Absent, Workshop

SCALES = (480, 576, 688, 864, 1200)  # short sides of the pyramid (SPPnet, Fast R-CNN)
LABELS = {
    "two-stage": ("two-stage", "RPN, unshared", "300", 1),
    "one-stage-1": ("one-stage", "dense, 3 scales, 3 ratios", "all windows", 1),
    "one-stage-5": ("one-stage", "dense, 3 scales, 3 ratios", "all windows", 5),
}


def make(workshop: Workshop) -> Sheet:
    """The three rows; the pyramid is scaled with the short side."""
    network = workshop.budget.network_or("zf")
    found, rows, number = {}, [], None
    for key, labels in LABELS.items():
        paper, remark = published.TABLE5[key], ""
        try:
            result, number = _system(workshop, network, key)
        except Absent as reason:
            rows.append((*labels, paper, None, None, str(reason)))
            continue
        found[key] = result
        rows.append((*labels, paper, result.mean, result.error, remark))
    stride = workshop.budget.window_stride
    thinned = "every position" if stride == 1 else f"every {stride}th position in both directions"
    remarks = [
        claim("Two-stage", "one-stage", difference(found["two-stage"], found[key]))
        for key in ("one-stage-1", "one-stage-5")
        if key in found and "two-stage" in found
    ]
    return Sheet(
        name="table5",
        title="Table 5: one-stage detection against two-stage proposal and detection",
        columns=(
            Column("system"),
            Column("proposals"),
            Column("number"),
            Column("scales of the image", 0),
            Column("paper, mAP %", 1),
            Column("ours, mAP %", 1),
            Column("standard error", 1),
            Column("remark"),
        ),
        rows=tuple(rows),
        caption=f"{workshop.caption()} {network}; windows at {thinned}"
        + (f", {number:,.0f} an image" if number else "")
        + f"; {len(workshop.data(TEST_SETS['07']))} images of VOC 2007 test.",
        remarks=tuple(remarks),
    )


def _system(workshop: Workshop, network: str, key: str):
    if key == "two-stage":
        run = workshop.four_steps(network)
        proposals = workshop.rpn_proposals(run, TEST_SETS["07"], stage=1, most=300)
        return workshop.evaluate(f"table5-{network}-{key}", run, 2, proposals, 300), None
    run = workshop.fast_rcnn(network, "windows")
    windows = workshop.external("windows", TEST_SETS["07"])
    scales = ()
    if key == "one-stage-5":
        factor = workshop.budget.recipe().image.short_side / 600
        scales = tuple(round(side * factor) for side in SCALES)
    name = f"table5-{network}-{key}-{workshop.budget.window_stride}"
    number = np.mean([len(entry.scores) for entry in windows.entries.values()])
    return workshop.evaluate(name, run, None, windows, None, scales=scales), float(number)
