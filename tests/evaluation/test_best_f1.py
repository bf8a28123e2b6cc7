"""The best F1 against every threshold tried in a loop."""

import numpy as np
import pytest

from keras_frcnn.evaluation.voc import OperatingPoint, best_f1


def test_by_hand():
    # Hits at ranks 1, 2 and 5 of four objects: F1 2/5, 4/6, 4/7, 4/8, 6/9.
    point = best_f1(np.array([0.9, 0.8, 0.7, 0.6, 0.5]), np.array([1, 2, 2, 2, 3]), 4)
    assert point == OperatingPoint(0.8, 1.0, 0.5, pytest.approx(2 / 3))


def test_detections_of_one_score_are_kept_together():
    # Cutting between the two 0.8 would give F1 1; a threshold cannot.
    point = best_f1(np.array([0.9, 0.8, 0.8]), np.array([1, 2, 2]), 2)
    assert point == OperatingPoint(0.8, pytest.approx(2 / 3), 1.0, pytest.approx(0.8))


def test_the_threshold_of_a_float32_is_its_shortest_decimal():
    assert best_f1(np.array([0.9], np.float32), np.array([1]), 1).score_threshold == 0.9


def test_nothing_found_or_nothing_to_find():
    nothing = np.zeros(0, int)
    assert best_f1(np.zeros(0), nothing, 3) is None
    assert best_f1(np.array([0.5]), np.array([0]), 3) is None
    assert best_f1(np.array([0.5]), np.array([0]), 0) is None


@pytest.mark.parametrize("seed", range(5))
def test_equal_to_a_loop_over_thresholds(seed):
    rng = np.random.default_rng(seed)
    scores = np.sort(rng.integers(0, 15, 40) / 15)[::-1]
    is_true = rng.random(40) < 0.4
    point = best_f1(scores, np.cumsum(is_true), 25)
    best = (-1.0, None)
    for threshold in sorted(set(scores.tolist()), reverse=True):
        kept = [true for score, true in zip(scores, is_true, strict=True) if score >= threshold]
        precision, recall = sum(kept) / len(kept), sum(kept) / 25
        f1 = 2 * precision * recall / (precision + recall) if sum(kept) else 0.0
        if f1 > best[0] + 1e-12:
            best = (f1, OperatingPoint(threshold, precision, recall, pytest.approx(f1)))
    assert point == best[1]
