"""Flags that several command lines have: each is written, and explained to users, once."""

from __future__ import annotations

import argparse

from rich.console import Console

from keras_frcnn.cli.common import numbers, whole_number
from keras_frcnn.cli.fields import add_fields
from keras_frcnn.errors import UserError
from keras_frcnn.recipes import DetectionFilter
from keras_frcnn.run_config import PRECISIONS

DATA_PATH = "VOCdevkit folder, or the text file of -o simple"


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
    add_allow_bad_flag(group)


def add_allow_bad_flag(group) -> None:
    """Whether many bad images stop the command."""
    group.add_argument(
        "--allow_bad",
        action="store_true",
        help="go on where more than a tenth of the images or objects cannot be used\n"
        "default: stop then; below, leave them out and report them (ours)",
    )


def add_test_set_flag(group) -> None:
    """The image sets to test on."""
    group.add_argument(
        "--set",
        metavar="SETS",
        help="such as 2007:test\ndefault: every test set that exists (ours)",
    )


def add_training_set_flag(group, flag: str = "--train_set") -> None:
    """The image sets to train on."""
    group.add_argument(
        flag,
        dest="set",
        metavar="SETS",
        help="such as 2007:trainval+2012:trainval, or the paper's 07, 12, 07+12, 07++12\n"
        "default: every trainval that exists (ours)",
    )


def add_strict_flag(group) -> None:
    """Whether problems in the data stop the command."""
    group.add_argument(
        "--strict",
        action="store_true",
        help="stop at any problem in the data\n"
        "default: leave out what is wrong and report it (ours)",
    )


def add_first_images_flag(group) -> None:
    """How many images of the sets to use."""
    group.add_argument(
        "--images",
        type=whole_number(1),
        metavar="N",
        help="the first N images only\ndefault: all",
    )


def add_precision_flag(group) -> None:
    """The precision of testing; :func:`usable_precision` reads it."""
    group.add_argument(
        "--precision",
        choices=(*PRECISIONS, "auto"),
        metavar="TYPE",
        help="float32, bfloat16, float16, or auto: what is measured fastest here\n"
        "default: the run's own",
    )


def usable_precision(chosen: str | None, console: Console) -> str | None:
    """What ``--precision`` says; ``auto`` is measured, and the reason is printed.

    Raises:
        UserError: this machine does not compute in it.
    """
    if chosen is None:
        return None
    from keras_frcnn.precision import check_computes, fastest_precision

    if chosen != "auto":
        check_computes(chosen)
        return chosen
    precision, reason = fastest_precision()
    console.print(reason, soft_wrap=True)
    return precision


def add_jit_flag(group) -> None:
    """Whether XLA compiles what it can; ``choose_devices`` takes it."""
    group.add_argument(
        "--jit",
        action="store_true",
        help="let XLA compile what it can, on GPUs: faster steps, minutes before the first, and "
        "again for every other size of image\ndefault: off (ours)",
    )


def add_gpu_flag(group) -> None:
    """The devices."""
    group.add_argument("--gpu", metavar="N,N|-1", help="devices to use, -1: none\ndefault: all")


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


def add_scales_flag(group) -> None:
    """The flag of testing at several scales."""
    group.add_argument(
        "--scales",
        metavar="PX,PX,...",
        help="short sides at which the detector sees the image, each RoI at the one where it is "
        "nearest to 224 x 224 px; such as 480,576,688,864,1200 (Fast R-CNN, section 5.2)\n"
        "default: the run's own short side, as for the proposals (section 3.3)",
    )


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
