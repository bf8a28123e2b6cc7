"""Weights: their files, loading them strictly by name, ImageNet's.

A file is HDF5 in the layout of keras.applications' files. Ours has a root attribute
``keras_frcnn``, a JSON object with the format version and the caller's metadata; its first
convolution expects RGB. A file without it is foreign: it is taken for a network with Caffe's
preprocessing (BGR, as keras.applications' VGG and ResNet files), and the input channels of its
first convolution are reversed as they are read, which is the same network for RGB input.

Files are not trusted: every shape and stored size is compared before memory is taken, and no link
is followed. Loading never guesses: a layer fits exactly or is an error, and a report names every
layer that was loaded, left at its initial weights, or ignored.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import keras
import numpy as np
import tensorflow as tf

from keras_frcnn.errors import UserError, reading
from keras_frcnn.system.files import digest_of, parse_json, written_whole
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
    for group_name in _names(root.attrs["layer_names"]):
        group = find_member(root, group_name, "group")
        weights: dict[str, h5py.Dataset] = {}
        for stored_name in _names(group.attrs["weight_names"]):
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


def _read_metadata(path: Path, text: str | bytes) -> dict:
    content = parse_json(text)
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


def _names(stored: Iterable[str | bytes]) -> list[str]:
    return [name.decode() if isinstance(name, bytes) else str(name) for name in stored]


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

    def lines(self) -> list[str]:
        """The report for the screen; a name in it may hold anything, a line end too."""
        lines = [f"Weights from {self.path}:"]
        for title, names in (
            ("loaded", self.loaded),
            ("new (initial weights)", self.new),
            ("ignored (not in this network)", self.ignored),
        ):
            lines.append(f"  {len(names):3d} {title}" + (f": {', '.join(names)}" if names else ""))
        return lines + [f"      {phrase}" for phrase in self.reinitialised]


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
                f" {_shortened(found)}. Give a file of the same `network`, or start with"
                " `weights` random."
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
        "Give a weight file with `input_weight_path` FILE, or start without with `weights` random"
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


def trained_variables(layers: Iterable[keras.layers.Layer]) -> list[tf.Variable]:
    """The ``tf.Variable`` of every trainable weight of some layers, in their order."""
    return [weight.value for layer in layers for weight in layer.trainable_weights]


def assign_rows(variable: tf.Variable, start: int, rows) -> None:
    """Overwrites some rows of a variable where they are.

    ``variable[a:b].assign`` would read the whole variable first, and so copy it at every call. And
    every operation on rows leaves a variable to be copied whenever it is read or updated later,
    0.4 GB in each step for fc6; this one ends that again.

    Args:
        start: the first row.
        rows: array or tensor of the variable's type, (number of rows, ...).
    """
    tf.raw_ops.ResourceStridedSliceAssign(
        ref=variable.handle, begin=[start], end=[start + len(rows)], strides=[1], value=rows
    )
    tf.raw_ops.DisableCopyOnRead(resource=variable.handle)
