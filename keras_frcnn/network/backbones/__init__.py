"""The networks that Faster R-CNN can be built on, a module each, behind one description.

Shapes and names
----------------
N  images; F  channels of the feature map; R  RoIs; p  side of a pooled RoI in cells.
base  images (N, height, width, 3) -> features (N, h, w, F), shared by the RPN and the detector.
head  pooled RoIs (R, p, p, F) -> vectors (R, D), between RoI pooling and the two outputs.
stride  image pixels per cell of the feature map, 16 for all of them.

A module has ``build_base(policy, seed)``, ``build_head(policy, seed, dropout)``, and what
:class:`Backbone` says of it in capitals; ``tiny`` is the shortest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

import keras

from keras_frcnn.errors import UserError
from keras_frcnn.network.backbones.heads import CompressedHead, FullyConnectedHead, RoiHead
from keras_frcnn.recipes import NETWORKS, Compression, Network, Precision
from keras_frcnn.system.settings import checked

_MODULES = {name: import_module(f"{__name__}.{name}") for name in NETWORKS}


def policy_of(precision: str, half_weights: bool) -> str:
    """Keras' dtype policy of a precision.

    Args:
        half_weights: whether weights are kept in half precision, too.

    Raises:
        UserError: the precision does not exist.
    """
    checked(precision, Precision, "`precision`")
    mixed = precision != "float32" and not half_weights
    return f"mixed_{precision}" if mixed else precision


@dataclass(frozen=True, eq=False)
class Backbone:
    """One network, freshly initialised.

    Attributes:
        base: functional model, for any height and width; its output is in the compute dtype of the
            precision.
        channels: F, of the base's output.
        rpn_channels: width of the RPN's 3x3 convolution (section 3.1 of the paper).
        roi_size: p.
        head: what lies between RoI pooling and the two outputs.
        frozen: names of the layers of the base that stages 1 and 2 do not train.
        feature_size: cells along a side of the image (an int or an integer tensor).
    """

    name: str
    base: keras.Model
    channels: int
    rpn_channels: int
    roi_size: int
    head: RoiHead
    frozen: tuple[str, ...]
    feature_size: Callable[[int], int]


def build_backbone(
    name: str,
    precision: str = "float32",
    seed: int | None = 0,
    dropout: float | None = None,
    compression: Compression | None = None,
    half_weights: bool = False,
) -> Backbone:
    """Build a network with random weights; equal arguments give equal weights.

    Args:
        precision: of convolutions and fc layers; Keras' global policy is left alone.
        seed: from which each layer draws its own weights; ``None``: zeros, to be loaded.
        dropout: share of the values set to 0 after fc6 and fc7; ``None``: the network's own.
        compression: ranks of fc6 and fc7, which then are two layers each; ``None``: one each.
        half_weights: keep the weights in half precision, too; otherwise they are float32.

    Raises:
        UserError: a name or precision that does not exist, dropout where no layer takes it, or
            compression where there is no fc6 and fc7.
    """
    module = _MODULES[checked(name, Network, "`network`")]
    policy = policy_of(precision, half_weights)
    head = module.build_head(policy, seed, module.DROPOUT if dropout is None else dropout)
    if compression is not None:
        if not isinstance(head, FullyConnectedHead):
            raise UserError(f"{name} has no fc6 and fc7 that could be compressed.")
        head = CompressedHead(head.layers[0].units, (compression.fc6, compression.fc7), policy)
    return Backbone(
        name=name,
        base=module.build_base(policy, seed),
        channels=module.CHANNELS,
        rpn_channels=module.RPN_CHANNELS,
        roi_size=module.ROI_SIZE,
        head=head,
        frozen=module.FROZEN,
        feature_size=module.feature_size,
    )
