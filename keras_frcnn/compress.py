"""Fewer multiplications in fc6 and fc7: truncated SVD (section 3.1 of Fast R-CNN).

A layer with the weights W = U S V^T becomes two without a non-linearity between them: the first
holds the top singular directions and no bias, the second the rest and the layer's own bias. At
rank t a layer of u x v costs t (u + v) multiplications instead of u v.

Shapes and names
----------------
u, v  inputs and outputs of a layer; t its rank.
kernel  (u, v) float32, as Keras has it: the transpose of Caffe's.
R  RoIs.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import tensorflow as tf

from keras_frcnn.errors import UserError
from keras_frcnn.inference import load_model, result_stage
from keras_frcnn.network.faster_rcnn import FasterRcnn
from keras_frcnn.network.weights import write_layers
from keras_frcnn.provenance import weights_metadata
from keras_frcnn.recipes import Compression
from keras_frcnn.runs import RunFolder
from keras_frcnn.stages import FINAL
from keras_frcnn.timing import in_turns

COMPRESSED_LAYERS = ("fc6", "fc7")
_ROWS = 4096  # of a kernel that are in float64 at a time


def truncated_svd(kernel: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """Two matrices whose product is the best approximation of a kernel at a rank.

    With the top eigenvectors Q (v, t) of the Gram matrix K^T K, which are the right singular
    vectors of K, the product (K Q) Q^T is the truncated SVD; K Q is U S. The Gram matrix squares
    the singular values, but in float64, which leaves them right to 1e-8 of the largest: float32
    weights carry no more. It takes a tenth of the time of numpy.linalg.svd (measured on
    25088 x 1024), and at full rank Q Q^T is the identity to rounding, however small singular values
    are.

    Args:
        kernel: (u, v).
        rank: t, at most min(u, v).

    Returns:
        (u, t) and (t, v), float32.
    """
    inputs, outputs = kernel.shape
    gram = np.zeros((outputs, outputs))
    for start in range(0, inputs, _ROWS):
        rows = kernel[start : start + _ROWS].astype(np.float64)
        gram += rows.T @ rows
    _, vectors = np.linalg.eigh(gram)  # eigenvalues ascend
    top = vectors[:, ::-1][:, :rank]
    first = np.empty((inputs, rank), np.float32)
    for start in range(0, inputs, _ROWS):
        first[start : start + _ROWS] = kernel[start : start + _ROWS].astype(np.float64) @ top
    return first, np.ascontiguousarray(top.T, np.float32)


def compress_model(model: FasterRcnn, compression: Compression) -> FasterRcnn:
    """The same network with fc6 and fc7 at lower ranks; all other weights are copied.

    Raises:
        UserError: as :func:`check_ranks`.
    """
    check_ranks(model, compression)
    compressed = FasterRcnn(
        model.network,
        model.class_names,
        model.recipe,
        precision=model.precision,
        seed=None,
        compression=compression,
    )
    layers = {layer.name: layer for layer in model.layers()}
    for layer in compressed.layers():
        if layer.name in layers:
            layer.set_weights(layers[layer.name].get_weights())
    halves = {layer.name: layer for layer in compressed.layers("head")}
    for name in COMPRESSED_LAYERS:
        kernel, bias = layers[name].get_weights()
        first, second = truncated_svd(kernel, getattr(compression, name))
        halves[f"{name}_L"].set_weights([first])
        halves[f"{name}_U"].set_weights([second, bias])
    return compressed


def check_ranks(model: FasterRcnn, compression: Compression) -> None:
    """Makes sure that a network has the layers to compress and that the ranks exist.

    Raises:
        UserError: naming the layer and its largest rank.
    """
    layers = {layer.name: layer for layer in model.layers("head")}
    if model.compression is not None:
        ranks = model.compression
        raise UserError(
            f"The network is compressed already (fc6 {ranks.fc6}, fc7 {ranks.fc7}); compress the "
            "run that it was made from."
        )
    if not set(COMPRESSED_LAYERS) <= set(layers):
        raise UserError(
            f"{model.network} has no fc6 and fc7 to compress: its head is made of convolutions."
        )
    for name in COMPRESSED_LAYERS:
        inputs, outputs = layers[name].kernel.shape
        rank, largest = getattr(compression, name), min(inputs, outputs)
        if rank > largest:
            raise UserError(
                f"--{name} {rank} exceeds the largest rank of {name}, which is {inputs} x "
                f"{outputs}: give at most {largest}."
            )


def compress_run(
    run: RunFolder, out: RunFolder, compression: Compression, command: Sequence[str]
) -> tuple[FasterRcnn, FasterRcnn]:
    """Writes a compressed copy of a run's result as a run folder.

    The new folder has the result's weights only (the final ones; those of stages 1 and 2 where the
    run stopped there), the configuration, the list of training images and the sample pictures.

    Args:
        run: a finished run.
        out: a run folder that is not there yet.
        compression: the ranks.
        command: what was typed.

    Returns:
        the detector's network before and after.

    Raises:
        UserError: ``out`` is in use, the run is not finished, or as :func:`check_ranks`.
    """
    out.check_unused("give another --out")
    config = run.read_config()
    name = FINAL if result_stage(run) == 4 else "stage2"
    before = load_model(run, name)
    after = compress_model(before, compression)
    out.create(replace(config, compression=compression), command)
    metadata = weights_metadata(out, config, name)
    if name == FINAL:
        write_layers(out.weights_file(name), after.layers(), metadata)
    else:
        write_layers(out.weights_file(name), after.layers("base", "head"), metadata)
        if config.mode != "fast-rcnn":  # the RPN of stage 1 is not compressed
            shutil.copyfile(run.weights_file("stage1"), out.weights_file("stage1"))
    if run.training_images_file.is_file():
        shutil.copyfile(run.training_images_file, out.training_images_file)
    if (run.path / "samples").is_dir():
        shutil.copytree(run.path / "samples", out.path / "samples")
    return before, after


def head_parameters(model: FasterRcnn) -> int:
    """Weights of the layers above RoI pooling."""
    return sum(int(np.prod(w.shape)) for layer in model.layers("head") for w in layer.weights)


def region_seconds(
    models: Sequence[FasterRcnn], *, rois: int = 300, repeats: int = 7
) -> list[float]:
    """Median time of RoI pooling, fc layers and outputs on one image, for each of some networks.

    Features and RoIs are random, of the recipe's short side and a ratio of 4 to 3. All networks
    run once to warm up, then in turns.
    """
    calls = {str(index): _region_function(model, rois) for index, model in enumerate(models)}
    timings = in_turns(calls, repetitions=repeats, warm_up=1)
    return [timing.median_wall for timing in timings.values()]


def _region_function(model: FasterRcnn, rois: int) -> Callable[[], np.ndarray]:
    config = model.recipe.image
    height = config.short_side
    width = min(config.long_side, height * 4 // 3)
    cells = [int(model.backbone.feature_size(side)) for side in (height, width)]
    generator = np.random.default_rng(0)
    features = generator.random((1, *cells, model.backbone.channels), np.float32)
    corners = np.sort(generator.random((rois, 2, 2), np.float32), axis=1) * (height, width)
    inputs = [
        tf.cast(features, model.base.output.dtype),
        tf.cast(corners.reshape(rois, 4), tf.float32),
        tf.zeros(rois, tf.int32),
    ]
    detector = tf.function(model.detector)
    return lambda: detector(inputs)[0].numpy()
