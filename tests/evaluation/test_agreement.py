"""Agreement of two sets of detections, and the pooled AP, against cases worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from keras_frcnn.evaluation.agreement import (
    CLOSE,
    ROUGH,
    agreement,
    has_partner,
    paired,
    pooled_average_precision,
)
from keras_frcnn.evaluation.voc import evaluate_voc

BOX = (0, 0, 10, 100)
# 5 of 105 columns beyond: IoU 95 / 105 = 0.905; 6 of 106: 94 / 106 = 0.887; 12: 88 / 112 = 0.786.
NEAR, FARTHER, FARTHEST = (0, 5, 10, 105), (0, 6, 10, 106), (0, 12, 10, 112)


@pytest.mark.parametrize(
    ("box", "score", "close", "rough"),
    [
        (BOX, 0.7, True, True),
        (NEAR, 0.7, True, True),
        (FARTHER, 0.7, False, True),
        (FARTHEST, 0.7, False, False),
        (BOX, 0.75, True, True),
        (BOX, 0.65, True, True),
        (BOX, 0.76, False, True),
        (BOX, 0.8, False, True),
        (BOX, 0.81, False, False),
        (BOX, 0.59, False, False),
    ],
)
def test_who_is_a_partner(make_detections, box, score, close, rough):
    (reference,) = make_detections((1, BOX, 0.7)).values()
    (other,) = make_detections((1, box, score)).values()
    assert has_partner(reference, other, CLOSE).tolist() == [close]
    assert has_partner(reference, other, ROUGH).tolist() == [rough]


def test_another_class_is_no_partner(make_detections):
    (reference,) = make_detections((1, BOX, 0.7, 1)).values()
    (other,) = make_detections((1, BOX, 0.7, 2)).values()
    assert not has_partner(reference, other, ROUGH).any()


def test_shares_count_the_references_of_every_image_from_score_03(make_detections):
    references = make_detections(
        ("a", BOX, 0.9, 1),
        ("a", BOX, 0.3, 2),  # counts; its partner may score less
        ("a", BOX, 0.29, 1),  # does not count
        ("b", BOX, 0.5, 1),  # its image has none in the other
        ("c", BOX, 0.5, 1),
    )
    others = make_detections(
        ("a", BOX, 0.9, 1), ("a", BOX, 0.26, 2), ("c", FARTHER, 0.5, 1), ("d", BOX, 0.9, 1)
    )
    found = agreement(references, others)
    assert (found.detections, found.kept, found.share) == (4, 2, 0.5)
    assert agreement(references, others, ROUGH).kept == 3
    assert str(found) == (
        "50.0 % of 4 detections from score 0.3 have a partner (IoU >= 0.9, score within 0.05)"
    )
    assert found.to_json() == {
        "iou": 0.9, "score": 0.05, "detections": 4, "kept": 2, "share": 0.5,
    }  # fmt: skip


def test_no_reference_has_no_share(make_detections):
    found = agreement(make_detections(("a", BOX, 0.2)), {})
    assert (found.detections, found.share) == (0, None)
    assert str(found) == "no detections from score 0.3 to find partners of"


def test_paired_measures_what_has_a_partner(make_detections):
    (reference,) = make_detections((1, BOX, 0.7), (1, (50, 0, 60, 10), 0.6)).values()
    (other,) = make_detections((1, NEAR, 0.72), (1, (0, 1, 10, 101), 0.71)).values()
    pixels, scores = paired(reference, other)
    np.testing.assert_allclose(pixels, [1])  # the nearer of the two
    np.testing.assert_allclose(scores, [0.01], atol=1e-6)
    (nothing,) = make_detections((1, FARTHEST, 0.7)).values()
    assert [len(values) for values in paired(reference, nothing)] == [0, 0]


def test_pooled_average_precision(make_dataset, make_detections):
    """Ranking: hit (cat), miss (dog), hit (dog); the difficult cat counts for nothing.

    Precision at recall 1/3 is 1, at 2/3 it is 2/3, recall 3/3 is not reached: (1 + 2/3) / 3.
    """
    dataset = make_dataset(
        [((0, 0, 10, 10), 1, False), ((50, 50, 60, 60), 1, True)],
        [((0, 0, 10, 10), 2, False), ((50, 50, 60, 60), 2, False)],
        class_names=("cat", "dog"),
    )
    found = make_detections(
        (0, (0, 0, 10, 10), 0.9, 1),
        (0, (50, 50, 60, 60), 0.85, 1),
        (0, (0, 0, 10, 10), 0.8, 2),
        (1, (0, 0, 10, 10), 0.7, 2),
    )
    evaluation = evaluate_voc(dataset, found, iou_threshold=0.5)
    assert pooled_average_precision(evaluation) == pytest.approx(5 / 9)
    assert evaluation.map_area == pytest.approx((1 + 1 / 4) / 2)  # not the same figure


def test_pooled_average_precision_without_objects(make_dataset, make_detections):
    evaluation = evaluate_voc(make_dataset([]), make_detections((0, BOX, 0.9)), iou_threshold=0.5)
    assert pooled_average_precision(evaluation) is None
