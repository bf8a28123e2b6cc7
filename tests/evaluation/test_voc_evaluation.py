"""The VOC metric against cases worked by hand."""

import io
import json
import time
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from keras_frcnn.data.voc import load_voc
from keras_frcnn.detection.detections import ImageDetections
from keras_frcnn.errors import UserError
from keras_frcnn.evaluation.voc import (
    average_precision_11point,
    average_precision_area,
    evaluate_voc,
    monotone,
    print_table,
)

DEVKIT = Path(__file__).parents[2] / "../shared/data/voc/VOCdevkit"
BOX = (10, 10, 20, 20)
FAR = (50, 50, 60, 60)


def curve(data, found, **options):
    """Precision and recall of the only class, as lists."""
    result = evaluate_voc(data, found, **options).per_class["cat"]
    return result.precision.tolist(), result.recall.tolist()


# ---- average precision from counts


@pytest.mark.parametrize("recalled", range(1, 11))
def test_every_tenth_of_ten_objects_reaches_its_recall(recalled):
    # In floating point 3 * 0.1 > 0.3, and the points 0.3, 0.6 and 0.7 would be lost.
    true_positives = np.arange(1, recalled + 1)
    ap = average_precision_11point(true_positives, np.ones(recalled), 10)
    assert ap == pytest.approx((recalled + 1) / 11, abs=1e-12)


# Hits at ranks 1, 3 and 6: precision 1, 2/3, 1/2 at the first, second and third object.
HITS = np.array([1, 1, 2, 2, 2, 3])
PRECISION = np.array([1, 1 / 2, 2 / 3, 2 / 4, 2 / 5, 3 / 6])


def test_11_points_by_hand():
    # Recalls 0 to 0.3: 1 (four points); 0.4 to 0.6: 2/3 (three); 0.7 to 1: 1/2 (four).
    expected = (4 * 1 + 3 * 2 / 3 + 4 * 1 / 2) / 11
    assert average_precision_11point(HITS, PRECISION, 3) == pytest.approx(expected)


def test_area_by_hand():
    expected = (1 + 2 / 3 + 1 / 2) / 3
    assert average_precision_area(HITS, PRECISION, 3) == pytest.approx(expected)


def test_several_curves_at_once():
    # The second curve has the first three detections alone, of four objects.
    hits = np.array([HITS, [1, 1, 2, 2, 2, 2]])
    precision = np.array([PRECISION, [1, 1 / 2, 2 / 3, 0, 0, 0]])
    for average_precision, second in (
        (average_precision_11point, (3 * 1 + 3 * 2 / 3) / 11),
        (average_precision_area, (1 + 2 / 3) / 4),
    ):
        found = average_precision(hits, precision, np.array([3, 4]))
        assert found.tolist() == pytest.approx([average_precision(HITS, PRECISION, 3), second])


def test_precision_is_made_monotone_from_the_right():
    # A false positive first: precision 0, 1/2, 2/3; the curve is 2/3 up to recall 1.
    true_positives, precision = np.array([0, 1, 2]), np.array([0, 1 / 2, 2 / 3])
    assert monotone(precision).tolist() == [2 / 3] * 3
    assert average_precision_area(true_positives, precision, 2) == pytest.approx(2 / 3)
    assert average_precision_11point(true_positives, precision, 2) == pytest.approx(2 / 3)


def test_no_detections():
    nothing = np.zeros(0, int)
    assert average_precision_11point(nothing, nothing, 3) == 0.0
    assert average_precision_area(nothing, nothing, 3) == 0.0


# ---- matching


def test_the_second_detection_of_an_object_is_false(make_dataset, make_detections):
    data = make_dataset([(BOX, 1, False)])
    found = make_detections((0, BOX, 0.8), (0, (10, 10, 20, 19), 0.9))
    assert curve(data, found) == ([1.0, 0.5], [1.0, 1.0])


def test_a_duplicate_takes_no_other_object(make_dataset, make_detections):
    # Both overlap the first object most; the second object's 0.6 does not count (VOCevaldet.m).
    data = make_dataset([((0, 0, 10, 10), 1, False), ((0, 4, 10, 14), 1, False)])
    found = make_detections((0, (0, 0, 10, 10), 0.9), (0, (0, 1, 10, 11), 0.8))
    assert curve(data, found) == ([1.0, 0.5], [0.5, 0.5])


def test_difficult_objects_are_neither_found_nor_missed(make_dataset, make_detections):
    data = make_dataset([(BOX, 1, True), (FAR, 1, False)])
    found = make_detections((0, BOX, 0.9), (0, BOX, 0.8), (0, FAR, 0.7))
    assert curve(data, found) == ([1.0], [1.0])
    result = evaluate_voc(data, found).per_class["cat"]
    assert (result.ground_truth, result.detections) == (1, 3)


