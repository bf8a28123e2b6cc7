"""Flags: the parser, the kinds of values, those made from fields, those that several commands have.

Each flag that commands share is written, and explained to users, once.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import math
import shutil
import textwrap
import types
import typing
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, TypeVar

from keras_frcnn.cli.common import TRACEBACK_FLAG, as_called
from keras_frcnn.data.load import READERS
from keras_frcnn.errors import UserError
from keras_frcnn.recipes import NETWORKS, PRECISIONS, DetectionFilter
from keras_frcnn.system.settings import Range, Settings, hints

_HELP_WIDTH = 100
_HELP_COLUMN = 28
# Beyond it no user goes: left to the settings, messages of the flag stay short.
_LARGE = 10**6
SettingsKind = TypeVar("SettingsKind", bound=Settings)

# Where the lines of other people's code that the help of the flags cites are found.
ORIGINS = """\
origins of the defaults:
  *.py, *.pt      rbgirshick/py-faster-rcnn @781a917, the Python code
  *.m             ShaoqingRen/faster_rcnn @49ad099, the MATLAB code of the paper
  section         of the paper, arXiv:1506.01497
  lineage         yhenon/keras-frcnn and its forks
  ours            a choice of this package, as defaults without an origin are
"""


# --- the parser --------------------------------------------------------------------------------


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Every flag with its value once, line breaks of the help text kept, at most 100 columns."""

    def __init__(self, prog: str):
        width = min(shutil.get_terminal_size().columns, _HELP_WIDTH) - 2
        super().__init__(prog, max_help_position=_HELP_COLUMN, width=width)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings or action.nargs == 0:
            return super()._format_action_invocation(action)
        value = self._format_args(action, self._get_default_metavar_for_optional(action))
        return f"{', '.join(action.option_strings)} {value}"

    def _split_lines(self, text: str, width: int) -> list[str]:
        return [line for part in text.splitlines() for line in textwrap.wrap(part, width)]


class HelpfulParser(argparse.ArgumentParser):
    """Suggests the nearest flag where one is misspelt; all errors are :class:`UserError`."""

    def __init__(self, *args, **kwargs):
        kwargs.setdefault("formatter_class", HelpFormatter)
        for name in ("prog", "usage", "epilog"):
            if name in kwargs:
                kwargs[name] = as_called(kwargs[name])
        super().__init__(*args, allow_abbrev=False, **kwargs)
        # Taken by run_main, which has to know it where the parser itself fails.
        self.add_argument(
            TRACEBACK_FLAG, action="store_true", help="show where an error came from, for a report"
        )

    def parse_args(self, args=None, namespace=None):
        values, unknown = self.parse_known_args(args, namespace)
        if unknown:
            self.error(f"unknown argument {unknown[0]!r}.{self._hint(unknown[0])}")
        return values

    def _hint(self, unknown: str) -> str:
        known = [option for action in self._actions for option in action.option_strings]
        near = difflib.get_close_matches(unknown.split("=")[0], known, n=1)
        return f" Did you mean {near[0]}?" if near else " See --help."

    def error(self, message: str):
        """Raises.

        Raises:
            UserError: always, with the message of argparse.
        """
        raise UserError(f"{self.prog}: {message}")


# --- kinds of values ---------------------------------------------------------------------------


