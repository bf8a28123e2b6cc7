"""Faster R-CNN as Keras functional models over one set of layers (figure 2 of the paper).

The region proposal network and the detector hold the layers of the base by reference: a weight of
the base that changes moves both.

Shapes and names
----------------
N  images, R  RoIs of all of them, C  classes incl. background, F  channels of the base.
images    (N, H, W, 3) float32 RGB minus the means.
features  (N, h, w, F) in the compute precision.
rois      (R, 4) float32 in input pixels, roi_image  (R,) int32 the image of each.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf

from keras_frcnn.errors import UserError
from keras_frcnn.geometry.anchors import anchor_grid, configured_anchors
from keras_frcnn.network.backbones import build_backbone, policy_of
from keras_frcnn.network.backbones.heads import random_normal
from keras_frcnn.network.roi_pooling import RoiPooling
from keras_frcnn.network.rpn import build_rpn_head
from keras_frcnn.recipes import Compression, Recipe


def _check_keras() -> None:
    """Makes sure that Keras is set as the layers need it; the commands see to that themselves.

    Raises:
        UserError: naming the setting that is another.
    """
    found = (keras.config.backend(), keras.config.image_data_format(), keras.config.floatx())
    found = (*found, keras.config.dtype_policy().name)
    needed = ("tensorflow", "channels_last", "float32", "float32")
    if found != needed:
        raise UserError(
            f"Keras has the backend, image_data_format, floatx and dtype_policy {found}, expected "
            f"{needed}: set them by KERAS_BACKEND and keras.config before a network is made."
        )


class FasterRcnn(tf.Module):
    """The layers of one network and the functional models that share them.

    Args:
        network: name of the base, see :mod:`keras_frcnn.network.backbones`.
        class_names: without background.
        recipe: anchors, RoI pooling and so on.
        precision: of convolutions and fc layers.
        seed: of the random weights; ``None``: zeros, for weights that are loaded.
        compression: ranks of fc6 and fc7.
        half_weights: keep the weights of half-precision layers in it, too: half the memory and no
            cast at each call, the same results; for testing.

    Attributes:
        backbone: the base and what belongs to it.
        base: ``images -> features``.
        rpn_head: ``features -> [logits, deltas]``.
        region_proposal_network: ``images -> [logits, deltas]``, over ``base`` and ``rpn_head``.
        detector: ``[features, rois, roi_image] -> [class_logits, deltas]``, no dropout.
        detector_training: the same with a ``dropout_seed`` (2,) int32 as fourth input.
        fast_rcnn: ``[images, rois, roi_image] -> [class_logits, deltas]``, over ``base``.
    """

    def __init__(
        self,
        network: str,
        class_names: Sequence[str],
        recipe: Recipe,
        *,
        precision: str = "float32",
        seed: int | None = 0,
        compression: Compression | None = None,
        half_weights: bool = False,
    ):
        super().__init__(name="faster_rcnn")
        _check_keras()
        self.network = network
        self.class_names = tuple(class_names)
        self.recipe = recipe
        self.precision = precision
        self.compression = compression
        self.backbone = build_backbone(
            network,
            precision=precision,
            seed=seed,
            dropout=recipe.detector.dropout,
            compression=compression,
            half_weights=half_weights,
        )
        self.base = self.backbone.base
        self.base_anchors = configured_anchors(recipe.anchors)
        policy = policy_of(precision, half_weights)
        self.rpn_head = build_rpn_head(
            self.backbone.channels,
            self.backbone.rpn_channels,
            len(self.base_anchors),
            objectness=recipe.rpn.objectness,
            feature_dtype=self.base.output.dtype,
            precision_policy=policy,
            seed=_shifted(seed, 1000),
        )
        images = keras.Input((None, None, 3), name="images")
        self.region_proposal_network = keras.Model(
            images, self.rpn_head(self.base(images)), name="region_proposal_network"
        )
        self._build_detector(images, _shifted(seed, 2000))

    def _build_detector(self, images, seed: int | None) -> None:
        pooling = RoiPooling(
            self.recipe.detector.roi_pooling,
            self.backbone.roi_size,
            self.backbone.stride,
        )
        # cls_score N(0, 0.01), bbox_pred N(0, 0.001): stage1_fast_rcnn_train.pt VGG:431,454.
        cls_score = keras.layers.Dense(
            self.number_of_classes,
            kernel_initializer=random_normal(seed, 0.01),
            dtype="float32",
            name="cls_score",
        )
        bbox_pred = keras.layers.Dense(
            4 * self.number_of_classes,
            kernel_initializer=random_normal(_shifted(seed, 1), 0.001),
            dtype="float32",
            name="bbox_pred",
        )
        features = keras.Input(
            (None, None, self.backbone.channels),
            dtype=self.base.output.dtype,
            name="features",
        )
        rois = keras.Input((4,), name="rois")
        roi_image = keras.Input((), dtype="int32", name="roi_image")
        dropout_seed = keras.Input(batch_shape=(2,), dtype="int32", name="dropout_seed")
        pooled = pooling([features, rois, roi_image])

        def outputs(hidden):
            return [cls_score(hidden), bbox_pred(hidden)]

        head = self.backbone.head
        inputs = [features, rois, roi_image]
        self.detector = keras.Model(inputs, outputs(head(pooled)), name="detector")
        self.detector_training = keras.Model(
            [*inputs, dropout_seed],
            outputs(head(pooled, dropout_seed)),
            name="detector_training",
        )
        self.fast_rcnn = keras.Model(
            [images, rois, roi_image],
            self.detector([self.base(images), rois, roi_image]),
            name="fast_rcnn",
        )
        self._output_layers = (cls_score, bbox_pred)

    @property
    def number_of_classes(self) -> int:
        """Classes including background."""
        return len(self.class_names) + 1

    @property
    def base_layers(self) -> list[keras.layers.Layer]:
        """Layers of the base that have weights, in order."""
        return [layer for layer in self.base.layers if layer.weights]

    @property
    def rpn_layers(self) -> list[keras.layers.Layer]:
        """Layers of the RPN head that have weights, in order."""
        return [layer for layer in self.rpn_head.layers if layer.weights]

    @property
    def head_layers(self) -> list[keras.layers.Layer]:
        """Layers of the detector above RoI pooling that have weights, in order."""
        hidden = [layer for layer in self.backbone.head.layers if layer.weights]
        return [*hidden, *self._output_layers]

    @property
    def all_layers(self) -> list[keras.layers.Layer]:
        """Every layer with weights: base, RPN head, detector head."""
        return [*self.base_layers, *self.rpn_layers, *self.head_layers]

    def trained_base_layers(self) -> list[keras.layers.Layer]:
        """Layers of the base that stages 1 and 2 train (recipe 4.2: VGG from conv3_1 up)."""
        frozen = set(self.backbone.frozen)
        return [layer for layer in self.base_layers if layer.name not in frozen]

    def anchors(self, feature_height: tf.Tensor, feature_width: tf.Tensor) -> tf.Tensor:
        """(h * w * A, 4) anchors of a feature map in input pixels."""
        return anchor_grid(self.base_anchors, feature_height, feature_width, self.backbone.stride)


def _shifted(seed: int | None, offset: int) -> int | None:
    return None if seed is None else seed + offset
