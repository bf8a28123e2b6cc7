"""The paper's numbers against each other: the mean of a row is the table's mAP.

Shapes and names
----------------
ap  20 classes.
"""

from __future__ import annotations

import numpy as np
import pytest

from keras_frcnn.paper import published


@pytest.mark.parametrize("table", [published.VOC2007, published.VOC2012])
def test_classes_average_to_the_mean(table):
    for system, (mean, values) in table.items():
        assert len(values) == 20, system
        assert np.mean(values) == pytest.approx(mean, abs=0.051), system


def test_tables_1_and_2_agree_on_what_they_share():
    assert published.TABLE1["rpn-unshared"] == published.TABLE5["two-stage"]


def test_table_4_sums_to_the_papers_rates():
    totals = {key: sum(parts) for key, parts in published.TABLE4.items()}
    assert totals == {("vgg16", "ss"): 1830, ("vgg16", "rpn"): 198, ("zf", "rpn"): 59}
