"""Random networks and images for tests of what comes after training.

Shapes and names
----------------
seed  of the weights or pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from keras_frcnn.detection.detector import Detector
from keras_frcnn.network.faster_rcnn import FasterRcnn
from keras_frcnn.network.weights import write_layers
from keras_frcnn.recipes import Recipe
from keras_frcnn.runs.folder import RunFolder
from keras_frcnn.runs.provenance import weights_metadata


def random_image(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Noise, (height, width, 3) uint8."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def random_network(
    recipe: Recipe, class_names: Sequence[str], seed: int, network: str = "tiny", **options
) -> FasterRcnn:
    """A network whose scores and boxes differ from RoI to RoI, as trained ones do.

    Args:
        options: of :class:`FasterRcnn`.
    """
    model = FasterRcnn(network, tuple(class_names), recipe, seed=seed, **options)
    generator = np.random.default_rng(seed)
    for layer, deviation in zip(model.layers("head")[-2:], (0.5, 0.1), strict=True):
        layer.kernel.assign(generator.normal(0, deviation, layer.kernel.shape))
    for layer in model.layers("head"):
        if getattr(layer, "bias", None) is not None:
            layer.bias.assign(generator.normal(0, 0.1, layer.bias.shape))
    return model


def write_part(run: RunFolder, part: str, layers: Sequence) -> None:
    """Writes layers as a part of a run, such as ``stage1`` or ``final``."""
    write_layers(run.weights_file(part), layers, weights_metadata(run, run.read_config(), part))


def find(detector: Detector, pixels: np.ndarray, boxes: np.ndarray | None = None):
    """What a detector finds in one image, among boxes if they are given."""
    return detector.find([pixels], None if boxes is None else [boxes])[0]
