"""Dense windows against a plain loop.

Shapes and names
----------------
stride  in positions of the feature map, which are 16 input pixels apart.
"""

from __future__ import annotations

import numpy as np
import pytest

from keras_frcnn.geometry.anchors import base_anchors
from keras_frcnn.paper.kept import dense_windows
from keras_frcnn.recipes import PAPER


@pytest.mark.parametrize("stride", [1, 3])
def test_windows_are_the_clipped_anchors_of_every_nth_position(make_dataset, stride):
    dataset = make_dataset([((1, 2, 30, 40), 1, False)], size=(300, 450))
    (windows,) = dense_windows(dataset, PAPER, stride).entries.values()
    expected = []
    for y in range(0, 600, 16 * stride):  # 300 x 450 becomes 600 x 900
        for x in range(0, 900, 16 * stride):
            for y1, x1, y2, x2 in base_anchors() + [y, x, y, x]:
                corners = (max(y1, 0), max(x1, 0), min(y2, 600), min(x2, 900))
                expected.append([value / 2 for value in corners])
    np.testing.assert_allclose(windows.boxes_image, expected, atol=1e-4)
    assert len(windows.scores) == len(expected)


def test_at_600_by_1000_there_are_about_twenty_thousand(make_dataset):
    dataset = make_dataset([], size=(600, 1000))
    (windows,) = dense_windows(dataset, PAPER, 1).entries.values()
    assert len(windows.scores) == 38 * 63 * 9
