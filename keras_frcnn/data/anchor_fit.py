"""Anchors fitted to a data set, beside others: what each set of them covers.

Shapes and names
----------------
G  objects, k  anchors of a position.
shapes  (G, 2) float64, (height, width) of the objects in pixels of the network input.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from keras_frcnn.data.anchor_clustering import (
    Clustering,
    cluster_shapes,
    count_different,
    mean_best_iou,
)
from keras_frcnn.data.coverage import best_ious, shapes_input
from keras_frcnn.data.dataset import Dataset, Example
from keras_frcnn.geometry.anchors import configured_anchors
from keras_frcnn.recipes import AnchorConfig, ImageConfig

# The curve is drawn for 1 to so many anchors.
CURVE_TO = 15


@dataclass(frozen=True, eq=False)
class AnchorCoverage:
    """How well a set of anchors fits the objects.

    Attributes:
        anchors_input: (k, 4) of one position.
        mean_iou: of the shapes with the nearest anchor's.
        best_ious: (G,) of the objects with the best of all anchors, placed as in training.
    """

    anchors_input: np.ndarray
    mean_iou: float
    best_ious: np.ndarray


@dataclass(frozen=True, eq=False)
class AnchorFit:
    """The anchors that k-means finds, and what they and others cover.

    Attributes:
        shapes: of the objects that are not difficult.
        anchors: (height, width) each; whole tenths, as files hold them.
        clusterings: by the number of anchors.
        own: what these anchors cover.
        others: what other sets of anchors cover, by name.
    """

    shapes: np.ndarray
    anchors: tuple[tuple[float, float], ...]
    clusterings: dict[int, Clustering]
    own: AnchorCoverage
    others: dict[str, AnchorCoverage]


def fit_anchors(
    dataset: Dataset,
    image: ImageConfig,
    number: int,
    *,
    seed: int,
    others: Mapping[str, AnchorConfig],
    passes: Callable[[Sequence[int], str], Iterable[int]] = lambda counts, title: counts,
) -> AnchorFit | None:
    """Fits so many anchors; for the curve also 1 to 15, or as many as there are different shapes.

    Args:
        others: anchors to compare with, by name.
        passes: shows progress: ``(counts, title) -> counts``.

    Returns:
        None without objects.

    Raises:
        UserError: as :func:`keras_frcnn.data.anchor_clustering.cluster_shapes`.
    """
    examples = [example.without_difficult() for example in dataset.examples]
    shapes = shapes_input(examples, image)
    if not len(shapes):
        return None
    counts = sorted({*range(1, min(CURVE_TO, count_different(shapes)) + 1), number})
    clusterings = {k: cluster_shapes(shapes, k, seed=seed) for k in passes(counts, "k-means")}
    anchors = whole_tenths(clusterings[number])
    own = _coverage(AnchorConfig(scales=(), ratios=(), shapes=anchors), shapes, examples, image)
    compared = {name: _coverage(config, shapes, examples, image) for name, config in others.items()}
    return AnchorFit(shapes, anchors, clusterings, own, compared)


def whole_tenths(clustering: Clustering) -> tuple[tuple[float, float], ...]:
    """(height, width) of the centres as files hold them: so they are also what is measured."""
    centres = np.maximum(np.round(clustering.centres, 1), 0.1)
    return tuple((float(height), float(width)) for height, width in centres)


def _coverage(
    config: AnchorConfig, shapes: np.ndarray, examples: Sequence[Example], image: ImageConfig
) -> AnchorCoverage:
    anchors = configured_anchors(config)
    sides = anchors[:, 2:] - anchors[:, :2]
    return AnchorCoverage(
        anchors, mean_best_iou(shapes, sides), best_ious(examples, anchors, image)
    )
