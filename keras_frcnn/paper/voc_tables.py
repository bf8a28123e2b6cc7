"""Tables 2 and 6 (VOC 2007 test), 3 and 7 (VOC 2012 test): VGG-16 systems, mAP and AP per class."""

from __future__ import annotations

from keras_frcnn.data.voc import VOC_CLASSES
from keras_frcnn.paper import published
from keras_frcnn.paper.kept_proposals import external_proposals, rpn_proposals
from keras_frcnn.paper.sheet import MAP_COLUMNS, Cell, Column, Sheet
from keras_frcnn.paper.systems import Repeated, System, comparison, error_meaning, repeated
from keras_frcnn.paper.trainings import fast_rcnn, four_steps
from keras_frcnn.paper.workshop import TEST_SETS, TRAINING_SETS, Absent, Workshop

METHODS = {
    "ss": ("Selective Search", 2000),
    "rpn-unshared": ("RPN, unshared", 300),
    "rpn-shared": ("RPN, shared", 300),
}
PUBLISHED = {"07": published.VOC2007, "12": published.VOC2012}
TITLES = {
    "table2": "Table 2: detection on VOC 2007 test, VGG-16",
    "table3": "Table 3: detection on VOC 2012 test, VGG-16",
    "table6": "Table 6: average precision per class on VOC 2007 test, VGG-16",
    "table7": "Table 7: average precision per class on VOC 2012 test, VGG-16",
}
MEAN_COLUMNS = (
    *(Column("proposals"), Column("number", 0), Column("trained on")),
    *(*MAP_COLUMNS, Column("remark")),
)
CLASS_COLUMNS = (
    *(Column("proposals"), Column("trained on"), Column("whose"), Column("mAP", 1)),
    *(Column(name, 1) for name in VOC_CLASSES),
)
YEARS = {"table2": "07", "table6": "07", "table3": "12", "table7": "12"}


def make(workshop: Workshop, name: str) -> Sheet:
    """One of the four tables; they share their systems."""
    year = YEARS[name]
    network = workshop.budget.network_or("vgg16")
    found: dict[tuple[str, str], Repeated] = {}
    absent: dict[tuple[str, str], str] = {}
    for system in PUBLISHED[year]:
        try:
            found[system] = tested(workshop, network, system, year)
        except Absent as reason:
            absent[system] = str(reason)
    if name in ("table6", "table7"):
        columns = CLASS_COLUMNS
        rows = _class_rows(year, found, absent, workshop.class_names == VOC_CLASSES)
    else:
        columns, rows = MEAN_COLUMNS, _rows(year, found, absent)
    remarks = list(_remarks(found, absent))
    if year == "07":
        remarks.append(
            "By the paper's own code the first row is "
            f"{published.REPEATED_MEAN} +- {published.REPEATED_DEVIATION} in six runs (footnote)."
        )
    return Sheet(
        name=name,
        title=TITLES[name],
        columns=columns,
        rows=tuple(rows),
        caption=f"{workshop.caption(workshop.budget.seeds)} {network}; {_lengths(workshop)}; "
        f"{_tested(found, year)}; {error_meaning(workshop.budget.seeds)}.",
        remarks=tuple(remarks),
    )


def tested(workshop: Workshop, network: str, system: tuple[str, str], year: str) -> Repeated:
    """The evaluations of a system, one for each seed."""
    method, training = system
    test = TEST_SETS[year]
    workshop.data(test)  # absent images should not cost a training

    def system_of(seed: int) -> System:
        if method == "ss":
            detector = fast_rcnn(workshop, network, "ss", training, seed=seed)
            stage, proposals = None, external_proposals(workshop, "ss", test)
        else:
            detector = four_steps(workshop, network, training, seed=seed)
            stage, rpn_stage = (4, 3) if method == "rpn-shared" else (2, 1)
            proposals = rpn_proposals(workshop, detector, test, stage=rpn_stage)
        return System(detector, stage, proposals, METHODS[method][1])

    return repeated(workshop, system_of, test)


def _rows(year: str, found, absent):
    for (method, training), (paper, _) in PUBLISHED[year].items():
        label, most = METHODS[method]
        ours = found.get((method, training))
        numbers: tuple[Cell, Cell] = (None, None) if ours is None else (ours.mean, ours.error)
        yield (label, most, training, paper, *numbers, absent.get((method, training), ""))


def _class_rows(year: str, found, absent, same_classes: bool):
    for system, (mean, values) in PUBLISHED[year].items():
        label, training = METHODS[system[0]][0], system[1]
        yield (label, training, "paper", mean, *values)
        ours = found.get(system)
        if ours is None:
            yield (label, training, f"ours: {absent[system]}", None, *(None,) * len(values))
            continue
        per_class = ours.per_class if same_classes else (None,) * len(values)
        yield (label, training, "ours", ours.mean, *per_class)


def _remarks(found, absent):
    pairs = (
        (("rpn-shared", "07"), ("rpn-unshared", "07"), "Shared", "unshared convolutions"),
        (("rpn-shared", "07"), ("ss", "07"), "RPN with shared convolutions", "Selective Search"),
        (("rpn-shared", "07+12"), ("rpn-shared", "07"), "07+12", "07"),
    )
    for first, second, name, other in pairs:
        if first in found and second in found:
            yield comparison(name, other, found[first], found[second])
    for system, reason in absent.items():
        yield f"{METHODS[system[0]][0]}, {system[1]}: {reason}."


def _lengths(workshop: Workshop) -> str:
    """On the larger sets the detectors are trained for longer."""
    larger = {
        name: workshop.budget.recipe(TRAINING_SETS[name].split("+")).stages[1].iterations
        for name in ("07+12", "07++12")
    }
    return "detectors on " + ", ".join(
        f"{name}: {iterations:,} iterations" for name, iterations in larger.items()
    )


def _tested(found, year: str) -> str:
    images = {entry.images for ours in found.values() for entry in ours.results}
    return f"{images.pop() if images else 'no'} images of VOC 20{year} test"
