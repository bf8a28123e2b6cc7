"""What is looked at before a training takes hours: its data, the disk, the device's memory."""

from __future__ import annotations

import gc
import json
import shutil
from collections.abc import Iterable, Sequence

import keras
import numpy as np
import tensorflow as tf

from keras_frcnn.data.coverage import without_anchors
from keras_frcnn.data.dataset import Dataset
from keras_frcnn.data.pipeline import image_scale
from keras_frcnn.errors import UserError
from keras_frcnn.geometry.anchors import configured_anchors
from keras_frcnn.network.faster_rcnn import FasterRcnn
from keras_frcnn.network.normalisation import Normalisation
from keras_frcnn.network.weights import MAX_METADATA_BYTES
from keras_frcnn.proposals.given import ranked
from keras_frcnn.recipes import ImageConfig
from keras_frcnn.runs.config import RunConfig
from keras_frcnn.runs.folder import RunFolder
from keras_frcnn.runs.provenance import file_of
from keras_frcnn.runs.stage_table import FINAL, Stage, reader_of, stage_name
from keras_frcnn.system.signals import GO_ON
from keras_frcnn.training.checkpoint import KEPT, Checkpoints
from keras_frcnn.training.feeding import Feed, Sources
from keras_frcnn.training.proposal_store import ProposalStore
from keras_frcnn.training.step import TrainingStep, step_of
from keras_frcnn.training.units import TrainingUnit, give_rois

FLOAT_BYTES = 4
GIBIBYTE = 2**30
# Pictures, events, metrics, the headers of the files.
OTHER_BYTES = 32 * 2**20
# A proposal is a box and a score.
PROPOSAL_FLOATS = 5
# A stage that is shorter meets its largest image soon enough.
PROBED_ITERATIONS = 1000


def check_objects(dataset: Dataset) -> None:
    """Makes sure that there is something to learn.

    Raises:
        UserError: no object is sound and not difficult.
    """
    if any(len(example.without_difficult().classes) for example in dataset.examples):
        return
    first = f"; the first problem: {dataset.problems[0].reason}" if dataset.problems else ""
    raise UserError(
        f"None of the {len(dataset)} images in {' + '.join(dataset.sets)} has an object that "
        f"is sound and not difficult{first}. There is nothing to learn from them."
    )


def check_class_names(dataset: Dataset) -> None:
    """Makes sure that weight files have room for the classes: they are written after a stage.

    Raises:
        UserError: they have not.
    """
    names = dataset.class_names
    size = len(json.dumps(names))
    if size > 0.9 * MAX_METADATA_BYTES:
        raise UserError(
            f"The data have {len(names)} classes ({names[0]!r:.40}, ...), whose "
            f"names take {size} bytes; a weight file has room for {MAX_METADATA_BYTES}. Look "
            "whether objects have names of their own where their class belongs; else shorten the "
            "names."
        )


def check_anchors(config: RunConfig, dataset: Dataset) -> str | None:
    """One sentence where the RPN cannot learn from some images: no anchor lies inside of them.

    Raises:
        UserError: they are all like that, and the RPN has stages of its own, which would train
            nothing.
    """
    recipe = config.recipe
    if config.mode == "fast-rcnn" or recipe.rpn.keep_cross_boundary:
        return None
    found = without_anchors(dataset.examples, configured_anchors(recipe.anchors), recipe.image)
    if not found:
        return None
    sentence = (
        f"No anchor lies inside of {len(found)} of the {len(dataset)} images at the input's size "
        f"(such as {found[0].key}), and the RPN learns nothing from them: give smaller "
        "`anchors.scales` (or anchors of python -m keras_frcnn anchors), a larger "
        "`image.short_side` and `image.long_side`, or `rpn.keep_cross_boundary`."
    )
    if len(found) == len(dataset) and config.mode == "alternating":
        raise UserError(sentence)
    return sentence


def check_room(run: RunFolder, config: RunConfig, model: FasterRcnn, stage: int, units: int) -> int:
    """Makes sure that checkpoints, weights and proposals of this stage and the later ones fit.

    Args:
        units: training images in both orientations.

    Returns:
        the bytes that will be written, at most.

    Raises:
        UserError: naming what is needed and what is free.
    """
    needed = bytes_to_write(run, config, model, stage, units)
    free = shutil.disk_usage(run.path).free
    if needed > free:
        raise UserError(
            f"The training still writes {needed / GIBIBYTE:.2f} GiB to {run.path} (checkpoints, "
            f"weights, proposals), and its disk has {free / GIBIBYTE:.2f} GiB free{_caches(run)}. "
            f"Make room; {GO_ON}. Or start again with --out on another disk."
        )
    return needed


def _caches(run: RunFolder) -> str:
    """A clause on the caches that take room on the disk, if any."""
    files = {"--cache": run.path / "images.bin", "--feature_cache": run.path / "features.bin"}
    parts = [
        f"{file.stat().st_size / GIBIBYTE:.2f} GiB that {flag} off would give back"
        for flag, file in files.items()
        if file.is_file()
    ]
    return f", besides {' and '.join(parts)} (train_frcnn.py)" if parts else ""


