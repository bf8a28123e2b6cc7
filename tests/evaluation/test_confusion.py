"""The confusion matrix against cases worked by hand and against a loop over single boxes."""

import csv

import numpy as np
import pytest
from PIL import Image

from keras_frcnn.detection.detections import ImageDetections
from keras_frcnn.evaluation.confusion import (
    confusion_matrix,
    save_confusion,
    write_confusion_csv,
)

BOX, FAR = (10, 10, 20, 20), (50, 50, 60, 60)
NAMES = ("cat", "dog")


@pytest.fixture
def count(make_dataset, make_detections):
    """``count(images, rows)``: the matrix as lists; rows cat, dog, background."""

    def counts(images, rows, **options):
        options = {"score_threshold": 0.5, **options}
        data = make_dataset(*images, class_names=NAMES)
        return confusion_matrix(data, make_detections(*rows), **options).counts.tolist()

    return counts


def test_right_wrong_background_and_missed(count):
    images = [[(BOX, 1, False), (FAR, 2, False)], [(BOX, 2, False)]]
    rows = [(0, BOX, 0.9, 1), (0, FAR, 0.8, 1), (1, FAR, 0.7, 2)]
    assert count(images, rows) == [[1, 0, 0], [1, 0, 1], [0, 1, 0]]


def test_the_score_threshold_may_be_equalled(count):
    images = [[(BOX, 1, False)]]
    assert count(images, [(0, BOX, 0.5, 1)]) == [[1, 0, 0], [0, 0, 0], [0, 0, 0]]
    assert count(images, [(0, BOX, 0.49, 1)]) == [[0, 0, 1], [0, 0, 0], [0, 0, 0]]


def test_overlap_of_exactly_one_half_is_a_pair(count):
    images = [[((0, 0, 10, 10), 1, False)]]
    assert count(images, [(0, (0, 0, 10, 5), 0.9, 2)])[0] == [0, 1, 0]
    assert count(images, [(0, (0, 0, 10, 4.9), 0.9, 2)]) == [[0, 0, 1], [0, 0, 0], [0, 1, 0]]
    assert count(images, [(0, (0, 0, 10, 5), 0.9, 2)], iou_threshold=0.6)[0] == [0, 0, 1]


def test_the_best_score_takes_the_object_whatever_its_class(count):
    images = [[(BOX, 1, False)]]
    rows = [(0, BOX, 0.8, 1), (0, (10, 10, 20, 19), 0.9, 2)]
    assert count(images, rows) == [[0, 1, 0], [0, 0, 0], [1, 0, 0]]


def test_a_detection_left_over_takes_the_next_free_object(count):
    images = [[((0, 0, 10, 10), 1, False), ((0, 2, 10, 12), 2, False)]]
    rows = [(0, (0, 0, 10, 10), 0.9, 1), (0, (0, 1, 10, 11), 0.8, 2)]
    assert count(images, rows) == [[1, 0, 0], [0, 1, 0], [0, 0, 0]]


def test_difficult_objects_and_what_lies_on_them_are_left_out(count):
    images = [[(BOX, 1, True)], [(BOX, 1, True), ((10, 11, 20, 21), 2, False)]]
    rows = [(0, BOX, 0.9, 1), (0, BOX, 0.8, 2), (0, FAR, 0.7, 1), (1, BOX, 0.9, 1)]
    # On the second image the detection counts for the object that is not difficult.
    assert count(images, rows) == [[0, 0, 0], [1, 0, 0], [1, 0, 0]]


