"""Recall of proposals against plain loops and numbers worked by hand."""

import time

import numpy as np
import pytest

from keras_frcnn.errors import UserError
from keras_frcnn.evaluation.recall import (
    IOU_THRESHOLDS,
    matched_overlaps,
    proposal_recall,
    recall_contrast,
)
from keras_frcnn.evaluation.uncertainty import draw_images


def plain_iou(a, b):
    height = min(a[2], b[2]) - max(a[0], b[0])
    width = min(a[3], b[3]) - max(a[1], b[1])
    if height <= 0 or width <= 0:
        return 0.0
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return height * width / (sum(areas) - height * width)


def plain_matches(objects, proposals):
    """All pairs by falling IoU; a pair counts where neither has been taken."""
    pairs = sorted(
        (
            (plain_iou(box, proposal), g, p)
            for g, box in enumerate(objects)
            for p, proposal in enumerate(proposals)
        ),
        key=lambda pair: -pair[0],
    )
    result, taken = [0.0] * len(objects), set()
    for overlap, g, p in pairs:
        if ("object", g) not in taken and ("proposal", p) not in taken:
            taken |= {("object", g), ("proposal", p)}
            result[g] = overlap
    return result


def random_boxes(rng, count):
    corner = rng.uniform(0, 60, (count, 2))
    return np.concatenate([corner, corner + rng.uniform(5, 40, (count, 2))], axis=1)


def random_case(make_dataset, seed, images=30):
    rng = np.random.default_rng(seed)
    listed, proposals = [], {}
    for index in range(images):
        objects = random_boxes(rng, rng.integers(0, 5))
        listed.append([(box, 1, rng.random() < 0.2) for box in objects])
        near = objects + rng.normal(0, 3, objects.shape)
        every = np.concatenate([near, random_boxes(rng, 20)])
        if rng.random() < 0.9:
            proposals[f"VOC2007/{index}"] = rng.permutation(every).astype(np.float32)
    return make_dataset(*listed), proposals


@pytest.mark.parametrize("number", [1, 5, 1000])
@pytest.mark.parametrize("seed", range(4))
def test_equal_to_plain_loops(make_dataset, seed, number):
    data, proposals = random_case(make_dataset, seed)
    result = proposal_recall(data, proposals, number, resamples=5)
    overlaps = []
    for example in data.examples:
        objects = [
            box
            for box, hard in zip(example.boxes_image.tolist(), example.difficult, strict=True)
            if not hard
        ]
        own = proposals.get(example.key, np.zeros((0, 4)))[:number].tolist()
        overlaps += plain_matches(objects, own)
    assert result.objects == len(overlaps)
    for threshold, recall in zip(result.iou_thresholds, result.recall, strict=True):
        expected = sum(overlap >= threshold for overlap in overlaps) / len(overlaps)
        assert recall == pytest.approx(expected, abs=1e-12)
    # Twice the area under the curve, by the midpoints of 20,000 narrow strips.
    strips = 0.5 + (np.arange(20_000) + 0.5) / 40_000
    area = np.mean([(np.asarray(overlaps) >= strip).mean() for strip in strips])
    assert result.average_recall == pytest.approx(area, abs=1e-4)


def test_by_hand(make_dataset):
    first, second, hard = (0, 0, 10, 10), (0, 20, 10, 30), (50, 50, 60, 60)
    data = make_dataset([(first, 1, False), (hard, 1, True)], [(second, 1, False)])
    proposals = {
        "VOC2007/0": np.array([hard, (0, 0, 10, 8), first]),
        "VOC2007/1": np.array([second]),
    }
    two = proposal_recall(data, proposals, 2, resamples=10)
    assert two.objects == 2
    assert two.iou_thresholds.tolist() == list(IOU_THRESHOLDS)
    # IoU 0.8 and 1: both reach 0.5 to 0.8, one the rest.
    assert two.recall.tolist() == [1.0] * 7 + [0.5] * 4
    assert two.average_recall == pytest.approx((0.3 + 0.5) * 2 / 2)
    assert proposal_recall(data, proposals, 3, resamples=10).average_recall == pytest.approx(1.0)
    assert proposal_recall(data, {}, 3, resamples=10).recall.tolist() == [0.0] * 11


def test_one_proposal_covers_one_object():
    objects = np.array([(0, 0, 10, 10), (0, 1, 10, 11)])
    np.testing.assert_allclose(matched_overlaps(objects, objects[:1]), [1.0, 0.0])
    # The second object has the better claim on the first proposal; the first takes what is left.
    proposals = np.array([(0, 1, 10, 11), (0, -4, 10, 6)])
    np.testing.assert_allclose(matched_overlaps(objects, proposals), [6 / 14, 1.0])


