"""Table 1: proposals at training and testing time, and ablations of the RPN (VOC 2007, ZF)."""

from __future__ import annotations

from dataclasses import dataclass

from keras_frcnn.evaluation.recall import ProposalRecall, proposal_recall, recall_contrast
from keras_frcnn.paper import published
from keras_frcnn.paper.kept_proposals import (
    KeptProposals,
    about_edges,
    external_proposals,
    rpn_proposals,
)
from keras_frcnn.paper.sheet import (
    MAP_COLUMNS,
    NO_RECALL,
    RECALL_COLUMNS,
    Cell,
    Column,
    Sheet,
    points,
    recall_cells,
)
from keras_frcnn.paper.systems import Repeated, System, comparison, error_meaning, repeated
from keras_frcnn.paper.trainings import fast_rcnn, four_steps
from keras_frcnn.paper.workshop import TEST_SETS, Absent, Workshop, countable_objects
from keras_frcnn.runs.folder import RunFolder

METHODS = {"ss": "Selective Search", "eb": "EdgeBoxes"}
COLUMNS = (
    Column("trained on"),
    Column("boxes", 0),
    Column("tested on"),
    Column("proposals", 0),
    Column("ours in the mean", 0),
    *MAP_COLUMNS,
    *RECALL_COLUMNS,
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
    """What a row shows: its systems' figures, and the recall of the first seed's proposals."""

    repeated: Repeated
    recall: ProposalRecall
    proposals: KeptProposals


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
            rows.append((*labels, None, paper, None, None, *NO_RECALL, str(reason)))
            continue
        number = found.proposals.mean_number(setting.proposals)
        numbers = (number, paper, found.repeated.mean, found.repeated.error)
        rows.append((*labels, *numbers, *recall_cells(found.recall), ""))
    test = TEST_SETS["07"]
    return Sheet(
        name="table1",
        title="Table 1: detection with various train-time and test-time proposals",
        columns=COLUMNS,
        rows=tuple(rows),
        caption=f"{workshop.caption(workshop.budget.seeds)} Detectors {network}, trained on "
        f"VOC 2007 trainval; mAP (11-point) on {len(workshop.detected(test))} images of VOC 2007 "
        f"test, {error_meaning(workshop.budget.seeds)}; recall on {len(workshop.data(test))} with "
        f"{countable_objects(workshop.data(test))} objects, difficult ones left out.",
        remarks=tuple(_remarks(workshop, outcomes)),
    )


def outcome(workshop: Workshop, setting: Setting, network: str) -> Outcome:
    """Trains, proposes, detects and evaluates what a row needs, as far as it is not there."""
    kept = []

    def system(seed: int) -> System:
        detector, stage = _detector(workshop, setting, network, seed)
        kept.append(_proposals(workshop, setting, network, seed))
        return System(detector, stage, kept[-1], setting.proposals)

    result, first = repeated(workshop, system), kept[0]
    recall = proposal_recall(first.dataset, first.boxes, setting.proposals)
    return Outcome(result, recall, first)


def _detector(
    workshop: Workshop, setting: Setting, network: str, seed: int
) -> tuple[RunFolder, int | None]:
    if setting.trained_on in METHODS:
        return fast_rcnn(workshop, network, setting.trained_on, seed=seed), None
    stage = 4 if setting.trained_on == "rpn-shared" else 2
    return four_steps(workshop, network, seed=seed), stage


def _proposals(workshop: Workshop, setting: Setting, network: str, seed: int) -> KeptProposals:
    test = TEST_SETS["07"]
    if setting.tested_on in METHODS:
        return external_proposals(workshop, setting.tested_on, test)
    source = workshop.budget.network_or("vgg16") if setting.tested_on == "rpn-vgg" else network
    run = four_steps(workshop, source, seed=seed)
    stage = 3 if setting.trained_on == "rpn-shared" else 1
    return rpn_proposals(workshop, run, test, stage=stage, variant=setting.variant)


def _labels(setting: Setting, network: str, workshop: Workshop) -> tuple[Cell, ...]:
    trained = METHODS.get(setting.trained_on, f"RPN {network}, {setting.trained_on[4:]}")
    if setting.tested_on in METHODS:
        tested = METHODS[setting.tested_on]
    else:
        vgg = setting.tested_on == "rpn-vgg"
        source = workshop.budget.network_or("vgg16") if vgg else network
        variant = f" ({setting.variant.replace('-', ' ')})" if setting.variant else ""
        tested = f"RPN {source}{variant}"
        if vgg and source == network:
            tested += " (the paper's VGG)"
    return trained, 2000, tested, setting.proposals


def _remarks(workshop: Workshop, outcomes: dict[str, Outcome]):
    pairs = (
        ("rpn-shared", "ss", "RPN with shared convolutions", "Selective Search"),
        ("rpn-shared", "rpn-unshared", "Shared", "unshared convolutions"),
        ("rpn-300", "rpn-no-reg-300", "300 proposals with reg", "without"),
        ("rpn-100", "rpn-no-cls-100", "100 proposals with cls", "without"),
    )
    for first, second, name, other in pairs:
        if first in outcomes and second in outcomes:
            both = (outcomes[first].repeated, outcomes[second].repeated)
            yield f"mAP: {comparison(name, other, *both)}"
    yield from _recall_remarks(outcomes)
    yield from about_edges(workshop)
    if workshop.budget.network is not None:
        yield (
            "One network stands for ZF and VGG: the last row is the row of 300 RPN proposals again."
        )


def _recall_remarks(outcomes: dict[str, Outcome]):
    """What leaving out cls and reg does to recall; brackets are 95 % intervals over images."""

    def loss(variant: str, count: int):
        keys = (f"rpn-{count}", f"rpn-{variant}-{count}")
        return [
            (sign, outcomes[key].proposals.boxes, count)
            for sign, key in zip((1, -1), keys, strict=True)
        ]

    if {"rpn-100", "rpn-no-cls-100", "rpn-1000", "rpn-no-cls-1000"} <= outcomes.keys():
        dataset = outcomes["rpn-100"].proposals.dataset
        few, many = loss("no-cls", 100), loss("no-cls", 1000)
        more = recall_contrast(dataset, few + [(-sign, *rest) for sign, *rest in many])
        yield (
            "Recall at IoU 0.5, lost without cls: "
            f"{points(recall_contrast(dataset, few))} with 100 proposals, "
            f"{points(recall_contrast(dataset, many))} with 1000; the difference: {points(more)}."
        )
    if {"rpn-300", "rpn-no-reg-300"} <= outcomes.keys():
        dataset = outcomes["rpn-300"].proposals.dataset
        for threshold in (0.5, 0.7):
            lost = recall_contrast(dataset, loss("no-reg", 300), iou_threshold=threshold)
            yield f"Recall of 300 proposals at IoU {threshold}, lost without reg: {points(lost)}."
