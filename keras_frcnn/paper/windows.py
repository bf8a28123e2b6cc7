"""Dense windows as proposals: the one-stage system of table 5."""

from __future__ import annotations

import numpy as np

from keras_frcnn.data.dataset import Dataset
from keras_frcnn.data.pipeline import image_scale
from keras_frcnn.geometry.anchors import anchor_grid, configured_anchors
from keras_frcnn.proposals.given import GivenProposals, ScoredBoxes
from keras_frcnn.recipes import Recipe

STRIDE = 16


def dense_windows(dataset: Dataset, recipe: Recipe, stride: int) -> GivenProposals:
    """The anchors of every ``stride``-th position, cut at the border, in pixels of the image."""
    shapes = configured_anchors(recipe.anchors)
    entries = {}
    for example in dataset.examples:
        size, scale = image_scale(example.height, example.width, recipe.image)
        cells = [-(-int(side) // (STRIDE * stride)) for side in size]
        grid = anchor_grid(shapes, *cells, stride=STRIDE * stride).numpy()
        boxes = grid / np.tile(np.asarray(scale, np.float32), 2)
        border = np.array((example.height, example.width) * 2, np.float32)
        boxes = np.clip(boxes, 0, border).astype(np.float32)
        boxes = boxes[(boxes[:, 2:] - boxes[:, :2] >= 1).all(axis=1)]
        entries[example.key] = ScoredBoxes(boxes, np.zeros(len(boxes), np.float32))
    return GivenProposals(entries, "windows", {"stride": stride}, "dense windows")