def test_a_difficult_object_missed_by_little_leaves_a_false_positive(make_dataset, make_detections):
    data = make_dataset([((0, 0, 10, 10), 1, True), (FAR, 1, False)])
    found = make_detections((0, (0, 6, 10, 16), 0.9), (0, FAR, 0.8))
    assert curve(data, found) == ([0.0, 0.5], [0.0, 1.0])


def test_the_first_object_wins_a_tie_of_overlaps(make_dataset, make_detections):
    # The detection lies half-way: IoU 8/12 with both. The first is difficult, so it is ignored.
    first, second, middle = (0, 0, 10, 10), (0, 4, 10, 14), (0, 2, 10, 12)
    found = make_detections((0, middle, 0.9))
    assert curve(make_dataset([(first, 1, True), (second, 1, False)]), found) == ([], [])
    assert curve(make_dataset([(second, 1, False), (first, 1, True)]), found) == (
        [1.0],
        [1.0],
    )


def test_overlap_of_exactly_one_half(make_dataset, make_detections):
    data = make_dataset([((0, 0, 10, 10), 1, False)])
    half = (0, 0, 10, 5)
    assert curve(data, make_detections((0, half, 0.9))) == ([1.0], [1.0])
    assert curve(data, make_detections((0, half, 0.9)), strictly_greater=True) == (
        [0.0],
        [0.0],
    )
    more = (0, 0, 10, 5.01)
    assert curve(data, make_detections((0, more, 0.9)), strictly_greater=True) == (
        [1.0],
        [1.0],
    )
    less = (0, 0, 10, 4.99)
    assert curve(data, make_detections((0, less, 0.9))) == ([0.0], [0.0])


def test_tied_scores_keep_the_order_of_the_image_list_not_of_the_mapping(
    make_dataset, make_detections
):
    data = make_dataset([(BOX, 1, False)], [(BOX, 1, False)])
    wrong_first = make_detections((1, BOX, 0.5), (0, FAR, 0.5))
    assert curve(data, wrong_first) == ([0.0, 0.5], [0.0, 0.5])
    right_first = make_detections((1, FAR, 0.5), (0, BOX, 0.5))
    assert curve(data, right_first) == ([1.0, 0.5], [0.5, 0.5])


def test_tied_scores_keep_their_order_within_an_image(make_dataset, make_detections):
    data = make_dataset([(BOX, 1, False)])
    rows = [(0, FAR, 0.5)] * 20 + [(0, BOX, 0.5)]
    assert curve(data, make_detections(*rows))[0][-1] == pytest.approx(1 / 21)
    assert curve(data, make_detections(*rows))[0][:20] == [0.0] * 20


def test_other_classes_and_other_images_do_not_count(make_dataset, make_detections):
    data = make_dataset([(BOX, 1, False)], [(FAR, 2, False)], class_names=("cat", "dog"))
    found = make_detections((0, BOX, 0.9, 2), (1, BOX, 0.8, 1), (0, BOX, 0.7, 1))
    result = evaluate_voc(data, found)
    assert result.per_class["cat"].precision.tolist() == [0.0, 0.5]
    assert result.per_class["dog"].precision.tolist() == [0.0]


def test_degenerate_detections_are_false(make_dataset, make_detections):
    data = make_dataset([(BOX, 1, False)])
    found = make_detections(
        (0, (10, 10, 10, 20), 0.9), (0, (20, 20, 10, 10), 0.8), (0, (9, 9, 9, 9), 0.7)
    )
    assert curve(data, found) == ([0.0] * 3, [0.0] * 3)


# ---- classes and means


def test_classes_without_objects_that_count_have_no_ap(make_dataset, make_detections):
    data = make_dataset([(BOX, 1, False), (FAR, 2, True)], class_names=("cat", "dog", "owl"))
    found = make_detections((0, BOX, 0.9, 1), (0, FAR, 0.9, 2), (0, FAR, 0.8, 3))
    result = evaluate_voc(data, found)
    assert (result.map_11point, result.map_area) == (1.0, 1.0)
    assert result.per_class["dog"].ap_area is None
    assert result.per_class["owl"].ap_11point is None
    assert result.per_class["owl"].detections == 1


def test_a_class_that_was_never_found_counts_as_zero(make_dataset, make_detections):
    data = make_dataset([(BOX, 1, False), (FAR, 2, False)], class_names=("cat", "dog"))
    result = evaluate_voc(data, make_detections((0, BOX, 0.9, 1)))
    assert (result.map_11point, result.map_area) == (0.5, 0.5)