def loop(data, found, score_threshold, iou_threshold):
    """The rule, one detection and one object at a time."""
    number = len(data.class_names)
    counts = np.zeros((number + 1, number + 1), int)

    def iou(a, b):
        height = max(0, min(a[2], b[2]) - max(a[0], b[0]))
        width = max(0, min(a[3], b[3]) - max(a[1], b[1]))
        areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
        return height * width / (sum(areas) - height * width)

    for example in data.examples:
        taken = set()
        objects = list(
            zip(example.boxes_image.tolist(), example.classes, example.difficult, strict=True)
        )
        of_image = found.get(example.key)
        listed = []
        if of_image is not None:
            values = (of_image.boxes_image.tolist(), of_image.scores.tolist(), of_image.classes)
            listed = sorted(zip(*values, strict=True), key=lambda row: -row[1])
        for box, score, of_class in listed:
            if score < score_threshold:
                continue
            best, best_overlap, hard = None, 0, False
            for index, (gt, _, difficult) in enumerate(objects):
                overlap = iou(box, gt)
                if overlap < iou_threshold:
                    continue
                if difficult:
                    hard = True
                elif index not in taken and overlap > best_overlap:
                    best, best_overlap = index, overlap
            if best is not None:
                taken.add(best)
                counts[objects[best][1] - 1, of_class - 1] += 1
            elif not hard:
                counts[number, of_class - 1] += 1
        for index, (_, of_class, difficult) in enumerate(objects):
            if not difficult and index not in taken:
                counts[of_class - 1, number] += 1
    return counts


@pytest.mark.parametrize("seed", range(6))
def test_equal_to_the_loop(make_dataset, seed):
    rng = np.random.default_rng(seed)

    def boxes(count):
        corner = rng.integers(0, 8, (count, 2))
        return np.concatenate([corner, corner + rng.integers(2, 8, (count, 2))], axis=1)

    images = [
        [(box, rng.integers(1, 4), rng.random() < 0.2) for box in boxes(rng.integers(0, 5))]
        for _ in range(30)
    ]
    data = make_dataset(*images, class_names=("a", "b", "c"))
    found = {
        example.key: ImageDetections(
            boxes(10).astype(np.float32),
            (rng.integers(0, 10, 10) / 10).astype(np.float32),
            rng.integers(1, 4, 10).astype(np.int32),
        )
        for example in data.examples[:25]
    }
    for options in ({"score_threshold": 0.3}, {"score_threshold": 0.0, "iou_threshold": 0.3}):
        result = confusion_matrix(data, found, **options)
        expected = loop(data, found, options["score_threshold"], result.iou_threshold)
        np.testing.assert_array_equal(result.counts, expected)


def test_csv_and_picture(make_dataset, make_detections, tmp_path):
    names = ('c,a"t', "$_$")  # matplotlib would take the second for a formula
    data = make_dataset([(BOX, 1, False), (FAR, 2, False)], class_names=names)
    confusion = confusion_matrix(data, make_detections((0, BOX, 0.9, 2)), score_threshold=0.25)
    write_confusion_csv(tmp_path / "new" / "confusion.csv", confusion)
    with open(tmp_path / "new" / "confusion.csv", newline="") as stream:
        assert list(csv.reader(stream)) == [
            ["object \\ detection", *names, "missed"],
            [names[0], "0", "1", "0"],
            [names[1], "0", "0", "1"],
            ["background", "0", "0", "0"],
        ]
    save_confusion(confusion, tmp_path / "confusion.png")
    with Image.open(tmp_path / "confusion.png") as picture:
        assert min(picture.size) >= 400
    assert "at least 0.25" in confusion.rule
    assert "IoU 0.5" in confusion.rule


def test_no_class_of_the_csv_file_is_a_formula(make_dataset, make_detections, tmp_path):
    names = ("=1+1", "@SUM(A1)", "-1")
    data = make_dataset([(BOX, 1, False)], class_names=names)
    confusion = confusion_matrix(data, make_detections(), score_threshold=0.5)
    write_confusion_csv(tmp_path / "c.csv", confusion)
    with open(tmp_path / "c.csv", newline="") as stream:
        heading, *rows = csv.reader(stream)
    assert heading[1:-1] == [row[0] for row in rows[:-1]] == [f"'{name}" for name in names]
