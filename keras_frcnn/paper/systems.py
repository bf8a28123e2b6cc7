"""Detection systems of the paper: detectors, the proposals they are given, and what they reach."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_frcnn.data.dataset import Dataset
from keras_frcnn.detection.detections import ImageDetections
from keras_frcnn.detection.loops import best_of_all, detect_dataset
from keras_frcnn.detection.network_detector import load_run
from keras_frcnn.errors import UserError
from keras_frcnn.evaluation.matching import match_detections
from keras_frcnn.evaluation.uncertainty import Difference, draw_images, resampled_means
from keras_frcnn.evaluation.voc import evaluate_voc
from keras_frcnn.paper.kept import KeptProposals
from keras_frcnn.paper.voc_server import has_annotations, write_server_files
from keras_frcnn.paper.workshop import TEST_SETS, Absent, Key, Workshop
from keras_frcnn.recipes import PAPER, stages_on
from keras_frcnn.runs.folder import RunFolder
from keras_frcnn.system.files import written_whole
from keras_frcnn.training.display import TrainingDisplay

# Thousands of proposals at once would take gigabytes.
HEAD_CHUNK = 1000


@dataclass(frozen=True)
class Length:
    """Iterations of a training, and of the published one on the same sets."""

    iterations: int
    published: int

    def is_share_of(self, other: Length) -> bool:
        """Whether both trainings are the same share of the published ones, to an iteration."""
        return abs(self.iterations * other.published / self.published - other.iterations) <= 1


@dataclass(frozen=True)
class System:
    """A detector and the proposals that it is given.

    Attributes:
        detector: a run.
        stage: whose detector is taken, 2 or 4; ``None``: the run's result.
        most: the best so many proposals of each image; ``None``: all.
        scales: short sides of an image pyramid; none: the recipe's own.
    """

    detector: RunFolder
    stage: int | None
    proposals: KeptProposals
    most: int | None
    scales: tuple[int, ...] = ()

    @property
    def length(self) -> Length:
        """Of its detector's stage 2: only equal shares of the published length are compared."""
        config = self.detector.read_config()
        published = stages_on(PAPER, config.data.sets)[1].iterations
        return Length(config.recipe.stages[1].iterations, published)

    @property
    def name(self) -> str:
        """The name that its detections are kept under, and shared by tables."""
        parts = [
            self.detector.path.name,
            f"stage{self.stage}" if self.stage else "result",
            self.proposals.name,
            f"{self.most or 'all'}",
            *map(str, self.scales),
        ]
        return "-".join(parts)


@dataclass(frozen=True, eq=False)
class Evaluated:
    """The VOC metric of a system, in percent.

    Attributes:
        mean: mAP: 11-point for VOC 2007, area for later years.
        per_class: AP of each class, ``None`` without objects.
        replicates: (B,) mAP of bootstrap draws of the images; the same draws for every system.
        images: how many were tested.
    """

    mean: float
    per_class: tuple[float | None, ...]
    replicates: np.ndarray
    images: int


@dataclass(frozen=True, eq=False)
class Repeated:
    """A system trained from one or several seeds.

    Attributes:
        results: of each seed.
        length: of the detectors' training.
        proposals: that the first of them was given.
    """

    results: tuple[Evaluated, ...]
    length: Length
    proposals: KeptProposals | None = None

    @property
    def mean(self) -> float:
        """mAP over the seeds."""
        return float(np.mean([entry.mean for entry in self.results]))

    @property
    def per_class(self) -> tuple[float | None, ...]:
        """AP of each class over the seeds."""
        columns = zip(*(entry.per_class for entry in self.results), strict=True)
        return tuple(None if None in values else float(np.mean(values)) for values in columns)

    @property
    def error(self) -> float:
        """Deviation over the seeds, as in the paper; of a single one: standard error of images."""
        if len(self.results) > 1:
            return float(np.std([entry.mean for entry in self.results], ddof=1))
        return float(np.nanstd(self.replicates, ddof=1))

    @property
    def replicates(self) -> np.ndarray:
        """(B,) means over the seeds."""
        return np.mean([entry.replicates for entry in self.results], axis=0)

    @property
    def run_variance(self) -> float:
        """Variance of the mean by how the seeds differ; 0 for a single one."""
        seeds = len(self.results)
        return self.error**2 / seeds if seeds > 1 else 0.0


def error_meaning(seeds: int) -> str:
    """What :attr:`Repeated.error` is, for captions."""
    if seeds == 1:
        return "standard errors are over images (bootstrap)"
    return f"in place of standard errors, deviations over {seeds} runs"


def difference(first: Repeated, second: Repeated) -> Difference:
    """How much better the first is, in points; the error is of images and of seeds."""
    over_images = np.nanvar(first.replicates - second.replicates, ddof=1)
    error = float(np.sqrt(over_images + first.run_variance + second.run_variance))
    return Difference(first.mean - second.mean, error)


def comparison(name: str, other: str, first: Repeated, second: Repeated) -> str:
    """A sentence that compares two systems, without a claim where one was trained for longer.

    What counts is the share of the published training, which is longer on larger sets.
    """
    if not first.length.is_share_of(second.length):
        return (
            f"{name} against {other}: no claim, as the detectors were trained for "
            f"{first.length.iterations:,} and {second.length.iterations:,} iterations."
        )
    return claim(name, other, difference(first, second))


