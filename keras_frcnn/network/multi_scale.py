"""Testing at several scales: each RoI is pooled where it is nearest to 224 x 224 pixels.

The image is put through the base at several short sides, and every RoI is pooled from the scale at
which its area is nearest to 224^2, the size that ImageNet networks are trained on (section 5.2 of
Fast R-CNN, section 3.2.2 of SPPnet; test.py:55-76 of fast-rcnn). The RPN keeps the recipe's own
scale: its anchors are in pixels of that. Deltas are relative to their RoI, so boxes are decoded in
the frame of that scale too.

Shapes and names
----------------
S  scales; R  RoIs of all images; C  classes incl. background.
own  what belongs to the recipe's own scale.
scale  (2,) float32, input size / original size, per axis.
"""

from __future__ import annotations

import dataclasses
import functools
import operator
from collections.abc import Callable, Sequence
from typing import NamedTuple

import keras
import tensorflow as tf

from keras_frcnn.geometry import boxes as box_geometry
from keras_frcnn.network.network_input import prepare_image
from keras_frcnn.recipes import ImageConfig

NEAREST_AREA = 224.0 * 224.0
# Limit of the long side at the scales other than the recipe's (section 5.2 of Fast R-CNN).
LONG_SIDE = 2000

Head = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


class Level(NamedTuple):
    """An image, or a batch of one size, at one scale.

    Attributes:
        features: (N, h, w, F), different for every level.
        scale: (2,).
    """

    features: tf.Tensor
    scale: tf.Tensor


def pyramid(
    images: tf.Tensor,
    base: keras.Model,
    config: ImageConfig,
    short_sides: Sequence[int],
    own: Level,
) -> list[Level]:
    """The images at every scale.

    Args:
        images: (N, H, W, 3) uint8.
        config: the recipe's; its short side among the others is its own scale, long side included,
            and is not computed again: it is ``own``.
    """
    levels = []
    for short_side in short_sides:
        if short_side == config.short_side:
            levels.append(own)
            continue
        long_side = max(LONG_SIDE, short_side)
        at_scale = dataclasses.replace(config, short_side=short_side, long_side=long_side)
        inputs, scale = prepare_image(images, at_scale)
        levels.append(Level(base(inputs, training=False), scale))
    return levels


def nearest_levels(rois: tf.Tensor, own_scale: tf.Tensor, scales: tf.Tensor) -> tf.Tensor:
    """(R,) int32 scale at which each RoI's area is nearest to 224^2; the first of equal ones.

    RoIs (R, 4) are in pixels of the input at ``own_scale`` (2,), one of ``scales`` (S, 2).
    """
    ratios = tf.reduce_prod(scales / own_scale, axis=1)
    areas = box_geometry.area(rois)[:, None] * ratios
    return tf.argmin(tf.abs(areas - NEAREST_AREA), axis=1, output_type=tf.int32)


def detect_at_nearest(
    levels: Sequence[Level],
    own_scale: tf.Tensor,
    rois: tf.Tensor,
    roi_image: tf.Tensor,
    head: Head,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Head outputs of every RoI, pooled from its nearest level.

    Args:
        rois: (R, 4) in pixels of the input at ``own_scale``.
        head: ``(features, rois, roi_image) -> (logits, deltas)`` of one RoI and more.

    Returns:
        (R, C) and (R, 4 * C) float32.
    """
    chosen = nearest_levels(rois, own_scale, tf.stack([level.scale for level in levels]))
    total = tf.shape(rois, tf.int64)[0]
    parts = []
    for index, level in enumerate(levels):
        positions = tf.where(chosen == index)
        rois_level = tf.gather_nd(rois, positions) * tf.tile(level.scale / own_scale, [2])
        # A head of convolutions takes no empty batch: where a level has no RoI, one is made up.
        count = tf.shape(positions)[0]
        made_up = tf.maximum(1 - count, 0)
        outputs = head(
            level.features,
            tf.pad(rois_level, ((0, made_up), (0, 0))),
            tf.pad(tf.gather_nd(roi_image, positions), ((0, made_up),)),
        )
        # Every RoI has one level, so that a sum puts the rows back in order.
        rows = [
            tf.scatter_nd(positions, output[:count], tf.stack((total, output.shape[-1])))
            for output in outputs
        ]
        parts.append(rows)
    logits, deltas = (functools.reduce(operator.add, rows) for rows in zip(*parts, strict=True))
    return logits, deltas