def test_the_interval_is_that_of_resampled_images(make_dataset):
    data, proposals = random_case(make_dataset, 0)
    result = proposal_recall(data, proposals, 5, iou_thresholds=(0.5,), seed=3, resamples=200)
    again = proposal_recall(data, proposals, 5, iou_thresholds=(0.5,), seed=3, resamples=200)
    other = proposal_recall(data, proposals, 5, iou_thresholds=(0.5,), seed=4, resamples=200)
    assert result.recall_low == again.recall_low
    assert result.recall_low != other.recall_low
    assert result.recall_low[0] < result.recall[0] < result.recall_high[0]
    found, counts = [], []
    for example in data.examples:
        objects = example.boxes_image[~example.difficult].tolist()
        own = proposals.get(example.key, np.zeros((0, 4)))[:5].tolist()
        found.append(sum(overlap >= 0.5 for overlap in plain_matches(objects, own)))
        counts.append(len(objects))
    values = []
    for times in draw_images(len(data), 200, seed=3).tolist():
        drawn = [image for image, count in enumerate(times) for _ in range(count)]
        assert len(drawn) == len(data)
        values.append(sum(found[i] for i in drawn) / sum(counts[i] for i in drawn))
    assert result.recall_low[0] == pytest.approx(np.quantile(values, 0.025))
    assert result.recall_high[0] == pytest.approx(np.quantile(values, 0.975))


def test_a_wider_confidence_gives_a_wider_interval(make_dataset):
    data, proposals = random_case(make_dataset, 1)
    narrow = proposal_recall(data, proposals, 5, confidence=0.5)
    wide = proposal_recall(data, proposals, 5, confidence=0.99)
    assert wide.average_recall_low < narrow.average_recall_low <= narrow.average_recall
    assert narrow.average_recall <= narrow.average_recall_high < wide.average_recall_high


def test_what_cannot_be_evaluated(make_dataset):
    box = (0, 0, 10, 10)
    with pytest.raises(UserError, match="have none that is not difficult"):
        proposal_recall(make_dataset([(box, 1, True)], []), {}, 5)
    with pytest.raises(UserError, match="the image VOC2007/7, which is not one of the 1 images"):
        proposal_recall(make_dataset([(box, 1, False)]), {"VOC2007/7": np.zeros((1, 4))}, 5)


def test_two_thousand_proposals_of_many_images_take_seconds(make_dataset):
    rng = np.random.default_rng(0)
    images = [[(box, 1, False) for box in random_boxes(rng, 3)] for _ in range(300)]
    every = {f"VOC2007/{i}": random_boxes(rng, 2000).astype(np.float32) for i in range(300)}
    data = make_dataset(*images)
    start = time.process_time()
    proposal_recall(data, every, 2000)
    assert time.process_time() - start < 4


def test_a_contrast_is_the_difference_of_recalls_drawn_together(make_dataset):
    data, proposals = random_case(make_dataset, 11)
    many, few = (proposal_recall(data, proposals, number, resamples=5) for number in (20, 2))
    found = recall_contrast(data, [(1, proposals, 20), (-1, proposals, 2)])
    assert found.value == pytest.approx(many.recall[0] - few.recall[0])
    assert found.low <= found.value <= found.high
    assert found.resolved
    # Against themselves nothing is left in any resample, which unpaired draws would not give.
    nothing = recall_contrast(data, [(1, proposals, 3), (-1, proposals, 3)])
    assert (nothing.value, nothing.low, nothing.high) == (0, 0, 0)
    assert not nothing.resolved


def test_a_contrasts_interval_is_that_of_resampled_images(make_dataset):
    data, proposals = random_case(make_dataset, 12, images=12)
    found = recall_contrast(data, [(1, proposals, 5)], iou_threshold=0.6)
    hits, objects = [], []
    for example in data.examples:
        own = example.without_difficult().boxes_image
        best = proposals.get(example.key, np.zeros((0, 4)))[:5]
        hits.append(sum(o >= 0.6 for o in plain_matches(own.tolist(), best.tolist())))
        objects.append(len(own))
    values = []
    for times in draw_images(12).tolist():
        found_hits = sum(t * h for t, h in zip(times, hits, strict=True))
        values.append(found_hits / sum(t * o for t, o in zip(times, objects, strict=True)))
    assert [found.low, found.high] == pytest.approx(np.quantile(values, (0.025, 0.975)))
