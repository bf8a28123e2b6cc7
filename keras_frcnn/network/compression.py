"""Fewer multiplications in fc6 and fc7: truncated SVD (section 3.1 of Fast R-CNN).

A layer with the weights W = U S V^T becomes two without a non-linearity between them: the first
holds the top singular directions and no bias, the second the rest and the layer's own bias. At
rank t a layer of u x v costs t (u + v) multiplications instead of u v.

Shapes and names
----------------
u, v  inputs and outputs of a layer; t its rank.
kernel  (u, v) float32, as Keras has it: the transpose of Caffe's.
"""

from __future__ import annotations

import numpy as np

from keras_frcnn.errors import UserError
from keras_frcnn.network.faster_rcnn import FasterRcnn
from keras_frcnn.recipes import Compression

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
                f"`{name}` {rank} exceeds the largest rank of {name}, which is {inputs} x "
                f"{outputs}: give at most {largest}."
            )
