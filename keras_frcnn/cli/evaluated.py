"""What ``python -m keras_frcnn evaluate`` evaluates: a run on the images of a set, or a file."""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from keras_frcnn.cli.common import choose_devices, counted, existing_path
from keras_frcnn.cli.given import given_record, load_given
from keras_frcnn.cli.shared_flags import short_sides, usable_precision
from keras_frcnn.data.dataset import Dataset, Example
from keras_frcnn.errors import UserError, doing
from keras_frcnn.evaluation.detection_files import ImageDetections
from keras_frcnn.evaluation.voc import VocEvaluation, evaluate_voc
from keras_frcnn.files import user_path
from keras_frcnn.recipes import RECIPES, DetectionFilter
from keras_frcnn.runs import RunFolder
from keras_frcnn.stopping import held_back
from keras_frcnn.training_images import check_not_trained_on


@dataclass(frozen=True, eq=False)
class Evaluated:
    """Detections and what they amount to.

    Attributes:
        whole: the data set before ``--images`` cut it.
        about: what was evaluated, for ``evaluation.json``.
        subject: the same in a few words.
    """

    whole: Dataset
    dataset: Dataset
    detections: dict[str, ImageDetections]
    result: VocEvaluation
    about: dict[str, Any]
    subject: str


def data_of_run(
    arguments: argparse.Namespace, path: Path, console: Console
) -> tuple[Dataset, Dataset]:
    """The images to evaluate a run on: all of the sets, and the first ``--images`` of them.

    Raises:
        UserError: something is wrong with the data, or the run was trained on them.
    """
    run = RunFolder(arguments.run)
    config = run.read_config()
    whole = load_test_data(arguments, path, config.class_names, console)
    whole = whole.with_bits(config.data.bits)
    dataset = first_images(whole, arguments.images)
    check_not_trained_on(run.training_images_file, dataset)
    return whole, dataset


def evaluate_run(
    arguments: argparse.Namespace,
    whole: Dataset,
    dataset: Dataset,
    console: Console,
    *,
    part: Path | None = None,
) -> Evaluated:
    """Runs the network on every image and evaluates.

    Args:
        whole, dataset: of :func:`data_of_run`.
        part: where what was found is kept when a signal stops the command; ``None``: nowhere.
    """
    choose_devices(arguments.gpu, deterministic=False)
    from keras_frcnn.data.bad_images import number_left_out
    from keras_frcnn.data.pipeline import in_parallel
    from keras_frcnn.evaluation.final_filter import keep_best_per_class
    from keras_frcnn.inference import result_stage

    run = RunFolder(arguments.run)
    config = run.read_config()
    recipe = config.recipe
    stage = arguments.stage or result_stage(run)
    filter_of = RECIPES[arguments.filter] if arguments.filter else recipe
    chosen = filter_of.evaluation_filter
    precision = usable_precision(arguments.precision, console) or config.precision
    detect, about_proposals = load_detector(arguments, stage, dataset, chosen, precision)
    images = in_parallel(Example.pixels, dataset.examples, workers=2, ahead=8)

    def best_of(found: dict[str, ImageDetections]) -> dict[str, ImageDetections]:
        """Those that the recipe keeps of all images together."""
        limit = chosen.mean_per_class
        if limit is None:
            return found
        return keep_best_per_class(found, len(config.class_names), limit * len(found))

    start = time.monotonic()
    detections = {}
    bad = number_left_out(whole)
    title = f"detecting ({bad} bad images left out)" if bad else "detecting"
    examples = track(dataset.examples, title, console=console, disable=not console.is_terminal)
    try:
        for example, image in zip(examples, images, strict=True):
            with doing(f"detecting in {example.path}"):
                detections[example.key] = detect(example, image)
    except KeyboardInterrupt:
        if detections and part is not None:
            finished = first_images(dataset, len(detections))
            with held_back():
                keep_finished(part, finished, best_of(detections), run, console)
        raise
    seconds = (time.monotonic() - start) / len(dataset)
    detections = best_of(detections)
    result = evaluate_voc(
        dataset,
        detections,
        iou_threshold=arguments.iou,
        strictly_greater=recipe.evaluation_strictly_greater,
    )
    console.print(f"{counted(len(dataset), 'image')}, {seconds:.2f} s an image")
    about = {
        "run": str(run.path),
        "stage": stage,
        **about_proposals,
        "scales": list(short_sides(arguments.scales) or (recipe.image.short_side,)),
        "network": config.network,
        "precision": precision,
        "recipe": recipe.name,
        "filter": filter_of.name,
        "seconds_per_image": seconds,
    }
    variant = " after stage 2" if arguments.stage == 2 else ""
    return Evaluated(whole, dataset, detections, result, about, f"{run.path}{variant}")


