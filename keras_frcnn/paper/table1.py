"""Table 1: proposals at training and testing time, and ablations of the RPN (VOC 2007, ZF).

Shapes and names
----------------
setting  one row of the table.
ss, eb   Selective Search, EdgeBoxes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from keras_frcnn.data.dataset import Dataset
from keras_frcnn.evaluation.recall import (
    ProposalRecall,
    RecallContrast,
    proposal_recall,
    recall_contrast,
)
from keras_frcnn.paper import published
from keras_frcnn.paper.sheet import Cell, Column, Sheet, interval
from keras_frcnn.paper.systems import Evaluated, claim, difference
from keras_frcnn.paper.workshop import TEST_SETS, Absent, Workshop
from keras_frcnn.proposals.given import GivenProposals
from keras_frcnn.runs import RunFolder

METHODS = {"ss": "Selective Search", "eb": "EdgeBoxes"}
COLUMNS = (
    Column("trained on"),
    Column("boxes", 0),
    Column("tested on"),
    Column("proposals", 0),
    Column("paper, mAP %", 1),
    Column("ours, mAP %", 1),
    Column("standard error", 1),
    Column("recall at IoU 0.5, %", 1),
    Column("95 % interval"),
    Column("remark"),
)


@dataclass(frozen=True)
class Setting:
    """One row.

    Attributes:
        key: in :data:`published.TABLE1`.
        trained_on: ``ss``, ``eb``, ``rpn-shared`` or ``rpn-unshared``.
        tested_on: ``ss``, ``eb``, ``rpn`` (this detector's), or ``rpn-vgg``.
        proposals: how many of each image at test.
        variant: ``""``, ``no-nms``, ``no-cls`` or ``no-reg``.
    """

    key: str
    trained_on: str
    tested_on: str
    proposals: int
    variant: str = ""


SETTINGS = (
    Setting("ss", "ss", "ss", 2000),
    Setting("eb", "eb", "eb", 2000),
    Setting("rpn-shared", "rpn-shared", "rpn", 300),
    Setting("rpn-unshared", "rpn-unshared", "rpn", 300),
    Setting("rpn-100", "ss", "rpn", 100),
    Setting("rpn-300", "ss", "rpn", 300),
    Setting("rpn-1000", "ss", "rpn", 1000),
    Setting("rpn-no-nms-6000", "ss", "rpn", 6000, "no-nms"),
    Setting("rpn-no-cls-100", "ss", "rpn", 100, "no-cls"),
    Setting("rpn-no-cls-300", "ss", "rpn", 300, "no-cls"),
    Setting("rpn-no-cls-1000", "ss", "rpn", 1000, "no-cls"),
    Setting("rpn-no-reg-300", "ss", "rpn", 300, "no-reg"),
    Setting("rpn-no-reg-1000", "ss", "rpn", 1000, "no-reg"),
    Setting("rpn-vgg-300", "ss", "rpn-vgg", 300),
)


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a row shows: one evaluation for each seed, and the recall of the first's proposals.

    Attributes:
        boxes: these proposals by ``Example.key``, best first.
    """

    evaluated: tuple[Evaluated, ...]
    recall: ProposalRecall
    boxes: dict[str, np.ndarray]

    @property
    def mean(self) -> float:
        """mAP over the seeds."""
        return float(np.mean([entry.mean for entry in self.evaluated]))

    @property
    def error(self) -> float:
        """Of the mean: from the seeds where there are several, else the bootstrap over images."""
        if len(self.evaluated) > 1:
            return float(np.std([entry.mean for entry in self.evaluated], ddof=1))
        return self.evaluated[0].error


def make(workshop: Workshop) -> Sheet:
    """The fourteen rows and what may be said of their directions."""
    network = workshop.budget.network_or("zf")
    outcomes, rows = {}, []
    for setting in SETTINGS:
        labels = _labels(setting, network, workshop)
        paper = published.TABLE1[setting.key]
        try:
            found = outcomes[setting.key] = outcome(workshop, setting, network)
        except Absent as reason:
            rows.append((*labels, paper, None, None, None, "-", str(reason)))
            continue
        rows.append((*labels, paper, *_numbers(found), ""))
    runs = workshop.budget.seeds
    spread = "over images (bootstrap)" if runs == 1 else f"deviation over {runs} runs"
    return Sheet(
        name="table1",
        title="Table 1: detection with various train-time and test-time proposals",
        columns=COLUMNS,
        rows=tuple(rows),
        caption=f"{workshop.caption()} Detectors {network}, trained on VOC 2007 trainval, "
        f"{len(workshop.data(TEST_SETS['07']))} images of VOC 2007 test; 11-point metric; the "
        f"standard error is {spread}.",
        remarks=tuple(_remarks(workshop, outcomes)),
    )


def outcome(workshop: Workshop, setting: Setting, network: str) -> Outcome:
    """Trains, proposes, detects and evaluates what a row needs, as far as it is not there.

    Raises:
        Absent: data, weights or a library are not there.
    """
    found, boxes = [], {}
    for seed in range(workshop.budget.seeds):
        detector, stage = _detector(workshop, setting, network, seed)
        proposals = _proposals(workshop, setting, network, seed)
        name = f"table1-{network}-{setting.key}-{seed}"
        found.append(workshop.evaluate(name, detector, stage, proposals, setting.proposals))
        if seed == 0:
            boxes = boxes_of(workshop, proposals)
    dataset = workshop.data(TEST_SETS["07"])
    return Outcome(tuple(found), proposal_recall(dataset, boxes, setting.proposals), boxes)


def boxes_of(workshop: Workshop, proposals: GivenProposals) -> dict[str, np.ndarray]:
    """Proposals of the images of VOC 2007 test by ``Example.key``, best first."""
    dataset = workshop.data(TEST_SETS["07"])
    return {e.key: proposals.of_example(e).boxes_image for e in dataset.examples}


def points(found: RecallContrast) -> str:
    """A contrast in points with its interval."""
    return f"{100 * found.value:+.1f} points ({interval(found.low, found.high)})"


def _detector(
    workshop: Workshop, setting: Setting, network: str, seed: int
) -> tuple[RunFolder, int | None]:
    if setting.trained_on in METHODS:
        return workshop.fast_rcnn(network, setting.trained_on, seed=seed), None
    stage = 4 if setting.trained_on == "rpn-shared" else 2
    return workshop.four_steps(network, seed=seed), stage


def _proposals(workshop: Workshop, setting: Setting, network: str, seed: int) -> GivenProposals:
    test = TEST_SETS["07"]
    if setting.tested_on in METHODS:
        return workshop.external(setting.tested_on, test)
    source = workshop.budget.network_or("vgg16") if setting.tested_on == "rpn-vgg" else network
    run = workshop.four_steps(source, seed=seed)
    stage = 3 if setting.trained_on == "rpn-shared" else 1
    most = max(s.proposals for s in SETTINGS if s.variant == setting.variant)
    if setting.variant == "no-cls":  # drawn at random, so every number is a draw of its own
        most = setting.proposals
    return workshop.rpn_proposals(run, test, stage=stage, most=most, variant=setting.variant)


def _labels(setting: Setting, network: str, workshop: Workshop) -> tuple[Cell, ...]:
    trained = METHODS.get(setting.trained_on, f"RPN {network}, {setting.trained_on[4:]}")
    if setting.tested_on in METHODS:
        tested = METHODS[setting.tested_on]
    else:
        vgg = setting.tested_on == "rpn-vgg"
        source = workshop.budget.network_or("vgg16") if vgg else network
        variant = f" ({setting.variant.replace('-', ' ')})" if setting.variant else ""
        tested = f"RPN {source}{variant}"
    return trained, 2000, tested, setting.proposals


def _numbers(found: Outcome) -> tuple[Cell, ...]:
    recall = found.recall
    ends = interval(recall.recall_low[0], recall.recall_high[0])
    return found.mean, found.error, 100 * float(recall.recall[0]), ends


def _remarks(workshop: Workshop, outcomes: dict[str, Outcome]):
    pairs = (
        ("rpn-shared", "ss", "RPN with shared convolutions", "Selective Search"),
        ("rpn-shared", "rpn-unshared", "Shared", "unshared convolutions"),
        ("rpn-300", "rpn-no-reg-300", "300 proposals with reg", "without"),
        ("rpn-100", "rpn-no-cls-100", "100 proposals with cls", "without"),
    )
    for first, second, name, other in pairs:
        if first in outcomes and second in outcomes:
            one, two = outcomes[first].evaluated[0], outcomes[second].evaluated[0]
            yield f"mAP: {claim(name, other, difference(one, two))}"
    yield from _recall_remarks(workshop.data(TEST_SETS["07"]), outcomes)


def _recall_remarks(dataset: Dataset, outcomes: dict[str, Outcome]):
    """What leaving out cls and reg does to recall; brackets are 95 % intervals over images."""

    def loss(variant: str, count: int):
        keys = (f"rpn-{count}", f"rpn-{variant}-{count}")
        return [(sign, outcomes[key].boxes, count) for sign, key in zip((1, -1), keys, strict=True)]

    if {"rpn-100", "rpn-no-cls-100", "rpn-1000", "rpn-no-cls-1000"} <= outcomes.keys():
        few, many = loss("no-cls", 100), loss("no-cls", 1000)
        more = recall_contrast(dataset, few + [(-sign, *rest) for sign, *rest in many])
        yield (
            "Recall at IoU 0.5, lost without cls: "
            f"{points(recall_contrast(dataset, few))} with 100 proposals, "
            f"{points(recall_contrast(dataset, many))} with 1000; the difference: "
            f"{points(more)}{'' if more.resolved else ', not resolved at this budget'}."
        )
    if {"rpn-300", "rpn-no-reg-300"} <= outcomes.keys():
        for threshold in (0.5, 0.7):
            lost = recall_contrast(dataset, loss("no-reg", 300), iou_threshold=threshold)
            yield (
                f"Recall of 300 proposals at IoU {threshold}, lost without reg: {points(lost)}"
                f"{'' if lost.resolved else ', not resolved at this budget'}."
            )
