"""Tables 1, 2, 3, 5, 6 and 7: mean average precision of detection systems."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from keras_frcnn.data.voc import VOC_CLASSES
from keras_frcnn.evaluation.recall import proposal_recall, recall_contrast
from keras_frcnn.paper import published
from keras_frcnn.paper.kept import (
    KeptProposals,
    about_edges,
    external_proposals,
    fast_rcnn,
    four_steps,
    rpn_proposals,
)
from keras_frcnn.paper.sheet import (
    RECALL_COLUMNS,
    Cell,
    Heading,
    Sheet,
    columns,
    points,
    recall_cells,
)
from keras_frcnn.paper.systems import Repeated, System, comparisons, error_meaning, repeated
from keras_frcnn.paper.workshop import (
    TEST_SETS,
    TRAINING_SETS,
    Workshop,
    countable_objects,
    tried,
)
from keras_frcnn.recipes import Network

EXTERNAL = {"ss": "Selective Search", "eb": "EdgeBoxes", "windows": "dense, 3 scales, 3 ratios"}
MAP_COLUMNS = (("paper, mAP %", 1), ("ours, mAP %", 1), ("standard error", 1))
PYRAMID = (480, 576, 688, 864, 1200)  # short sides (SPPnet, Fast R-CNN)


@dataclass(frozen=True)
class Setting:
    """How a system is trained and tested.

    Attributes:
        trained_on: ``ss``, ``eb``, ``windows``, or the RPN's own: ``rpn-shared``, ``rpn-unshared``.
        most: the best so many proposals of each image at test; 0: all.
        tested_on: ``ss``, ``eb``, ``windows``, ``rpn`` (of the same network) or ``rpn-vgg``.
        variant: of the RPN, see :data:`keras_frcnn.paper.kept.VARIANTS`.
        training: of :data:`TRAINING_SETS`.
        is_pyramid: whether the detector sees five scales of an image.
    """

    trained_on: str
    most: int
    tested_on: str = "rpn"
    variant: str = ""
    training: str = "07"
    is_pyramid: bool = False


TABLE1 = {
    "ss": Setting("ss", 2000, "ss"),
    "eb": Setting("eb", 2000, "eb"),
    "rpn-shared": Setting("rpn-shared", 300),
    "rpn-unshared": Setting("rpn-unshared", 300),
    "rpn-100": Setting("ss", 100),
    "rpn-300": Setting("ss", 300),
    "rpn-1000": Setting("ss", 1000),
    "rpn-no-nms-6000": Setting("ss", 6000, variant="no-nms"),
    "rpn-no-cls-100": Setting("ss", 100, variant="no-cls"),
    "rpn-no-cls-300": Setting("ss", 300, variant="no-cls"),
    "rpn-no-cls-1000": Setting("ss", 1000, variant="no-cls"),
    "rpn-no-reg-300": Setting("ss", 300, variant="no-reg"),
    "rpn-no-reg-1000": Setting("ss", 1000, variant="no-reg"),
    "rpn-vgg-300": Setting("ss", 300, "rpn-vgg"),
}
TABLE5 = {
    "two-stage": Setting("rpn-unshared", 300),
    "one-stage-1": Setting("windows", 0, "windows"),
    "one-stage-5": Setting("windows", 0, "windows", is_pyramid=True),
}
# Tables 2, 3, 6 and 7: name and number of the proposals.
VOC_METHODS = {
    "ss": ("Selective Search", 2000),
    "rpn-unshared": ("RPN, unshared", 300),
    "rpn-shared": ("RPN, shared", 300),
}
YEARS = {"table2": "07", "table6": "07", "table3": "12", "table7": "12"}


def make(workshop: Workshop, name: str) -> Sheet:
    """One of the six tables; they share their systems."""
    if name == "table1":
        return _table1(workshop, name)
    return _table5(workshop, name) if name == "table5" else _voc_table(workshop, name)


def _repeated(
    workshop: Workshop, network: Network, setting: Setting, test: str = TEST_SETS["07"]
) -> Repeated:
    """Trains, proposes, detects and evaluates for every seed; what is there is read."""
    workshop.data(test)  # absent images should not cost a training
    return repeated(workshop, partial(_system, workshop, network, setting, test), test)


def _system(workshop: Workshop, network: Network, setting: Setting, test: str, seed: int) -> System:
    stage: int | None = None
    if setting.trained_on in EXTERNAL:
        run = fast_rcnn(workshop, network, setting.trained_on, setting.training, seed)
    else:
        run = four_steps(workshop, network, setting.training, seed)
        stage = 4 if setting.trained_on == "rpn-shared" else 2
    scales = pyramid(workshop) if setting.is_pyramid else ()
    proposals = _proposals(workshop, network, setting, test, seed)
    return System(run, stage, proposals, setting.most or None, scales)


def _proposals(
    workshop: Workshop, network: Network, setting: Setting, test: str, seed: int
) -> KeptProposals:
    if setting.tested_on in EXTERNAL:
        return external_proposals(workshop, setting.tested_on, test)
    source = workshop.budget.network_or("vgg16") if setting.tested_on == "rpn-vgg" else network
    run = four_steps(workshop, source, setting.training, seed)
    stage = 3 if setting.trained_on == "rpn-shared" else 1
    return rpn_proposals(workshop, run, test, stage=stage, variant=setting.variant)


def _numbers(paper: float, ours: Repeated | None) -> tuple[Cell, ...]:
    """The cells of :data:`MAP_COLUMNS`."""
    return (paper, None, None) if ours is None else (paper, ours.mean, ours.error)


def pyramid(workshop: Workshop) -> tuple[int, ...]:
    """:data:`PYRAMID` in proportion to the short side of the recipe."""
    factor = workshop.budget.recipe().image.short_side / 600
    return tuple(round(side * factor) for side in PYRAMID)


def _table1(workshop: Workshop, name: str) -> Sheet:
    """Fourteen rows, and what may be said of their directions."""
    network, seeds = workshop.budget.network_or("zf"), workshop.budget.seeds
    test, tested = workshop.data(TEST_SETS["07"]), workshop.detected(TEST_SETS["07"])
    found, absent = tried(
        {key: partial(_repeated, workshop, network, setting) for key, setting in TABLE1.items()}
    )
    kept = {key: ours.proposals for key, ours in found.items() if ours.proposals is not None}
    rows: list[tuple[Cell, ...]] = []
    for key, setting in TABLE1.items():
        labels = _labels(workshop, network, setting)
        numbers = _numbers(published.TABLE1[key], found.get(key))
        if key in absent:
            rows.append((*labels, None, *numbers, *recall_cells(None), absent[key]))
            continue
        in_mean = kept[key].mean_number(setting.most)
        recall = proposal_recall(test, kept[key].boxes, setting.most)
        rows.append((*labels, in_mean, *numbers, *recall_cells(recall), ""))
    return Sheet(
        name=name,
        title="Table 1: detection with various train-time and test-time proposals",
        columns=columns(
            "trained on",
            ("boxes", 0),
            "tested on",
            ("proposals", 0),
            ("ours in the mean", 0),
            *MAP_COLUMNS,
            *RECALL_COLUMNS,
            "remark",
        ),
        rows=tuple(rows),
        caption=f"{workshop.caption(seeds)} Detectors {network}, trained on VOC 2007 trainval; "
        f"mAP (11-point) on {len(tested)} images of VOC 2007 test, {error_meaning(seeds)}; recall "
        f"on {len(test)} with {countable_objects(test)} objects, difficult ones left out.",
        remarks=tuple(_table1_remarks(workshop, found, kept)),
    )


def _labels(workshop: Workshop, network: Network, setting: Setting) -> tuple[Cell, ...]:
    trained = EXTERNAL.get(setting.trained_on, f"RPN {network}, {setting.trained_on[4:]}")
    if setting.tested_on in EXTERNAL:
        return trained, 2000, EXTERNAL[setting.tested_on], setting.most
    vgg = setting.tested_on == "rpn-vgg"
    source = workshop.budget.network_or("vgg16") if vgg else network
    variant = f" ({setting.variant.replace('-', ' ')})" if setting.variant else ""
    note = " (the paper's VGG)" if vgg and source == network else ""
    return trained, 2000, f"RPN {source}{variant}{note}", setting.most


def _table1_remarks(
    workshop: Workshop, found: Mapping[str, Repeated], kept: Mapping[str, KeptProposals]
) -> Iterator[str]:
    pairs = (
        ("rpn-shared", "ss", "RPN with shared convolutions", "Selective Search"),
        ("rpn-shared", "rpn-unshared", "Shared", "unshared convolutions"),
        ("rpn-300", "rpn-no-reg-300", "300 proposals with reg", "without"),
        ("rpn-100", "rpn-no-cls-100", "100 proposals with cls", "without"),
    )
    for sentence in comparisons(found, pairs):
        yield f"mAP: {sentence}"
    yield from _recall_remarks(kept)
    yield from about_edges(workshop)
    if workshop.budget.network is not None:
        yield (
            "One network stands for ZF and VGG: the last row is the row of 300 RPN proposals again."
        )


def _recall_remarks(kept: Mapping[str, KeptProposals]) -> Iterator[str]:
    """What leaving out cls and reg does to recall; brackets are 95 % intervals over images."""

    def loss(variant: str, count: int, sign: float = 1):
        whole, without = kept[f"rpn-{count}"], kept[f"rpn-{variant}-{count}"]
        return [(sign, whole.boxes, count), (-sign, without.boxes, count)]

    if {"rpn-100", "rpn-no-cls-100", "rpn-1000", "rpn-no-cls-1000"} <= kept.keys():
        dataset = kept["rpn-100"].dataset
        few, many = loss("no-cls", 100), loss("no-cls", 1000)
        more = recall_contrast(dataset, few + loss("no-cls", 1000, sign=-1))
        yield (
            "Recall at IoU 0.5, lost without cls: "
            f"{points(recall_contrast(dataset, few))} with 100 proposals, "
            f"{points(recall_contrast(dataset, many))} with 1000; the difference: {points(more)}."
        )
    if {"rpn-300", "rpn-no-reg-300"} <= kept.keys():
        dataset = kept["rpn-300"].dataset
        for threshold in (0.5, 0.7):
            lost = recall_contrast(dataset, loss("no-reg", 300), iou_threshold=threshold)
            yield f"Recall of 300 proposals at IoU {threshold}, lost without reg: {points(lost)}."


def _table5(workshop: Workshop, name: str) -> Sheet:
    """Dense windows (one-stage) against proposals (two-stage), ZF."""
    network, seeds = workshop.budget.network_or("zf"), workshop.budget.seeds
    found, absent = tried(
        {key: partial(_repeated, workshop, network, setting) for key, setting in TABLE5.items()}
    )
    rows: list[tuple[Cell, ...]] = []
    windows = ""
    for key, setting in TABLE5.items():
        labels: tuple[Cell, ...] = ("two-stage", "RPN, unshared", "300", 1)
        if setting.tested_on in EXTERNAL:
            scales = len(PYRAMID) if setting.is_pyramid else 1
            labels = ("one-stage", EXTERNAL["windows"], "all windows", scales)
        ours = found.get(key)
        if ours is not None and ours.proposals is not None and key != "two-stage":
            windows = f", {ours.proposals.mean_number():,.0f} an image"
        numbers = _numbers(published.TABLE5[key], ours)
        rows.append((*labels, *numbers, absent.get(key, "")))
    stride = workshop.budget.window_stride
    thinned = "every position" if stride == 1 else f"one position in {stride} in both directions"
    pairs = (
        ("two-stage", "one-stage-1", "Two-stage", "one-stage with scales: 1"),
        ("two-stage", "one-stage-5", "Two-stage", "one-stage with scales: 5"),
    )
    return Sheet(
        name=name,
        title="Table 5: one-stage detection against two-stage proposal and detection",
        columns=columns(
            "system", "proposals", "number", ("scales of the image", 0), *MAP_COLUMNS, "remark"
        ),
        rows=tuple(rows),
        caption=f"{workshop.caption(seeds)} {network}; windows at {thinned}{windows}, in training "
        f"too; 5 scales: short sides {', '.join(map(str, pyramid(workshop)))}; "
        f"{len(workshop.detected(TEST_SETS['07']))} images of VOC 2007 test; "
        f"{error_meaning(seeds)}.",
        remarks=tuple(comparisons(found, pairs)),
    )


def _voc_table(workshop: Workshop, name: str) -> Sheet:
    """Table 2 or 6 of VOC 2007, 3 or 7 of VOC 2012: VGG-16, its mAP or the AP of each class."""
    year, seeds = YEARS[name], workshop.budget.seeds
    network = workshop.budget.network_or("vgg16")
    of_paper = published.VOC2007 if year == "07" else published.VOC2012
    settings = {
        (method, training): Setting(
            method, VOC_METHODS[method][1], "ss" if method == "ss" else "rpn", training=training
        )
        for method, training in of_paper
    }
    found, absent = tried(
        {
            system: partial(_repeated, workshop, network, setting, TEST_SETS[year])
            for system, setting in settings.items()
        }
    )
    rows: list[tuple[Cell, ...]] = []
    for system, (mean, values) in of_paper.items():
        (label, most), training = VOC_METHODS[system[0]], system[1]
        ours, reason = found.get(system), absent.get(system, "")
        if name in ("table2", "table3"):
            rows.append((label, most, training, *_numbers(mean, ours), reason))
            continue
        rows.append((label, training, "paper", mean, *values))
        per_class: tuple[Cell, ...] = (None,) * len(values)
        if ours is not None and workshop.class_names == VOC_CLASSES:
            per_class = ours.per_class
        whose = f"ours: {reason}" if ours is None else "ours"
        rows.append((label, training, whose, ours.mean if ours else None, *per_class))
    headings: tuple[Heading, ...] = (
        "proposals",
        ("number", 0),
        "trained on",
        *MAP_COLUMNS,
        "remark",
    )
    what = "detection"
    if name in ("table6", "table7"):
        numbers = ((each, 1) for each in ("mAP", *VOC_CLASSES))
        headings = ("proposals", "trained on", "whose", *numbers)
        what = "average precision per class"
    images = {entry.images for ours in found.values() for entry in ours.results}
    return Sheet(
        name=name,
        title=f"Table {name[-1]}: {what} on VOC 20{year} test, VGG-16",
        columns=columns(*headings),
        rows=tuple(rows),
        caption=f"{workshop.caption(seeds)} {network}; {_lengths(workshop)}; "
        f"{images.pop() if images else 'no'} images of VOC 20{year} test; {error_meaning(seeds)}.",
        remarks=tuple(_voc_remarks(year, found, absent)),
    )


VocSystem = tuple[str, str]


def _voc_remarks(
    year: str, found: Mapping[VocSystem, Repeated], absent: Mapping[VocSystem, str]
) -> Iterator[str]:
    pairs = (
        (("rpn-shared", "07"), ("rpn-unshared", "07"), "Shared", "unshared convolutions"),
        (("rpn-shared", "07"), ("ss", "07"), "RPN with shared convolutions", "Selective Search"),
        (("rpn-shared", "07+12"), ("rpn-shared", "07"), "07+12", "07"),
    )
    yield from comparisons(found, pairs)
    for (method, training), reason in absent.items():
        yield f"{VOC_METHODS[method][0]}, {training}: {reason}."
    if year == "07":
        yield (
            "By the paper's own code the first row is "
            f"{published.REPEATED_MEAN} +- {published.REPEATED_DEVIATION} in six runs (footnote)."
        )


def _lengths(workshop: Workshop) -> str:
    """On the larger sets the detectors are trained for longer."""
    larger = {
        name: workshop.budget.recipe(TRAINING_SETS[name].split("+")).stages[1].iterations
        for name in ("07+12", "07++12")
    }
    return "detectors on " + ", ".join(
        f"{name}: {iterations:,} iterations" for name, iterations in larger.items()
    )
