"""k-means over shapes: known clusters, brute force, plain loops, repeatability.

Shapes and names
----------------
shapes  (G, 2) heights and widths.
"""

import itertools

import numpy as np
import pytest

from keras_frcnn.data.anchor_clustering import (
    COARSE_STEPS,
    FINE_STEPS,
    climb,
    cluster_shapes,
    count_different,
    mean_best_iou,
    seed_centres,
    shape_iou,
)
from keras_frcnn.errors import UserError


def plain_iou(one, other) -> float:
    """IoU of two boxes that share a corner."""
    common = min(one[0], other[0]) * min(one[1], other[1])
    return common / (one[0] * one[1] + other[0] * other[1] - common)


def plain_mean(shapes, centres) -> float:
    return sum(max(plain_iou(shape, c) for c in centres) for shape in shapes) / len(shapes)


def random_shapes(count: int, seed: int = 0) -> np.ndarray:
    return np.exp(np.random.default_rng(seed).normal(4.0, 0.8, (count, 2)))


def test_iou_of_shapes_by_hand():
    # 10 x 20 and 20 x 10 have 100 pixels in common of 300.
    assert shape_iou(np.array([10.0, 20.0]), np.array([20.0, 10.0])) == pytest.approx(1 / 3)
    # Half as large; and the centred boxes have the same IoU as those that share a corner.
    assert shape_iou(np.array([10.0, 20.0]), np.array([10.0, 10.0])) == pytest.approx(0.5)
    shapes, others = random_shapes(7), random_shapes(4, 1)
    expected = [[plain_iou(a, b) for b in others] for a in shapes]
    np.testing.assert_allclose(shape_iou(shapes[:, None], others), expected)
    assert mean_best_iou(shapes, others) == pytest.approx(plain_mean(shapes, others))


def test_known_clusters_are_found():
    middles = np.array([(20.0, 60.0), (60.0, 20.0), (100.0, 100.0), (300.0, 150.0)])
    generator = np.random.default_rng(5)
    shapes = np.concatenate([m * np.exp(generator.normal(0, 0.05, (50, 2))) for m in middles])
    found = cluster_shapes(generator.permutation(shapes), 4)
    order = np.argsort(middles.prod(axis=1), kind="stable")
    # By area; 20 x 60 and 60 x 20 are equally large, so in either order.
    np.testing.assert_allclose(found.centres[2:], middles[order][2:], rtol=0.03)
    np.testing.assert_allclose(np.sort(found.centres[:2], axis=0), [[20, 20], [60, 60]], rtol=0.03)
    assert found.mean_iou == pytest.approx(plain_mean(shapes, found.centres))
    assert found.mean_iou > 0.92


@pytest.mark.parametrize("seed", range(5))
def test_one_centre_is_the_best_shape_of_a_fine_grid(seed):
    shapes = random_shapes(60, seed)
    found = cluster_shapes(shapes, 1)
    heights, widths = (np.geomspace(shapes.min(), shapes.max(), 300) for _ in range(2))
    grid = np.array(list(itertools.product(heights, widths)))
    best = shape_iou(shapes[:, None], grid).mean(axis=0).max()
    # Neighbours on the grid are 1.5 per cent apart, far apart for 4 digits of the IoU.
    assert found.mean_iou >= best - 2e-4
    # What a mean of the sides gives is clearly worse.
    assert found.mean_iou > mean_best_iou(shapes, shapes.mean(axis=0)[None]) + 0.01


def test_two_centres_are_those_of_the_best_partition():
    shapes = random_shapes(8, 3)
    best = 0.0
    # The first shape's part and the other one, which is not empty.
    for members in itertools.product((False, True), repeat=len(shapes) - 1):
        mask = np.array((True, *members))
        if not mask.all():
            parts = [cluster_shapes(shapes[of], 1) for of in (mask, ~mask)]
            best = max(
                best, np.average([p.mean_iou for p in parts], weights=[mask.sum(), (~mask).sum()])
            )
    assert cluster_shapes(shapes, 2).mean_iou >= best - 1e-3


class Numbers:
    """A generator that gives known numbers."""

    def __init__(self, numbers):
        self._numbers = iter(numbers)

    def random(self) -> float:
        return next(self._numbers)


@pytest.mark.parametrize("seed", range(20))
def test_seeding_is_that_of_a_plain_loop(seed):
    shapes = random_shapes(12, seed)
    numbers = np.random.default_rng(seed).random(4)
    expected = []
    for number in numbers:
        weights = [
            min((1 - plain_iou(shape, c) for c in expected), default=1.0) for shape in shapes
        ]
        left = number * sum(weights)
        for shape, weight in zip(shapes, weights, strict=True):
            left -= weight
            if left < 0:
                expected.append(shape)
                break
    np.testing.assert_array_equal(seed_centres(shapes, 4, Numbers(numbers)), expected)


def test_seeds_are_different_shapes_even_of_many_equal_ones():
    shapes = np.repeat([(10.0, 10.0), (20.0, 20.0), (10.0, 30.0)], [500, 1, 1], axis=0)
    for seed in range(20):
        seeds = seed_centres(shapes, 3, np.random.default_rng(seed))
        assert count_different(seeds) == 3


def test_climbing_never_loses():
    shapes = random_shapes(200)
    for seed in range(5):
        start = seed_centres(shapes, 6, np.random.default_rng(seed))
        values = [mean_best_iou(shapes, start)]
        centres = start
        for step in (*COARSE_STEPS, *FINE_STEPS):
            centres = climb(shapes, centres, (step,))
            values.append(mean_best_iou(shapes, centres))
        assert (np.diff(values) >= 0).all()
        assert values[-1] > values[0] + 0.01


def test_equal_arguments_give_equal_centres_and_every_seed_a_good_one():
    shapes = random_shapes(300)
    first, again = cluster_shapes(shapes, 5, seed=1), cluster_shapes(shapes.copy(), 5, seed=1)
    np.testing.assert_array_equal(first.centres, again.centres)
    others = [cluster_shapes(shapes, 5, seed=seed) for seed in range(2, 5)]
    assert all(other.mean_iou == pytest.approx(first.mean_iou, abs=0.01) for other in others)
    assert any(not np.array_equal(other.centres, first.centres) for other in others)
    assert (np.diff(first.centres.prod(axis=1)) >= 0).all()


def test_more_restarts_are_never_worse():
    shapes = random_shapes(150, 2)
    coarse = [
        mean_best_iou(
            shapes,
            climb(shapes, seed_centres(shapes, 8, np.random.default_rng((0, 8, r))), COARSE_STEPS),
        )
        for r in range(6)
    ]
    assert max(coarse) > min(coarse)
    assert cluster_shapes(shapes, 8, restarts=6).mean_iou >= max(coarse)


def test_more_centres_than_shapes_are_refused():
    shapes = np.array([(10.0, 20.0), (10.0, 20.0), (30.0, 30.0)])
    assert cluster_shapes(shapes, 2).mean_iou == 1.0
    with pytest.raises(UserError, match="3 anchors cannot .* of 2 different sizes: ask for at"):
        cluster_shapes(shapes, 3)
