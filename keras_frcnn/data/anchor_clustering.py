"""Anchor shapes from the shapes of a data set's objects: k-means with the IoU as nearness.

Two shapes are as near as the IoU of boxes that have them and share their centre (or a corner, which
gives the same); the distance is 1 - IoU. The mean of the sides of a cluster is not the shape that
has the highest mean IoU with it, so a centre climbs there step by step instead: the mean IoU of the
data with their nearest centre never falls, and with k = 1 the result is the best shape there is.

Shapes and names
----------------
G  objects, k  centres.
shapes  (G, 2) float64, (height, width) in pixels of the network input, all above 0.
centres  (k, 2) float64, the same.
nearest  (G,) position of the centre of highest IoU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from keras_frcnn.errors import UserError

RESTARTS = 10
# A centre tries its eight neighbours, this factor away in one side or both; staying comes first.
COARSE_STEPS = (1.5, 1.2, 1.1)
FINE_STEPS = (1.05, 1.02, 1.01, 1.004)
MOVES = np.array([(0, 0), *((i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if (i, j) != (0, 0))])
# A gain below it is the rounding of a sum.
_LEAST_GAIN = 1e-9


@dataclass(frozen=True, eq=False)
class Clustering:
    """The best of several runs of k-means.

    Attributes:
        centres: (k, 2) float64, by area, smallest first.
        mean_iou: of the objects with their nearest centre.
    """

    centres: np.ndarray
    mean_iou: float


def cluster_shapes(
    shapes: np.ndarray, k: int, *, seed: int = 0, restarts: int = RESTARTS
) -> Clustering:
    """The k shapes that the objects' shapes gather around; equal arguments give equal results.

    Args:
        seed: of the k-means++ seeding.
        restarts: runs from different seeds, of which the one of highest mean IoU goes on to steps
            of 0.4 per cent.

    Raises:
        UserError: there are fewer than k different shapes.
    """
    shapes = np.asarray(shapes, np.float64)
    different = count_different(shapes)
    if k > different:
        raise UserError(
            f"{k} anchors cannot be told apart by objects of {different} different sizes: ask for "
            f"at most {different}, or give more data."
        )
    runs = [
        climb(
            shapes,
            seed_centres(shapes, k, np.random.default_rng((seed, k, restart))),
            COARSE_STEPS,
        )
        for restart in range(restarts)
    ]
    best = max(runs, key=lambda centres: mean_best_iou(shapes, centres))
    best = climb(shapes, best, FINE_STEPS)
    order = np.lexsort((best[:, 0], best.prod(axis=1)))
    return Clustering(best[order], mean_best_iou(shapes, best))


def count_different(shapes: np.ndarray) -> int:
    """How many different shapes there are, the most that k can be."""
    return len(np.unique(shapes, axis=0))


def shape_iou(shapes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """IoU of boxes of these shapes (..., 2) around one centre; the two broadcast: (...,)."""
    intersection = np.minimum(shapes, others).prod(axis=-1)
    return intersection / (shapes.prod(axis=-1) + others.prod(axis=-1) - intersection)


def mean_best_iou(shapes: np.ndarray, centres: np.ndarray) -> float:
    """Mean over the shapes (G, 2) of the IoU with the nearest of the centres (k, 2)."""
    return float(shape_iou(shapes[:, None], centres).max(axis=1).mean())


def seed_centres(shapes: np.ndarray, k: int, generator: np.random.Generator) -> np.ndarray:
    """k-means++ (Arthur and Vassilvitskii 2007): k of the shapes, far from each other by chance.

    The first is drawn uniformly, each further one with a probability proportional to its distance
    to the nearest centre so far. The distance itself is the weight, not its square, because it is
    also what the clustering sums (their section 5). At least k of the shapes must differ.
    """
    weights = np.ones(len(shapes))
    centres = []
    for _ in range(k):
        limits = np.cumsum(weights)
        chosen = np.searchsorted(limits, generator.random() * limits[-1], side="right")
        centres.append(shapes[chosen])
        distance = 1.0 - shape_iou(shapes, shapes[chosen])
        weights = distance if len(centres) == 1 else np.minimum(weights, distance)
    return np.array(centres)


def climb(shapes: np.ndarray, centres: np.ndarray, steps: Sequence[float]) -> np.ndarray:
    """k-means proper: objects go to their nearest centre, centres to where they fit these better.

    Args:
        centres: where they start.
        steps: factors by which sides change, each until no centre gains by it any more.
    """
    for step in steps:
        moved = True
        while moved:
            nearest = shape_iou(shapes[:, None], centres).argmax(axis=1)
            trials = centres[:, None] * step**MOVES  # (k, 9, 2)
            gains = [
                shape_iou(shapes[nearest == index, None], trials[index]).sum(axis=0)
                for index in range(len(centres))
            ]
            best = [
                int(gain.argmax()) if gain.max() > gain[0] * (1 + _LEAST_GAIN) else 0
                for gain in gains
            ]
            moved = any(best)
            centres = trials[np.arange(len(centres)), best]
    return centres
