"""The learned average proposal of each anchor, and how many anchors there are (section 3.3).

Shapes and names
----------------
A  anchors of one position.
average  (A, 2) height and width, weighted by objectness, in pixels of an image whose short side is
    600, the paper's: at half of it the anchors are halved, too, to lie on the same objects.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import tensorflow as tf

from keras_frcnn.data.dataset import Dataset
from keras_frcnn.geometry import boxes as box_geometry
from keras_frcnn.geometry.anchors import anchor_grid, base_anchors, configured_anchors, inside_image
from keras_frcnn.network.faster_rcnn import FasterRcnn
from keras_frcnn.network.network_input import network_input
from keras_frcnn.paper import published
from keras_frcnn.paper.kept import four_steps
from keras_frcnn.paper.sheet import Sheet, columns
from keras_frcnn.paper.workshop import TEST_SETS, Workshop, tried
from keras_frcnn.recipes import PAPER, Recipe
from keras_frcnn.runs.networks import load_model

# More than any image has left after suppression, so that the count is not cut.
_UNCUT = 20_000

Row = tuple[str, str, str]


@dataclass(frozen=True)
class AnchorStatistics:
    """Over the images of a test set.

    Attributes:
        average: (A, 2) height and width in pixels of the network input.
        proposals: mean number left by suppression at 0.7, not cut to the best.
    """

    average: np.ndarray
    proposals: float


def make(workshop: Workshop, name: str) -> Sheet:
    """The paper's row of average proposals (ZF) beside ours, and the three counts."""
    network = workshop.budget.network_or("zf")
    recipe = workshop.budget.recipe()
    dataset = workshop.detected(TEST_SETS["07"])
    runs, absent = tried({"Ours": partial(four_steps, workshop, network)})
    found = anchor_statistics(load_model(runs["Ours"]), dataset) if runs else None
    return Sheet(
        name=name,
        title="Average proposal of each anchor, and how many there are",
        columns=columns("anchor, width x height", "paper (ZF)", f"ours ({network})"),
        rows=(*_averages(recipe, found), *_counts(recipe, found)),
        caption=f"{workshop.caption()} {len(dataset)} images of VOC 2007 test.",
        remarks=(
            "Average over all anchors of the images, weighted by objectness; the paper does not "
            "say how it averaged. In pixels of an image whose short side is "
            f"{PAPER.image.short_side}; the input's is {recipe.image.short_side} here.",
            "The anchors are those of the released code: the base box is rounded before it is "
            "scaled, so 128^2 at 2:1 is 184 x 96.",
            *(f"{whose}: {reason}." for whose, reason in absent.items()),
        ),
    )


def _averages(recipe: Recipe, found: AnchorStatistics | None) -> Iterator[Row]:
    """One row for each anchor."""
    factor = PAPER.image.short_side / recipe.image.short_side
    boxes = configured_anchors(recipe.anchors)
    shapes = factor * (boxes[:, 2:] - boxes[:, :2])
    in_paper = {
        _nominal(side, ratio): f"{width} x {height}"
        for side, ratio, width, height in published.AVERAGE_PROPOSALS
    }
    for index, (height, width) in enumerate(shapes.tolist()):
        ours = "-"
        if found is not None:
            high, wide = factor * found.average[index]
            ours = f"{wide:.0f} x {high:.0f}"
        yield (f"{width:.0f} x {height:.0f}", in_paper.get((height, width), "-"), ours)


def _counts(recipe: Recipe, found: AnchorStatistics | None) -> Iterator[Row]:
    """Anchors in all and inside, of the paper's setting and of this; proposals after NMS."""
    papers = (f"about {published.ANCHORS_IN_ALL:,}", f"about {published.ANCHORS_INSIDE:,}")
    settings = {"": (PAPER, papers)}
    if (recipe.image, recipe.anchors) != (PAPER.image, PAPER.anchors):
        settings[", this setting"] = (recipe, ("-", "-"))
    for which, (setting, beside) in settings.items():
        height, width = setting.image.short_side, setting.image.long_side
        cells = (-(-side // 16) for side in (height, width))
        grid = anchor_grid(configured_anchors(setting.anchors), *cells)
        inside = int(tf.reduce_sum(tf.cast(inside_image(grid, height, width), tf.int32)))
        yield (f"anchors of a {width} x {height} image{which}", beside[0], f"{len(grid):,}")
        yield (f"of these inside the image{which}", beside[1], f"{inside:,}")
    yield (
        "proposals left by suppression at 0.7, mean of the images",
        f"about {published.PROPOSALS_AFTER_NMS:,}",
        "-" if found is None else f"{found.proposals:,.0f}",
    )


def anchor_statistics(model: FasterRcnn, dataset: Dataset) -> AnchorStatistics:
    """Runs the RPN over images."""
    per_position = len(model.base_anchors)
    uncut = dataclasses.replace(model.recipe.training_proposals, after_nms=_UNCUT)

    @tf.function(input_signature=[tf.TensorSpec((None, None, 3), tf.uint8)])
    def one(image):
        inputs, frames = network_input(image[None], model.recipe.image)
        outputs = model.rpn(model.features(inputs))
        boxes = box_geometry.decode(outputs.anchors, outputs.deltas[0])
        border = tf.cast(frames.sizes_input[0], tf.float32)
        boxes = box_geometry.clip(boxes, border[0], border[1])
        sides = tf.reshape(boxes[:, 2:] - boxes[:, :2], (-1, per_position, 2))
        weights = tf.reshape(tf.nn.softmax(outputs.logits[0])[:, 1], (-1, per_position, 1))
        kept = model.proposals(outputs, frames, uncut)
        return tf.reduce_sum(sides * weights, 0), tf.reduce_sum(weights, 0), kept.count[0]

    totals, weights, counts = np.zeros((per_position, 2)), np.zeros((per_position, 1)), []
    for example in dataset.examples:
        total, weight, count = one(example.pixels())
        totals += total.numpy()
        weights += weight.numpy()
        counts.append(int(count))
    return AnchorStatistics(totals / np.maximum(weights, 1e-12), float(np.mean(counts)))


def _nominal(side: int, ratio: str) -> tuple[float, float]:
    """Height and width of the released code's anchor for a side and a width:height of the paper."""
    width, height = (int(part) for part in ratio.split(":"))
    config = PAPER.anchors
    box = base_anchors(config.base_size, (side / config.base_size,), (height / width,))[0]
    return tuple((box[2:] - box[:2]).tolist())
