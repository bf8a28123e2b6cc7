"""The detector on given boxes: against its own outputs, against the whole network, from runs."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from keras_frcnn.detection.network_detector import NetworkDetector, load_run
from keras_frcnn.errors import UserError
from keras_frcnn.network.faster_rcnn import FasterRcnn
from keras_frcnn.network.network_input import network_input
from keras_frcnn.recipes import DetectionFilter
from keras_frcnn.runs.folder import RunFolder
from tests.random_networks import find, random_image, random_network, write_part

CLASSES = ("disc", "square")
EVERYTHING = DetectionFilter(score_threshold=0.0, nms_iou=1.0, per_image=10_000)


@pytest.fixture(scope="module")
def model(tiny_recipe):
    return random_network(tiny_recipe, CLASSES, seed=1)


@pytest.fixture(scope="module")
def classifier(model):
    return NetworkDetector(model, EVERYTHING)


BOXES = np.array([[5, 10, 60, 90], [0, 0, 100, 140], [30, 30, 33, 32], [20, 5, 80, 40]], np.float32)


def test_detections_are_those_of_the_detector_by_hand(model, classifier):
    """Every box of every class, without any filter: a box of 3 x 2 pixels is used as it is."""
    pixels = random_image(100, 140)
    found = find(classifier, pixels, BOXES)
    inputs, frames = network_input(pixels[None], model.recipe.image)
    factor = np.tile(frames.scales[0], 2)
    rois = BOXES * factor
    logits, deltas = model.detector(
        [model.base(inputs), tf.constant(rois), tf.zeros(len(rois), tf.int32)]
    )
    logits = logits.numpy().astype(np.float64)
    scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    height, width = frames.sizes_input[0].numpy()
    expected = []
    for roi, row, score in zip(rois, deltas.numpy(), scores, strict=True):
        for name in (1, 2):
            side = roi[2:] - roi[:2]
            shift, log_ratio = row[4 * name : 4 * name + 2], row[4 * name + 2 : 4 * name + 4]
            centre = (roi[:2] + roi[2:]) / 2 + shift * side
            half = side * np.exp(log_ratio) / 2
            low = np.clip(centre - half, 0, (height - 1, width - 1))
            high = np.clip(centre + half, 1, (height, width))
            expected.append((score[name], name, *(np.concatenate((low, high)) / factor)))
    expected.sort(reverse=True)
    ours = np.column_stack((found.scores, found.classes, found.boxes_image))
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=0.02)
    assert len(ours) == 2 * len(BOXES)


def test_the_rpns_own_boxes_give_what_the_whole_network_gives(model):
    chosen = DetectionFilter(score_threshold=0.0)
    pixels = random_image(100, 140)
    inputs, frames = network_input(pixels[None], model.recipe.image)
    outputs = model.rpn(model.features(inputs))
    proposals = model.proposals(outputs, frames, model.recipe.test_proposals)
    boxes = proposals.boxes_input[0, : int(proposals.count[0])].numpy() / np.tile(
        frames.scales[0], 2
    )
    found = find(NetworkDetector(model, chosen), pixels, boxes)
    expected = find(NetworkDetector(model, chosen), pixels)
    assert len(found) == len(expected) > 20
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)


def test_no_boxes_give_no_detections(classifier):
    found = find(classifier, random_image(100, 140), np.zeros((0, 4), np.float32))
    assert len(found) == 0


def test_chunks_and_padding_change_nothing(model, classifier):
    pixels = random_image(100, 140)
    expected = find(classifier, pixels, BOXES)
    for chunk in (1, 3):
        found = find(NetworkDetector(model, EVERYTHING, head_chunk=chunk), pixels, BOXES)
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)
    padded = np.concatenate((BOXES, np.zeros((5, 4), np.float32)))
    found = classifier.classify(pixels[None], padded[None], [len(BOXES)])
    assert int(found.count[0]) == len(expected)
    np.testing.assert_allclose(found.scores[0, : len(expected)], expected.scores, atol=1e-5)


def test_it_is_traced_once(model):
    classifier = NetworkDetector(model, EVERYTHING)
    for height, width, boxes in ((90, 120, 4), (33, 200, 1), (50, 40, 0)):
        find(classifier, random_image(height, width), BOXES[:boxes] / 5)
    assert classifier.classify.experimental_get_tracing_count() == 1


# --- run folders -------------------------------------------------------------------------------


@pytest.fixture
def run(run_config, tiny_recipe, tmp_path):
    """``run(mode, stages)``: a run folder whose two weight files differ."""

    def make(mode, stages):
        folder = RunFolder(tmp_path / "run")
        folder.create(run_config(class_names=CLASSES, mode=mode, stages=stages), [])
        for seed, name in enumerate(("stage2", "final")):
            model = FasterRcnn("tiny", CLASSES, tiny_recipe, seed=seed)
            write_part(folder, name, model.layers())
        return folder

    return make


@pytest.mark.parametrize(
    ("mode", "stages", "stage", "seed"),
    [
        ("fast-rcnn", (2,), None, 0),
        ("alternating", (1, 2, 3, 4), None, 1),
        ("alternating", (1, 2, 3, 4), 2, 0),
        ("alternating", (1, 2), None, 0),
        ("joint", (), None, 1),
    ],
)
def test_the_detector_of_a_run(run, tiny_recipe, mode, stages, stage, seed):
    classifier = load_run(run(mode, stages).path, stage=stage, boxes_given=True)
    expected = FasterRcnn("tiny", CLASSES, tiny_recipe, seed=seed)
    for ours, theirs in zip(classifier.model.layers("head"), expected.layers("head"), strict=True):
        np.testing.assert_array_equal(ours.get_weights()[0], theirs.get_weights()[0])
    assert classifier.detection_filter == tiny_recipe.test_filter


def test_what_a_run_has_not(run):
    folder = run("fast-rcnn", (2,))
    with pytest.raises(UserError, match="trained on given proposals and makes none"):
        load_run(folder.path)
    with pytest.raises(UserError, match="in the mode fast-rcnn: no `stage` 4"):
        load_run(folder.path, stage=4, boxes_given=True)
