"""Detection on many images: read ahead in threads, grouped where they fit, in a known order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from keras_frcnn.data.dataset import Dataset, Example
from keras_frcnn.data.pipeline import in_parallel
from keras_frcnn.detection.detections import ImageDetections
from keras_frcnn.detection.detector import Detector, Key
from keras_frcnn.detection.final_filter import keep_best_per_class
from keras_frcnn.errors import doing
from keras_frcnn.proposals.given import GivenProposals

# Images in memory at most, in batches: those that wait for others of their key, too.
BATCHES_WAITING = 4

Entry = TypeVar("Entry")


def in_batches(
    entries: Iterable[Entry], size: int, key_of: Callable[[Entry], Key]
) -> Iterator[list[Entry]]:
    """Groups of at most ``size`` entries with equal keys.

    Entries wait until their group is full, or until :data:`BATCHES_WAITING` times ``size`` of them
    wait in all: then the group that waited longest goes as it is.
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

    Args:
        mean_per_class: this many times the number of images are kept; None: all.
    """
    if mean_per_class is None:
        return found
    return keep_best_per_class(found, classes, mean_per_class * len(found))
