"""The region proposal network (section 3.1): its head, targets, loss, and the proposals it makes.

Shapes and names
----------------
N  images, h, w  feature map, F  its channels.
A         anchors of the whole map, in the order (row, column, anchor).
G         ground-truth boxes of one image.
features  (N, h, w, F).
logits    (N, A, 2) float32: background, object.
deltas    (N, A, 4) float32: (ty, tx, th, tw) that move the anchor onto its object.
boxes     (., 4) float32, half-open (y1, x1, y2, x2) in pixels of the network input.
labels    (A,) int32: 1 object, 0 background, -1 not sampled.
K         proposals kept of one image.
seed      (2,) int32 of the stateless random functions.
PY, ML    the two published codes, see :mod:`keras_frcnn.recipes`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
import tensorflow as tf

from keras_frcnn.geometry.anchors import inside_image
from keras_frcnn.geometry.boxes import clip, decode, encode
from keras_frcnn.network.backbones.heads import random_normal
from keras_frcnn.network.network_input import Frames
from keras_frcnn.network.normalisation import DeltaSums, Normalisation
from keras_frcnn.network.suppression import suppress
from keras_frcnn.network.targets import (
    Matches,
    derived_seed,
    match_anchors,
    sample_labels,
    smooth_l1_sum,
)
from keras_frcnn.recipes import ProposalConfig, RpnConfig


class RpnOutputs(NamedTuple):
    """What the head says of every anchor.

    Attributes:
        logits: (N, A, 2) float32.
        deltas: (N, A, 4) float32.
        anchors: (A, 4) float32 in input pixels.
    """

    logits: tf.Tensor
    deltas: tf.Tensor
    anchors: tf.Tensor


class RpnTargets(NamedTuple):
    """What the losses compare with.

    Attributes:
        labels: (A,) int32 in {1, 0, -1}.
        deltas: (A, 4) float32, normalised; 0 where the label is not 1.
    """

    labels: tf.Tensor
    deltas: tf.Tensor


@keras.saving.register_keras_serializable(package="keras_frcnn")
class AnchorLayout(keras.layers.Layer):
    """Turns the channels of a 1x1 convolution into one row per anchor.

    Args:
        values: numbers per anchor (2 logits or 4 deltas).
        value_major: ``True`` where the channels run (value, anchor), as the released code lays out
            objectness: first all backgrounds, then all objects (proposal_layer.py:70-72).
    """

    def __init__(self, values: int, value_major: bool, **kwargs):
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.values = values
        self.value_major = value_major

    def call(self, inputs):
        shape = tf.shape(inputs)
        per_position = inputs.shape[-1] // self.values
        if self.value_major:
            grid = tf.reshape(inputs, (shape[0], shape[1], shape[2], self.values, per_position))
            inputs = tf.transpose(grid, (0, 1, 2, 4, 3))
        return tf.reshape(inputs, (shape[0], shape[1] * shape[2] * per_position, self.values))

    def compute_output_shape(self, input_shape):
        return (input_shape[0], None, self.values)

    def get_config(self):
        return {**super().get_config(), "values": self.values, "value_major": self.value_major}


@keras.saving.register_keras_serializable(package="keras_frcnn")
class ZeroBackground(keras.layers.Layer):
    """(N, A, 1) logits z of the object to pairs (N, A, 2) of (0, z), the background's being 0.

    The softmax of such a pair is the logistic function of z (footnote 2): losses and proposals need
    not know that there was one output instead of two.
    """

    def call(self, logits: tf.Tensor) -> tf.Tensor:
        """See the class."""
        return tf.concat((tf.zeros_like(logits), logits), axis=-1)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], 2)


def build_rpn_head(
    feature_channels: int,
    rpn_channels: int,
    anchors_per_position: int,
    *,
    objectness: str = "softmax",
    feature_dtype: str,
    precision_policy: str,
    seed: int | None,
) -> keras.Model:
    """The 3x3 convolution and its two sibling 1x1 convolutions as a functional model.

    Kernels start from N(0, 0.01), biases from 0 (stage1_rpn_train.pt VGG:373-414). The output
    layers compute in float32 whatever the precision: half-precision objectness makes ties.

    Args:
        objectness: ``"softmax"`` of two logits an anchor, or ``"logistic"``: one (footnote 2).

    Returns:
        The model ``features -> [logits, deltas]``.
    """
    features = keras.Input((None, None, feature_channels), dtype=feature_dtype, name="features")

    hidden = keras.layers.Conv2D(
        rpn_channels,
        3,
        padding="same",
        activation="relu",
        kernel_initializer=random_normal(seed, 1000, 0.01),
        dtype=precision_policy,
        name="rpn_conv",
    )(features)
    logits_per_anchor = 2 if objectness == "softmax" else 1
    class_map = keras.layers.Conv2D(
        logits_per_anchor * anchors_per_position,
        1,
        kernel_initializer=random_normal(seed, 1001, 0.01),
        dtype="float32",
        name="rpn_cls_score",
    )(hidden)
    delta_map = keras.layers.Conv2D(
        4 * anchors_per_position,
        1,
        kernel_initializer=random_normal(seed, 1002, 0.01),
        dtype="float32",
        name="rpn_bbox_pred",
    )(hidden)
    logits = AnchorLayout(logits_per_anchor, value_major=True, name="rpn_logits")(class_map)
    if objectness == "logistic":
        logits = ZeroBackground(dtype="float32", name="rpn_zero_background")(logits)
    deltas = AnchorLayout(4, value_major=False, name="rpn_deltas")(delta_map)
    return keras.Model(features, [logits, deltas], name="rpn_head")


def rpn_targets(
    anchors: Any,
    size_input: Any,
    gt_boxes: Any,
    seed: Any,
    config: RpnConfig,
    normalisation: Normalisation | None = None,
) -> RpnTargets:
    """What the RPN should say of the anchors of one image (sections 3.1.2, 3.1.3 and 3.3).

    Anchors are labelled by their overlap with the ground truth, a minibatch of them is drawn, and
    the deltas of the positive ones are encoded.

    Args:
        anchors: (A, 4).
        size_input: (2,) height and width of the network input, without the padding of a batch;
            anchors that cross it are never sampled, unless ``config`` keeps them.
        gt_boxes: (G, 4); with G = 0 the minibatch is all background.
        normalisation: of the deltas, (4,) each; None: they stay as they are.
    """
    anchors = tf.cast(anchors, tf.float32)
    gt_boxes = tf.cast(gt_boxes, tf.float32)
    matches = _match(anchors, size_input, gt_boxes, config)
    labels = sample_labels(
        matches.labels,
        seed,
        size=config.minibatch_size,
        positive_fraction=config.positive_fraction,
    )
    positions = tf.where(labels == 1)
    deltas = _encode_matches(anchors, gt_boxes, matches, positions[:, 0])
    if normalisation is not None:
        deltas = normalisation.normalised(deltas)
    return RpnTargets(
        labels=labels,
        deltas=tf.tensor_scatter_nd_update(tf.zeros_like(anchors), positions, deltas),
    )


def rpn_positive_deltas(
    anchors: Any, size_input: Any, gt_boxes: Any, config: RpnConfig
) -> DeltaSums:
    """Sums over **all** positive anchors of an image, from which the normalisation is measured.

    One 4-vector for all anchor shapes, as in ML proposal_prepare_image_roidb.m:70-104. Arguments
    as those of :func:`rpn_targets`.
    """
    anchors = tf.cast(anchors, tf.float32)
    gt_boxes = tf.cast(gt_boxes, tf.float32)
    matches = _match(anchors, size_input, gt_boxes, config)
    positions = tf.where(matches.labels == 1)[:, 0]
    deltas = _encode_matches(anchors, gt_boxes, matches, positions)
    return DeltaSums(
        count=tf.shape(deltas)[0],
        delta_sum=tf.reduce_sum(deltas, axis=0),
        sum_of_squares=tf.reduce_sum(tf.square(deltas), axis=0),
    )


def _match(anchors: tf.Tensor, size_input: Any, gt_boxes: tf.Tensor, config: RpnConfig) -> Matches:
    """Labels before sampling; anchors that cross the image's border are -1 unless kept."""
    if config.keep_cross_boundary:
        competing = tf.ones(tf.shape(anchors)[:1], tf.bool)
    else:
        competing = inside_image(anchors, size_input[0], size_input[1])
    return match_anchors(
        anchors,
        competing,
        gt_boxes,
        positive_iou=config.positive_iou,
        negative_iou=config.negative_iou,
    )


