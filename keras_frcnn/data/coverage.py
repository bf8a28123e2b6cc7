"""How well anchors, or proposals that are given, cover the objects of a data set.

An object counts as covered by the anchors of its own image: at every cell of the feature map, and
only those that do not cross the image's border, as the RPN is trained (section 3.3). That is less
than the IoU of the shapes alone: cells are 16 pixels apart, and an anchor as large as the image
fits nowhere.

Shapes and names
----------------
G  objects of the data set in the order of its examples.
A  anchors of one position.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from keras_frcnn.data.dataset import Example
from keras_frcnn.data.pipeline import image_scale
from keras_frcnn.geometry.anchors import anchor_grid, inside_image
from keras_frcnn.geometry.boxes import iou
from keras_frcnn.network.targets import best_anchor_iou
from keras_frcnn.recipes import ImageConfig


def shapes_input(examples: Sequence[Example], image: ImageConfig) -> np.ndarray:
    """(G, 2) float64 heights and widths of all objects in pixels of the network input."""
    shapes = [np.zeros((0, 2))]
    for example in examples:
        _, scale = image_scale(example.height, example.width, image)
        sides = example.boxes_image[:, 2:] - example.boxes_image[:, :2]
        shapes.append(sides.astype(np.float64) * scale)
    return np.concatenate(shapes)


def best_ious(
    examples: Sequence[Example], base_anchors: np.ndarray, image: ImageConfig
) -> np.ndarray:
    """(G,) float32 best IoU of each object with any anchor that lies inside its image.

    Args:
        base_anchors: (A, 4), those of the first position.
    """

    @tf.function(
        input_signature=[tf.TensorSpec((2,), tf.int32), tf.TensorSpec((None, 4), tf.float32)]
    )
    def of_image(size, gt_boxes):
        # ZF's map has one row more; its centres lie outside the image, and so do the anchors.
        feature_size = (size + 15) // 16
        grid = anchor_grid(base_anchors, feature_size[0], feature_size[1])
        return best_anchor_iou(grid, inside_image(grid, size[0], size[1]), gt_boxes)

    best = [np.zeros(0, np.float32)]
    for example in examples:
        size, scale = image_scale(example.height, example.width, image)
        gt_boxes = example.boxes_image * np.tile(scale, 2)
        best.append(of_image(size, gt_boxes.astype(np.float32)).numpy())
    return np.concatenate(best)


def without_anchors(
    examples: Sequence[Example], base_anchors: np.ndarray, image: ImageConfig
) -> list[Example]:
    """The images that no anchor fits into, at whatever cell: the RPN learns nothing from them."""
    first, last = base_anchors[:, :2], base_anchors[:, 2:]
    # To the first cell where they do not cross the upper and left border any more.
    shift = np.ceil(np.maximum(-first, 0) / 16) * 16
    found = []
    for example in examples:
        size, _ = image_scale(example.height, example.width, image)
        if not (last + shift <= size).all(axis=1).any():
            found.append(example)
    return found


def best_proposal_ious(
    examples: Sequence[Example], proposals_image: Sequence[np.ndarray]
) -> np.ndarray:
    """(G,) float32 best IoU of each object with any (P, 4) proposal of its image; 0 without one."""
    best = [np.zeros(0, np.float32)]
    for example, proposals in zip(examples, proposals_image, strict=True):
        overlaps = iou(example.boxes_image, proposals).numpy()
        best.append(overlaps.max(axis=1, initial=0))
    return np.concatenate(best)
