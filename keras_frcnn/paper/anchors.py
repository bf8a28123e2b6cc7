"""The learned average proposal of each anchor, and how many anchors there are (section 3.3).

Shapes and names
----------------
A  anchors of one position; K  positions of the feature map.
average  (A, 2) height and width in pixels of the network input, weighted by objectness.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from keras_frcnn.data.images import prepare_image, read_image
from keras_frcnn.geometry import boxes as box_geometry
from keras_frcnn.geometry.anchors import anchor_grid, inside_image
from keras_frcnn.inference import load_model
from keras_frcnn.network.faster_rcnn import FasterRcnn
from keras_frcnn.network.proposals import select_proposals
from keras_frcnn.paper import published
from keras_frcnn.paper.sheet import Column, Sheet
from keras_frcnn.paper.workshop import TEST_SETS, Workshop
from keras_frcnn.recipes import PAPER

# More than any image has left after suppression, so that the count is not cut.
_UNCUT = 20_000


@dataclass(frozen=True)
class AnchorStatistics:
    """Over the images of a test set.

    Attributes:
        average: (A, 2) height and width.
        proposals: mean number left by suppression at 0.7, not cut to the best.
    """

    average: np.ndarray
    proposals: float


def make(workshop: Workshop) -> Sheet:
    """The paper's row of average proposals (ZF) beside ours, and the three counts."""
    network = workshop.budget.network_or("zf")
    model = load_model(workshop.four_steps(network))
    dataset = workshop.data(TEST_SETS["07"])
    found = anchor_statistics(model, [example.path for example in dataset.examples])
    shapes = model.base_anchors[:, 2:] - model.base_anchors[:, :2]
    rows = []
    in_paper = {
        _nominal(side, ratio): (width, height)
        for side, ratio, width, height in published.AVERAGE_PROPOSALS
    }
    for shape, (height, width) in zip(shapes, found.average, strict=True):
        paper = in_paper.get(tuple(shape.tolist()))
        rows.append(
            (
                f"{shape[1]:.0f} x {shape[0]:.0f}",
                "-" if paper is None else f"{paper[0]} x {paper[1]}",
                f"{width:.0f} x {height:.0f}",
            )
        )
    grid = anchor_grid(model.base_anchors, *(model.backbone.feature_size(s) for s in (600, 1000)))
    inside = int(tf.reduce_sum(tf.cast(inside_image(grid, 600, 1000), tf.int32)))
    rows += [
        ("anchors of a 1000 x 600 image", f"about {published.ANCHORS_IN_ALL:,}", f"{len(grid):,}"),
        ("of these inside the image", f"about {published.ANCHORS_INSIDE:,}", f"{inside:,}"),
        (
            "proposals left by suppression at 0.7",
            f"about {published.PROPOSALS_AFTER_NMS:,}",
            f"{found.proposals:,.0f}",
        ),
    ]
    return Sheet(
        name="anchors",
        title="Average proposal of each anchor, and how many there are",
        columns=(
            Column("anchor, width x height"),
            Column("paper (ZF)"),
            Column(f"ours ({network})"),
        ),
        rows=tuple(rows),
        caption=f"{workshop.caption()} {len(dataset)} images of VOC 2007 test.",
        remarks=(
            "Average over all anchors of the images, weighted by objectness, in pixels of the "
            "network input; the paper does not say how it averaged.",
            "The anchors are those of the released code: the base box is rounded before it is "
            "scaled, so 128^2 at 2:1 is 184 x 96.",
        ),
    )


def anchor_statistics(model: FasterRcnn, paths) -> AnchorStatistics:
    """Runs the RPN over images.

    Args:
        paths: image files.
    """
    config = model.recipe.image
    per_position = len(model.base_anchors)
    uncut = dataclasses.replace(model.recipe.training_proposals, after_nms=_UNCUT)

    @tf.function(input_signature=[tf.TensorSpec((None, None, 3), tf.uint8)])
    def one(image):
        inputs, scale = prepare_image(
            image[None],
            short_side=config.short_side,
            long_side=config.long_side,
            pixel_means_rgb=config.pixel_means_rgb,
        )
        sizes = tf.shape(inputs)[None, 1:3]
        logits, deltas = model.region_proposal_network(inputs, training=False)
        height, width = (model.backbone.feature_size(sizes[0, axis]) for axis in (0, 1))
        anchors = model.anchors(height, width)
        boxes = box_geometry.decode(anchors, deltas[0])
        border = tf.cast(sizes[0], tf.float32)
        boxes = box_geometry.clip(boxes, border[0], border[1])
        sides = tf.reshape(boxes[:, 2:] - boxes[:, :2], (-1, per_position, 2))
        weights = tf.reshape(tf.nn.softmax(logits[0])[:, 1], (-1, per_position, 1))
        kept = select_proposals(logits, deltas, anchors, sizes, scale[None], uncut)
        return tf.reduce_sum(sides * weights, 0), tf.reduce_sum(weights, 0), kept.count[0]

    totals, weights, counts = np.zeros((per_position, 2)), np.zeros((per_position, 1)), []
    for path in paths:
        total, weight, count = one(read_image(path))
        totals += total.numpy()
        weights += weight.numpy()
        counts.append(int(count))
    return AnchorStatistics(totals / np.maximum(weights, 1e-12), float(np.mean(counts)))


def _nominal(side: int, ratio: str) -> tuple[float, float]:
    """Height and width of the released code's anchor for a side and a width:height of the paper."""
    width, height = (int(part) for part in ratio.split(":"))
    from keras_frcnn.geometry.anchors import base_anchors

    config = PAPER.anchors
    box = base_anchors(config.base_size, (side / config.base_size,), (height / width,))[0]
    return tuple((box[2:] - box[:2]).tolist())