def bytes_to_write(
    run: RunFolder, config: RunConfig, model: FasterRcnn, stage: int, units: int
) -> int:
    """The most that this stage and the later ones will add to the disk."""
    largest = max(
        _numbers(model.layers(*later.trains, trained=True))
        for later in config.plan
        if later.number >= stage
    )
    # Weights and velocities; one checkpoint more than is kept, while the newest is written.
    there = min(len(Checkpoints(run.checkpoints, stage).files()), KEPT)
    numbers = 2 * largest * (KEPT + 1 - there)
    files = {each.weights: model.layers(*each.trains) for each in config.plan}
    if 4 in config.stages:
        files[FINAL] = model.layers()
    for name, layers in files.items():
        if not run.weights_file(name).exists():
            numbers += _numbers(layers)
    for each in config.plan:
        if each.makes and reader_of(each, config.plan) and not file_of(run, each.makes).exists():
            numbers += PROPOSAL_FLOATS * config.recipe.training_proposals.after_nms * units
    return FLOAT_BYTES * numbers + OTHER_BYTES


def _numbers(layers: Iterable[keras.layers.Layer]) -> int:
    return sum(int(np.prod(weight.shape)) for layer in layers for weight in layer.weights)


def largest_units(
    units: Sequence[TrainingUnit], eligible: np.ndarray, config: ImageConfig, number: int
) -> list[int]:
    """The eligible units of the largest network input, the largest first; repeated if too few."""
    sizes = [
        image_scale(units[i].example.height, units[i].example.width, config)[0] for i in eligible
    ]
    order = np.argsort([-np.prod(size, dtype=np.int64) for size in sizes], kind="stable")
    found = [int(eligible[position]) for position in order[:number]]
    return [found[index % len(found)] for index in range(number)]


def check_memory(step: TrainingStep, feed: Feed, largest: list[int], stage: int) -> None:
    """Computes the gradients of the largest images and drops them, see :func:`largest_units`.

    Raises:
        UserError: the device has not enough memory.
    """
    try:
        step.probe(tuple(feed.batches(largest)), tf.constant([0, stage])).numpy()
    except tf.errors.ResourceExhaustedError as error:
        names = dict.fromkeys(feed.units[index].key for index in largest)
        raise out_of_memory(stage, f"the largest images ({', '.join(names)})") from error


def out_of_memory(stage: int, images: str) -> UserError:
    """What to say where a step finds no room for some images, which are given in words."""
    return UserError(
        f"{stage_name(stage).capitalize()} needs more memory than the device has with {images}. "
        "Give a lower --short_side and --long_side, --precision bfloat16 or float16, or "
        "another --gpu."
    )


def check_memory_ahead(stage: Stage, model: FasterRcnn, sources: Sources) -> None:
    """The step of a later stage on made-up proposals: stage 2's, which needs the most memory.

    Without it a run would learn only after stage 1 and its proposals that stage 2 does not fit.

    Args:
        model: with the initial weights; it stays as it is.

    Raises:
        UserError: as :func:`check_memory`.
    """
    if sources.config.schedules[stage.number].iterations < PROBED_ITERATIONS:
        return
    _probe(stage, model, sources)
    # The step holds itself, and velocities as large as the weights: stage 1 needs their room.
    gc.collect()


def _probe(stage: Stage, model: FasterRcnn, sources: Sources) -> None:
    recipe, units = model.recipe, sources.units
    number = recipe.detector.images_per_step
    eligible = np.flatnonzero(give_rois(units, recipe.detector))
    if not len(eligible):  # the stage will say so
        return
    largest = largest_units(units, eligible, recipe.image, number)
    share = (recipe.detector.background_iou_low + recipe.detector.background_iou_high) / 2
    count = recipe.training_proposals.after_nms
    nothing = ranked([])
    store = ProposalStore(
        {
            unit.key: ranked(made_up_proposals(unit, count, share)) if i in largest else nothing
            for i, unit in enumerate(units)
        }
    )
    feed = sources.feed(store, number)
    normalisation = Normalisation.identity(model.number_of_classes, 4)
    step = step_of(model, stage.trains, normalisation, feed.signature)
    check_memory(step, feed, largest, stage.number)


def made_up_proposals(unit: TrainingUnit, count: int, share: float) -> np.ndarray:
    """Boxes of which a full minibatch can be sampled: foreground and background.

    Args:
        share: IoU of the background ones with their object.

    Returns:
        (count, 4) float32 in pixels of the image as the unit shows it: the objects and a part of
        each at its four sides, again and again; the whole image where there is no object.
    """
    boxes = unit.boxes_image
    if not len(boxes):
        boxes = np.array([[0, 0, unit.example.height, unit.example.width]], np.float32)
    y1, x1, y2, x2 = boxes.T
    height, width = share * (y2 - y1), share * (x2 - x1)
    sides = [(y1, x1, y1 + height, x2), (y2 - height, x1, y2, x2)]
    sides += [(y1, x1, y2, x1 + width), (y1, x2 - width, y2, x2)]
    parts = [np.stack(side, axis=1) for side in sides]
    return np.resize(np.concatenate([boxes, *parts]), (count, 4)).astype(np.float32)
