"""From files to batches: parallel decoding in a fixed order, one preprocessing, padding.

Shapes and names
----------------
N  images of a batch, G  objects, P  proposals, both zero-padded within a batch.
*_input  pixels of the rescaled network input; scale = input size / original size, per axis.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import tensorflow as tf

from keras_frcnn.data.dataset import Example
from keras_frcnn.errors import UserError
from keras_frcnn.network.network_input import input_size, prepare_image
from keras_frcnn.recipes import ImageConfig

Item = TypeVar("Item")
Result = TypeVar("Result")

# What a batch holds; features take the place of the image where they were computed before.
BATCH_SIGNATURE = {
    "image": tf.TensorSpec((None, None, None, 3), tf.float32),
    "size": tf.TensorSpec((None, 2), tf.int32),
    "scale": tf.TensorSpec((None, 2), tf.float32),
    "gt_boxes": tf.TensorSpec((None, None, 4), tf.float32),
    "gt_classes": tf.TensorSpec((None, None), tf.int32),
    "gt_count": tf.TensorSpec((None,), tf.int32),
    "proposals": tf.TensorSpec((None, None, 4), tf.float32),
    "proposal_count": tf.TensorSpec((None,), tf.int32),
    "unit": tf.TensorSpec((None,), tf.int32),
}


def in_parallel(
    function: Callable[[Item], Result], items: Iterable[Item], *, workers: int, ahead: int
) -> Iterator[Result]:
    """``map`` over threads, in order, never more than ``ahead`` results early.

    tf.data runs Python functions one at a time once op determinism is on; this does not.
    """
    pending: deque = deque()
    with ThreadPoolExecutor(workers) as pool:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) >= ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def image_scale(height: int, width: int, config: ImageConfig) -> tuple[np.ndarray, np.ndarray]:
    """(2,) int32 input size and (2,) float32 scale of an image of the given original size."""
    size = np.array(input_size(height, width, config.short_side, config.long_side), np.int32)
    return size, (size / np.array((height, width))).astype(np.float32)


def decode_unit(unit, read: Callable[[Example], np.ndarray] = Example.pixels) -> np.ndarray:
    """(H, W, 3) uint8 pixels of a training unit, mirrored where it is."""
    image = read(unit.example)
    return np.ascontiguousarray(image[:, ::-1]) if unit.flipped else image


def unit_record(
    index: int,
    unit,
    config: ImageConfig,
    *,
    proposals_image: np.ndarray | None,
    features: np.ndarray | None,
    read: Callable[[Example], np.ndarray] = Example.pixels,
) -> dict[str, Any]:
    """Everything about one unit but its final pixels, as NumPy arrays.

    Args:
        index: position of the unit in the doubled list.
        unit: the :class:`~keras_frcnn.training.units.TrainingUnit`.
        proposals_image: (P, 4) float32 in pixels of the image as the unit shows it, or ``None``.
        features: (h, w, F) 16-bit floats as uint16; ``None`` reads the image.
        read: image to pixels, of a cache, say.
    """
    size, scale = image_scale(unit.example.height, unit.example.width, config)
    if proposals_image is None:
        proposals_image = np.zeros((0, 4), np.float32)
    record = {
        "size": size,
        "scale": scale,
        "gt_boxes": unit.boxes_image,
        "gt_classes": unit.example.classes.astype(np.int32),
        "gt_count": np.int32(len(unit.boxes_image)),
        "proposals": proposals_image.astype(np.float32),
        "proposal_count": np.int32(len(proposals_image)),
        "unit": np.int32(index),
    }
    if features is None:
        record["image"] = decode_unit(unit, read)
    else:
        record["features"] = features
    return record


def batches(
    make_record: Callable[[int], dict[str, Any]],
    order: Iterable[int],
    config: ImageConfig,
    *,
    images_per_step: int,
    feature_channels: int | None = None,
    feature_dtype: tf.DType | None = None,
    workers: int = 2,
) -> Iterator[dict[str, tf.Tensor]]:
    """Batches of exactly ``images_per_step`` units, padded at the bottom and right with zeros.

    Padding comes after the means are subtracted, as the sources do (blob.py:13-29); true sizes
    stand in ``size``.

    Args:
        make_record: unit index to :func:`unit_record`; runs in threads.
        order: the unit indices.
        config: input size and means.
        images_per_step: N.
        feature_channels: F where ``make_record`` brings features instead of pixels.
        feature_dtype: what the 16 bits of those features are.
        workers: threads that decode, and that resize.

    Yields:
        Dictionaries with the entries of :data:`BATCH_SIGNATURE`, ``features`` (N, h, w, F) in place
        of ``image`` with ``feature_channels``.

    Raises:
        UserError: ``make_record`` did, because an image has become unreadable, say.
    """
    of_batch = batch_signature(images_per_step, feature_channels, feature_dtype)
    stored = {"image": tf.uint8, "features": tf.uint16}
    signature = {
        name: tf.TensorSpec(spec.shape[1:], stored.get(name, spec.dtype))
        for name, spec in of_batch.items()
    }

    def to_input(record: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        record = dict(record)
        for name in ("gt_boxes", "proposals"):
            record[name] *= tf.tile(record["scale"], [2])
        if feature_channels is None:
            # On the host, as everything in tf.data.
            record["image"], _ = prepare_image(record["image"], config, on_host=True)
            record["image"].set_shape((None, None, 3))
        else:
            record["features"] = tf.bitcast(record["features"], feature_dtype)
        return record

    failures: list[UserError] = []

    def records() -> Iterator[dict[str, Any]]:
        try:
            yield from in_parallel(make_record, order, workers=workers, ahead=4 * workers)
        except UserError as error:
            failures.append(error)
            raise

    dataset = tf.data.Dataset.from_generator(records, output_signature=signature)
    dataset = dataset.map(to_input, num_parallel_calls=workers, deterministic=True)
    dataset = dataset.padded_batch(images_per_step, drop_remainder=True).prefetch(2)
    try:
        yield from dataset
    except tf.errors.OpError:
        # tf.data makes a page of C++ and Python frames of it.
        if failures:
            raise failures[0] from None
        raise


def batch_signature(
    images_per_step: int, feature_channels: int | None, feature_dtype: tf.DType | None
) -> dict[str, tf.TensorSpec]:
    """What :func:`batches` yields, for the input signature of a step traced once."""
    signature = {
        name: tf.TensorSpec((images_per_step, *spec.shape[1:]), spec.dtype)
        for name, spec in BATCH_SIGNATURE.items()
    }
    if feature_channels is not None:
        del signature["image"]
        shape = (images_per_step, None, None, feature_channels)
        signature["features"] = tf.TensorSpec(shape, feature_dtype)
    return signature
