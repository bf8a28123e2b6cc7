"""The VOC metric against a slow loop written from the devkit's rule, one object at a time."""

import numpy as np
import pytest

from keras_frcnn.detection.detections import ImageDetections
from keras_frcnn.evaluation.voc import evaluate_voc

BOX, NEAR, FAR = (10, 10, 20, 20), (10, 10, 20, 19), (50, 50, 60, 60)


def slow_evaluation(data, found, class_index, threshold, strictly_greater):
    """VOCevaldet.m and VOCap.m transcribed with inclusive 1-based corners, one object at a time."""
    ids, confidences, boxes = [], [], []
    for example in data.examples:
        if example.key not in found:
            continue
        of_image = found[example.key]
        for box, score, of_class in zip(
            of_image.boxes_image, of_image.scores, of_image.classes, strict=True
        ):
            if of_class == class_index:
                ids.append(example.key)
                confidences.append(float(score))
                y1, x1, y2, x2 = map(float, box)
                boxes.append((x1 + 1, y1 + 1, x2, y2))
    objects, npos = {}, 0
    for example in data.examples:
        objects[example.key] = []
        for box, of_class, difficult in zip(
            example.boxes_image, example.classes, example.difficult, strict=True
        ):
            if of_class == class_index:
                y1, x1, y2, x2 = map(float, box)
                objects[example.key].append([(x1 + 1, y1 + 1, x2, y2), bool(difficult), False])
                npos += not difficult
    if npos == 0:
        return None, None
    outcome = []
    for detection in sorted(range(len(ids)), key=lambda index: -confidences[index]):
        bb = boxes[detection]
        best, best_object = -np.inf, None
        for candidate in objects[ids[detection]]:
            gt = candidate[0]
            width = min(bb[2], gt[2]) - max(bb[0], gt[0]) + 1
            height = min(bb[3], gt[3]) - max(bb[1], gt[1]) + 1
            if width > 0 and height > 0:
                union = (
                    (bb[2] - bb[0] + 1) * (bb[3] - bb[1] + 1)
                    + (gt[2] - gt[0] + 1) * (gt[3] - gt[1] + 1)
                    - width * height
                )
                if width * height / union > best:
                    best, best_object = width * height / union, candidate
        if best > threshold or (best == threshold and not strictly_greater):
            if best_object[1]:
                outcome.append("ignored")
            elif not best_object[2]:
                outcome.append("true")
                best_object[2] = True
            else:
                outcome.append("false")
        else:
            outcome.append("false")
    true, false, recalls, precisions = 0, 0, [], []
    for word in outcome:
        true += word == "true"
        false += word == "false"
        if true + false:
            recalls.append((true, npos))
            precisions.append(true / (true + false))
    points = 0.0
    for tenth in range(11):
        at_least = [p for p, (t, n) in zip(precisions, recalls, strict=True) if 10 * t >= tenth * n]
        points += max(at_least, default=0.0) / 11
    mrec = [0.0] + [t / n for t, n in recalls] + [1.0]
    mpre = [0.0] + precisions + [0.0]
    for index in range(len(mpre) - 2, -1, -1):
        mpre[index] = max(mpre[index], mpre[index + 1])
    area = sum((mrec[i] - mrec[i - 1]) * mpre[i] for i in range(1, len(mrec)))
    return points, area


def random_case(make_dataset, rng, images, objects_per_image, detections_per_image, classes):
    """Small integer boxes, so that overlaps of exactly 1/2 and ties of score and overlap occur."""

    def boxes(count):
        corner = rng.integers(0, 8, (count, 2))
        return np.concatenate([corner, corner + rng.integers(1, 8, (count, 2))], axis=1)

    listed = []
    for _ in range(images):
        count = rng.integers(0, objects_per_image + 1)
        listed.append(
            [
                (box, rng.integers(1, classes + 1), rng.random() < 0.2)
                for box in boxes(count).tolist()
            ]
        )
    data = make_dataset(
        *listed, class_names=tuple(f"class {index}" for index in range(1, classes + 1))
    )
    found = {}
    for example in data.examples[::-1]:
        count = rng.integers(0, detections_per_image + 1)
        if count:
            found[example.key] = ImageDetections(
                boxes(count).astype(np.float32),
                (rng.integers(0, 12, count) / 12).astype(np.float32),
                rng.integers(1, classes + 1, count).astype(np.int32),
            )
    return data, found


