"""What is timed: a network, the size of an image, and a batch that needs no files."""

from __future__ import annotations

import dataclasses
import io
from dataclasses import dataclass
from typing import Literal

import numpy as np
import tensorflow as tf
from PIL import Image

from keras_frcnn.data.voc import VOC_CLASSES
from keras_frcnn.network.faster_rcnn import FasterRcnn
from keras_frcnn.network.weights import assign_rows
from keras_frcnn.recipes import PAPER, Compression, ImageConfig, Recipe

OBJECTS = 4
PROPOSALS = 2000
FILLED_ELEMENTS = 2**22


@dataclass(frozen=True)
class Setting:
    """One network at one size.

    Attributes:
        short_side, long_side: height and width of the network input, in pixels.
        proposals: of an image in testing.
    """

    network: str = "vgg16"
    short_side: int = 600
    long_side: int = 800
    proposals: int = 300
    roi_pooling: Literal["crop", "max", "align"] = "crop"

    @property
    def recipe(self) -> Recipe:
        """The paper's, at this size."""
        return dataclasses.replace(
            PAPER,
            image=dataclasses.replace(
                PAPER.image, short_side=self.short_side, long_side=self.long_side
            ),
            detector=dataclasses.replace(PAPER.detector, roi_pooling=self.roi_pooling),
            test_proposals=dataclasses.replace(PAPER.test_proposals, after_nms=self.proposals),
        )


def random_model(
    setting: Setting,
    precision: str,
    compression: Compression | None = None,
    *,
    half_weights: bool = False,
) -> FasterRcnn:
    """A network of VOC's classes with random weights: as fast as a trained one.

    A few rows are drawn at a time, as weights are loaded, so that the peak of the memory is that of
    the work and not of the drawing.

    Args:
        half_weights: as a network is loaded for testing, see :class:`FasterRcnn`.
    """
    model = FasterRcnn(
        setting.network,
        VOC_CLASSES,
        setting.recipe,
        precision=precision,
        seed=None,
        compression=compression,
        half_weights=half_weights,
    )
    generator = np.random.default_rng(0)
    for layer in model.layers():
        for weight in layer.weights:
            if len(weight.shape) > 1:
                _fill(weight.value, generator)
    return model


def _fill(variable: tf.Variable, generator: np.random.Generator) -> None:
    """Uniform numbers of He's variance: nothing vanishes or grows on its way up."""
    inputs = int(np.prod(variable.shape[:-1]))
    limit = np.sqrt(6.0 / inputs)
    rows = max(1, FILLED_ELEMENTS // int(np.prod(variable.shape[1:])))
    for start in range(0, variable.shape[0], rows):
        stop = min(start + rows, variable.shape[0])
        drawn = generator.random((stop - start, *variable.shape[1:]), np.float32)
        assign_rows(variable, start, tf.cast(limit * (2 * drawn - 1), variable.dtype))


def random_photo(config: ImageConfig) -> np.ndarray:
    """(short side, long side, 3) uint8, coarse noise: it compresses as a photograph does."""
    coarse = np.random.default_rng(0).integers(
        0, 256, (config.short_side // 8, config.long_side // 8, 3), np.uint8
    )
    size = (config.long_side, config.short_side)
    return np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC))


def jpeg_of(pixels: np.ndarray) -> bytes:
    """A JPEG of five eighths of the size: a VOC photo of 500 x 375 for an input of 800 x 600."""
    height, width = pixels.shape[:2]
    image = Image.fromarray(pixels).resize((width * 5 // 8, height * 5 // 8))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=90)
    return stream.getvalue()


def random_batch(config: ImageConfig, images: int) -> dict[str, tf.Tensor]:
    """A training batch: noise, four objects an image, and proposals around them and elsewhere."""
    generator = np.random.default_rng(0)
    size = np.array((config.short_side, config.long_side))
    sides = generator.uniform(0.15, 0.5, (images, OBJECTS, 2)) * size
    corner = generator.uniform(0, 1, (images, OBJECTS, 2)) * (size - sides)
    gt_boxes = np.concatenate((corner, corner + sides), axis=-1)
    near = np.repeat(gt_boxes, PROPOSALS // OBJECTS, axis=1)
    proposals = near + generator.normal(0, 0.1 * size.min(), near.shape)
    proposals = np.clip(proposals, 0, np.tile(size, 2))
    proposals = np.concatenate(
        (
            np.minimum(proposals[..., :2], proposals[..., 2:]),
            np.maximum(proposals[..., :2], proposals[..., 2:]) + 1,
        ),
        axis=-1,
    )
    return {
        "image": tf.constant(generator.normal(0, 60, (images, *size, 3)), tf.float32),
        "size": tf.constant(np.tile(size, (images, 1)), tf.int32),
        "scale": tf.ones((images, 2)),
        "gt_boxes": tf.constant(gt_boxes, tf.float32),
        "gt_classes": tf.ones((images, OBJECTS), tf.int32),
        "gt_count": tf.fill((images,), OBJECTS),
        "proposals": tf.constant(proposals, tf.float32),
        "proposal_count": tf.fill((images,), proposals.shape[1]),
        "unit": tf.range(images),
    }
