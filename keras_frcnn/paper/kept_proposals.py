"""Proposals of image sets, computed once and kept: Selective Search, EdgeBoxes, windows, RPNs.

As many as any experiment asks for are kept; fewer are the first of these, for a random draw too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from rich.progress import Progress

from keras_frcnn.data.dataset import Dataset
from keras_frcnn.data.pipeline import image_scale
from keras_frcnn.errors import UserError
from keras_frcnn.geometry.anchors import anchor_grid, configured_anchors
from keras_frcnn.paper.workshop import Absent, Workshop
from keras_frcnn.proposals.files import read_proposals
from keras_frcnn.proposals.generation import Method, compute_proposals, jobs_for
from keras_frcnn.proposals.given import GivenProposals, ScoredBoxes
from keras_frcnn.proposals.region_proposal_network import (
    WHOLE,
    Ablation,
    RegionProposalNetwork,
    load_rpn,
)
from keras_frcnn.recipes import Recipe
from keras_frcnn.runs.folder import RunFolder

# Section 4.1, ablations of the RPN, and the most proposals of an image that tables 1 and figure 2
# ask of each.
VARIANTS = {
    "": (WHOLE, 2000),
    "no-nms": (Ablation(nms=False), 6000),
    "no-cls": (Ablation(cls=False), 1000),
    "no-reg": (Ablation(reg=False), 1000),
}


@dataclass(frozen=True, eq=False)
class KeptProposals:
    """Proposals of a set, and the name that they are kept by.

    Attributes:
        name: tells the method, the run if any, the set and the number of its images.
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
    """Selective Search (``ss``) or EdgeBoxes (``eb``)."""
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
    method = search_method(workshop, source)
    return _kept(workshop, f"{source}-{sets}", dataset, lambda: method, workshop.workers)


def dense_windows(dataset: Dataset, recipe: Recipe, stride: int) -> GivenProposals:
    """The anchors of every ``stride``-th position, cut at the border, in pixels of the image."""
    shapes = configured_anchors(recipe.anchors)
    entries = {}
    for example in dataset.examples:
        size, scale = image_scale(example.height, example.width, recipe.image)
        cells = [-(-int(side) // (16 * stride)) for side in size]
        grid = anchor_grid(shapes, *cells, stride=16 * stride).numpy()
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

    def method() -> Method:
        model, about = load_rpn(run, stage)
        config = dataclasses.replace(model.recipe.test_proposals, after_nms=most)
        return RegionProposalNetwork(model, config, ablation, about)

    name = f"rpn-{run.path.name}-stage{stage}-{variant or 'whole'}-{sets}"
    return _kept(workshop, name, workshop.data(sets), method, None)


def _kept(
    workshop: Workshop, name: str, dataset: Dataset, make_method, processes: int | None
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
