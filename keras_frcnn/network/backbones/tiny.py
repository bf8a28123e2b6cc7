"""A small network that learns from random weights in minutes: for the demo, tests and CI only."""

from __future__ import annotations

import keras

from keras_frcnn.network.backbones.heads import (
    IMAGE_POLICY,
    FullyConnectedHead,
    halved_four_times,
    he_normal,
)

WIDTHS = (32, 64, 96, 128, 128)
STRIDES = (2, 2, 2, 2, 1)
NORMALISATION_GROUPS = 8
CHANNELS = 128
RPN_CHANNELS = 128
ROI_SIZE = 7
FROZEN = ()  # it starts at random: a frozen layer would stay random
feature_size = halved_four_times
# So small a network, trained for a few passes, underfits: dropout would only slow it down.
DROPOUT = 0.0


def build_base(policy: str, seed: int | None) -> keras.Model:
    """Build conv1 to conv5, the first four of stride 2, each with group normalisation.

    Normalisation over groups of channels lets random weights learn at ten times the paper's rate,
    and needs no other image of the batch, as batch normalisation would. Its statistics are those
    of the whole map, padding of a batch included: give it images of one size.
    """
    image = keras.Input((None, None, 3), name="image")
    # Weights drawn for inputs of unit size: pixels have a standard deviation of about 64.
    x = keras.layers.Rescaling(1 / 64, name="unit_scale", dtype=IMAGE_POLICY)(image)
    for index, (filters, stride) in enumerate(zip(WIDTHS, STRIDES, strict=True), start=1):
        name = f"conv{index}"
        convolution_policy = IMAGE_POLICY if index == 1 else policy
        if stride == 2:
            # Explicit, so that a window is centred on the same pixel whatever the image's size.
            x = keras.layers.ZeroPadding2D(1, name=f"{name}_pad", dtype=convolution_policy)(x)
        x = keras.layers.Conv2D(
            filters,
            3,
            strides=stride,
            padding="valid" if stride == 2 else "same",
            kernel_initializer=he_normal(seed, name),
            name=name,
            dtype=convolution_policy,
        )(x)
        x = keras.layers.GroupNormalization(
            NORMALISATION_GROUPS, name=f"{name}_norm", dtype=policy
        )(x)
        x = keras.layers.ReLU(name=f"{name}_relu", dtype=policy)(x)
    return keras.Model(image, x, name="tiny")


def build_head(policy: str, seed: int | None, dropout: float) -> FullyConnectedHead:
    """Build fc6 and fc7, 256 wide, each followed by dropout."""
    initializers = [he_normal(seed, name) for name in ("fc6", "fc7")]
    return FullyConnectedHead(256, initializers, dropout_rate=dropout, policy=policy)
