"""The names of the paper's tables and figures and the modules that make them."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING

from keras_frcnn.errors import UserError

if TYPE_CHECKING:  # they bring TensorFlow, which naming the experiments need not wait for
    from keras_frcnn.paper.sheet import Sheet
    from keras_frcnn.paper.workshop import Workshop

# In an order in which later ones find the trained runs of earlier ones.
EXPERIMENTS = {
    "table2": ("map_tables", "VGG-16 on VOC 2007 test: Selective Search, RPN unshared and shared"),
    "table6": ("map_tables", "table 2's average precision per class"),
    "figure1": ("detection_sheets", "detections with a score of 0.6 and above: eight images"),
    "figure3": ("detection_sheets", "the same: twenty-four images"),
    "table1": ("map_tables", "train-time and test-time proposals, ablations of the RPN, ZF"),
    "figure2": ("recall_sheets", "recall against overlap for 300, 1000 and 2000 proposals"),
    "anchors": ("anchors", "average proposal of each anchor; anchors in all, inside, after NMS"),
    "table4": ("table4", "time per image: convolutions, proposals, region-wise"),
    "table5": ("map_tables", "one-stage dense windows against two stages"),
    "loss": (
        "recall_sheets",
        "softmax or logistic objectness, normalisations, cross-boundary anchors",
    ),
    "table3": ("map_tables", "VGG-16 on VOC 2012 test, with files for the server"),
    "table7": ("map_tables", "table 3's average precision per class"),
}


def experiment(name: str) -> Callable[[Workshop], Sheet]:
    """What makes a table or figure.

    Raises:
        KeyError: there is none of this name.
    """
    module, _ = EXPERIMENTS[name]
    return partial(import_module(f"keras_frcnn.paper.{module}").make, name=name)


def named(name: str | None) -> tuple[str, ...]:
    """The experiments that a name stands for: one, or all of them.

    Raises:
        UserError: it stands for none.
    """
    if name == "all":
        return tuple(EXPERIMENTS)
    if name in EXPERIMENTS:
        return (name,)
    near = difflib.get_close_matches(name or "", EXPERIMENTS, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    known = ", ".join((*EXPERIMENTS, "all"))
    raise UserError(f"Name an experiment of {known}, not {name!r}{hint}")


def make_sheets(names: Sequence[str], workshop: Workshop) -> None:
    """Makes experiments one by one, shows each and says where it is.

    Raises:
        UserError: what every one of them needs is not there.
    """
    from keras_frcnn.paper.sheet import write_index
    from keras_frcnn.paper.workshop import Absent

    left_out = []
    for name in names:
        workshop.console.rule(name)
        try:
            sheet = experiment(name)(workshop)
        except Absent as reason:
            left_out.append(f"{name}: {reason}")
            workshop.say(f"{name} is left out: {reason}.")
            continue
        written = sheet.write(workshop.folder)
        for line in sheet.markdown().splitlines():
            workshop.say(line)
        workshop.say(f"written to {written}")
        write_index(workshop.folder, EXPERIMENTS)
    if left_out and len(left_out) == len(names):
        raise UserError(f"Nothing could be made: {left_out[0]}.")
