"""From scored anchors to proposals (section 3.3, recipe 4.6).

Decode, clip to the image, drop what is too small, keep the best, suppress, keep the best.

Shapes and names
----------------
N  images, A  anchors of the whole map, K  proposals kept.
*_input  pixels of the rescaled network input.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from keras_frcnn.geometry import boxes as box_geometry
from keras_frcnn.network.network_input import Frames
from keras_frcnn.network.rpn import RpnOutputs
from keras_frcnn.network.suppression import suppress
from keras_frcnn.recipes import ProposalConfig


class Proposals(NamedTuple):
    """Regions of interest of each image, best first, zero-padded.

    Attributes:
        boxes_input: (N, K, 4) float32.
        scores: (N, K) float32 objectness in [0, 1].
        count: (N,) int32.
    """

    boxes_input: tf.Tensor
    scores: tf.Tensor
    count: tf.Tensor


def select_proposals(outputs: RpnOutputs, frames: Frames, config: ProposalConfig) -> Proposals:
    """The proposals of each image (proposal_layer.py:121-176).

    Ranking goes by the difference of the two logits, which orders anchors as the softmax score does
    but does not saturate into ties.

    Boxes are clipped to the sizes of their inputs; the smallest side is counted in original pixels
    (config.py:118).
    """
    logits, deltas, anchors = outputs
    sizes = tf.cast(frames.sizes_input, tf.float32)
    ranking = logits[..., 1] - logits[..., 0]
    boxes = box_geometry.decode(anchors[None], deltas)
    boxes = box_geometry.clip(boxes, sizes[:, 0, None], sizes[:, 1, None])
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