def number(
    least: float, most: float | None = None, *, above: bool = False, kind: type = float
) -> Callable[[str], Any]:
    """A type of flags: finite numbers from ``least`` (or ``above`` it) to ``most``."""
    what = "a whole number" if kind is int else "a number"

    def parse(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        low = value > least if above else value >= least
        if not (low and value < math.inf and (most is None or value <= most)):
            limits = f"above {least:g}" if above else f"from {least:g}"
            limits += " up" if most is None and not above else ""
            limits += "" if most is None else f" to {most:.10g}"
            raise argparse.ArgumentTypeError(f"expected {what} {limits}, not {text!r}")
        return value

    return parse


def whole_number(least: int, most: int | None = None) -> Callable[[str], int]:
    """A type of flags: whole numbers from ``least`` to ``most``."""
    return number(least, most, kind=int)


def some_of(known: Sequence[str], *, or_none: bool = False) -> Callable[[str], tuple[str, ...]]:
    """A type of flags: some of the known words with commas, or ``none``."""

    def parse(text: str) -> tuple[str, ...]:
        chosen = tuple(dict.fromkeys(text.split(",")))
        if or_none and chosen == ("none",):
            return ()
        if not set(chosen) <= set(known):
            expected = f"{', '.join(known)}, several with commas{', or none' if or_none else ''}"
            raise argparse.ArgumentTypeError(f"expected {expected}, not {text!r}")
        return chosen

    return parse


def numbers(text: str, kind: type, flag: str, count: int | None = None) -> tuple:
    """Parses ``"1,2,3"``.

    Raises:
        UserError: not numbers, not positive and finite, or not as many as ``count``.
    """
    what = "whole numbers" if kind is int else "numbers"
    try:
        values = tuple(kind(part) for part in text.replace(" ", "").split(","))
    except ValueError as error:
        raise UserError(f"{flag} takes {what} separated by commas, not {text!r}.") from error
    if count is not None and len(values) != count:
        expected = "one number" if count == 1 else f"{count} {what} separated by commas"
        raise UserError(f"{flag} takes {expected}, not {text!r}.")
    if not all(0 < value < math.inf for value in values):
        raise UserError(f"{flag} takes {what} above 0, not {text!r}.")
    return values


def tile_of(text: str | None) -> tuple[int, float] | None:
    """What ``--tile`` says: a side in pixels and an overlap.

    Raises:
        UserError: it is no such pair.
    """
    if text is None:
        return None
    side, _, overlap = text.partition(",")
    try:
        return int(side), float(overlap or 0.2)
    except ValueError as error:
        raise UserError(f"--tile takes PX,SHARE such as 1000,0.2, not {text!r}.") from error


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


# --- flags of fields ---------------------------------------------------------------------------


def add_fields(group, kind: type[Settings], *names: str) -> dict[str, argparse.Action]:
    """Adds the flags that fields of :mod:`keras_frcnn.recipes` have; one that is not given is None.

    Args:
        names: fields; default: all that have a flag.

    Returns:
        The flag of each field.
    """
    fields = {each.name: each for each in dataclasses.fields(kind) if "flag" in each.metadata}
    kinds: dict[str, Any] = hints(kind)
    actions = {}
    for name in names or fields:
        flag, default = fields[name].metadata["flag"], fields[name].default
        words = flag.form.split()
        options = [word for word in words if word.startswith("-")]
        if isinstance(default, tuple):
            default = ",".join(f"{value:g}" for value in default)
        elif isinstance(default, float):
            default = f"{default:g}"
        how = _parsing(kinds[name])
        if len(words) > len(options):
            how["metavar"] = words[-1]
        source = flag.default.format(default)
        actions[name] = group.add_argument(
            *options, help=f"{flag.help}\ndefault: {source}".lstrip(), **how
        )
    return actions


def with_flags(settings: SettingsKind, arguments: argparse.Namespace) -> SettingsKind:
    """The settings, and their parts, with what was given of their fields' flags.

    Raises:
        UserError: a value is out of the field's range.
    """
    parts = {each.name: getattr(settings, each.name) for each in dataclasses.fields(settings)}
    changed = {
        name: with_flags(part, arguments)
        for name, part in parts.items()
        if isinstance(part, Settings)
    }
    return dataclasses.replace(settings, **changed, **given_fields(type(settings), arguments))


def given_fields(kind: type[Settings], arguments: argparse.Namespace) -> dict[str, Any]:
    """What was given of the flags of some settings, by field.

    Raises:
        UserError: no numbers where a list of them is expected.
    """
    given = {}
    for each in dataclasses.fields(kind):
        option = each.metadata["flag"].option if "flag" in each.metadata else ""
        value = getattr(arguments, option.removeprefix("--"), None)
        if value is not None:
            is_list = isinstance(each.default, tuple)
            given[each.name] = numbers(value, float, option) if is_list else value
    return given


def _parsing(hint: Any) -> dict[str, Any]:
    """How ``add_argument`` reads a value of a type; lists of numbers stay text."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _parsing(arguments[0])
    if hint is bool:
        return {"action": "store_true", "default": None}
    if origin is Literal:
        return {"choices": arguments}
    kind, allowed = arguments
    if origin is not Annotated or not isinstance(allowed, Range) or kind not in (int, float):
        return {}
    most = allowed.most if allowed.most < _LARGE else None
    return {"type": number(allowed.least, most, above=allowed.above, kind=kind)}


# --- flags that several commands have ----------------------------------------------------------

DATA_PATH = "VOCdevkit folder, or labelled images in any layout of docs/data.md"

# By name, as argparse takes them; those without help say in each command what is theirs.
SHARED: dict[str, dict[str, Any]] = {
    "run": {"metavar": "DIR", "help": "run folder of train_frcnn.py"},
    "allow_bad": {
        "action": "store_true",
        "help": "go on where more than a tenth of the images or objects cannot be used\n"
        "default: stop then; below, leave them out and report them (ours)",
    },
    "set": {
        "metavar": "SETS",
        "help": "such as 2007:test; without lists: train, val, test or all\n"
        "default: every test set that exists (ours)",
    },
    "strict": {
        "action": "store_true",
        "help": "stop at any problem in the data\n"
        "default: leave out what is wrong and report it (ours)",
    },
    "images": {
        "type": whole_number(1),
        "metavar": "N",
        "help": "the first N images only\ndefault: all",
    },
    "precision": {
        "choices": (*PRECISIONS, "auto"),
        "metavar": "TYPE",
        "help": "float32, bfloat16, float16, or auto: what is measured fastest here\n"
        "default: the run's own",
    },
    "jit": {
        "action": "store_true",
        "help": "let XLA compile what it can, on GPUs: faster steps, minutes before the first, and "
        "again for every other size of image\ndefault: off (ours)",
    },
    "gpu": {
        "metavar": "N,N|-1",
        "help": "devices to use, -1: none\ndefault: all",
    },
    "tile": {
        "metavar": "PX,SHARE",
        "help": "large images in tiles of so many pixels that overlap by a share: 1000,0.2; "
        "objects keep their size, memory stays flat\n"
        "default: off, the whole image at once (ours)",
    },
    "scales": {
        "metavar": "PX,PX,...",
        "help": "short sides at which the detector sees the image, each RoI at the one where it is "
        "nearest to 224 x 224 px; such as 480,576,688,864,1200 (Fast R-CNN, section 5.2)\n"
        "default: the run's own short side, as for the proposals (section 3.3)",
    },
    "stage": {
        "type": int,
        "choices": (2, 4),
        "metavar": "2|4",
        "help": "2: the unshared variant, RPN of stage 1 and detector of stage 2, there while "
        "stages 3 and 4 are trained\n"
        "default: 4, the result; 2 where the run was to stop there (section 3.2)",
    },
    "proposals": {
        "nargs": "+",
        "metavar": "FILE",
        "help": "classify these boxes, found by the image's name, instead of the RPN's: files of "
        "python -m keras_frcnn proposals, or .mat files of Selective Search\n"
        "default: the RPN's; must be given for a run that was trained so",
    },
    "num_proposals": {
        "type": whole_number(1),
        "metavar": "N",
        "help": "proposals of an image\ndefault: 300 (config.py:162)",
    },
    "network": {"choices": NETWORKS, "metavar": "NAME"},
    "short_side": {"type": whole_number(32), "metavar": "PX"},
    "seed": {"type": whole_number(0), "metavar": "N"},
    "workers": {"type": whole_number(1, 256), "metavar": "N"},
    "edge_model": {"metavar": "FILE"},
    "input_weight_path": {"metavar": "FILE"},
}


def add(group, *names: str, **own: Any) -> None:
    """Adds flags that several commands have.

    Args:
        own: what this command says otherwise.
    """
    for name in names:
        group.add_argument(f"--{name}", **{**SHARED[name], **own})


def add_switch(group, flag: str, help: str) -> None:
    """Adds a flag without a value."""
    group.add_argument(flag, action="store_true", help=help)


def add_path(group, *, required: bool = True, help: str = DATA_PATH) -> None:
    """Where the annotated images are, and in which layout."""
    group.add_argument("-p", "--path", required=required, metavar="PATH", help=help)
    group.add_argument(
        "-o",
        "--parser",
        metavar="LAYOUT",
        choices=tuple(READERS),
        help=f"{', '.join(READERS)} (lines of path,x1,y1,x2,y2,class)\n"
        "default: what lies there (ours; pascal_voc in the lineage)",
    )
    add(group, "allow_bad")


def add_training_set(group, flag: str = "--train_set") -> None:
    """The image sets to train on."""
    group.add_argument(
        flag,
        dest="set",
        metavar="SETS",
        help="such as 2007:trainval+2012:trainval, or the paper's 07, 12, 07+12, 07++12\n"
        "without lists: train, val, test, all\n"
        "default: every trainval that exists; the train part of data without lists (ours)",
    )


def add_filter(group) -> dict[str, argparse.Action]:
    """The flags of testing and export that say which detections there are, by field."""
    actions = add_fields(group, DetectionFilter)
    add(group, "num_proposals")
    return actions


def add_detector(group) -> None:
    """Where the detector lies: one of them is given."""
    add(group, "run")
    group.add_argument("--saved_model", metavar="DIR", help="an exported model, instead of --run")
    group.add_argument(
        "--onnx",
        metavar="FILE",
        help="an exported ONNX file, instead of --run; needs onnxruntime (the extra onnx)",
    )
