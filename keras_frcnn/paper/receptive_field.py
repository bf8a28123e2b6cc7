"""How many pixels of the input one cell sees (section 3 of the paper)."""

from __future__ import annotations

from collections.abc import Iterable

import keras


def receptive_field(layers: Iterable[keras.layers.Layer]) -> int:
    """Pixels along a side that one cell of the output depends on, for a chain of square layers.

    The RPN's 3x3 convolution over VGG-16's conv5_3 sees 228 pixels, over ZF's conv5 171.

    Raises:
        ValueError: the layers are no chain, or a kernel or stride is not square.
    """
    field, jump = 1, 1
    for layer in layers:
        if isinstance(layer, keras.layers.Add):
            raise ValueError(f"{layer.name} joins branches: this is no chain of layers")
        kernel = getattr(layer, "kernel_size", None) or getattr(layer, "pool_size", None)
        if kernel is None:
            continue
        strides = getattr(layer, "strides", (1, 1))
        if len(set(kernel)) != 1 or len(set(strides)) != 1:
            raise ValueError(f"{layer.name} is not square: kernel {kernel}, strides {strides}")
        field += (kernel[0] - 1) * jump
        jump *= strides[0]
    return field
