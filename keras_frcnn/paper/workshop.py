"""What the experiments share: the data, the budget, the folder where everything is kept.

What an experiment makes lies there under a name that says what it is. The next one reads it, and a
training that was interrupted goes on: ``paper all`` can be stopped at any moment. One folder holds
one setting; another budget needs another folder.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from rich.console import Console

from keras_frcnn.data.bad_images import about_problems, check_share_of_bad
from keras_frcnn.data.dataset import Dataset
from keras_frcnn.data.voc import load_voc
from keras_frcnn.errors import UserError
from keras_frcnn.network.weights import IMAGENET_FILES, imagenet_file
from keras_frcnn.paper.budget import Budget
from keras_frcnn.paper.voc_server import has_annotations, load_unannotated
from keras_frcnn.runs.config import differences
from keras_frcnn.runs.folder import RunFolder
from keras_frcnn.runs.stage_table import FINAL
from keras_frcnn.runs.training_images import check_not_trained_on
from keras_frcnn.system.files import digest_of, is_partial, write_text

# Section 4: what each name of the paper stands for.
TRAINING_SETS = {
    "07": "2007:trainval",
    "12": "2012:trainval",
    "07+12": "2007:trainval+2012:trainval",
    "07++12": "2007:trainval+2007:test+2012:trainval",
}
TEST_SETS = {"07": "2007:test", "12": "2012:test"}
# Section 4: images of the published sets; a devkit may have its own lists.
PUBLISHED_SIZES = {"2007:trainval": 5011, "2007:test": 4952}
# What may change between commands of one folder: the names of what is kept tell it.
_FREE = ("seeds", "detect_images", "window_stride")

Key = TypeVar("Key")
Made = TypeVar("Made")


class Absent(Exception):
    """Something that an experiment needs does not exist here; the message says what and why.

    Raised by whatever reads data or weights, trains, proposes, detects or evaluates.
    """


def tried(
    makers: Mapping[Key, Callable[[], Made]],
) -> tuple[dict[Key, Made], dict[Key, str]]:
    """What could be made, and of the rest why not."""
    made: dict[Key, Made] = {}
    absent: dict[Key, str] = {}
    for key, make in makers.items():
        try:
            made[key] = make()
        except Absent as reason:
            absent[key] = str(reason)
    return made, absent


@dataclass
class Workshop:
    """Where experiments find what they need.

    Attributes:
        devkit: the VOCdevkit.
        folder: where everything is kept.
        budget: what replaces the paper's setting.
        weights: network to the file that its trainings start from; ``None`` for random weights.
        runs: finished four-step runs that are used in place of training.
        console: where progress is said.
        workers: processes and threads for reading images.
        edge_model: a structured forest for EdgeBoxes.
        allow_bad: go on where more than a tenth of a set's images cannot be used.
    """

    devkit: Path
    folder: Path
    budget: Budget
    weights: dict[str, Path | None]
    runs: tuple[RunFolder, ...]
    console: Console
    workers: int = 2
    edge_model: str | None = None
    allow_bad: bool = False
    _datasets: dict[str, Dataset] = field(default_factory=dict)

    def say(self, text: str) -> None:
        """One line of progress."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def data(self, sets: str) -> Dataset:
        """Image sets such as ``2007:test``, cut to the budget."""
        whole = self._whole(sets)
        return dataclasses.replace(whole, examples=whole.examples[: self.budget.images])

    def detected(self, sets: str) -> Dataset:
        """The first images of :meth:`data`, as many as detectors are run on."""
        some = self.data(sets)
        return dataclasses.replace(some, examples=some.examples[: self.budget.detect_images])

    def _whole(self, sets: str) -> Dataset:
        if sets not in self._datasets:
            for part in sets.split("+"):
                year, split = part.split(":")
                lists = self.devkit / f"VOC{year}" / "ImageSets" / "Main"
                if not (lists / f"{split}.txt").is_file():
                    raise Absent(f"the devkit has no VOC {year} {split}")
            if sets in TEST_SETS.values() and not has_annotations(self.devkit, sets):
                dataset = load_unannotated(self.devkit, sets, self.class_names)
            else:
                names = None if sets == TRAINING_SETS["07"] else self.class_names
                dataset = load_voc(self.devkit, sets, class_names=names)
            for sentence in about_problems(dataset):
                self.say(sentence)
            if not self.allow_bad:
                check_share_of_bad(dataset)
            self._datasets[sets] = dataset
        return self._datasets[sets]

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """Classes of the experiments: those of VOC 2007 trainval."""
        return self.data(TRAINING_SETS["07"]).class_names

    def initial_weights(self, network: str) -> Path | None:
        """The file that trainings of a network start from; ``None``: random weights."""
        if network not in self.weights:
            raise Absent(f"no ImageNet weights for {network} were given")
        return self.weights[network]

    def caption(self, seeds: int = 1) -> str:
        """The budget, what trainings start from, whose lists they are, and the runs given.

        Args:
            seeds: how many runs of each system the table or figure is made of.
        """
        lists = {name: len(self._whole(name)) for name in PUBLISHED_SIZES}
        own = [name for name, size in lists.items() if size != PUBLISHED_SIZES[name]]
        random = None in self.weights.values()
        reproduces = not (own or random or self.runs)
        parts = [self.budget.caption(reproduces=reproduces, seeds=seeds)]
        files = [file.name for file in self.weights.values() if file is not None]
        if random or files:
            parts.append(f"Trainings start from {', '.join(files) or 'random weights'}.")
        if own:
            sizes = ", ".join(
                f"{name} {lists[name]:,} images ({PUBLISHED_SIZES[name]:,} as published)"
                for name in own
            )
            parts.append(f"The devkit's own lists, so no VOC 2007 mAP: {sizes}.")
        for run in self.runs:
            config = run.read_config()
            schedule = "/".join(f"{stage.iterations:,}" for stage in config.recipe.stages)
            parts.append(
                f"Four-step run of {config.network} given: {run.path.name}, {schedule} iterations "
                f"on {config.data.images} images."
            )
        return " ".join(parts)

    def check(self) -> None:
        """Checks the given runs and the folder, and begins the folder if it is new.

        Raises:
            UserError: a run cannot serve, or the folder holds something else or another setting.
        """
        if self.runs and self.budget.seeds > 1:
            raise UserError(
                "--seeds repeats trainings, --run takes the place of one: give one of the two."
            )
        by_name: dict[str, RunFolder] = {}
        for run in self.runs:
            self._check_run(run)
            other = by_name.setdefault(run.path.name, run)
            if other.path.resolve() != run.path.resolve():
                raise UserError(
                    f"--run {other.path} and {run.path} end in the same name, by which what they "
                    "propose and detect is kept: rename one of the folders."
                )
        asked = json.loads(json.dumps(self._setting()))
        file = self.folder / "setting.json"
        if not file.is_file():
            there = self.folder.iterdir() if self.folder.is_dir() else ()
            if not all(is_partial(path) for path in there):
                raise UserError(
                    f"--out {self.folder} holds files but no setting.json: paper did not begin it. "
                    "Its sheets could replace what is there; name a new "
                    "or an empty folder."
                )
            self.folder.mkdir(parents=True, exist_ok=True)
            write_text(file, json.dumps(asked, indent=2) + "\n")
            return
        stored = json.loads(file.read_text(encoding="utf-8"))
        for name, was, now in differences(stored, asked):
            raise UserError(
                f"{self.folder} was begun with {name} = {was!r}, this command asks for {now!r}; "
                "give the same flags, or another --out."
            )

    def _check_run(self, run: RunFolder) -> None:
        config = run.read_config()
        names = ("stage1", "stage2", "stage3", FINAL)
        lacking = [name for name in names if not run.weights_file(name).exists()]
        if config.mode != "alternating" or lacking:
            what = f"lacks the weights of {', '.join(lacking)}" if lacking else f"is {config.mode}"
            raise UserError(
                f"--run should be a finished run of all four stages; {run.path} {what}."
            )
        if config.class_names != self.class_names:
            raise UserError(
                f"{run.path} has the classes {', '.join(config.class_names)}; those of "
                f"{self.devkit} are {', '.join(self.class_names)}."
            )
        networks = sorted({self.budget.network_or(name) for name in ("vgg16", "zf")})
        sets = "+".join(config.data.sets)
        if config.network not in networks or sets not in TRAINING_SETS.values():
            raise UserError(
                f"No experiment would use {run.path}, {config.network} on {sets}: they are of "
                f"{' and '.join(networks)}, on one of {', '.join(TRAINING_SETS.values())}."
            )
        if TEST_SETS["07"] not in config.data.sets:  # 07++12 is tested on VOC 2012 alone
            check_not_trained_on(run.training_images_file, self.data(TEST_SETS["07"]))

    def _setting(self) -> dict:
        budget = dataclasses.asdict(self.budget)
        return {
            **{name: value for name, value in budget.items() if name not in _FREE},
            "devkit": str(self.devkit.resolve()),
            "weights": {name: file and str(file) for name, file in self.weights.items()},
            "runs": {str(run.path): digest_of([run.weights_file(FINAL)]) for run in self.runs},
            "edge_model": self.edge_model and digest_of([Path(self.edge_model)]),
        }


