"""Area, IoU, encoding and clipping of boxes.

Every function takes anything that converts to a float32 tensor and returns float32 tensors. Boxes
are half-open, so no formula needs the ``+1`` of the published codes and all of them equal those
formulas exactly.

Shapes and names
----------------
boxes  (..., 4) float32, half-open (y1, x1, y2, x2) in pixels: the pixel (0, 0) is (0, 0, 1, 1).
reference_boxes  (..., 4) float32, what deltas are relative to: anchors (RPN) or RoIs (detector).
deltas  (..., 4) float32, (ty, tx, th, tw): shift of the centre in units of the reference's sides,
    and logarithm of the ratio of the sides.
A, B  numbers of boxes.
PY, ML  the two published codes, see :mod:`keras_frcnn.recipes`.
"""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf

# A side may grow at most from one stride (16 px) to the longest image side (1000 px): exp() of an
# untrained network's output then cannot overflow. Ours; the published codes have no such bound.
LARGEST_LOG_RATIO = math.log(1000.0 / 16.0)


def area(boxes: Any) -> tf.Tensor:
    """Area in square pixels of boxes (..., 4): (...,) float32, 0 for degenerate boxes."""
    y1, x1, y2, x2 = tf.unstack(tf.cast(boxes, tf.float32), axis=-1)
    return tf.maximum(y2 - y1, 0.0) * tf.maximum(x2 - x1, 0.0)


def iou(boxes_a: Any, boxes_b: Any) -> tf.Tensor:
    """Intersection over union of every box of (A, 4) with every box of (B, 4), in one frame.

    Returns:
        (A, B) float32; 0 where either box is degenerate. A and B may be 0.
    """
    boxes_a, boxes_b = tf.cast(boxes_a, tf.float32), tf.cast(boxes_b, tf.float32)
    # Column by column: (A, B) intermediates instead of (A, B, 2), which is faster on the CPU.
    y1_a, x1_a, y2_a, x2_a = tf.split(boxes_a, 4, axis=1)
    y1_b, x1_b, y2_b, x2_b = tf.unstack(boxes_b, axis=1)
    heights = tf.maximum(tf.minimum(y2_a, y2_b) - tf.maximum(y1_a, y1_b), 0.0)
    widths = tf.maximum(tf.minimum(x2_a, x2_b) - tf.maximum(x1_a, x1_b), 0.0)
    intersection = heights * widths
    union = area(boxes_a)[:, tf.newaxis] + area(boxes_b)[tf.newaxis, :] - intersection
    return tf.math.divide_no_nan(intersection, union)


def encode(reference_boxes: Any, boxes: Any) -> tf.Tensor:
    """Deltas that take each reference box to its box (section 3.1.2, eq. 2).

    ``ty = (cy - cy_ref) / h_ref``, ``th = log(h / h_ref)``, the same in x. Equals
    bbox_transform.py:10-28 (PY) and fast_rcnn_bbox_transform.m:10-23 (ML).

    Args:
        reference_boxes, boxes: (..., 4) of one frame, all with sides above 0; a degenerate box
            gives infinities.

    Returns:
        (..., 4) float32 deltas.
    """
    reference_y, reference_x, reference_height, reference_width = _centres_and_sizes(
        reference_boxes
    )
    centre_y, centre_x, height, width = _centres_and_sizes(boxes)
    return tf.stack(
        [
            (centre_y - reference_y) / reference_height,
            (centre_x - reference_x) / reference_width,
            tf.math.log(height / reference_height),
            tf.math.log(width / reference_width),
        ],
        axis=-1,
    )


def decode(reference_boxes: Any, deltas: Any) -> tf.Tensor:
    """Boxes that lie at the deltas from their reference boxes: the exact inverse of ``encode``.

    This is fast_rcnn_bbox_transform_inv.m:20-28 (ML). PY's bbox_transform.py:46-61 leaves out a
    ``-1`` and gives boxes one pixel wider than were encoded; that slip is not copied. ``th`` and
    ``tw`` are clamped at ``log(1000 / 16)`` above, so that exp() stays finite.

    Args:
        reference_boxes, deltas: (..., 4), shapes that broadcast against each other.

    Returns:
        (..., 4) float32 boxes in the frame of the reference boxes, not clipped.
    """
    reference_y, reference_x, reference_height, reference_width = _centres_and_sizes(
        reference_boxes
    )
    ty, tx, th, tw = tf.unstack(tf.cast(deltas, tf.float32), axis=-1)
    centre_y = reference_y + ty * reference_height
    centre_x = reference_x + tx * reference_width
    half_height = 0.5 * reference_height * tf.exp(tf.minimum(th, LARGEST_LOG_RATIO))
    half_width = 0.5 * reference_width * tf.exp(tf.minimum(tw, LARGEST_LOG_RATIO))
    corner1 = [centre_y - half_height, centre_x - half_width]
    corner2 = [centre_y + half_height, centre_x + half_width]
    return tf.stack([*corner1, *corner2], axis=-1)


def clip(boxes: Any, height: Any, width: Any) -> tf.Tensor:
    """Boxes (..., 4) clipped to an image of height x width pixels.

    ``y1`` goes into [0, height - 1] and ``y2`` into [1, height], the same in x, so that a box
    beside the image keeps a pixel at its border, as in Caffe, and never gets a side of 0.

    Args:
        height, width: scalars, or tensors that broadcast against ``boxes[..., 0]``.
    """
    height, width = tf.cast(height, tf.float32), tf.cast(width, tf.float32)
    zero, one = tf.zeros_like(height), tf.ones_like(height)
    lower = tf.stack([zero, zero, one, one], axis=-1)
    upper = tf.stack([height - 1.0, width - 1.0, height, width], axis=-1)
    return tf.minimum(tf.maximum(tf.cast(boxes, tf.float32), lower), upper)


def _centres_and_sizes(boxes: Any) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Centre y, centre x, height and width of boxes (..., 4), each (...,)."""
    y1, x1, y2, x2 = tf.unstack(tf.cast(boxes, tf.float32), axis=-1)
    height, width = y2 - y1, x2 - x1
    return y1 + 0.5 * height, x1 + 0.5 * width, height, width
