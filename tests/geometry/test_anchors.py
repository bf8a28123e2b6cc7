"""Anchors against the published table and NumPy loops.

Shapes and names
----------------
anchors  (., 4) float32, half-open (y1, x1, y2, x2); the published table is inclusive
    (x1, y1, x2, y2), 0-based.
"""

import numpy as np
import pytest
import tensorflow as tf

from keras_frcnn.errors import UserError
from keras_frcnn.geometry.anchors import (
    anchor_grid,
    base_anchors,
    configured_anchors,
    inside_image,
    shaped_anchors,
)
from keras_frcnn.recipes import AnchorConfig

NINE = [
    [-40, -84, 56, 100],
    [-88, -176, 104, 192],
    [-184, -360, 200, 376],
    [-56, -56, 72, 72],
    [-120, -120, 136, 136],
    [-248, -248, 264, 264],
    [-80, -36, 96, 52],
    [-168, -80, 184, 96],
    [-344, -168, 360, 184],
]

PUBLISHED_INCLUSIVE = [
    [-84, -40, 99, 55],
    [-176, -88, 191, 103],
    [-360, -184, 375, 199],
    [-56, -56, 71, 71],
    [-120, -120, 135, 135],
    [-248, -248, 263, 263],
    [-36, -80, 51, 95],
    [-80, -168, 95, 183],
    [-168, -344, 183, 359],
]


def test_the_nine_anchors():
    anchors = base_anchors()
    assert anchors.dtype == np.float32
    np.testing.assert_array_equal(anchors, NINE)


def test_the_nine_anchors_are_the_published_ones():
    converted = [[y1, x1, y2 + 1, x2 + 1] for x1, y1, x2, y2 in PUBLISHED_INCLUSIVE]
    np.testing.assert_array_equal(base_anchors(), converted)


def test_own_scales_and_ratios_are_ratio_major_around_the_centre():
    anchors = base_anchors(16, scales=(1.0, 4.0), ratios=(4.0, 0.25))
    # Ratio 4: 8 wide, 32 high; ratio 0.25: 32 wide, 8 high; each times 1 and 4, around (8, 8).
    expected = [[-8, 4, 24, 12], [-56, -8, 72, 24], [4, -8, 12, 24], [-8, -56, 24, 72]]
    np.testing.assert_array_equal(anchors, expected)


def test_halves_round_up():
    # w = round(sqrt(64 / 0.1)) = 25, h = round(2.5): 3 as in MATLAB, 2 if rounded to even.
    anchors = base_anchors(8, scales=(1.0,), ratios=(0.1,))
    np.testing.assert_array_equal(anchors[0, 2:] - anchors[0, :2], [3, 25])


def test_a_ratio_that_leaves_no_pixel_is_refused():
    with pytest.raises(UserError, match="at least one pixel"):
        base_anchors(ratios=(1e-4,))


def test_shapes_centre_as_the_published_anchors_do():
    # 20 high and 32 wide around (8, 8); a shape of 7 by 5 has its corners on halves.
    anchors = shaped_anchors([(20, 32), (7.0, 5.0)])
    assert anchors.dtype == np.float32
    np.testing.assert_array_equal(anchors, [[-2, -8, 18, 24], [4.5, 5.5, 11.5, 10.5]])
    # The nine's own shapes give the nine.
    nine = np.array(NINE)
    np.testing.assert_array_equal(shaped_anchors(nine[:, 2:] - nine[:, :2]), NINE)


def test_a_recipe_has_scales_and_ratios_or_shapes():
    np.testing.assert_array_equal(configured_anchors(AnchorConfig()), NINE)
    config = AnchorConfig(scales=(), ratios=(), shapes=((20.0, 32.0),))
    np.testing.assert_array_equal(configured_anchors(config), [[-2, -8, 18, 24]])
    assert (config.per_position, AnchorConfig().per_position) == (1, 9)


def test_grid_runs_row_column_anchor():
    grid = anchor_grid(NINE, tf.constant(3), tf.constant(5)).numpy()
    assert grid.shape == (3 * 5 * 9, 4)
    position = 0
    for row in range(3):
        for column in range(5):
            for y1, x1, y2, x2 in NINE:
                shift_y, shift_x = 16 * row, 16 * column
                expected = [y1 + shift_y, x1 + shift_x, y2 + shift_y, x2 + shift_x]
                np.testing.assert_array_equal(grid[position], expected)
                position += 1


def test_grid_with_another_stride_and_an_empty_map():
    np.testing.assert_array_equal(
        anchor_grid([[0, 0, 2, 2]], 1, 2, stride=8), [[0, 0, 2, 2], [0, 8, 2, 10]]
    )
    assert anchor_grid(NINE, 0, 5).shape == (0, 4)


def test_inside_includes_the_border_and_nothing_beyond():
    anchors = [
        [0, 0, 100, 200],
        [-1, 0, 50, 50],
        [0, -1, 50, 50],
        [0, 0, 101, 50],
        [0, 0, 50, 201],
        [10, 20, 30, 40],
    ]
    np.testing.assert_array_equal(
        inside_image(anchors, 100, tf.constant(200)), [True, False, False, False, False, True]
    )


@pytest.mark.parametrize(
    ("rows", "columns", "height", "width", "anchors", "left"),
    [(38, 63, 600, 1000, 21546, 8151), (38, 50, 600, 800, 17100, 5944)],
)
def test_anchors_left_inside_the_image(rows, columns, height, width, anchors, left):
    """Paper 3.3 has "roughly 20000" and "about 6000": a third, the rest crosses the boundary."""
    grid = anchor_grid(base_anchors(), rows, columns)
    assert grid.shape[0] == anchors
    expected = 0
    for x1, y1, x2, y2 in PUBLISHED_INCLUSIVE:
        fit_y = sum(y1 + 16 * r >= 0 and y2 + 16 * r < height for r in range(rows))
        fit_x = sum(x1 + 16 * c >= 0 and x2 + 16 * c < width for c in range(columns))
        expected += fit_y * fit_x
    assert expected == left
    assert int(tf.math.count_nonzero(inside_image(grid, height, width))) == left