def initial_weights(workshop: Workshop, files: Mapping[str, Path]) -> dict[str, Path | None]:
    """The file that each network's trainings start from; networks without any are missing.

    Args:
        files: those that were given, by network; ImageNet's are fetched for another one.

    Raises:
        UserError: they cannot be fetched, and there is no run, which may do without.
    """
    network = workshop.budget.network_or("vgg16")
    found: dict[str, Path | None] = {}
    if network in files:
        found[network] = files[network]
    elif network in IMAGENET_FILES:
        workshop.data(TRAINING_SETS["07"])  # what is wrong with it is told before a download
        try:
            found[network] = imagenet_file(network)
        except UserError as error:
            if not workshop.runs:
                raise
            workshop.say(f"{error} Experiments that the given runs do not serve are left out.")
    return {**found, **files}


def countable_objects(dataset: Dataset) -> int:
    """Objects that recall is measured on: all but the difficult ones."""
    return sum(int((~example.difficult).sum()) for example in dataset.examples)


def devkit_of(path: Path) -> Path:
    """The VOCdevkit folder of a path.

    Raises:
        UserError: it has no lists of VOC 2007 trainval and test.
    """
    lists = path / "VOC2007" / "ImageSets" / "Main"
    missing = [name for name in ("trainval.txt", "test.txt") if not (lists / name).is_file()]
    if missing:
        raise UserError(
            f"The paper's experiments need a VOCdevkit with VOC2007; {path} has no "
            f"VOC2007/ImageSets/Main/{missing[0]}."
        )
    return path
