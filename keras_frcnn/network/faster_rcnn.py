"""Faster R-CNN as Keras functional models over one set of layers (figure 2 of the paper).

The region proposal network and the detector hold the layers of the base by reference: a weight of
the base that changes moves both.

Shapes and names
----------------
N  images, R  RoIs of all of them, C  classes incl. background, F  channels of the base,
A  anchors of the whole map.
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
from keras_frcnn.network.detector import (
    Detections,
    build_detector,
    detector_losses,
    select_detections,
)
from keras_frcnn.network.multi_scale import Head
from keras_frcnn.network.network_input import Frames
from keras_frcnn.network.normalisation import Normalisation
from keras_frcnn.network.rpn import (
    Proposals,
    RpnOutputs,
    build_rpn_head,
    rpn_losses,
    select_proposals,
)
from keras_frcnn.recipes import Compression, DetectionFilter, ProposalConfig, Recipe


def _check_keras() -> None:
    """Makes sure that Keras is set as the layers need it; the commands see to that themselves.

    Raises:
        UserError: naming the setting that is another.
    """
    config = keras.config
    types = config.floatx(), config.dtype_policy().name
    found = (config.backend(), config.image_data_format(), *types)
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
        detector: ``[features, rois, roi_image] -> [class_logits, deltas]``, no dropout.
        detector_training: the same with a ``dropout_seed`` (2,) int32 as fourth input.
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
            seed=seed,
        )
        self.detector, self.detector_training = build_detector(
            self.backbone,
            self.base.output.dtype,
            self.number_of_classes,
            recipe.detector.roi_pooling,
            seed,
        )

    @property
    def number_of_classes(self) -> int:
        """Classes including background."""
        return len(self.class_names) + 1

    def layers(self, *parts: str, trained: bool = False) -> list[keras.layers.Layer]:
        """Layers with weights, in order.

        Args:
            parts: of ``"base"``, ``"rpn"`` and ``"head"`` (the detector above RoI pooling);
                default: all three.
            trained: without those of the base that no stage trains (section 3.1.3: VGG is
                trained from conv3_1 up).
        """
        outputs = [self.cls_score, self.bbox_pred]
        of_part = {
            "base": self.base.layers,
            "rpn": self.rpn_head.layers,
            "head": [*self.backbone.head.layers, *outputs],
        }
        left_out = set(self.backbone.frozen) if trained else set()
        return [
            layer
            for part in parts or of_part
            for layer in of_part[part]
            if layer.weights and layer.name not in left_out
        ]

    @property
    def cls_score(self) -> keras.layers.Layer:
        """The detector's output layer of classes."""
        return self.detector.get_layer("cls_score")

    @property
    def bbox_pred(self) -> keras.layers.Layer:
        """The detector's output layer of box deltas."""
        return self.detector.get_layer("bbox_pred")

    @property
    def rpn_bbox_pred(self) -> keras.layers.Layer:
        """The RPN's output layer of box deltas."""
        return self.rpn_head.get_layer("rpn_bbox_pred")

    def anchors(self, feature_height: tf.Tensor, feature_width: tf.Tensor) -> tf.Tensor:
        """(A, 4) anchors of a feature map in input pixels."""
        return anchor_grid(self.base_anchors, feature_height, feature_width)

    def features(self, inputs: tf.Tensor) -> tf.Tensor:
        """(N, h, w, F) features of (N, H, W, 3) float32 inputs."""
        return self.base(inputs, training=False)

    def rpn(self, features: tf.Tensor) -> RpnOutputs:
        """Objectness and deltas of every anchor of a feature map (section 3.1)."""
        logits, deltas = self.rpn_head(features)
        shape = tf.shape(features)
        return RpnOutputs(logits, deltas, self.anchors(shape[1], shape[2]))

    def proposals(self, outputs: RpnOutputs, frames: Frames, config: ProposalConfig) -> Proposals:
        """The best regions of each image (section 3.3), see :func:`select_proposals`."""
        return select_proposals(outputs, frames, config)

    def detections(
        self,
        features: tf.Tensor,
        rois: tf.Tensor,
        count: tf.Tensor,
        frames: Frames,
        detection_filter: DetectionFilter,
        head: Head | None = None,
    ) -> Detections:
        """Classes and refined boxes of RoIs, filtered, see :func:`select_detections`.

        Args:
            rois: (N, R, 4) in input pixels, zero-padded, R at least 1.
            count: (N,) RoIs that are real.
            head: ``(features, rois, roi_image) -> (class_logits, deltas)`` of the flat RoIs, in
                place of :attr:`detector`.
        """
        images, per_image = tf.shape(rois)[0], tf.shape(rois)[1]
        flat = tf.reshape(rois, (-1, 4))
        roi_image = tf.repeat(tf.range(images), per_image)
        outputs = (head or self.classify)(features, flat, roi_image)
        class_logits, deltas = (
            tf.reshape(output, (images, per_image, output.shape[-1])) for output in outputs
        )
        return select_detections(
            class_logits, deltas, rois, count, frames.sizes_input, detection_filter
        )

    def classify(
        self, features: tf.Tensor, rois: tf.Tensor, roi_image: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Logits (R, C) and deltas (R, 4 * C) of (R, 4) RoIs; R is at least 1."""
        class_logits, deltas = self.detector([features, rois, roi_image])
        return class_logits, deltas

    def rpn_losses(
        self,
        outputs: RpnOutputs,
        batch: dict[str, tf.Tensor],
        seed: tf.Tensor,
        normalisation: Normalisation,
    ) -> dict[str, tf.Tensor]:
        """The loss of the RPN (equation 1), see :func:`keras_frcnn.network.rpn.rpn_losses`."""
        config, per_position = self.recipe.rpn, len(self.base_anchors)
        return rpn_losses(outputs, batch, seed, config, normalisation, per_position)

    def detector_losses(
        self,
        features: tf.Tensor,
        proposals: Sequence[tf.Tensor],
        batch: dict[str, tf.Tensor],
        seed: tf.Tensor,
        rois_per_image: int,
        normalisation: Normalisation,
    ) -> dict[str, tf.Tensor]:
        """The loss of Fast R-CNN, see :func:`keras_frcnn.network.detector.detector_losses`."""
        return detector_losses(
            self.detector_training,
            features,
            proposals,
            batch,
            seed,
            rois_per_image,
            self.recipe.detector,
            normalisation,
        )
