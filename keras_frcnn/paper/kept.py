"""What experiments make once and keep: trained runs, and proposals of image sets.

Of an image's proposals as many are kept as any experiment asks for; fewer are the first of these,
for a random draw too.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Literal

import numpy as np
from rich.progress import Progress

from keras_frcnn.data.dataset import Dataset
from keras_frcnn.data.pipeline import image_scale
from keras_frcnn.data.voc import check_test_lists
from keras_frcnn.errors import UserError
from keras_frcnn.geometry.anchors import anchor_grid, configured_anchors
from keras_frcnn.paper.workshop import TRAINING_SETS, Absent, Workshop
from keras_frcnn.proposals.files import read_proposals
from keras_frcnn.proposals.generation import Method, compute_proposals, jobs_for
from keras_frcnn.proposals.given import GivenProposals, ScoredBoxes
from keras_frcnn.proposals.region_proposal_network import (
    WHOLE,
    Ablation,
    RegionProposalNetwork,
    load_rpn,
)
from keras_frcnn.recipes import Compression, Network, Recipe
from keras_frcnn.runs.compress import compress_run
from keras_frcnn.runs.config import DataSource, RunConfig, command_line
from keras_frcnn.runs.folder import RunFolder
from keras_frcnn.runs.stage_table import FINAL, planned
from keras_frcnn.system.signals import TrainingStopped
from keras_frcnn.training.options import TrainingOptions
from keras_frcnn.training.session import Origin, display_of, train_run
from keras_frcnn.training.watch import TrainingDiverged

StageNumber = Literal[1, 2, 3, 4]

# Units of fc6 and fc7.
FULLY_CONNECTED = {"vgg16": 4096, "zf": 4096, "tiny": 256}
# Section 4.1, ablations of the RPN, and the most proposals of an image that table 1 and figure 2
# ask of each.
VARIANTS = {
    "": (WHOLE, 2000),
    "no-nms": (Ablation(nms=False), 6000),
    "no-cls": (Ablation(cls=False), 1000),
    "no-reg": (Ablation(reg=False), 1000),
}


def four_steps(
    workshop: Workshop, network: Network, training: str = "07", seed: int = 0
) -> RunFolder:
    """The finished alternating training of a network; a run that was given is preferred."""
    sets = TRAINING_SETS[training].split("+")
    for run in workshop.runs:
        config = run.read_config()
        if config.network == network and list(config.data.sets) == sets:
            return run
    name = _four_steps_name(network, training, seed)
    return trained(workshop, name, network, training, seed=seed)


def rpn_alone(workshop: Workshop, name: str, network: Network, recipe: Recipe) -> RunFolder:
    """A run of stage 1, by a recipe of its own; that of the four steps where it is the same."""
    whole = RunFolder(workshop.folder / "runs" / _four_steps_name(network, "07", 0))
    if whole.weights_file("stage1").exists() and whole.read_config().recipe == recipe:
        return whole
    return trained(workshop, f"rpn-{network}-{name}", network, stages=(1,), recipe=recipe)


def _four_steps_name(network: str, training: str, seed: int) -> str:
    return f"four-steps-{network}-{training}-{seed}"


def fast_rcnn(
    workshop: Workshop, network: Network, source: str, training: str = "07", seed: int = 0
) -> RunFolder:
    """Fast R-CNN trained on ``ss``, ``eb`` or ``windows``."""
    workshop.initial_weights(network)  # absent weights should not cost a search for proposals
    proposals = external_proposals(workshop, source, TRAINING_SETS[training])
    name = f"fast-rcnn-{network}-{proposals.name}-{seed}"
    given = proposals.given
    return trained(workshop, name, network, training, seed=seed, stages=(2,), given=given)


def trained(
    workshop: Workshop,
    name: str,
    network: Network,
    training: str = "07",
    *,
    seed: int = 0,
    stages: tuple[StageNumber, ...] = (1, 2, 3, 4),
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
        Absent: data or weights are not there, or the training diverged.
        TrainingStopped: after a signal.
    """
    run = RunFolder(workshop.folder / "runs" / name)
    mode: Literal["alternating", "fast-rcnn"] = "alternating" if given is None else "fast-rcnn"
    last = planned(mode, stages)[-1]
    if run.weights_file(FINAL if last.number == 4 else last.weights).exists():
        return run
    initial = workshop.initial_weights(network)
    dataset = workshop.data(TRAINING_SETS[training])
    check_test_lists(workshop.devkit, dataset)
    config = RunConfig(
        network=network,
        precision=workshop.budget.precision,
        mode=mode,
        seed=seed,
        flips=True,
        class_names=dataset.class_names,
        initial_weights="random" if initial is None else str(initial),
        stages=stages,
        data=DataSource(
            path=str(workshop.devkit),
            ids_hash=dataset.ids_hash,
            sets=dataset.sets,
            images=len(dataset),
        ),
        recipe=recipe or workshop.budget.recipe(dataset.sets),
    )
    workshop.say(f"training {run.path}")
    options = TrainingOptions(initial_weights=initial, workers=workshop.workers)
    display = display_of(config, dataset, workshop.console)
    origin = Origin(command_line())
    try:
        train_run(run, config, dataset, options, display, given=given, origin=origin)
    except TrainingStopped as stop:
        advice = "the same command goes on there"
        raise TrainingStopped(stop.received, stop.happened, advice) from stop
    except TrainingDiverged as diverged:
        workshop.say(str(diverged))
        raise Absent(
            f"the training {run.path.name} diverged: {diverged.what} at iteration "
            f"{diverged.iteration:,} of stage {diverged.stage}"
        ) from diverged
    return run


