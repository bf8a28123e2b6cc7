"""Non-maximum suppression with the kernel that the machine has.

``tf.image.combined_non_max_suppression`` is the fastest exact one on the CPU but has no GPU kernel;
``tf.image.non_max_suppression`` has one and keeps the same boxes, but for the order of equal
scores. Both suppress at IoU > threshold.

Shapes and names
----------------
N  images, B  boxes, Q  1 (boxes shared by all classes) or the number of classes, K  boxes kept.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf


class Kept(NamedTuple):
    """What is left, best first, zero-padded.

    Attributes:
        boxes: (N, K, 4) float32.
        scores: (N, K) float32.
        classes: (N, K) int32, 0-based column of ``scores``.
        count: (N,) int32.
    """

    boxes: tf.Tensor
    scores: tf.Tensor
    classes: tf.Tensor
    count: tf.Tensor


def gpu_present() -> bool:
    """Whether TensorFlow sees a GPU that it may use."""
    return bool(tf.config.get_visible_devices("GPU"))


def suppress(
    boxes: tf.Tensor,
    scores: tf.Tensor,
    *,
    per_class: int | tf.Tensor,
    in_total: int | tf.Tensor,
    iou_threshold: float,
    score_threshold: float,
) -> Kept:
    """Greedy suppression within each class, then the best of all classes.

    Args:
        boxes: (N, B, Q, 4) float32.
        scores: (N, B, C) float32; entries at or below ``score_threshold`` never come back.
        per_class, in_total: the most boxes kept of a class and of an image.
        iou_threshold: a box is dropped when its IoU with a better one of its class exceeds it.
        score_threshold: see ``scores``; at least -1.
    """
    # combined_non_max_suppression sorts its own padding, zero boxes of score -1, among the results:
    # boxes with a lower score would come back as zeros.
    if score_threshold < -1:
        raise ValueError(f"score_threshold must be at least -1, received {score_threshold}")
    if gpu_present():
        return _suppress_one_by_one(
            boxes, scores, per_class, in_total, iou_threshold, score_threshold
        )
    kept = tf.image.combined_non_max_suppression(
        boxes,
        scores,
        max_output_size_per_class=per_class,
        max_total_size=in_total,
        iou_threshold=iou_threshold,
        score_threshold=score_threshold,
        clip_boxes=False,
    )
    return Kept(
        kept.nmsed_boxes,
        kept.nmsed_scores,
        tf.cast(kept.nmsed_classes, tf.int32),
        kept.valid_detections,
    )


def _suppress_one_by_one(boxes, scores, per_class, in_total, iou_threshold, score_threshold):
    number_of_classes = tf.shape(scores)[2]
    shared = tf.shape(boxes)[2] == 1

    def one_class(image_boxes, image_scores, index):
        class_boxes = image_boxes[:, tf.where(shared, 0, index)]
        class_scores = image_scores[:, index]
        kept = tf.image.non_max_suppression(
            class_boxes, class_scores, per_class, iou_threshold, score_threshold
        )
        values = tf.gather(class_scores, kept)
        # The kernel keeps score == threshold where the combined one drops it.
        kept = tf.boolean_mask(kept, values > score_threshold)
        size = tf.shape(kept)[0]
        padding = [[0, per_class - size]]
        return (
            tf.pad(tf.gather(class_boxes, kept), [*padding, [0, 0]]),
            tf.pad(tf.gather(class_scores, kept), padding, constant_values=-float("inf")),
        )

    def one_image(inputs):
        image_boxes, image_scores = inputs
        class_boxes, class_scores = tf.map_fn(
            lambda index: one_class(image_boxes, image_scores, index),
            tf.range(number_of_classes),
            fn_output_signature=(
                tf.TensorSpec((None, 4), tf.float32),
                tf.TensorSpec((None,), tf.float32),
            ),
        )
        flat_scores = tf.reshape(class_scores, (-1,))
        size = tf.minimum(in_total, tf.shape(flat_scores)[0])
        values, best = tf.math.top_k(flat_scores, size)
        valid = values > score_threshold
        padding = [[0, in_total - size]]
        kept_boxes = tf.gather(tf.reshape(class_boxes, (-1, 4)), best)
        return (
            tf.pad(tf.where(valid[:, None], kept_boxes, 0.0), [*padding, [0, 0]]),
            tf.pad(tf.where(valid, values, 0.0), padding),
            tf.pad(tf.where(valid, best // per_class, 0), padding),
            tf.reduce_sum(tf.cast(valid, tf.int32)),
        )

    return Kept(
        *tf.map_fn(
            one_image,
            (boxes, scores),
            fn_output_signature=(tf.float32, tf.float32, tf.int32, tf.int32),
        )
    )
