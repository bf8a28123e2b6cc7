"""The rows of the anchors' table: whose pixels, and the counts against a plain loop.

Shapes and names
----------------
average  (A, 2) height and width in pixels of the network input.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from keras_frcnn.geometry.anchors import base_anchors
from keras_frcnn.paper import published
from keras_frcnn.paper.anchors import AnchorStatistics, _averages, _counts
from keras_frcnn.paper.budget import Budget
from keras_frcnn.recipes import PAPER, AnchorConfig

HALF = Budget(short_side=300, anchors=AnchorConfig(scales=(4.0, 8.0, 16.0))).recipe()


def test_at_half_the_size_anchors_stand_for_the_papers_nine():
    average = np.full((9, 2), (50.0, 75.0))
    rows = list(_averages(HALF, AnchorStatistics(average, 900.0)))
    # Ratio-major here, scale-major in the paper.
    beside = [f"{w} x {h}" for _, _, w, h in published.AVERAGE_PROPOSALS]
    assert [row[1] for row in rows] == [*beside[::3], *beside[1::3], *beside[2::3]]
    assert {row[2] for row in rows} == {"150 x 100"}
    assert rows[0][0] == "184 x 96"
    assert list(_averages(PAPER, None))[0] == ("184 x 96", "188 x 111", "-")


def test_other_anchors_have_none_of_the_papers_beside_them():
    recipe = dataclasses.replace(PAPER, anchors=AnchorConfig(scales=(4.0,), ratios=(1.0,)))
    assert list(_averages(recipe, None)) == [("64 x 64", "-", "-")]


def test_counts_against_a_loop():
    inside = 0
    for y in range(0, 600, 16):
        for x in range(0, 1000, 16):
            for y1, x1, y2, x2 in base_anchors() + [y, x, y, x]:
                inside += y1 >= 0 and x1 >= 0 and y2 <= 600 and x2 <= 1000
    in_all, inner, left = _counts(PAPER, None)
    assert in_all == ("anchors of a 1000 x 600 image", "about 20,000", f"{38 * 63 * 9:,}")
    assert inner == ("of these inside the image", "about 6,000", f"{inside:,}")
    assert left[1:] == ("about 2,000", "-")


def test_another_setting_has_counts_of_its_own():
    rows = list(_counts(HALF, AnchorStatistics(np.zeros((9, 2)), 1234.4)))
    assert [row[0] for row in rows[2:4]] == [
        "anchors of a 500 x 300 image, this setting",
        "of these inside the image, this setting",
    ]
    assert rows[2][1:] == ("-", f"{19 * 32 * 9:,}")
    assert rows[4][2] == "1,234"
