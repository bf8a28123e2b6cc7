"""What made a run: every hyper-parameter, the classes, the data, versions and the command."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import platform
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from keras_frcnn import __version__
from keras_frcnn.errors import UserError
from keras_frcnn.recipes import Compression, Network, Precision, Recipe, StageSchedule
from keras_frcnn.runs.stage_table import Stage, planned
from keras_frcnn.system.settings import Range, Settings, from_json

if TYPE_CHECKING:
    from keras_frcnn.data.dataset import Dataset

FORMAT_VERSION = 1
# Seeds of iterations are int32: seed * 8 + stage.
LARGEST_SEED = 2**28 - 1
MOST_CLASSES, LONGEST_NAME = 10_000, 1_000
# What the file of a configuration says beside it.
_ABOUT = ("format", "versions", "computing", "command", "name", "run")
# Of a recipe, what weights do not depend on.
_OF_TESTING = ("test_proposals", "test_filter", "evaluation_filter", "evaluation_strictly_greater")
_NAMED_WEIGHTS = ("imagenet", "random")


@dataclass(frozen=True)
class GivenSource(Settings):
    """Where proposals that were given come from; what they are says their digest alone."""

    files: tuple[str, ...]
    method: str
    settings: dict
    digest: str


@dataclass(frozen=True)
class DataSource(Settings):
    """Where the training images come from.

    Attributes:
        path: where they lay when the training last began or went on.
        parser: the layout, a key of ``READERS`` of :mod:`keras_frcnn.data.load`.
        sets: such as ``2007:trainval``.
        bits: that those with 16 bits use; 0 where there are none.
        proposals: those that were given, in the mode ``fast-rcnn``.
    """

    path: str
    ids_hash: str
    parser: str = "pascal_voc"
    sets: tuple[str, ...] = ()
    images: Annotated[int, Range(0, 10**9)] = 0
    bits: Literal[0, 8, 10, 12, 14, 16] = 0
    proposals: GivenSource | None = None


def source_of(dataset: Dataset, proposals: GivenSource | None = None) -> DataSource:
    """What a configuration tells of a data set, and of the proposals that were given with it."""
    return DataSource(
        path=dataset.path,
        ids_hash=dataset.ids_hash,
        parser=dataset.parser,
        sets=dataset.sets,
        images=len(dataset),
        bits=cast(Any, dataset.bits),
        proposals=proposals,
    )


@dataclass(frozen=True)
class Choice(Settings):
    """One line of the plan of a training that has so many minutes.

    Attributes:
        part: of the configuration, such as ``short_side``.
        value: that was chosen, for a person.
        reason: why.
    """

    part: str
    value: str
    reason: str


@dataclass(frozen=True)
class RunConfig(Settings):
    """What a run is made of; stored as ``config.json``.

    Attributes:
        mode: ``fast-rcnn`` is stage 2 alone, on given proposals.
        flips: whether every image is also seen mirrored.
        class_names: foreground classes in order.
        initial_weights: ``imagenet``, ``random`` or the file that was given.
        stages: those that were asked for.
        compression: ranks of fc6 and fc7 if they are compressed; such a run cannot be trained on.
        initial_weights_digest: of the contents of that file; ``None``: random weights.
        minutes: that the training was planned for; ``None``: it was not.
        choices: of the plan, which the recipe already holds.
    """

    network: Network
    precision: Precision
    mode: Literal["alternating", "joint", "fast-rcnn"]
    seed: Annotated[int, Range(0, LARGEST_SEED)]
    flips: bool
    class_names: Annotated[tuple[str, ...], Range(1, MOST_CLASSES)]
    initial_weights: str
    stages: Annotated[tuple[Literal[1, 2, 3, 4], ...], Range(0, 4)]
    data: DataSource
    recipe: Recipe
    compression: Compression | None = None
    initial_weights_digest: str | None = None
    minutes: Annotated[float, Range(0, 10**6, above=True)] | None = None
    choices: tuple[Choice, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        checked_class_names(self.class_names, "class_names")

    @property
    def plan(self) -> tuple[Stage, ...]:
        """The stages that are trained, in order."""
        return planned(self.mode, self.stages)

    @property
    def schedules(self) -> dict[int, StageSchedule]:
        """How long each stage is trained, and at what rate, by its number."""
        numbers = [stage.number for stage in self.plan]
        return {n: self.recipe.stages[n - 1] if n else self.recipe.joint for n in numbers}


def versions() -> dict[str, str]:
    """Versions of what numbers depend on."""
    names = ("tensorflow", "keras", "numpy", "pillow")
    return {
        "keras_frcnn": __version__,
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in names},
    }


def computing() -> dict[str, Any]:
    """What the last bits of a result depend on beside versions: threads, and oneDNN's rounding."""
    has_mask = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if has_mask else os.cpu_count()
    return {
        "intra_op_threads": os.environ.get("TF_NUM_INTRAOP_THREADS") or str(cores),
        "inter_op_threads": os.environ.get("TF_NUM_INTEROP_THREADS") or str(cores),
        "onednn": os.environ.get("TF_ENABLE_ONEDNN_OPTS", "1") != "0",
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
    version = values.get("format") if isinstance(values, dict) else None
    if type(version) is not int or version < 1:
        raise UserError(f"{where} is not the configuration of a run: it has no format above 0.")
    if version > FORMAT_VERSION:
        raise UserError(
            f"{where} has format {version}, this version reads up to {FORMAT_VERSION}; "
            "install a newer keras_frcnn."
        )
    known = {name: values[name] for name in values if name not in _ABOUT}
    return from_json(known, RunConfig, where)


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


def plain(config: RunConfig) -> dict[str, Any]:
    """The values of a configuration as JSON has them."""
    # A round trip, so that tuples compare equal to the lists of the file.
    return json.loads(json.dumps(dataclasses.asdict(config)))


def lasting(config: RunConfig) -> dict[str, Any]:
    """The values of a configuration that stay when its data and files lie elsewhere.

    Of those the list of training images and the digests tell whether they are the same. How its
    recipe was chosen is left out, too: the same recipe may be spelt by flags.
    """
    values = plain(config)
    del values["data"]["path"], values["minutes"], values["choices"]
    if values["data"]["proposals"] is not None:
        values["data"]["proposals"] = values["data"]["proposals"]["digest"]
    if config.initial_weights not in _NAMED_WEIGHTS:
        values["initial_weights"] = "a file"
    return values


def identity(config: RunConfig) -> str:
    """Hexadecimal digest of what a run is from its first stop to its last.

    Which stages are asked for may change between two stops; weights may be compressed, and tested
    by other settings.
    """
    values = lasting(dataclasses.replace(config, stages=(), compression=None))
    for name in _OF_TESTING:
        del values["recipe"][name]
    text = json.dumps(values, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def differences(stored: Any, asked: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Dotted names of what differs in two JSON values, with both values."""
    if isinstance(stored, dict) and isinstance(asked, dict):
        for key in {**stored, **asked}:
            inner = f"{name}.{key}" if name else key
            yield from differences(stored.get(key), asked.get(key), inner)
    elif stored != asked:
        yield name, stored, asked
