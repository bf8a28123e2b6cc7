"""Settings whose types say what they may hold: checked wherever one is made or read from JSON."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from keras_frcnn.errors import UserError


@dataclass(frozen=True)
class Range:
    """Numbers from ``least`` to ``most``; of lists it is their length that counts.

    Attributes:
        above, below: whether ``least`` and ``most`` themselves are left out.
    """

    least: float
    most: float
    above: bool = False
    below: bool = False

    def __contains__(self, value: float) -> bool:
        high_enough = value > self.least if self.above else value >= self.least
        return high_enough and (value < self.most if self.below else value <= self.most)

    def __str__(self) -> str:
        least = f"above {self.least:,}" if self.above else f"at least {self.least:,}"
        return f"{least} and {'below' if self.below else 'at most'} {self.most:,}"


Share = Annotated[float, Range(0, 1)]
PositiveShare = Annotated[float, Range(0, 1, above=True)]
Count = Annotated[int, Range(1, 10**9)]
Factor = Annotated[float, Range(0, 10**6)]
PositiveFactor = Annotated[float, Range(0, 10**6, above=True)]


@dataclass(frozen=True)
class Flag:
    """How a command line asks for a field, whose type says what it may be.

    Attributes:
        form: its names and what stands for the value, such as ``-n --num_rois N``.
        help: what it is.
        default: what holds without it, and where that comes from; ``{}`` is the field's default.
    """

    form: str
    help: str
    default: str

    @property
    def option(self) -> str:
        """Its long name."""
        return next(word for word in self.form.split() if word.startswith("--"))


def flagged(default: Any, form: str, help: str, source: str) -> Any:
    """A field with a default and a :class:`Flag`."""
    return field(default=default, metadata={"flag": Flag(form, help, source)})


@dataclass(frozen=True)
class Settings:
    """Base of frozen dataclasses whose fields hold what their types allow, and nothing else.

    A type is ``bool``, ``int``, ``float``, ``str``, ``dict``, another of these classes, a
    ``Literal``, a tuple of them, each perhaps ``Annotated`` with a :class:`Range` or ``| None``.

    Raises:
        UserError: on construction, naming the field.
    """

    def __post_init__(self) -> None:
        for name, hint in hints(type(self)).items():
            value = checked(getattr(self, name), hint, f"{type(self).__name__}.{name}")
            object.__setattr__(self, name, value)


def flags_of(settings: Settings) -> Iterator[tuple[str, Flag]]:
    """The flags of the fields, and of their parts' fields, by dotted name."""
    for each in dataclasses.fields(settings):
        value = getattr(settings, each.name)
        if isinstance(value, Settings):
            for name, flag in flags_of(value):
                yield f"{each.name}.{name}", flag
        elif "flag" in each.metadata:
            yield each.name, each.metadata["flag"]


def from_json(values: Any, kind: type, where: str) -> Any:
    """Settings of the dictionary that ``dataclasses.asdict`` and JSON make of them.

    Args:
        where: names the object in messages.

    Raises:
        UserError: a field is unknown, missing or not what its type allows; the message names it.
    """
    if not isinstance(values, dict):
        raise UserError(f"{where} should be an object with named fields, not {values!r:.80}.")
    types_of = hints(kind)
    unknown = sorted(set(values) - set(types_of))
    if unknown:
        raise UserError(
            f"{where} has the unknown field {unknown[0]!r:.80}; known are {', '.join(types_of)}."
        )
    missing = [name for name in types_of if name not in values]
    if missing:
        raise UserError(f"{where} lacks the field {missing[0]!r}.")
    converted = {
        name: checked(value, types_of[name], f"{where}.{name}") for name, value in values.items()
    }
    try:
        return kind(**converted)
    except UserError as error:  # values that do not go together
        raise UserError(f"{where}: {error}") from error


def hints(kind: type) -> dict[str, Any]:
    """The types of the fields, with what they are annotated with."""
    return typing.get_type_hints(kind, include_extras=True)


def checked(value: Any, hint: Any, where: str) -> Any:
    """The value as its type has it: tuples of lists, floats of whole numbers, settings of objects.

    Raises:
        UserError: the type does not allow it.
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        kind, allowed = arguments
        if not isinstance(value, (list, tuple)):
            value = checked(value, kind, where)
            if value not in allowed:
                raise UserError(f"{where} should be {allowed}, not {value!r:.80}.")
        elif len(value) not in allowed:  # before a million of them are looked at
            raise UserError(f"{where} should have {allowed} entries, not {len(value)}.")
        return checked(value, kind, where)
    if origin in (typing.Union, types.UnionType):
        return None if value is None else checked(value, arguments[0], where)
    if origin is Literal:
        if type(value) is not type(arguments[0]) or value not in arguments:
            known = ", ".join(map(str, arguments))
            raise UserError(f"{where} should be one of {known}, not {value!r:.80}.")
        return value
    if origin is tuple:
        return _checked_tuple(value, arguments, where)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return value if isinstance(value, hint) else from_json(value, hint, where)
    # JSON has no such numbers, Python's reader takes them; and no count is beyond 64 bits.
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if is_number and not (abs(value) < (math.inf if isinstance(value, float) else 2**63)):
        raise UserError(f"{where} should be a finite number, not {value!r:.80}.")
    if hint is float and is_number:
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise UserError(f"{where} should be of type {hint.__name__}, not {value!r:.80}.")
    return value


def _checked_tuple(value: Any, kinds: tuple[Any, ...], where: str) -> tuple:
    if not isinstance(value, (list, tuple)):
        raise UserError(f"{where} should be a list, not {value!r:.80}.")
    fixed = Ellipsis not in kinds
    if fixed and len(value) != len(kinds):
        raise UserError(f"{where} should have {len(kinds)} entries, not {len(value)}.")
    return tuple(
        checked(entry, kinds[index] if fixed else kinds[0], f"{where}[{index}]")
        for index, entry in enumerate(value)
    )
