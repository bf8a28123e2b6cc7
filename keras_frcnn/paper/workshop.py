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
from keras_frcnn.paper.systems import (
    Evaluated,
    detect_all,
    evaluated,
    read_detections,
    write_detections,
)
from keras_frcnn.paper.voc_server import has_annotations, load_unannotated, write_server_files
from keras_frcnn.paper.windows import dense_windows
from keras_frcnn.proposals.generation import Method
from keras_frcnn.proposals.given import GivenProposals
from keras_frcnn.proposals.region_proposal_network import Ablation
from keras_frcnn.recipes import Compression, Recipe
from keras_frcnn.runs import FINAL, RunConfig, RunFolder, command_line

# Section 4: what each name of the paper stands for.
TRAINING_SETS = {
    "07": "2007:trainval",
    "12": "2012:trainval",
    "07+12": "2007:trainval+2012:trainval",
    "07++12": "2007:trainval+2007:test+2012:trainval",
}
TEST_SETS = {"07": "2007:test", "12": "2012:test"}
# Units of fc6 and fc7.
FULLY_CONNECTED = {"vgg16": 4096, "zf": 4096, "tiny": 256}
# Section 4.1, ablations of the RPN.
VARIANTS = {
    "": Ablation(),
    "no-nms": Ablation(nms=False),
    "no-cls": Ablation(cls=False),
    "no-reg": Ablation(reg=False),
}


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
            if sets in TEST_SETS.values() and not has_annotations(self.devkit, sets):
                dataset = load_unannotated(self.devkit, sets, names)
            else:
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

    def initial_weights(self, network: str) -> Path | None:
        """The file that trainings of a network start from; ``None``: random weights.

        Raises:
            Absent: there is none.
        """
        if network not in self.weights:
            raise Absent(f"no ImageNet weights for {network} were given")
        return self.weights[network]

    def caption(self) -> str:
        """The budget, and the runs that were given, whose schedules are their own."""
        text = self.budget.caption()
        for run in self.runs:
            config = run.read_config()
            schedule = "/".join(f"{stage.iterations:,}" for stage in config.recipe.stages)
            text += (
                f" Four-step run of {config.network} given: {run.path.name}, {schedule} iterations "
                f"on {config.data['images']} images."
            )
        return text

    def four_steps(self, network: str, training: str = "07", seed: int = 0) -> RunFolder:
        """The finished alternating training of a network; a run that was given is preferred.

        Raises:
            Absent: data or weights are not there.
        """
        if seed == 0:
            for run in self.runs:
                config = run.read_config()
                sets = TRAINING_SETS[training].split("+")
                if config.network == network and list(config.data["sets"]) == sets:
                    return run
        return self.trained(f"four-steps-{network}-{training}-{seed}", network, training, seed=seed)

    def rpn_alone(self, name: str, network: str, recipe: Recipe) -> RunFolder:
        """A run of stage 1 only, by a recipe of its own.

        Raises:
            Absent: weights are not there.
        """
        return self.trained(f"rpn-{network}-{name}", network, stages=(1,), recipe=recipe)

    def fast_rcnn(
        self, network: str, source: str, training: str = "07", seed: int = 0
    ) -> RunFolder:
        """Fast R-CNN trained on ``ss``, ``eb`` or ``windows``.

        Raises:
            Absent: data, weights or a library are not there.
        """
        self.initial_weights(network)  # absent weights should not cost a search for proposals
        given = self.external(source, TRAINING_SETS[training])
        name = f"fast-rcnn-{network}-{source}-{training}-{seed}"
        return self.trained(name, network, training, seed=seed, stages=(2,), given=given)

    def trained(
        self,
        name: str,
        network: str,
        training: str = "07",
        *,
        seed: int = 0,
        stages: Sequence[int] = (1, 2, 3, 4),
        recipe: Recipe | None = None,
        given: GivenProposals | None = None,
    ) -> RunFolder:
        """A finished run of this name, trained now as far as it is not there.

        Args:
            name: its folder under ``runs``; everything that makes it different stands in it.
            stages: of the four steps.
            recipe: default: the paper's at the budget.
            given: train stage 2 alone, on these proposals.

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
            mode="alternating" if given is None else "fast-rcnn",
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
            recipe=recipe or self.budget.recipe(),
        )
        self._fit(run, config, dataset, initial, given)
        return run

    def _fit(
        self,
        run: RunFolder,
        config: RunConfig,
        dataset: Dataset,
        initial: Path | None,
        given: GivenProposals | None,
    ) -> None:
        """Trains a run to its end, from where it stopped if it is there."""
        from keras_frcnn.training.display import TrainingDisplay
        from keras_frcnn.training.fitting import Fitting, TrainingOptions
        from keras_frcnn.training.proposal_store import ProposalStore
        from keras_frcnn.training.stages import Trainer
        from keras_frcnn.training.units import training_units

        if run.config_file.exists():
            run.resume(config)
        else:
            run.create(config, command_line())
        run.write_training_images(dataset)
        if given is not None and not run.given_proposals_file.exists():
            units = training_units(dataset.examples, config.flips)
            ProposalStore.from_given(given, units).save(run.given_proposals_file)
        self.say(f"training {run.path}")
        plan = [(stage, schedule.iterations) for stage, schedule in config.schedules.items()]
        display = TrainingDisplay(self.console, plan)
        options = TrainingOptions(initial_weights=initial, workers=self.workers)
        Trainer(Fitting(config, dataset, run, options, display)).train()

    def method(self, source: str) -> Method:
        """Selective Search (``ss``) or EdgeBoxes (``eb``).

        Raises:
            Absent: OpenCV is not installed.
        """
        from keras_frcnn.proposals.edge_boxes import EdgeBoxes
        from keras_frcnn.proposals.opencv import load_opencv
        from keras_frcnn.proposals.selective_search import SelectiveSearch

        try:
            load_opencv()
        except UserError as error:
            raise Absent(str(error).rstrip(".")) from error
        return SelectiveSearch() if source == "ss" else EdgeBoxes(edge_model=self.edge_model)

    def external(self, source: str, sets: str) -> GivenProposals:
        """Proposals of ``ss``, ``eb`` or ``windows`` for image sets.

        Raises:
            Absent: data or a library are not there.
        """
        dataset = self.data(sets)
        if source == "windows":
            return dense_windows(dataset, self.budget.recipe(), self.budget.window_stride)
        return self._proposals(f"{source}-{sets}", dataset, self.method(source), self.workers)

    def rpn_proposals(
        self, run: RunFolder, sets: str, *, stage: int, most: int, variant: str = ""
    ) -> GivenProposals:
        """Proposals of a run's RPN.

        Args:
            stage: 1 (unshared) or 3.
            most: how many of each image.
            variant: of :data:`VARIANTS`.

        Raises:
            Absent: data are not there.
        """
        from keras_frcnn.proposals.region_proposal_network import RegionProposalNetwork, load_rpn

        name = f"rpn-{run.path.name}-stage{stage}-{variant or 'whole'}-{most}-{sets}"
        dataset = self.data(sets)
        model, about = load_rpn(run, stage)
        config = dataclasses.replace(model.recipe.test_proposals, after_nms=most)
        if config.before_nms is not None:
            config = dataclasses.replace(config, before_nms=max(config.before_nms, most))
        method = RegionProposalNetwork(model, config, VARIANTS[variant], about)
        return self._proposals(name, dataset, method, None)

    def _proposals(
        self, name: str, dataset: Dataset, method: Method, processes: int | None
    ) -> GivenProposals:
        from keras_frcnn.proposals.files import read_proposals
        from keras_frcnn.proposals.generation import compute_proposals, jobs_for

        file = self.folder / "proposals" / f"{name.replace(':', '-')}-{len(dataset)}.h5"
        if file.exists():
            return read_proposals(file)
        self.say(f"{method.name} on {len(dataset)} images of {' + '.join(dataset.sets)}")
        proposals, unreadable = compute_proposals(
            jobs_for(dataset.examples, flips=False),
            method,
            file,
            processes=processes,
            about={},
            report=lambda done: None,
        )
        for problem in unreadable:
            self.say(problem)
        return proposals

    def evaluate(
        self,
        name: str,
        detector: RunFolder,
        stage: int | None,
        proposals: GivenProposals,
        most: int | None,
        sets: str = TEST_SETS["07"],
        *,
        scales: tuple[int, ...] = (),
    ) -> Evaluated:
        """A system's figures on a test set; its detections are kept under ``name``.

        Args:
            stage: of the detector: 2, 4, or ``None`` for the run's result.
            most: proposals of each image; ``None``: all.
            scales: short sides of an image pyramid; none: the recipe's own.

        Raises:
            Absent: the annotations are not there; what the server needs is written.
        """
        dataset = self.data(sets)
        kept = self.folder / "detections" / f"{name}-{len(dataset)}.npz"
        if kept.exists():
            detections = read_detections(kept, dataset)
        else:
            self.say(f"detecting: {name}, {len(dataset)} images")
            detections = detect_all(dataset, detector, stage, proposals, most, scales)
            write_detections(kept, dataset, detections)
        if sets == TEST_SETS["12"]:
            archive = write_server_files(self.folder / "server", name, dataset, detections)
            if not has_annotations(self.devkit, sets):
                raise Absent(f"only the VOC server has the annotations: send it {archive}")
        return evaluated(dataset, detections)

    def compressed(self, run: RunFolder) -> RunFolder:
        """The run with fc6 and fc7 by truncated SVD: 1024 and 256 of 4096 (Fast R-CNN, 4.4).

        Raises:
            Absent: the network has no such layers.
        """
        from keras_frcnn.compress import compress_run

        out = RunFolder(self.folder / "runs" / f"{run.path.name}-svd")
        if out.weights_file(FINAL).exists():
            return out
        width = FULLY_CONNECTED.get(run.read_config().network)
        if width is None:
            raise Absent("the network has no fully connected layers to compress")
        compress_run(run, out, Compression(width // 4, width // 16), command_line())
        return out


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
