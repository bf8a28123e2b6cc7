"""Weights of Keras layers: write them, load them strictly by name, fetch ImageNet's.

Loading never guesses: a layer fits exactly or is an error, and a report names every layer that was
loaded, left at its initial weights, or ignored. ``weight_files`` describes the files.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from keras_frcnn.errors import UserError
from keras_frcnn.network.variables import assign_rows
from keras_frcnn.network.weight_files import (
    OpenLayerFile,
    canonical_weight_name,
    open_layers,
    write_arrays,
)
from keras_frcnn.system.files import digest_of

# network: (folder of the address, file, MD5), from keras.applications' vgg16.py and resnet.py.
# VGG-16 with its top, because the paper starts fc6 and fc7 from ImageNet too.
KERAS_APPLICATIONS = "https://storage.googleapis.com/tensorflow/keras-applications"
IMAGENET_FILES = {
    "vgg16": (
        "vgg16",
        "vgg16_weights_tf_dim_ordering_tf_kernels.h5",
        "64373286793e3c8b2b4e3219cbf3544b",
    ),
    "resnet50": (
        "resnet",
        "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5",
        "4d473c1dd8becc155b73f8504c6f6626",
    ),
}
# Of a weight that are read at once: 32 MiB.
ASSIGNED_ELEMENTS = 2**23
# weights/ beside the package, in a checkout.
WEIGHTS_FOLDER = Path(__file__).resolve().parents[2] / "weights"


@dataclass(frozen=True)
class LoadReport:
    """What loading did, in names of layers.

    Attributes:
        path: the file.
        loaded: layers of the network that now have the file's weights.
        new: layers of the network that keep their initial weights.
        ignored: layers of the file that the network does not have.
        reinitialised: for each layer of ``new`` that the file has in another shape, a phrase.
    """

    path: str
    loaded: tuple[str, ...]
    new: tuple[str, ...]
    ignored: tuple[str, ...]
    reinitialised: tuple[str, ...] = ()

    def text(self) -> str:
        """The report in a few lines, for the screen."""
        lines = [f"Weights from {self.path}:"]
        for title, names in (
            ("loaded", self.loaded),
            ("new (initial weights)", self.new),
            ("ignored (not in this network)", self.ignored),
        ):
            lines.append(f"  {len(names):3d} {title}" + (f": {', '.join(names)}" if names else ""))
        return "\n".join(lines + [f"      {phrase}" for phrase in self.reinitialised])


def write_layers(path: str | Path, layers: Sequence[keras.layers.Layer], metadata: dict) -> None:
    """Write the weights of built layers as :func:`write_arrays` does.

    Raises:
        ValueError: two layers of one name, or metadata beyond 60 kB of JSON.
    """
    arrays: dict[str, dict[str, np.ndarray]] = {}
    for layer in layers:
        if layer.name in arrays:
            raise ValueError(f"Two layers are called {layer.name!r}; names must be unique.")
        arrays[layer.name] = {name: weight.numpy() for name, weight in _weights(layer).items()}
    write_arrays(path, {name: weights for name, weights in arrays.items() if weights}, metadata)


def load_layers(
    layers: Sequence[keras.layers.Layer],
    path: str | Path,
    *,
    reinitialise: Collection[str] = ("cls_score", "bbox_pred"),
    required: Collection[str] = (),
) -> LoadReport:
    """Load weights by layer name, strictly; nothing is assigned unless names and shapes fit.

    Args:
        layers: the network's.
        path: a weight file, ours or a foreign one (whose first kernel is turned to RGB).
        reinitialise: layers that may have another shape in the file (another number of classes);
            they then keep their initial weights, and the report says so.
        required: layers that the file must have.

    Raises:
        UserError: an unreadable file, or numbers in it that are not finite; a layer whose weights
            have other names or shapes than the network's; a required layer that is missing; a file
            that shares no layer with the network.
    """
    network = {layer.name: _weights(layer) for layer in layers}
    network = {name: weights for name, weights in network.items() if weights}
    with open_layers(path) as file:
        found = file.layers
        common = [name for name in network if name in found]
        missing = [name for name in required if name not in found]
        if missing or not common:
            raise UserError(
                f"{path} holds no weights for {_shortened(missing or network)}; its layers are"
                f" {_shortened(found)}. Give a file of the same network (--network), or start with"
                " --weights random."
            )
        differences = {name: _difference(found[name], network[name]) for name in common}
        for name, difference in differences.items():
            if difference and name not in reinitialise:
                raise UserError(
                    f"Layer {name} in {path} does not fit the network: {difference}. Give a file of"
                    " the same network and the same options."
                )
        loaded = tuple(name for name in common if not differences[name])
        for layer_name in loaded:
            for weight_name, variable in network[layer_name].items():
                _assign(variable, file, layer_name, weight_name)
    return LoadReport(
        path=str(path),
        loaded=loaded,
        new=tuple(name for name in network if name not in loaded),
        ignored=tuple(name for name in found if name not in network),
        reinitialised=tuple(f"{name}: {text}" for name, text in differences.items() if text),
    )


def imagenet_file(network: str, folder: str | Path = WEIGHTS_FOLDER) -> Path:
    """The ImageNet weights of a network, downloaded where necessary.

    Looked for in ``folder``, where a user may have put it, then in Keras' cache
    (``~/.keras/models``, as keras.applications), then fetched into that cache. The MD5 is checked
    in all cases.

    Raises:
        UserError: a network without ImageNet weights, a wrong file in ``folder``, or no way to
            fetch it.
    """
    advice = (
        "Give a weight file with --input_weight_path FILE, or start without with --weights random"
    )
    if network not in IMAGENET_FILES:
        raise UserError(f"There are no ImageNet weights of {network} in Keras' layout. {advice}.")
    address_folder, name, md5 = IMAGENET_FILES[network]
    by_hand = Path(folder) / name
    if by_hand.is_file():
        found = digest_of([by_hand], hashlib.md5(usedforsecurity=False))
        if found != md5:
            raise UserError(
                f"{by_hand} has the MD5 {found} and should have {md5}: it is incomplete or another"
                " file. Delete it or download it again."
            )
        return by_hand
    address = f"{KERAS_APPLICATIONS}/{address_folder}/{name}"
    try:
        # Said to Keras: a command starts it without the user's settings, this one among them.
        cache = os.environ.get("KERAS_HOME") or Path.home() / ".keras"
        fetched = keras.utils.get_file(
            name, address, cache_subdir="models", cache_dir=cache, file_hash=md5
        )
        return Path(fetched)
    except Exception as error:  # get_file raises a bare Exception for an address out of reach
        raise UserError(
            f"The ImageNet weights of {network} could not be fetched ({error}). {advice}, or put"
            f" {address} into {folder}."
        ) from error


def _assign(variable, file: OpenLayerFile, layer: str, weight: str) -> None:
    """Reads a weight into its variable, fc6 by a few rows at a time.

    Whole, its 411 MB would be in memory three times over: as an array, a tensor and a variable.
    """
    target = variable.value
    rows = max(1, ASSIGNED_ELEMENTS // int(np.prod(target.shape[1:])))
    if rows >= target.shape[0]:
        target.assign(tf.cast(file.read(layer, weight), target.dtype))
        return
    for start in range(0, target.shape[0], rows):
        part = slice(start, min(start + rows, target.shape[0]))
        assign_rows(target, start, tf.cast(file.read(layer, weight, part), target.dtype))


def _difference(found: Mapping[str, tuple[int, ...]], variables: Mapping) -> str:
    """How a layer of a file differs from the network's; "" where it fits."""
    expected = {name: tuple(variable.shape) for name, variable in variables.items()}
    if found == expected:
        return ""
    return f"the network expects {_shapes(expected)}, the file has {_shapes(found)}"


def _shapes(shapes: Mapping[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} {shape}" for name, shape in sorted(shapes.items()))


def _weights(layer: keras.layers.Layer) -> dict:
    """Weight name -> variable of a layer."""
    return {canonical_weight_name(weight.name): weight for weight in layer.weights}


def _shortened(names: Collection[str]) -> str:
    first = ", ".join(list(names)[:8])
    return first + (f" and {len(names) - 8} more" if len(names) > 8 else "")