# Images of (box, class, difficult) and rows of (image, box, score, class).
HAND_MADE = {
    "difficult found, and found again": (
        [[(BOX, 1, True), (FAR, 1, False)]],
        [(0, BOX, 0.9, 1), (0, NEAR, 0.8, 1), (0, FAR, 0.7, 1)],
    ),
    "difficult missed": ([[(BOX, 1, True), (FAR, 1, False)]], [(0, FAR, 0.7, 1)]),
    "duplicates": (
        [[(BOX, 1, False)], [(BOX, 1, False)]],
        [(0, NEAR, 0.9, 1), (0, BOX, 0.8, 1), (0, BOX, 0.7, 1), (1, BOX, 0.6, 1)],
    ),
    "ties across and within images": (
        [[(BOX, 1, False)], [(BOX, 1, False), (FAR, 1, False)]],
        [(1, FAR, 0.5, 1), (0, FAR, 0.5, 1), (0, BOX, 0.5, 1), (1, BOX, 0.5, 1)],
    ),
    "a class without ground truth": (
        [[(BOX, 1, False)]],
        [(0, BOX, 0.9, 2), (0, BOX, 0.8, 1)],
    ),
    "a class of difficult objects only": ([[(BOX, 2, True)]], [(0, BOX, 0.9, 2)]),
    "no detections of a class": (
        [[(BOX, 1, False), (FAR, 2, False)]],
        [(0, BOX, 0.9, 1)],
    ),
    "no detections at all": ([[(BOX, 1, False)], []], []),
    "an overlap of exactly one half": (
        [[((0, 0, 10, 10), 1, False)], [((0, 0, 10, 10), 1, False)]],
        [(0, (0, 0, 10, 5), 0.9, 1), (1, (0, 0, 5, 10), 0.8, 1)],
    ),
    "an image without objects": ([[], [(BOX, 1, False)]], [(0, BOX, 0.9, 1), (1, BOX, 0.8, 1)]),
}
# The recalls k / 10 exactly, each followed by a false positive: ten objects far apart.
HAND_MADE["every recall of k / 10"] = (
    [[((20 * k, 0, 20 * k + 10, 10), 1, False) for k in range(10)]],
    [
        (0, (20 * k, shift, 20 * k + 10, 10 + shift), 0.95 - 0.05 * k - shift / 1000, 1)
        for k in range(10)
        for shift in (0, 20)
    ],
)


@pytest.mark.parametrize("strictly_greater", [False, True])
@pytest.mark.parametrize("name", HAND_MADE)
def test_hand_made_cases(make_dataset, make_detections, name, strictly_greater):
    images, rows = HAND_MADE[name]
    data = make_dataset(*images, class_names=("cat", "dog"))
    found = make_detections(*rows)
    result = evaluate_voc(data, found, strictly_greater=strictly_greater)
    for index, of_class in enumerate(result.per_class.values(), start=1):
        points, area = slow_evaluation(data, found, index, 0.5, strictly_greater)
        assert of_class.ap_11point == pytest.approx(points, abs=1e-6)
        assert of_class.ap_area == pytest.approx(area, abs=1e-6)


def test_the_loop_itself_on_a_case_worked_by_hand(make_dataset, make_detections):
    # Three objects; hits at ranks 1, 3 and 6: precision 1, 2/3, 1/2 at recall 1/3, 2/3, 1.
    places = [(0, 20 * k, 10, 20 * k + 10) for k in range(6)]
    data = make_dataset([(places[k], 1, False) for k in (0, 2, 5)])
    found = make_detections(*((0, place, 0.9 - 0.1 * k) for k, place in enumerate(places)))
    points, area = slow_evaluation(data, found, 1, 0.5, False)
    assert points == pytest.approx((4 * 1 + 3 * 2 / 3 + 4 * 1 / 2) / 11)
    assert area == pytest.approx((1 + 2 / 3 + 1 / 2) / 3)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("strictly_greater", [False, True])
@pytest.mark.parametrize("threshold", [0.5, 0.3])
def test_random_cases(make_dataset, seed, strictly_greater, threshold):
    data, found = random_case(make_dataset, np.random.default_rng(seed), 25, 4, 12, 3)
    result = evaluate_voc(data, found, iou_threshold=threshold, strictly_greater=strictly_greater)
    for index, of_class in enumerate(result.per_class.values(), start=1):
        points, area = slow_evaluation(data, found, index, threshold, strictly_greater)
        assert of_class.ap_11point == pytest.approx(points, abs=1e-12)
        assert of_class.ap_area == pytest.approx(area, abs=1e-12)
