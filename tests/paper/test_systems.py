"""Keeping detections, and what may be claimed of differences.

Shapes and names
----------------
replicates  (B,) of the bootstrap.
"""

from __future__ import annotations

import numpy as np
import pytest

from keras_frcnn.errors import UserError
from keras_frcnn.evaluation.uncertainty import Difference
from keras_frcnn.evaluation.voc import evaluate_voc
from keras_frcnn.paper.systems import (
    Evaluated,
    Length,
    Repeated,
    claim,
    comparison,
    difference,
    evaluated,
    read_detections,
    write_detections,
)

OBJECTS = ([((0, 0, 10, 10), 1, False)], [], [((5, 5, 40, 40), 2, False)])


@pytest.fixture
def case(make_dataset, make_detections):
    dataset = make_dataset(*OBJECTS, class_names=("cat", "dog", "cow"))
    found = make_detections(
        ("0", (0, 0, 10, 9), 0.9, 1), ("0", (3, 3, 20, 20), 0.8, 1), ("2", (5, 5, 40, 41), 0.4, 2)
    )
    nothing = {
        example.key: type(found["VOC2007/0"])(
            np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int32)
        )
        for example in dataset.examples
    }
    return dataset, {**nothing, **found}


def test_detections_come_back_as_they_were(case, tmp_path):
    dataset, found = case
    path = tmp_path / "kept" / "name.npz"
    write_detections(path, dataset, found)
    back = read_detections(path, dataset)
    assert back.keys() == found.keys()
    for key, detections in found.items():
        for name in ("boxes_image", "scores", "classes"):
            np.testing.assert_array_equal(getattr(back[key], name), getattr(detections, name))


def test_detections_of_other_images_are_refused(case, make_dataset, tmp_path):
    dataset, found = case
    write_detections(tmp_path / "a.npz", dataset, found)
    other = make_dataset(*OBJECTS, class_names=dataset.class_names, ids=("7", "8", "9"))
    with pytest.raises(UserError, match="other images"):
        read_detections(tmp_path / "a.npz", other)


def test_voc_2007_is_evaluated_by_eleven_points_in_percent(case):
    dataset, found = case
    result = evaluated(dataset, found)
    expected = evaluate_voc(dataset, found)
    assert result.mean == pytest.approx(100 * expected.map_11point)
    assert result.per_class == (pytest.approx(100), pytest.approx(100), None)
    assert result.images == 3
    assert len(result.replicates) == 1000


def test_claims_go_no_further_than_twice_the_error():
    assert "not resolved" in claim("A", "B", Difference(1.9, 1.0))
    assert (
        claim("A", "B", Difference(2.1, 1.0)) == "A is above B by 2.1 points (standard error 1.0)."
    )
    assert claim("A", "B", Difference(-2.1, 1.0)) == (
        "B is above A by 2.1 points (standard error 1.0)."
    )


BASE = np.array([40.0, 50.0, 60.0])
OF_40000 = Length(100, 40_000)


def results(*means, replicates=BASE, length=OF_40000):
    """One system; its replicates lie about its mean as those of others do."""
    entries = (Evaluated(mean, (mean, None), replicates + mean, 10) for mean in means)
    return Repeated(tuple(entries), length)


def test_difference_is_paired():
    found = difference(results(55.0), results(50.0))
    assert (found.value, found.resolved) == (5.0, True)
    assert found.error == pytest.approx(0.0, abs=1e-12)
    found = difference(results(55.0), results(50.0, replicates=BASE[[1, 0, 2]]))
    assert found.error == pytest.approx(np.std([-10, 10, 0], ddof=1))
    assert not found.resolved


def test_seeds_that_differ_widen_the_error():
    """Of one run nothing is known about others: only the draw of images counts."""
    repeated = results(50.0, 56.0)
    assert (repeated.mean, repeated.per_class) == (53.0, (53.0, None))
    assert repeated.error == pytest.approx(np.std([50, 56], ddof=1))
    assert results(50.0).error == pytest.approx(np.std(BASE, ddof=1))
    found = difference(repeated, results(50.0))
    # Variances add up: that of a mean of two runs, none of the images as they move together.
    assert found.value == 3.0
    assert found.error == pytest.approx(np.sqrt(np.var([50, 56], ddof=1) / 2))
    assert not found.resolved


def test_nothing_is_claimed_of_detectors_trained_for_longer():
    assert comparison("A", "B", results(55.0), results(50.0)).startswith("A is above B by 5.0")
    longer = results(55.0, length=Length(1800, 40_000))
    assert comparison("A", "B", longer, results(50.0)) == (
        "A against B: no claim, as the detectors were trained for 1,800 and 100 iterations."
    )


def test_published_trainings_on_larger_sets_are_longer():
    """60,000 iterations on 07+12 against 40,000 on 07, and a 400th of both."""
    larger = results(55.0, length=Length(150, 60_000))
    assert comparison("07+12", "07", larger, results(50.0)).startswith("07+12 is above 07")
    assert "no claim" in comparison(
        "07+12", "07", results(55.0, length=Length(153, 60_000)), results(50.0)
    )
