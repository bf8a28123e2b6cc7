"""Table 5: one-stage detection (dense windows) against two-stage (proposals), ZF."""

from __future__ import annotations

from functools import partial

from keras_frcnn.paper import published
from keras_frcnn.paper.kept_proposals import external_proposals, rpn_proposals
from keras_frcnn.paper.sheet import MAP_COLUMNS, Column, Sheet
from keras_frcnn.paper.systems import System, comparison, error_meaning, repeated
from keras_frcnn.paper.trainings import fast_rcnn, four_steps
from keras_frcnn.paper.workshop import TEST_SETS, Absent, Workshop

SCALES = (480, 576, 688, 864, 1200)  # short sides of the pyramid (SPPnet, Fast R-CNN)
LABELS = {
    "two-stage": ("two-stage", "RPN, unshared", "300", 1),
    "one-stage-1": ("one-stage", "dense, 3 scales, 3 ratios", "all windows", 1),
    "one-stage-5": ("one-stage", "dense, 3 scales, 3 ratios", "all windows", 5),
}


def make(workshop: Workshop) -> Sheet:
    """The three rows; the pyramid is scaled with the short side."""
    network, seeds = workshop.budget.network_or("zf"), workshop.budget.seeds
    found, rows, windows = {}, [], ""
    for key, labels in LABELS.items():
        paper = published.TABLE5[key]
        try:
            result = found[key] = repeated(workshop, partial(_system, workshop, network, key))
        except Absent as reason:
            rows.append((*labels, paper, None, None, str(reason)))
            continue
        if key != "two-stage":
            dense = external_proposals(workshop, "windows", TEST_SETS["07"])
            windows = f", {dense.mean_number():,.0f} an image"
        rows.append((*labels, paper, result.mean, result.error, ""))
    stride = workshop.budget.window_stride
    thinned = "every position" if stride == 1 else f"one position in {stride} in both directions"
    remarks = [
        comparison(
            "Two-stage", f"one-stage with scales: {LABELS[key][3]}", found["two-stage"], found[key]
        )
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
            *MAP_COLUMNS,
            Column("remark"),
        ),
        rows=tuple(rows),
        caption=f"{workshop.caption(seeds)} {network}; windows at {thinned}{windows}, in training "
        f"too; 5 scales: short sides {', '.join(map(str, pyramid(workshop)))}; "
        f"{len(workshop.detected(TEST_SETS['07']))} images of VOC 2007 test; "
        f"{error_meaning(seeds)}.",
        remarks=tuple(remarks),
    )


def pyramid(workshop: Workshop) -> tuple[int, ...]:
    """:data:`SCALES` in proportion to the short side of the recipe."""
    factor = workshop.budget.recipe().image.short_side / 600
    return tuple(round(side * factor) for side in SCALES)


def _system(workshop: Workshop, network: str, key: str, seed: int) -> System:
    if key == "two-stage":
        run = four_steps(workshop, network, seed=seed)
        proposals = rpn_proposals(workshop, run, TEST_SETS["07"], stage=1)
        return System(run, 2, proposals, 300)
    run = fast_rcnn(workshop, network, "windows", seed=seed)
    windows = external_proposals(workshop, "windows", TEST_SETS["07"])
    scales = pyramid(workshop) if key == "one-stage-5" else ()
    return System(run, None, windows, None, scales)
