"""The one HDF5 layout of weights on disk, that of the files of keras.applications.

A file of ours has a root attribute ``keras_frcnn``, a JSON object with the format version and the
caller's metadata; its first convolution expects RGB. A file without it is foreign: it is taken for
a network with Caffe's preprocessing (BGR, as keras.applications' VGG and ResNet files), and the
input channels of its first convolution are reversed as they are read, which is the same network
for RGB input. Files are not trusted: every shape and stored size is compared before memory is
taken, and no link is followed.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from keras_frcnn.errors import UserError, reading
from keras_frcnn.system.files import parse_json, written_whole
from keras_frcnn.system.hdf5 import find_array, find_member, new_hdf5

FORMAT_ATTRIBUTE = "keras_frcnn"
_AGAIN = (
    "give a file of keras.applications, of this package, or of save_weights of Keras 2, or copy it "
    "again"
)
FORMAT_VERSION = 1
# HDF5 keeps an attribute in an object header, which is limited to 64 KiB.
MAX_METADATA_BYTES = 60_000
# The paper's fc6 and fc7 are fc1 and fc2 in keras.applications.
FOREIGN_LAYER_NAMES = {"fc1": "fc6", "fc2": "fc7"}
# Keras 1 wrote VGG-16's: "block1_conv1_W_1:0" for "block1_conv1/kernel:0".
KERAS_1_NAMES = {"W": "kernel", "b": "bias"}


@dataclass(frozen=True, eq=False)
class OpenLayerFile:
    """A weight file that is open: its arrays are found and checked but not read.

    Attributes:
        path: the file.
        layers: layer name -> weight name -> shape.
        metadata: {} for a foreign file.
    """

    path: Path
    metadata: dict
    _datasets: dict[str, dict[str, h5py.Dataset]]
    _bgr_layer: str | None

    @property
    def layers(self) -> dict[str, dict[str, tuple[int, ...]]]:
        return {
            layer: {weight: tuple(dataset.shape) for weight, dataset in datasets.items()}
            for layer, datasets in self._datasets.items()
        }

    def read(self, layer: str, weight: str, rows: slice = slice(None)) -> np.ndarray:
        """Read one array, or some of its rows, as float32, for RGB input.

        Raises:
            UserError: the data cannot be read, or are not finite.
        """
        with reading(self.path, f"weights ({weight} of layer {layer})", _AGAIN):
            array = self._datasets[layer][weight][rows].astype(np.float32, copy=False)
        if not np.isfinite(array).all():
            raise UserError(
                f"{self.path} holds NaN or infinite numbers in {weight} of layer {layer}, with "
                "which nothing can be detected; copy the file again, or train it again."
            )
        if layer == self._bgr_layer and weight == "kernel":
            return array[:, :, ::-1, :]
        return array


def write_arrays(
    path: str | Path, layers: Mapping[str, Mapping[str, np.ndarray]], metadata: dict
) -> None:
    """Write layer name -> weight name -> array, so that the path never holds half a file.

    Args:
        layers: in the order in which they are to be listed; the first kernel expects RGB.
        metadata: a JSON object, which :func:`open_layers` gives back.

    Raises:
        ValueError: metadata beyond 60 kB of JSON.
    """
    path = Path(path)
    text = json.dumps({"format_version": FORMAT_VERSION, "metadata": metadata})
    if len(text.encode()) > MAX_METADATA_BYTES:
        raise ValueError(f"The metadata of a weight file may take {MAX_METADATA_BYTES} bytes.")
    with written_whole(path) as partial, new_hdf5(partial) as file:
        file.attrs[FORMAT_ATTRIBUTE] = text
        file.attrs["layer_names"] = [name.encode() for name in layers]
        for layer_name, weights in layers.items():
            group = file.create_group(layer_name)
            # Keras finds arrays by these names and assigns them in this order.
            names = [f"{layer_name}/{weight}:0" for weight in weights]
            group.attrs["weight_names"] = [name.encode() for name in names]
            for name, array in zip(names, weights.values(), strict=True):
                group.create_dataset(name, data=np.asarray(array, np.float32))


@contextlib.contextmanager
def open_layers(path: str | Path) -> Iterator[OpenLayerFile]:
    """Open a weight file and check its arrays without reading them.

    Raises:
        UserError: no such file, not HDF5, not this layout, a newer format, or damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"There is no weight file {path}; give the path of a Keras HDF5 file.")
    with reading(path, "a whole HDF5 file", _AGAIN):
        file = h5py.File(path, "r")
    with file:
        with reading(path, "a whole Keras weight file", _AGAIN):
            opened = _find_arrays(path, file)
        yield opened


def _find_arrays(path: Path, file: h5py.File) -> OpenLayerFile:
    is_ours = FORMAT_ATTRIBUTE in file.attrs
    metadata = _read_metadata(path, file.attrs[FORMAT_ATTRIBUTE]) if is_ours else {}
    # ``model.save`` of Keras 2 puts the weights beside the optimizer's.
    root = find_member(file, "model_weights", "group") if "model_weights" in file else file
    layers: dict[str, dict[str, h5py.Dataset]] = {}
    for group_name in _names_attribute(root, "layer_names"):
        group = find_member(root, group_name, "group")
        weights: dict[str, h5py.Dataset] = {}
        for stored_name in _names_attribute(group, "weight_names"):
            weight = canonical_weight_name(stored_name)
            if weight in weights:
                raise UserError(
                    f"Group {group_name} of {path} holds several weights called {weight}, so it is"
                    " a model within the model; save the inner model's weights and give that file."
                )
            weights[weight] = find_array(path, root, f"{group_name}/{stored_name}", "f", None)
        if weights:
            name = group_name if is_ours else FOREIGN_LAYER_NAMES.get(group_name, group_name)
            layers[name] = weights
    return OpenLayerFile(path, metadata, layers, None if is_ours else _first_image_layer(layers))


def _names_attribute(group: h5py.Group, attribute: str) -> list[str]:
    """A list of names; Keras cuts a list beyond 64 kB into attribute0, attribute1, ..."""
    if attribute in group.attrs:
        return [_text(name) for name in group.attrs[attribute]]
    names: list[str] = []
    part = 0
    while f"{attribute}{part}" in group.attrs:
        names += [_text(name) for name in group.attrs[f"{attribute}{part}"]]
        part += 1
    if part == 0:
        raise KeyError(f"no attribute {attribute}")
    return names


def _read_metadata(path: Path, text: str | bytes) -> dict:
    content = parse_json(_text(text))
    version, metadata = int(content["format_version"]), dict(content["metadata"])
    if version > FORMAT_VERSION:
        raise UserError(
            f"{path} has weight format {version}, and this version of keras_frcnn reads"
            f" {FORMAT_VERSION} at most; update keras_frcnn."
        )
    return metadata


def _first_image_layer(layers: Mapping[str, Mapping[str, h5py.Dataset]]) -> str | None:
    """The first convolution in the file's order, where it is one over three channels."""
    for name, weights in layers.items():
        kernel = weights.get("kernel")
        if kernel is not None and len(kernel.shape) == 4:
            return name if kernel.shape[2] == 3 else None
    return None


def canonical_weight_name(stored_name: str) -> str:
    """The weight that a stored name stands for.

    "block1_conv1/kernel:0", "block1_conv1_W_1:0" and "kernel" are all "kernel".
    """
    name = re.sub(r"(_\d+)?(:\d+)?$", "", stored_name.rsplit("/", 1)[-1])
    return KERAS_1_NAMES.get(name.rpartition("_")[2], name)


def _text(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)