def test_nothing_to_find_and_nothing_found(make_dataset):
    assert evaluate_voc(make_dataset([]), {}).map_area is None
    assert evaluate_voc(make_dataset([(BOX, 1, False)]), {}).map_area == 0.0
    assert len(evaluate_voc(make_dataset(), {}).dataset) == 0


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ((7, BOX, 0.9), "VOC2007/7, which is not one of the 1 images"),
        ((0, BOX, float("nan")), "not a finite number"),
        ((0, (0, 0, 1, float("inf")), 0.9), "not a finite number"),
        ((0, BOX, 0.9, 2), "class outside 1 to 1"),
        ((0, BOX, 0.9, 0), "class outside 1 to 1"),
    ],
)
def test_detections_that_cannot_be_evaluated(make_dataset, make_detections, row, reason):
    with pytest.raises(UserError, match=reason):
        evaluate_voc(make_dataset([(BOX, 1, False)]), make_detections(row))


def test_json(make_dataset, make_detections):
    data = make_dataset([(BOX, 1, False)], class_names=("cat", "dog"))
    result = evaluate_voc(data, make_detections((0, BOX, 0.5))).to_json()
    assert json.loads(json.dumps(result, allow_nan=False)) == {
        "map_11point": 1.0,
        "map_area": 1.0,
        "per_class": {
            "cat": {
                "ap_11point": 1.0,
                "ap_area": 1.0,
                "ground_truth": 1,
                "detections": 1,
                "recall": 1.0,
                "best_f1": {"score_threshold": 0.5, "precision": 1.0, "recall": 1.0, "f1": 1.0},
            },
            "dog": {
                "ap_11point": None,
                "ap_area": None,
                "ground_truth": 0,
                "detections": 0,
                "recall": None,
                "best_f1": None,
            },
        },
        "iou_threshold": 0.5,
        "iou_rule": ">=",
        "images": 1,
        "ids_hash": data.ids_hash,
        "sets": ["2007:test"],
        "class_names": ["cat", "dog"],
    }


def test_table(make_dataset, make_detections):
    data = make_dataset([(BOX, 1, False), (FAR, 1, False)], class_names=("cat", "dog"))
    console = Console(file=io.StringIO(), width=100)
    print_table(evaluate_voc(data, make_detections((0, BOX, 0.9))), console)
    lines = console.file.getvalue().splitlines()
    rows = {line.split()[1]: line.split()[3::2] for line in lines if "│" in line}
    assert rows["cat"] == ["2", "1", "0.500", "0.545", "0.500", "0.667", "0.900"]
    assert rows["dog"] == ["0", "0", "-", "-", "-", "-", "-"]
    assert any(line.split()[1:2] == ["mean"] and "0.545" in line for line in lines)


# ---- speed


def test_half_a_million_detections_take_seconds(make_dataset):
    # 5,000 images, 100 detections each, 20 classes: 0.4 s on one core; a loop takes minutes.
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 300, (5000, 103, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(10, 200, corner.shape)], axis=2)
    classes = rng.integers(1, 21, boxes.shape[:2]).astype(np.int32)
    scores = rng.random((5000, 100), np.float32)
    images = [
        [(boxes[i, j], classes[i, j], False) for j in range(100, 103)] for i in range(len(boxes))
    ]
    data = make_dataset(*images, class_names=tuple(map(str, range(20))))
    found = {
        example.key: ImageDetections(boxes[i, :100].astype(np.float32), scores[i], classes[i, :100])
        for i, example in enumerate(data.examples)
    }
    start = time.process_time()
    result = evaluate_voc(data, found)
    assert time.process_time() - start < 5
    assert sum(of_class.detections for of_class in result.per_class.values()) == 500_000


# ---- real annotations


@pytest.mark.skipif(not DEVKIT.is_dir(), reason="the shared VOC photographs are not here")
def test_ground_truth_is_a_perfect_detector():
    data = load_voc(DEVKIT, "2007:test")
    found = {
        example.key: ImageDetections(
            example.boxes_image,
            np.ones(len(example.classes), np.float32),
            example.classes,
        )
        for example in data.examples
    }
    result = evaluate_voc(data, found, strictly_greater=True)
    assert (result.map_11point, result.map_area, result.to_json()["images"]) == (1.0, 1.0, 200)
    assert min(of_class.ground_truth for of_class in result.per_class.values()) >= 6
    halves = {
        key: ImageDetections(d.boxes_image[:1], d.scores[:1], d.classes[:1])
        for key, d in found.items()
    }
    assert evaluate_voc(data, halves).map_area < 0.95
