"""Flags of fields: made from what the fields of :mod:`keras_frcnn.recipes` say, and read back."""

from __future__ import annotations

import argparse
import dataclasses
import types
import typing
from typing import Annotated, Any, Literal, TypeVar

from keras_frcnn.cli.common import number, numbers, whole_number
from keras_frcnn.system.settings import Range, Settings, hints

Kind = TypeVar("Kind", bound=Settings)
# Beyond it no user goes: left to the settings, messages of the flag stay short.
_LARGE = 10**6


def add_fields(group, kind: type[Settings], *names: str) -> dict[str, argparse.Action]:
    """Adds the flags of some settings; one that is not given is None.

    Args:
        names: fields; default: all that have a flag.

    Returns:
        The flag of each field.
    """
    fields = {each.name: each for each in dataclasses.fields(kind) if "flag" in each.metadata}
    actions = {}
    for name in names or fields:
        flag, default = fields[name].metadata["flag"], fields[name].default
        words = flag.form.split()
        options = [word for word in words if word.startswith("-")]
        if isinstance(default, tuple):
            default = ",".join(f"{value:g}" for value in default)
        elif isinstance(default, float):
            default = f"{default:g}"
        how = _parsing(hints(kind)[name])
        if len(words) > len(options):
            how["metavar"] = words[-1]
        source = flag.default.format(default)
        actions[name] = group.add_argument(
            *options, help=f"{flag.help}\ndefault: {source}".lstrip(), **how
        )
    return actions


def with_flags(settings: Kind, arguments: argparse.Namespace) -> Kind:
    """The settings, and their parts, with what was given of their fields' flags.

    Raises:
        UserError: a value is out of the field's range.
    """
    changes: dict[str, Any] = {}
    for each in dataclasses.fields(settings):
        own = getattr(settings, each.name)
        if isinstance(own, Settings):
            changes[each.name] = with_flags(own, arguments)
        elif "flag" in each.metadata:
            option = each.metadata["flag"].option
            given = getattr(arguments, option.removeprefix("--"), None)
            if given is not None:
                is_list = isinstance(own, tuple)
                changes[each.name] = numbers(given, float, option) if is_list else given
    return dataclasses.replace(settings, **changes)


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
    if kind is int:
        return {"type": whole_number(allowed.least, most)}
    return {"type": number(allowed.least, most, above=allowed.above)}
