"""What made a run: every hyper-parameter, the classes, the data, versions and the command."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import platform
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from keras_frcnn import __version__
from keras_frcnn.errors import UserError
from keras_frcnn.recipes import (
    ADDED_LATER,
    Compression,
    Recipe,
    StageSchedule,
    from_json,
    to_json,
)

FORMAT_VERSION = 1
MOST_CLASSES, LONGEST_NAME = 10_000, 1_000
PRECISIONS = ("float32", "bfloat16", "float16")
MODES = ("alternating", "joint", "fast-rcnn")
STAGES = (1, 2, 3, 4)
# What the file of a configuration says beside it.
_ABOUT = ("format", "versions", "command", "name", "run")


@dataclass(frozen=True)
class RunConfig:
    """What a run is made of; stored as ``config.json``.

    Attributes:
        network: ``vgg16``, ``zf``, ``resnet50`` or ``tiny``.
        precision: ``float32``, ``bfloat16`` or ``float16``.
        mode: ``alternating``, ``joint``, or ``fast-rcnn``: stage 2 alone, on given proposals.
        seed: of everything random.
        flips: whether every image is also seen mirrored.
        class_names: foreground classes in order.
        initial_weights: ``imagenet``, ``random`` or the file that was given.
        stages: stages that were asked for (1 to 4).
        data: where the training images come from: path, parser, sets, images, ids_hash; in the
            mode ``fast-rcnn`` also the given proposals.
        recipe: every hyper-parameter.
        compression: ranks of fc6 and fc7 if they are compressed; such a run cannot be trained on.
        initial_weights_digest: of the contents of that file; ``None``: random weights, or a run of
            an earlier version, of which it is not known.
    """

    network: str
    precision: str
    mode: str
    seed: int
    flips: bool
    class_names: tuple[str, ...]
    initial_weights: str
    stages: tuple[int, ...]
    data: dict
    recipe: Recipe
    compression: Compression | None = field(default=None, metadata=ADDED_LATER)
    initial_weights_digest: str | None = field(default=None, metadata=ADDED_LATER)

    def __post_init__(self) -> None:
        checked_class_names(self.class_names, "class_names")

    @property
    def schedules(self) -> dict[int, StageSchedule]:
        """What is trained, by stage; joint training is 0."""
        if self.mode == "joint":
            return {0: self.recipe.joint}
        return {stage: self.recipe.stages[stage - 1] for stage in self.stages}


def checked_class_names(names: Any, where: str) -> tuple[str, ...]:
    """The foreground classes of a file, or of a training that begins.

    Raises:
        UserError: they are no list of different names that a file in UTF-8 can hold.
    """
    if not isinstance(names, (list, tuple)) or not 0 < len(names) <= MOST_CLASSES:
        raise UserError(f"{where} should be a list of 1 to {MOST_CLASSES}, not {names!r:.80}.")
    for index, name in enumerate(names):
        is_name = isinstance(name, str) and 0 < len(name.strip()) <= LONGEST_NAME
        # JSON can write half of a letter, a lone surrogate.
        if not is_name or name.encode(errors="ignore").decode() != name:
            length = f"1 to {LONGEST_NAME} whole letters"
            raise UserError(f"{where}[{index}] should be {length}, not {name!r:.80}.")
    if twice := next((name for name, count in Counter(names).items() if count > 1), None):
        raise UserError(f"{where} should differ, {twice!r:.80} is there twice.")
    return tuple(names)


def versions() -> dict[str, str]:
    """Versions of what numbers depend on."""
    names = ("tensorflow", "keras", "numpy", "pillow")
    return {
        "keras_frcnn": __version__,
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in names},
    }


def command_line() -> list[str]:
    """The command as it was typed."""
    return [Path(sys.argv[0]).name, *sys.argv[1:]]


def config_of(values: Any, where: str) -> RunConfig:
    """The configuration in the values of a ``config.json``, every field checked.

    Args:
        where: the file, for messages.

    Raises:
        UserError: naming the field that is missing, unknown or ill-typed, or the newer format.
    """
    if not isinstance(values, dict) or not isinstance(values.get("format"), int):
        raise UserError(f"{where} is not the configuration of a run.")
    if values["format"] > FORMAT_VERSION:
        raise UserError(
            f"{where} has format {values['format']}, this version reads up to {FORMAT_VERSION}; "
            "install a newer keras_frcnn."
        )
    known = {name: values[name] for name in values if name not in _ABOUT}
    config = from_json(known, RunConfig, where)
    _check_choices(config, where)
    return config


def _check_choices(config: RunConfig, where: str) -> None:
    """Makes sure that what can only be one of a few names or numbers is.

    Raises:
        UserError: naming the field.
    """
    chosen = (
        ("precision", (config.precision,), PRECISIONS),
        ("mode", (config.mode,), MODES),
        ("stages", config.stages, STAGES),
    )
    for field_name, values, known in chosen:
        for value in values:
            if value not in known:
                raise UserError(
                    f"{where}.{field_name} should be of {', '.join(map(str, known))}, "
                    f"not {value!r:.80}."
                )


def plain(config: RunConfig) -> dict[str, Any]:
    """The values of a configuration as JSON has them."""
    # A round trip, so that tuples compare equal to the lists of the file.
    return json.loads(json.dumps(to_json(config)))


def identity(config: RunConfig) -> str:
    """Hexadecimal digest of what a run is from its first stop to its last.

    Which stages are asked for may change between two stops. A field that was added later counts
    only where it is not what earlier versions did, so that an update leaves the digest as it is.
    """
    # As the file gives it back: a whole number on the command line is the same there as a float.
    stored = from_json(plain(dataclasses.replace(config, stages=())), RunConfig)
    text = json.dumps(_as_first_versions(stored), sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _as_first_versions(value: Any) -> Any:
    """The values of a configuration without fields that were added later and have their default."""
    if isinstance(value, tuple):
        return [_as_first_versions(entry) for entry in value]
    if not dataclasses.is_dataclass(value):
        return value
    values = {item.name: (item, getattr(value, item.name)) for item in dataclasses.fields(value)}
    return {
        name: _as_first_versions(entry)
        for name, (item, entry) in values.items()
        if not ("added_later" in item.metadata and entry == item.default)
    }


def differences(stored: Any, asked: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Dotted names of what differs in two JSON values, with both values."""
    if isinstance(stored, dict) and isinstance(asked, dict):
        for key in {**stored, **asked}:
            yield from differences(
                stored.get(key), asked.get(key), f"{name}.{key}" if name else key
            )
    elif stored != asked:
        yield name, stored, asked
