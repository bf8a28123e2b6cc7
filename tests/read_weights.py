"""A weight file as a whole."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_frcnn.network.weights import open_layers


class LayerFile(NamedTuple):
    """Layer name -> weight name -> float32 array, and what was given to ``write_arrays``."""

    layers: dict[str, dict[str, np.ndarray]]
    metadata: dict


def read_layers(path: Path | str) -> LayerFile:
    """Reads every array, for RGB input whatever the file."""
    with open_layers(path) as file:
        layers = {
            layer: {weight: file.read(layer, weight) for weight in weights}
            for layer, weights in file.layers.items()
        }
        return LayerFile(layers, file.metadata)
