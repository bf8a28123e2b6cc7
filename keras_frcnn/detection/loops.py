"""Detection on many images: read ahead in threads, grouped where they fit, in a known order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar

import numpy as np

from keras_frcnn.data.dataset import Dataset, Example
from keras_frcnn.data.pipeline import in_parallel
from keras_frcnn.detection.detections import ImageDetections
from keras_frcnn.detection.detector import Detector, Key
from keras_frcnn.errors import doing
from keras_frcnn.proposals.given import GivenProposals

# Images in memory at most, in batches: those that wait for others of their key, too.
BATCHES_WAITING = 4

Entry = TypeVar("Entry")


def in_batches(
    entries: Iterable[Entry], size: int, key_of: Callable[[Entry], Key]
) -> Iterator[list[Entry]]:
    """Groups of at most ``size`` entries with equal keys.

    A group goes when it is full. When :data:`BATCHES_WAITING` times ``size`` entries wait in all,
    the group that waited longest goes as it is.
    """
    waiting: dict[Key, list[Entry]] = {}
    for entry in entries:
        common = key_of(entry)
        group = waiting.setdefault(common, [])
        group.append(entry)
        if len(group) == size:
            yield waiting.pop(common)
        elif sum(map(len, waiting.values())) >= BATCHES_WAITING * size:
            yield waiting.pop(next(iter(waiting)))
    yield from waiting.values()


def detect_dataset(
    detector: Detector,
    dataset: Dataset,
    *,
    given: GivenProposals | None = None,
    workers: int = 2,
) -> Iterator[tuple[Example, ImageDetections]]:
    """What a detector finds in each image of a data set, in its order.

    Args:
        given: proposals to classify in place of the detector's own.
        workers: threads that read images ahead.

    Raises:
        UserError: an image cannot be read, or the proposals lack one.
    """
    images = in_parallel(Example.pixels, dataset.examples, workers=workers, ahead=8)
    for example, image in zip(dataset.examples, images, strict=True):
        boxes = None if given is None else [given.of_example(example).boxes_image]
        with doing(f"detecting in {example.path}"):
            (found,) = detector.find([image], boxes)
        yield example, found


def best_of_all(
    found: dict[str, ImageDetections], classes: int, mean_per_class: int | None
) -> dict[str, ImageDetections]:
    """The best of each class over all images, by ``Example.key``, as a recipe may ask (recipe 4.8).

    The MATLAB code cuts before non-maximum suppression (fast_rcnn_test.m:130-150,
    imdb_eval_voc.m:60), here suppression comes first: 40 boxes an image and class before it leave
    about eight objects of a crowd (blood cells: area AP of RBC 0.572 instead of 0.773 on one
    network).

    Args:
        mean_per_class: this many times the number of images are kept; None: all.
    """
    if mean_per_class is None:
        return found
    return keep_best_per_class(found, classes, mean_per_class * len(found))


def keep_best_per_class(
    detections: Mapping[str, ImageDetections], number_of_classes: int, limit_per_class: int
) -> dict[str, ImageDetections]:
    """Keeps the ``limit_per_class`` best detections of each class over the whole data set.

    ML keeps the best 40 times the number of images (fast_rcnn_test.m:74-79,130-150). Of equal
    scores the earlier one in the mapping is kept.

    Args:
        number_of_classes: foreground classes; the others are dropped.

    Returns:
        The same keys in the same order; the detections kept stay in their order.
    """
    if not detections:
        return {}
    classes = np.concatenate([d.classes for d in detections.values()])
    scores = np.concatenate([d.scores for d in detections.values()])
    keep = np.zeros(len(scores), bool)
    for index in range(1, number_of_classes + 1):
        of_class = np.flatnonzero(classes == index)
        order = np.argsort(-scores[of_class], kind="stable")
        keep[of_class[order[:limit_per_class]]] = True
    ends = np.cumsum([len(d) for d in detections.values()])
    masks = np.split(keep, ends[:-1])
    return {key: d.take(mask) for (key, d), mask in zip(detections.items(), masks, strict=True)}
