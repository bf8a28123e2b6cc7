"""What the experiments are made of, each made once and kept: data, runs, proposals, results.

Everything lies in one folder, under a name that says what it is; what is there already is read, and
a training that was interrupted goes on. So ``paper all`` shares trained stages between tables and
can be stopped at any moment.

Shapes and names
----------------
training  what a run was trained on: ``07``, ``12``, ``07+12`` or ``07++12`` (the paper's names).
absent    what cannot be had here: its rows stay in the table and say why.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from rich.console import Console

from keras_frcnn.data.dataset import Dataset
from keras_frcnn.data.voc import load_voc
from keras_frcnn.errors import UserError
from keras_frcnn.paper.budget import Budget
from keras_frcnn.recipes import Recipe
from keras_frcnn.runs import FINAL, RunConfig, RunFolder, command_line

# Section 4: what each name of the paper stands for.
TRAINING_SETS = {
    "07": "2007:trainval",
    "12": "2012:trainval",
    "07+12": "2007:trainval+2012:trainval",
    "07++12": "2007:trainval+2007:test+2012:trainval",
}
TEST_SETS = {"07": "2007:test", "12": "2012:test"}


class Absent(Exception):
    """Something that an experiment needs does not exist here; the message says what and why."""


@dataclass
class Workshop:
    """Makes and keeps what the experiments need.

    Attributes:
        devkit: the VOCdevkit.
        folder: where everything is kept.
        budget: what replaces the paper's setting.
        weights: network to the file that its trainings start from; ``None`` for random weights.
        runs: finished four-step runs that are used in place of training.
        console: where progress is said.
        workers: processes and threads for reading images.
        edge_model: a structured forest for EdgeBoxes.
    """

    devkit: Path
    folder: Path
    budget: Budget
    weights: dict[str, Path | None]
    runs: tuple[RunFolder, ...]
    console: Console
    workers: int = 2
    edge_model: str | None = None
    _datasets: dict[str, Dataset] = field(default_factory=dict)

    def say(self, text: str) -> None:
        """One line of progress."""
        self.console.print(text, soft_wrap=True)

    def data(self, sets: str) -> Dataset:
        """Image sets such as ``2007:test``, cut to the budget.

        Raises:
            Absent: the devkit does not have them.
        """
        if sets not in self._datasets:
            for part in sets.split("+"):
                self._check_set(part)
            names = None if sets == TRAINING_SETS["07"] else self.class_names
            dataset = load_voc(self.devkit, sets, class_names=names)
            if self.budget.images is not None:
                examples = dataset.examples[: self.budget.images]
                dataset = dataclasses.replace(dataset, examples=examples)
            self._datasets[sets] = dataset
        return self._datasets[sets]

    def _check_set(self, part: str) -> None:
        year, split = part.split(":")
        file = self.devkit / f"VOC{year}" / "ImageSets" / "Main" / f"{split}.txt"
        if not file.is_file():
            raise Absent(f"the devkit has no VOC {year} {split}")

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """Classes of the experiments: those of VOC 2007 trainval."""
        return self.data(TRAINING_SETS["07"]).class_names

    def recipe(self) -> Recipe:
        """The paper's recipe at the budget."""
        return self.budget.recipe()

    def initial_weights(self, network: str) -> Path | None:
        """The file that trainings of a network start from; ``None``: random weights.

        Raises:
            Absent: there is none.
        """
        if network not in self.weights:
            raise Absent(f"no ImageNet weights for {network} were given")
        return self.weights[network]

    def four_steps(self, network: str, training: str = "07", seed: int = 0) -> RunFolder:
        """The finished alternating training of a network; a run that was given is preferred.

        Raises:
            Absent: data or weights are not there.
        """
        if seed == 0:
            for run in self.runs:
                config = run.read_config()
                if config.network == network and self._trained_on(config, training):
                    return run
        name = f"four-steps-{network}-{training}-{seed}"
        return self.trained(name, network, training, seed=seed)

    def _trained_on(self, config: RunConfig, training: str) -> bool:
        return list(config.data["sets"]) == TRAINING_SETS[training].split("+")

    def trained(
        self,
        name: str,
        network: str,
        training: str = "07",
        *,
        seed: int = 0,
        stages: Sequence[int] = (1, 2, 3, 4),
        recipe: Recipe | None = None,
    ) -> RunFolder:
        """A finished run of this name, trained now as far as it is not there.

        Args:
            name: its folder under ``runs``; everything that makes it different stands in it.
            stages: of the four steps.
            recipe: default: the paper's at the budget.

        Raises:
            Absent: data or weights are not there.
        """
        run = RunFolder(self.folder / "runs" / name)
        last = FINAL if 4 in stages else f"stage{max(stages)}"
        if run.weights_file(last).exists():
            return run
        initial = self.initial_weights(network)
        dataset = self.data(TRAINING_SETS[training])
        config = RunConfig(
            network=network,
            precision=self.budget.precision,
            mode="alternating",
            seed=seed,
            flips=True,
            class_names=dataset.class_names,
            initial_weights="random" if initial is None else str(initial),
            stages=tuple(stages),
            data={
                "path": str(self.devkit),
                "parser": "pascal_voc",
                "sets": list(dataset.sets),
                "images": len(dataset),
                "ids_hash": dataset.ids_hash,
            },
            recipe=recipe or self.recipe(),
        )
        self.fit(run, config, dataset, initial)
        return run

    def fit(
        self, run: RunFolder, config: RunConfig, dataset: Dataset, initial: Path | None
    ) -> None:
        """Trains a run to its end, from where it stopped if it is there."""
        from keras_frcnn.training.display import TrainingDisplay
        from keras_frcnn.training.fitting import Fitting, TrainingOptions
        from keras_frcnn.training.stages import Trainer

        if run.config_file.exists():
            run.resume(config)
        else:
            run.create(config, command_line())
        run.write_training_images(dataset)
        self.say(f"training {run.path}")
        plan = [(stage, config.recipe.stages[stage - 1].iterations) for stage in config.stages]
        display = TrainingDisplay(self.console, plan)
        options = TrainingOptions(initial_weights=initial, workers=self.workers)
        Trainer(Fitting(config, dataset, run, options, display)).train()


def devkit_of(path: Path) -> Path:
    """The VOCdevkit folder of a path.

    Raises:
        UserError: it holds no VOC 2007.
    """
    if not (path / "VOC2007" / "ImageSets" / "Main").is_dir():
        raise UserError(
            f"The paper's experiments need a VOCdevkit with VOC2007; {path} has no "
            "VOC2007/ImageSets/Main."
        )
    return path