def _encode_matches(
    anchors: tf.Tensor, gt_boxes: tf.Tensor, matches: Matches, positions: tf.Tensor
) -> tf.Tensor:
    """(K, 4) deltas, not normalised, of the K anchors at ``positions`` to their ground truth."""
    matched_gt_boxes = tf.gather(gt_boxes, tf.gather(matches.matched_gt, positions))
    return encode(tf.gather(anchors, positions), matched_gt_boxes)


def rpn_losses(
    outputs: RpnOutputs,
    batch: dict[str, tf.Tensor],
    seed: tf.Tensor,
    config: RpnConfig,
    normalisation: Normalisation,
    anchors_per_position: int,
) -> dict[str, tf.Tensor]:
    """The two losses of equation 1 over the sampled anchors of each image, averaged over images.

    Args:
        outputs: of the head on the images of the batch.
        batch: ``size`` (N, 2), ``gt_boxes`` (N, G, 4) and ``gt_count`` (N,), as
            :mod:`keras_frcnn.data.pipeline` makes it; N is known when traced.

    Returns:
        ``rpn_class_loss``, ``rpn_box_loss`` and the mean number of sampled ``positive_anchors``.
    """
    images = batch["size"].shape[0]
    positions = tf.cast(tf.shape(outputs.anchors)[0] // anchors_per_position, tf.float32)
    totals = [0.0, 0.0, 0.0]
    for image in range(images):
        targets = rpn_targets(
            outputs.anchors,
            batch["size"][image],
            batch["gt_boxes"][image, : batch["gt_count"][image]],
            derived_seed(seed, 0, image),
            config,
            normalisation,
        )
        if config.box_normaliser == "positions":
            normaliser = positions
        else:
            sampled = tf.reduce_sum(tf.cast(targets.labels >= 0, tf.float32))
            normaliser = tf.maximum(sampled, 1.0)
        totals[0] += rpn_class_loss(outputs.logits[image], targets.labels)
        totals[1] += rpn_box_loss(
            outputs.deltas[image],
            targets.deltas,
            targets.labels,
            sigma=config.sigma,
            normaliser=normaliser,
            weight=config.box_weight,
        )
        totals[2] += tf.reduce_sum(tf.cast(targets.labels == 1, tf.float32))
    names = ("rpn_class_loss", "rpn_box_loss", "positive_anchors")
    return {name: total / images for name, total in zip(names, totals, strict=True)}


def rpn_class_loss(logits: Any, labels: Any) -> tf.Tensor:
    """Cross-entropy of object against background, mean over the sampled anchors.

    PY stage1_rpn_train.pt:455-456 (``normalize: true``, ignore -1); ML proposal_train.m:327 (sum
    of the label weights): both divide by the number of sampled anchors. 0 where nothing was
    sampled.
    """
    labels = tf.cast(labels, tf.int32)
    sampled = tf.cast(labels >= 0, tf.float32)
    cross_entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(
        labels=tf.maximum(labels, 0), logits=tf.cast(logits, tf.float32)
    )
    return tf.reduce_sum(cross_entropy * sampled) / tf.maximum(tf.reduce_sum(sampled), 1.0)


def rpn_box_loss(
    pred_deltas: Any,
    target_deltas: Any,
    labels: Any,
    *,
    sigma: float,
    normaliser: Any,
    weight: float,
) -> tf.Tensor:
    """Smooth L1 summed over the positive anchors, times ``weight``, over ``normaliser``.

    Args:
        sigma: 1 (ML proposal_train.m:312-317) or 3 (PY stage1_rpn_train.pt:469).
        normaliser: scalar, number of feature-map positions (ML proposal_train.m:317) or of
            sampled anchors (PY anchor_target_layer.py:181-194).
        weight: 10 (ML, paper footnote 3) or 1 (PY stage1_rpn_train.pt:468).

    Returns:
        0 where there is no positive anchor or the normaliser is 0.
    """
    positive = tf.cast(labels, tf.int32) == 1
    total = smooth_l1_sum(pred_deltas, target_deltas, positive, sigma)
    return weight * tf.math.divide_no_nan(total, tf.cast(normaliser, tf.float32))


class Proposals(NamedTuple):
    """The regions of each image in which to look for objects, best first, zero-padded.

    Attributes:
        boxes_input: (N, K, 4) float32, in pixels of the network input.
        scores: (N, K) float32 objectness in [0, 1].
        count: (N,) int32.
    """

    boxes_input: tf.Tensor
    scores: tf.Tensor
    count: tf.Tensor


def select_proposals(outputs: RpnOutputs, frames: Frames, config: ProposalConfig) -> Proposals:
    """The proposals of each image (section 3.3; PY proposal_layer.py:121-176).

    Decode, clip to the image, drop what is too small, keep the best, suppress, keep the best.

    Ranking goes by the difference of the two logits, which orders anchors as the softmax score does
    but does not saturate into ties. The smallest side is counted in original pixels (PY
    config.py:118).
    """
    logits, deltas, anchors = outputs
    sizes = tf.cast(frames.sizes_input, tf.float32)
    ranking = logits[..., 1] - logits[..., 0]
    boxes = decode(anchors[None], deltas)
    boxes = clip(boxes, sizes[:, 0, None], sizes[:, 1, None])
    sides = boxes[..., 2:] - boxes[..., :2]
    large_enough = tf.reduce_all(
        sides >= config.min_size_image * frames.scales[:, None, :], axis=-1
    )
    ranking = tf.where(large_enough, ranking, -float("inf"))
    best = tf.shape(ranking)[1]
    if config.before_nms is not None:
        best = tf.minimum(config.before_nms, best)
    ranking, index = tf.math.top_k(ranking, best)
    boxes = tf.gather(boxes, index, batch_dims=1)
    # Suppression goes by place, counted down to 1: the CPU kernel takes no score below -1, and
    # equal logits keep their order on every machine.
    places = tf.cast(tf.range(best, 0, -1), tf.float32)
    places = tf.where(ranking > -float("inf"), places, 0.0)
    kept = suppress(
        boxes[:, :, None],
        places[:, :, None],
        per_class=config.after_nms,
        in_total=config.after_nms,
        iou_threshold=config.nms_iou,
        score_threshold=0.0,
    )
    valid = tf.sequence_mask(kept.count, config.after_nms)
    index = tf.where(valid, best - tf.cast(kept.scores, tf.int32), 0)
    scores = tf.where(valid, tf.sigmoid(tf.gather(ranking, index, batch_dims=1)), 0.0)
    return Proposals(kept.boxes, scores, kept.count)
