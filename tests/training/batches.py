"""A made-up training batch, for the tests of objectives and steps."""

from __future__ import annotations

import numpy as np
import tensorflow as tf


def make_batch(counts=(2,), size=(96, 128), padded=None, seed=0):
    """A batch of noise with random objects, and for each object twelve proposals near it."""
    rng = np.random.default_rng(seed)
    height, width = padded or size
    images = len(counts)
    gt_boxes = np.zeros((images, max(counts), 4), np.float32)
    proposals = np.zeros((images, 12 * max(counts) + 4, 4), np.float32)
    proposal_counts = []
    for image, count in enumerate(counts):
        corner = rng.uniform(0, 50, (count, 2))
        gt_boxes[image, :count] = np.concatenate(
            (corner, corner + rng.uniform(25, 45, (count, 2))), 1
        )
        near = np.repeat(gt_boxes[image, :count], 12, axis=0)
        near = near + rng.uniform(-12, 12, near.shape)
        own = np.concatenate((near, [[0, 0, 30, 30], [60, 80, 96, 128], [5, 60, 40, 120]]))
        proposals[image, : len(own)] = own
        proposal_counts.append(len(own))
    pixels = np.zeros((images, height, width, 3), np.float32)
    pixels[:, : size[0], : size[1]] = rng.normal(0, 60, (images, *size, 3))
    return {
        "image": tf.constant(pixels),
        "size": tf.constant([size] * images),
        "scale": tf.ones((images, 2)) * 0.5,
        "gt_boxes": tf.constant(gt_boxes),
        "gt_classes": tf.ones((images, max(counts)), tf.int32),
        "gt_count": tf.constant(counts),
        "proposals": tf.constant(proposals),
        "proposal_count": tf.constant(proposal_counts),
        "unit": tf.range(images),
    }