def load_detector(
    arguments: argparse.Namespace,
    stage: int,
    dataset: Dataset,
    chosen: DetectionFilter,
    precision: str,
) -> tuple[Callable, dict]:
    """``(example, image) -> ImageDetections`` of a run, and what to tell of its proposals."""
    from keras_frcnn.given_boxes import NUMBER_OF_BOXES, load_classifier
    from keras_frcnn.inference import load_predictor

    given, most = load_given(arguments.proposals, dataset), arguments.num_proposals
    sides = short_sides(arguments.scales)
    if given is None:
        predictor = load_predictor(
            arguments.run,
            chosen,
            stage=stage,
            number_of_proposals=most,
            short_sides=sides,
            precision=precision,
            stage_flag="--stage",
        )
        about = {"proposals": predictor.proposals.after_nms}
        return lambda example, image: predictor.detect(image)[0], about
    classifier = load_classifier(
        arguments.run,
        chosen,
        stage=stage,
        short_sides=sides,
        precision=precision,
        stage_flag="--stage",
    )
    most = most or NUMBER_OF_BOXES

    def detect(example: Example, image):
        return classifier.detect(image, given.of_example(example).best(most).boxes_image)[0]

    return detect, {"proposals": most, **given_record(arguments.proposals, given, "given")}


def evaluate_file(arguments: argparse.Namespace, path: Path, console: Console) -> Evaluated:
    """Evaluates detections that another program wrote."""
    from keras_frcnn.data.voc import read_class_names

    file = existing_path(arguments.detections, "--detections")
    class_names = read_class_names(path) if arguments.parser == "pascal_voc" else None
    if arguments.classes is not None:
        class_names = RunFolder(arguments.classes).read_config().class_names
    whole = load_test_data(arguments, path, class_names or None, console)
    detections = read_file(arguments.detections, whole, arguments, console)
    dataset = first_images(whole, arguments.images)
    result = evaluate_voc(dataset, detections, iou_threshold=arguments.iou)
    return Evaluated(whole, dataset, detections, result, {"detections": str(file)}, str(file))


def read_file(
    text: str, whole: Dataset, arguments: argparse.Namespace, console: Console
) -> dict[str, ImageDetections]:
    """The detections of a file on the images that are evaluated.

    Args:
        whole: all images of the sets, of which the file may have detections.
    """
    from keras_frcnn.evaluation.sources import read_detections

    detections, notes = read_detections(user_path(text), whole, arguments.coco_annotations)
    for note in notes:
        console.print(note)
    kept = {example.key for example in first_images(whole, arguments.images).examples}
    return {key: found for key, found in detections.items() if key in kept}


def load_test_data(
    arguments: argparse.Namespace, path: Path, class_names: Sequence[str] | None, console: Console
) -> Dataset:
    """The images to evaluate on."""
    from keras_frcnn.cli.data import load_dataset

    dataset = load_dataset(
        path,
        arguments.parser,
        arguments.set,
        console=console,
        class_names=class_names,
        strict=arguments.strict,
        default_split="test",
        allow_bad=arguments.allow_bad,
    )
    unknown = sum(problem.kind == "class unknown" for problem in dataset.problems)
    if unknown and not dataset.number_of_objects:
        raise UserError(
            f"None of the objects in {' + '.join(dataset.sets)} is of a class that the run knows "
            f"({', '.join(dataset.class_names)}): evaluate on the kind of data it was trained on."
        )
    return dataset


def first_images(dataset: Dataset, number: int | None) -> Dataset:
    """The data set of the first ``number`` images, of all where that is None."""
    return dataclasses.replace(dataset, examples=dataset.examples[:number])


def keep_finished(
    file: Path,
    finished: Dataset,
    detections: dict[str, ImageDetections],
    run: RunFolder,
    console: Console,
) -> None:
    """Writes what a stopped evaluation has found, and says how to evaluate it."""
    from keras_frcnn.evaluation.detection_files import dataset_records, write_json

    write_json(file, dataset_records(finished, detections))
    console.print(
        f"{len(detections)} images are finished, their detections are in {file}; evaluate takes "
        f"them: --detections {file} --images {len(detections)} --classes {run.path}",
        soft_wrap=True,
    )