def comparisons(
    found: Mapping[Key, Repeated], pairs: Iterable[tuple[Key, Key, str, str]]
) -> Iterator[str]:
    """A sentence about each pair of systems, keys and names, of which both were made."""
    for key, other_key, name, other in pairs:
        if key in found and other_key in found:
            yield comparison(name, other, found[key], found[other_key])


def claim(first: str, second: str, found: Difference) -> str:
    """A sentence about the direction of a difference, which must exceed twice its error."""
    error = f"standard error {found.error:.1f}"
    if not found.resolved:
        figures = f"{found.value:+.1f} points, {error}"
        return f"{first} against {second}: not resolved at this budget ({figures})."
    better, worse = (first, second) if found.value > 0 else (second, first)
    return f"{better} is above {worse} by {abs(found.value):.1f} points ({error})."


def evaluate(workshop: Workshop, system: System, sets: str = TEST_SETS["07"]) -> Evaluated:
    """A system's figures on a test set."""
    dataset, detections = kept_detections(workshop, system, sets)
    if sets == TEST_SETS["12"]:
        archive = write_server_files(workshop.folder / "server", system.name, dataset, detections)
        if not has_annotations(workshop.devkit, sets):
            raise Absent(f"only the VOC server has the annotations: send it {archive}")
    return evaluated(dataset, detections)


def repeated(
    workshop: Workshop, system_of: Callable[[int], System], sets: str = TEST_SETS["07"]
) -> Repeated:
    """The figures of a system for each seed of the budget.

    Args:
        system_of: trains it, and makes its proposals, from a seed.
    """
    systems, results = [], []
    for seed in range(workshop.budget.seeds):
        systems.append(system_of(seed))
        results.append(evaluate(workshop, systems[-1], sets))
    return Repeated(tuple(results), systems[0].length, systems[0].proposals)


def kept_detections(
    workshop: Workshop, system: System, sets: str = TEST_SETS["07"]
) -> tuple[Dataset, dict[str, ImageDetections]]:
    """The images of a test set that detectors are run on, and what a system finds in them."""
    dataset = workshop.detected(sets)
    file = workshop.folder / "detections" / f"{system.name}-on-{len(dataset)}.npz"
    if file.exists():
        return dataset, read_detections(file, dataset)
    workshop.say(f"detecting: {system.name} on {len(dataset)} images")
    detections = detect_all(workshop, dataset, system)
    write_detections(file, dataset, detections)
    return dataset, detections


def detect_all(workshop: Workshop, dataset: Dataset, system: System) -> dict[str, ImageDetections]:
    """Detections by ``Example.key``, filtered as the recipe evaluates."""
    recipe = system.detector.read_config().recipe
    detector = load_run(
        system.detector.path,
        recipe.evaluation_filter,
        stage=system.stage,
        head_chunk=HEAD_CHUNK,
        short_sides=system.scales,
        boxes_given=True,
    )
    found = detect_dataset(
        detector, dataset, given=system.proposals.given.best(system.most), workers=workshop.workers
    )
    passes = TrainingDisplay(workshop.console, []).passes(dataset.examples, "detections")
    detections = {example.key: each for _, (example, each) in zip(passes, found, strict=True)}
    limit = recipe.evaluation_filter.mean_per_class
    return best_of_all(detections, len(dataset.class_names), limit)


def evaluated(dataset: Dataset, detections: dict[str, ImageDetections]) -> Evaluated:
    """The metric and its bootstrap."""
    eleven_point = all(part.startswith("2007:") for part in dataset.sets)
    result = evaluate_voc(dataset, detections)
    matches = match_detections(dataset, detections, iou_threshold=0.5)
    weights = draw_images(len(dataset))
    replicates = resampled_means(
        matches, len(dataset.class_names), weights, eleven_point=eleven_point
    )
    name = "ap_11point" if eleven_point else "ap_area"
    values = [getattr(entry, name) for entry in result.per_class.values()]
    mean = result.map_11point if eleven_point else result.map_area
    return Evaluated(
        mean=100 * (mean or 0.0),
        per_class=tuple(None if value is None else 100 * value for value in values),
        replicates=100 * replicates,
        images=len(dataset),
    )


def write_detections(path: Path, dataset: Dataset, detections: dict[str, ImageDetections]) -> None:
    """Keeps detections in the order of the data set."""
    found = [detections[example.key] for example in dataset.examples]
    with written_whole(path) as partial, open(partial, "wb") as stream:
        np.savez_compressed(
            stream,
            boxes=np.concatenate([entry.boxes_image for entry in found]),
            scores=np.concatenate([entry.scores for entry in found]),
            classes=np.concatenate([entry.classes for entry in found]),
            counts=np.array([len(entry) for entry in found]),
            ids_hash=np.array(dataset.ids_hash),
        )


def read_detections(path: Path, dataset: Dataset) -> dict[str, ImageDetections]:
    """The inverse of :func:`write_detections`.

    Raises:
        UserError: they are of other images.
    """
    with np.load(path, allow_pickle=False) as arrays:
        if str(arrays["ids_hash"]) != dataset.ids_hash:
            raise UserError(
                f"{path} holds detections of other images: the test list was another one when they "
                "were made. Give another --out, or remove what this one holds."
            )
        ends = np.cumsum(arrays["counts"])[:-1]
        parts = (np.split(arrays[name], ends) for name in ("boxes", "scores", "classes"))
        return {
            example.key: ImageDetections(*entry)
            for example, *entry in zip(dataset.examples, *parts, strict=True)
        }