def compressed(workshop: Workshop, run: RunFolder) -> RunFolder:
    """The run with fc6 and fc7 by truncated SVD: 1024 and 256 of 4096 (Fast R-CNN, 4.4)."""
    out = RunFolder(workshop.folder / "runs" / f"{run.path.name}-svd")
    if out.weights_file(FINAL).exists():
        return out
    width = FULLY_CONNECTED.get(run.read_config().network)
    if width is None:
        raise Absent("the network has no fully connected layers to compress")
    if out.path.exists():  # interrupted; nothing but this command writes here
        shutil.rmtree(out.path)
    compress_run(run, out, Compression(width // 4, width // 16), command_line())
    return out


@dataclass(frozen=True, eq=False)
class KeptProposals:
    """Proposals of a set.

    Attributes:
        name: what they are kept by: method, run if any, set and number of images.
        dataset: the images.
        given: their proposals.
    """

    name: str
    dataset: Dataset
    given: GivenProposals

    @cached_property
    def boxes(self) -> dict[str, np.ndarray]:
        """(P, 4) boxes by ``Example.key``, in pixels of the image."""
        examples = self.dataset.examples
        return {entry.key: self.given.of_example(entry).boxes_image for entry in examples}

    def mean_number(self, most: int | None = None) -> float:
        """How many an image has on average, of each at most so many."""
        entries = self.given.entries.values()
        return float(np.mean([len(entry.best(most).scores) for entry in entries]))


def about_edges(workshop: Workshop) -> Iterator[str]:
    """What EdgeBoxes' edges are where they are not the paper's."""
    if workshop.edge_model is None:
        yield (
            "EdgeBoxes here groups edges that are gradients of the image; the paper's are those "
            "of a structured forest, which --edge_model takes."
        )


def search_method(workshop: Workshop, source: str) -> Method:
    """Selective Search (``ss``) or EdgeBoxes (``eb``).

    Raises:
        Absent: OpenCV is not installed.
    """
    from keras_frcnn.proposals.methods import EdgeBoxes, SelectiveSearch, load_opencv

    try:
        load_opencv()
    except UserError as error:
        raise Absent(str(error).rstrip(".")) from error
    return SelectiveSearch() if source == "ss" else EdgeBoxes(edge_model=workshop.edge_model)


def external_proposals(workshop: Workshop, source: str, sets: str) -> KeptProposals:
    """Proposals of ``ss``, ``eb`` or ``windows`` for image sets."""
    dataset = workshop.data(sets)
    if source == "windows":
        stride = workshop.budget.window_stride
        windows = dense_windows(dataset, workshop.budget.recipe(), stride)
        return KeptProposals(_name(f"windows-{stride}-{sets}", dataset), dataset, windows)
    make_method = partial(search_method, workshop, source)
    return _kept(workshop, f"{source}-{sets}", dataset, make_method, workshop.workers)


def dense_windows(dataset: Dataset, recipe: Recipe, stride: int) -> GivenProposals:
    """The anchors of every ``stride``-th position, cut at the border, in pixels of the image."""
    shapes = configured_anchors(recipe.anchors)
    entries = {}
    for example in dataset.examples:
        size, scale = image_scale(example.height, example.width, recipe.image)
        rows, columns = (-(-int(side) // (16 * stride)) for side in size)
        grid = anchor_grid(shapes, rows, columns, stride=16 * stride).numpy()
        boxes = grid / np.tile(np.asarray(scale, np.float32), 2)
        border = np.array((example.height, example.width) * 2, np.float32)
        boxes = np.clip(boxes, 0, border).astype(np.float32)
        boxes = boxes[(boxes[:, 2:] - boxes[:, :2] >= 1).all(axis=1)]
        entries[example.key] = ScoredBoxes(boxes, np.zeros(len(boxes), np.float32))
    return GivenProposals(entries, "windows", {"stride": stride}, "dense windows")


def rpn_proposals(
    workshop: Workshop, run: RunFolder, sets: str, *, stage: int, variant: str = ""
) -> KeptProposals:
    """Proposals of a run's RPN.

    Args:
        stage: 1 (unshared) or 3.
        variant: of :data:`VARIANTS`.
    """
    ablation, most = VARIANTS[variant]

    def make_method() -> Method:
        model, about = load_rpn(run, stage)
        config = dataclasses.replace(model.recipe.test_proposals, after_nms=most)
        return RegionProposalNetwork(model, config, ablation, about)

    name = f"rpn-{run.path.name}-stage{stage}-{variant or 'whole'}-{sets}"
    return _kept(workshop, name, workshop.data(sets), make_method, None)


def _kept(
    workshop: Workshop,
    name: str,
    dataset: Dataset,
    make_method: Callable[[], Method],
    processes: int | None,
) -> KeptProposals:
    name = _name(name, dataset)
    file = workshop.folder / "proposals" / f"{name}.h5"
    if file.exists():
        return KeptProposals(name, dataset, read_proposals(file))
    method = make_method()
    workshop.say(f"proposals: {name}")
    console = workshop.console
    with Progress(console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(method.name, total=len(dataset))
        proposals, unreadable = compute_proposals(
            jobs_for(dataset.examples, flips=False),
            method,
            file,
            processes=processes,
            about={},
            report=lambda done: bar.update(task, completed=done),
        )
    for problem in unreadable:
        workshop.say(problem)
    return KeptProposals(name, dataset, proposals)


def _name(name: str, dataset: Dataset) -> str:
    return f"{name.replace(':', '-')}-{len(dataset)}"
