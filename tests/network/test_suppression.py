"""Both suppression kernels against a plain loop and against each other.

Shapes and names
----------------
N  images, B  boxes, Q  1 or C, C  classes; scores (N, B, C).
"""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from keras_frcnn.network.suppression import suppress


def iou(a, b):
    height = max(min(a[2], b[2]) - max(a[0], b[0]), 0.0)
    width = max(min(a[3], b[3]) - max(a[1], b[1]), 0.0)
    areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return height * width / (areas - height * width)


def loop(boxes, scores, per_class, in_total, iou_threshold, score_threshold):
    """Of one image: list of (score, class, box), best first."""
    found = []
    for class_index in range(scores.shape[1]):
        own = boxes[:, 0 if boxes.shape[1] == 1 else class_index].astype(float)
        kept = []
        for index in np.argsort(-scores[:, class_index], kind="stable"):
            score = scores[index, class_index]
            if not score > score_threshold or len(kept) == per_class:
                break
            if all(iou(own[index], own[other]) <= iou_threshold for other in kept):
                kept.append(index)
        found += [(scores[index, class_index], class_index, own[index]) for index in kept]
    return sorted(found, key=lambda entry: -entry[0])[:in_total]


def random_boxes(rng, *shape, side=100):
    corner = rng.uniform(0, side, (*shape, 2))
    return np.concatenate((corner, corner + rng.uniform(5, 60, (*shape, 2))), -1).astype("f")


def check(kept, boxes, scores, in_total, *settings):
    assert kept.boxes.shape[1:] == (in_total, 4)
    for array in (kept.scores, kept.classes):
        assert array.shape == (len(boxes), in_total)
    assert (kept.classes.dtype, kept.count.dtype) == (tf.int32, tf.int32)
    for image in range(len(boxes)):
        per_class, *thresholds = settings
        expected = loop(boxes[image], scores[image], per_class, in_total, *thresholds)
        count = int(kept.count[image])
        assert count == len(expected)
        np.testing.assert_array_equal(kept.scores[image, :count], [e[0] for e in expected])
        np.testing.assert_array_equal(kept.classes[image, :count], [e[1] for e in expected])
        found = np.asarray(kept.boxes[image, :count])
        np.testing.assert_array_equal(found, np.reshape([e[2] for e in expected], (-1, 4)))
        for array in (kept.boxes, kept.scores, kept.classes):
            np.testing.assert_array_equal(array[image, count:], 0)


@pytest.mark.parametrize("classes_of_boxes", [1, 3])
def test_random_boxes(on_gpu, classes_of_boxes):
    rng = np.random.default_rng(classes_of_boxes)
    boxes = random_boxes(rng, 2, 60, classes_of_boxes)
    scores = rng.uniform(0, 1, (2, 60, 3)).astype("f")
    scores[:, ::7] = -rng.uniform(0, 0.9, scores[:, ::7].shape)  # negative scores are scores
    scores[0, :15] = -1.0  # masked
    scores[1, ::2] = -np.inf
    for per_class, in_total, iou_threshold, score_threshold in (
        (60, 180, 0.3, 0.05),
        (60, 200, 0.7, 0.5),  # more room than boxes: padding
        (4, 9, 0.3, 0.0),  # both limits bind
        (60, 10, 0.99, 0.0),
        (60, 20, 0.5, 2.0),  # nothing is left
        (60, 190, 0.5, -1.0),  # the lowest threshold; the masked stay out
    ):
        kept = suppress(
            boxes,
            scores,
            per_class=per_class,
            in_total=in_total,
            iou_threshold=iou_threshold,
            score_threshold=score_threshold,
        )
        check(kept, boxes, scores, in_total, per_class, iou_threshold, score_threshold)


def test_both_thresholds_are_strict(on_gpu):
    # IoU of the first two is 0.5 exactly: 10x10 and its upper half; the third has the score limit.
    boxes = np.array([[0, 0, 10, 10], [0, 0, 5, 10], [50, 50, 60, 60]], "f")[None, :, None]
    scores = np.array([0.9, 0.8, 0.25], "f")[None, :, None]

    def kept(iou_threshold, score_threshold):
        result = suppress(
            boxes,
            scores,
            per_class=3,
            in_total=3,
            iou_threshold=iou_threshold,
            score_threshold=score_threshold,
        )
        return result.scores[0, : int(result.count[0])].numpy().tolist()

    assert kept(0.5, 0.0) == pytest.approx([0.9, 0.8, 0.25])  # suppressed above 0.5 only
    assert kept(0.49, 0.0) == pytest.approx([0.9, 0.25])
    assert kept(0.5, 0.25) == pytest.approx([0.9, 0.8])  # a score equal to the threshold goes


def test_pixels_are_not_clipped_to_the_unit_square(on_gpu):
    boxes = np.array([[-5, -7, 300, 400]], "f")[None, :, None]
    kept = suppress(
        boxes,
        np.ones((1, 1, 1), "f"),
        per_class=1,
        in_total=1,
        iou_threshold=0.5,
        score_threshold=0.0,
    )
    np.testing.assert_array_equal(kept.boxes[0, 0], [-5, -7, 300, 400])


def test_a_threshold_that_the_cpu_kernel_cannot_keep_is_refused():
    """The kernel returns zeros in place of boxes that score less than its padding, -1."""
    settings = {"per_class": 9, "in_total": 9, "iou_threshold": 0.5}
    with pytest.raises(ValueError, match="at least -1"):
        suppress(
            np.zeros((1, 3, 1, 4), "f"), np.zeros((1, 3, 1), "f"), **settings, score_threshold=-2.0
        )


def test_limits_that_are_tensors(on_gpu):
    @tf.function(
        input_signature=[
            tf.TensorSpec((None, None, 1, 4), tf.float32),
            tf.TensorSpec((None, None, 2), tf.float32),
        ]
    )
    def run(boxes, scores):
        most = tf.shape(boxes)[1] + 1
        return suppress(
            boxes,
            scores,
            per_class=most,
            in_total=2 * most,
            iou_threshold=0.5,
            score_threshold=0.0,
        )

    kept = run(np.zeros((2, 0, 1, 4), "f"), np.zeros((2, 0, 2), "f"))
    np.testing.assert_array_equal(kept.count, [0, 0])
    np.testing.assert_array_equal(kept.boxes, np.zeros((2, 2, 4)))
    rng = np.random.default_rng(9)
    boxes, scores = random_boxes(rng, 1, 12, 1), rng.uniform(0, 1, (1, 12, 2)).astype("f")
    check(run(boxes, scores), boxes, scores, 26, 13, 0.5, 0.0)
