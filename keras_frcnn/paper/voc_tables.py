"""Tables 2 and 6 (VOC 2007 test), 3 and 7 (VOC 2012 test): VGG-16 systems, mAP and AP per class.

Shapes and names
----------------
system  (proposals, training data) as in the paper: ``("rpn-shared", "07+12")``.
"""

from __future__ import annotations

import numpy as np

from keras_frcnn.data.voc import VOC_CLASSES
from keras_frcnn.paper import published
from keras_frcnn.paper.sheet import Cell, Column, Sheet
from keras_frcnn.paper.systems import Evaluated, claim, difference
from keras_frcnn.paper.workshop import TEST_SETS, Absent, Workshop

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
YEARS = {"table2": "07", "table6": "07", "table3": "12", "table7": "12"}


def make(workshop: Workshop, name: str) -> Sheet:
    """One of the four tables; they share their systems."""
    year = YEARS[name]
    network = workshop.budget.network_or("vgg16")
    found: dict[tuple[str, str], list[Evaluated]] = {}
    absent: dict[tuple[str, str], str] = {}
    for system in PUBLISHED[year]:
        try:
            found[system] = systems(workshop, network, system, year)
        except Absent as reason:
            absent[system] = str(reason)
    per_class = name in ("table6", "table7")
    return Sheet(
        name=name,
        title=TITLES[name],
        columns=_class_columns() if per_class else _mean_columns(),
        rows=tuple(_class_rows(year, found, absent) if per_class else _rows(year, found, absent)),
        caption=f"{workshop.caption()} {network}; {_tested(found, year)}.",
        remarks=(*_remarks(found, absent), *_about(name)),
    )


def systems(
    workshop: Workshop, network: str, system: tuple[str, str], year: str
) -> list[Evaluated]:
    """The evaluations of a system, one for each seed.

    Raises:
        Absent: data, annotations, weights or a library are not there.
    """
    method, training = system
    _, most = METHODS[method]
    results = []
    for seed in range(workshop.budget.seeds):
        test = TEST_SETS[year]
        workshop.data(test)  # absent annotations should not cost a training
        if method == "ss":
            detector = workshop.fast_rcnn(network, "ss", training, seed=seed)
            stage, proposals = None, workshop.external("ss", test)
        else:
            detector = workshop.four_steps(network, training, seed=seed)
            shared = method == "rpn-shared"
            stage = 4 if shared else 2
            proposals = workshop.rpn_proposals(detector, test, stage=3 if shared else 1, most=most)
        name = f"voc{year}-{network}-{method}-{training}-{seed}"
        results.append(workshop.evaluate(name, detector, stage, proposals, most, test))
    return results


def _mean_columns() -> tuple[Column, ...]:
    return (
        Column("proposals"),
        Column("number", 0),
        Column("trained on"),
        Column("paper, mAP %", 1),
        Column("ours, mAP %", 1),
        Column("standard error", 1),
        Column("remark"),
    )


def _rows(year: str, found, absent):
    for (method, training), (paper, _) in PUBLISHED[year].items():
        label, most = METHODS[method]
        results = found.get((method, training))
        numbers: tuple[Cell, Cell] = (None, None)
        if results:
            means = [entry.mean for entry in results]
            error = results[0].error if len(means) == 1 else float(np.std(means, ddof=1))
            numbers = (float(np.mean(means)), error)
        yield (label, most, training, paper, *numbers, absent.get((method, training), ""))


def _class_columns() -> tuple[Column, ...]:
    texts = (Column("proposals"), Column("trained on"), Column("whose"))
    return (*texts, Column("mAP", 1), *(Column(name, 1) for name in VOC_CLASSES))


def _class_rows(year: str, found, absent):
    for system, (mean, values) in PUBLISHED[year].items():
        label, training = METHODS[system[0]][0], system[1]
        yield (label, training, "paper", mean, *values)
        results = found.get(system)
        if results is None:
            yield (label, training, f"ours: {absent[system]}", None, *(None,) * len(values))
            continue
        ours = results[0].per_class
        if len(ours) != len(values):  # another devkit's classes
            ours = (None,) * len(values)
        yield (label, training, "ours", results[0].mean, *ours)


def _remarks(found, absent):
    pairs = (
        (("rpn-shared", "07"), ("rpn-unshared", "07"), "Shared", "unshared convolutions"),
        (("rpn-shared", "07"), ("ss", "07"), "RPN with shared convolutions", "Selective Search"),
        (("rpn-shared", "07+12"), ("rpn-shared", "07"), "07+12", "07"),
    )
    for first, second, name, other in pairs:
        if first in found and second in found:
            yield claim(name, other, difference(found[first][0], found[second][0]))
    for system, reason in absent.items():
        yield f"{METHODS[system[0]][0]}, {system[1]}: {reason}."


def _about(name: str):
    if name in ("table2", "table6"):
        yield (
            f"The code released with Fast R-CNN gives {published.REPEATED_MEAN} +- "
            f"{published.REPEATED_DEVIATION} in six runs for Selective Search on 07."
        )


def _tested(found, year: str) -> str:
    images = {entry.images for results in found.values() for entry in results}
    return f"{images.pop() if images else 'no'} images of VOC 20{year} test"
