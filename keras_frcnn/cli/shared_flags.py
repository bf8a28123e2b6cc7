"""Flags that several command lines have: each is written, and explained to users, once."""

from __future__ import annotations

import argparse
from typing import Any

from rich.console import Console

from keras_frcnn.cli.common import numbers, whole_number
from keras_frcnn.cli.fields import add_fields
from keras_frcnn.errors import UserError
from keras_frcnn.recipes import PRECISIONS, DetectionFilter

DATA_PATH = "VOCdevkit folder, or the text file of -o simple"


# By name, as argparse takes them.
SHARED: dict[str, dict[str, Any]] = {
    "allow_bad": {
        "action": "store_true",
        "help": (
            "go on where more than a tenth of the images or objects cannot be used\n"
            "default: stop then; below, leave them out and report them (ours)"
        ),
    },
    "set": {
        "metavar": "SETS",
        "help": "such as 2007:test\ndefault: every test set that exists (ours)",
    },
    "strict": {
        "action": "store_true",
        "help": (
            "stop at any problem in the data\ndefault: leave out what is wrong and report it (ours)"
        ),
    },
    "images": {
        "type": whole_number(1),
        "metavar": "N",
        "help": "the first N images only\ndefault: all",
    },
    "precision": {
        "choices": (*PRECISIONS, "auto"),
        "metavar": "TYPE",
        "help": (
            "float32, bfloat16, float16, or auto: what is measured fastest here\n"
            "default: the run's own"
        ),
    },
    "jit": {
        "action": "store_true",
        "help": (
            "let XLA compile what it can, on GPUs: faster steps, minutes before the first, and "
            "again for every other size of image\ndefault: off (ours)"
        ),
    },
    "gpu": {
        "metavar": "N,N|-1",
        "help": "devices to use, -1: none\ndefault: all",
    },
    "scales": {
        "metavar": "PX,PX,...",
        "help": (
            "short sides at which the detector sees the image, each RoI at the one where it is "
            "nearest to 224 x 224 px; such as 480,576,688,864,1200 (Fast R-CNN, section 5.2)\n"
            "default: the run's own short side, as for the proposals (section 3.3)"
        ),
    },
    "stage": {
        "type": int,
        "choices": (2, 4),
        "metavar": "2|4",
        "help": (
            "2: the unshared variant, RPN of stage 1 and detector of stage 2, there while stages "
            "3 and 4 are trained\n"
            "default: 4, the result; 2 where the run was to stop there (section 3.2)"
        ),
    },
    "proposals": {
        "nargs": "+",
        "metavar": "FILE",
        "help": (
            "classify these boxes, found by the image's name, instead of the RPN's: files of "
            "python -m keras_frcnn proposals, or .mat files of Selective Search\n"
            "default: the RPN's; must be given for a run that was trained so"
        ),
    },
}


def add_flags(group, *names: str) -> None:
    """Adds flags that several commands have."""
    for name in names:
        group.add_argument(f"--{name}", **SHARED[name])


def add_path_flags(group, *, required: bool = True, help: str = DATA_PATH) -> None:
    """Where the annotated images are, and in which layout."""
    group.add_argument("-p", "--path", required=required, metavar="PATH", help=help)
    group.add_argument(
        "-o",
        "--parser",
        metavar="LAYOUT",
        choices=("pascal_voc", "simple"),
        default="pascal_voc",
        help="pascal_voc, or simple: lines of path,x1,y1,x2,y2,class\n"
        "default: pascal_voc (lineage)",
    )
    add_flags(group, "allow_bad")


def add_training_set_flag(group, flag: str = "--train_set") -> None:
    """The image sets to train on."""
    group.add_argument(
        flag,
        dest="set",
        metavar="SETS",
        help="such as 2007:trainval+2012:trainval, or the paper's 07, 12, 07+12, 07++12\n"
        "default: every trainval that exists (ours)",
    )


def usable_precision(chosen: str | None, console: Console) -> str | None:
    """What ``--precision`` says; ``auto`` is measured, and the reason is printed.

    Raises:
        UserError: this machine does not compute in it.
    """
    if chosen is None:
        return None
    from keras_frcnn.system.precision import check_computes, fastest_precision

    if chosen != "auto":
        check_computes(chosen)
        return chosen
    precision, reason = fastest_precision()
    console.print(reason, soft_wrap=True)
    return precision


def add_filter_flags(group) -> dict[str, argparse.Action]:
    """The flags of testing and export that say which detections there are, by field."""
    actions = add_fields(group, DetectionFilter)
    group.add_argument(
        "--num_proposals",
        type=whole_number(1),
        metavar="N",
        help="proposals of an image\ndefault: 300 (config.py:162)",
    )
    return actions


def short_sides(text: str | None) -> tuple[int, ...]:
    """What ``--scales`` says; nothing for ``None``.

    Raises:
        UserError: no whole numbers above 0, or one of them twice.
    """
    if text is None:
        return ()
    sides = numbers(text, int, "--scales")
    if len(set(sides)) < len(sides):
        raise UserError(f"--scales names a short side twice: {text!r}.")
    return sides
