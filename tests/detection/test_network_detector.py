"""From pixels to detections: against plain NumPy, in chunks, in batches, from run folders."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf

from keras_frcnn.detection.network_detector import NetworkDetector, load_run
from keras_frcnn.errors import UserError
from keras_frcnn.network.faster_rcnn import FasterRcnn
from keras_frcnn.network.network_input import Frames, prepare_image
from keras_frcnn.recipes import DetectionFilter
from keras_frcnn.runs.folder import RunFolder
from keras_frcnn.runs.networks import load_model, result_stage
from tests.random_networks import find, random_image, random_network, write_part

CLASSES = ("disc", "square", "star")
EVERYTHING = DetectionFilter(score_threshold=0.0)


@pytest.fixture(scope="module")
def model(tiny_recipe):
    return random_network(tiny_recipe, CLASSES, seed=1)


@pytest.fixture(scope="module")
def predictor(model):
    return NetworkDetector(model, EVERYTHING)


def test_the_filter_for_evaluation_leaves_the_detector_as_it_was(tiny_recipe):
    strict = DetectionFilter(score_threshold=0.35, mean_per_class=2)
    recipe = dataclasses.replace(tiny_recipe, test_filter=EVERYTHING, evaluation_filter=strict)
    model, pixels = random_network(recipe, CLASSES, seed=1), random_image(90, 120)
    detector = NetworkDetector(model)
    before = find(detector, pixels)  # its function is traced with its own filter
    evaluated = detector.for_evaluation()
    assert (evaluated.score_threshold, evaluated.mean_per_class) == (0.35, 2)
    found, expected = find(evaluated, pixels), find(NetworkDetector(model, strict), pixels)
    assert len(found) < len(before)
    np.testing.assert_array_equal(found.scores, expected.scores)
    np.testing.assert_array_equal(find(detector, pixels).scores, before.scores)
    assert (detector.score_threshold, detector.mean_per_class) == (0.0, None)
    asked = NetworkDetector(model, EVERYTHING)
    assert asked.for_evaluation() is asked


# --- an independent calculation ----------------------------------------------------------------


def iou(a, b) -> float:
    height = min(a[2], b[2]) - max(a[0], b[0])
    width = min(a[3], b[3]) - max(a[1], b[1])
    if height <= 0 or width <= 0:
        return 0.0
    areas = [(x[2] - x[0]) * (x[3] - x[1]) for x in (a, b)]
    return height * width / (sum(areas) - height * width)


def plain_detections(model, pixels, *, threshold, nms_iou, most):
    """(score, class, box in original pixels) by loops, best first."""
    inputs, scale = prepare_image(tf.constant(pixels[None]), model.recipe.image)
    size = np.array(inputs.shape[1:3])
    outputs = model.rpn(model.features(inputs))
    frames = Frames(size[None], scale[None])
    proposals = model.proposals(outputs, frames, model.recipe.test_proposals)
    rois = proposals.boxes_input[0, : int(proposals.count[0])]
    class_logits, class_deltas = model.detector(
        [model.base(inputs), rois, tf.zeros(len(rois), tf.int32)]
    )
    exponentials = np.exp(np.asarray(class_logits, np.float64))
    scores = exponentials / exponentials.sum(axis=1, keepdims=True)
    found = []
    for name in range(1, len(model.class_names) + 1):
        candidates = []
        for roi, row, score in zip(rois.numpy(), class_deltas.numpy(), scores, strict=True):
            height, width = roi[2] - roi[0], roi[3] - roi[1]
            ty, tx, th, tw = row[4 * name : 4 * name + 4]
            centre = roi[0] + height / 2 + ty * height, roi[1] + width / 2 + tx * width
            half = height * np.exp(th) / 2, width * np.exp(tw) / 2
            box = [
                centre[0] - half[0],
                centre[1] - half[1],
                centre[0] + half[0],
                centre[1] + half[1],
            ]
            box = [
                min(max(box[0], 0), size[0] - 1),
                min(max(box[1], 0), size[1] - 1),
                min(max(box[2], 1), size[0]),
                min(max(box[3], 1), size[1]),
            ]
            if score[name] > threshold:
                candidates.append((score[name], name, box))
        candidates.sort(key=lambda entry: -entry[0])
        kept: list = []
        for entry in candidates:
            if all(iou(entry[2], other[2]) <= nms_iou for other in kept):
                kept.append(entry)
        found += kept
    found.sort(key=lambda entry: -entry[0])
    scales = np.tile(scale.numpy(), 2)
    return [(score, name, np.array(box) / scales) for score, name, box in found[:most]], scores


@pytest.mark.parametrize("size", [(100, 140), (231, 90)])
def test_detections_are_those_of_plain_loops(model, predictor, size):
    pixels = random_image(*size)
    expected, probabilities = plain_detections(model, pixels, threshold=0.0, nms_iou=0.3, most=100)
    found = find(predictor, pixels)
    assert len(found) == len(expected) > 20
    np.testing.assert_allclose(found.scores, [entry[0] for entry in expected], atol=1e-5)
    # Scores closer than rounding may stand in either order: compare as sets of (class, box).
    ours = sorted(
        (int(c), *np.round(b, 2)) for c, b in zip(found.classes, found.boxes_image, strict=True)
    )
    theirs = sorted((c, *np.round(b, 2)) for _, c, b in expected)
    np.testing.assert_allclose(ours, theirs, atol=0.03)


# --- one function for all images ---------------------------------------------------------------


def test_it_is_traced_once_whatever_the_sizes(model):
    predictor = NetworkDetector(model, EVERYTHING)
    for height, width in ((90, 120), (120, 90), (33, 200), (1, 1), (1, 300)):
        find(predictor, random_image(height, width))
    assert predictor._predict_inputs.experimental_get_tracing_count() == 1


# 96 / (96 / 59) is more than 59 in float32, and so for 79, 118 and 123.
SIZES = ((1, 1), (1, 300), (300, 1), (2, 3), (40, 41), (500, 80), (59, 79), (79, 59), (118, 123))


@pytest.mark.parametrize("size", SIZES)
def test_boxes_lie_in_the_original_image(predictor, size):
    found = find(predictor, random_image(*size))
    boxes = found.boxes_image
    assert (boxes >= 0).all()
    assert (boxes[:, 2:] <= size).all()
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    if size == (1, 1):  # no proposal reaches 16 original pixels
        assert len(found) == 0


def test_outputs_are_sorted_and_padded_with_zeros(predictor):
    found = predictor.predict(random_image(100, 140)[None])
    count = int(found.count[0])
    assert 0 < count <= 100
    assert found.boxes_image.shape == (1, 100, 4)
    scores, classes = found.scores[0].numpy(), found.classes[0].numpy()
    assert (np.diff(scores[:count]) <= 0).all()
    assert set(classes[:count]) <= {1, 2, 3}
    assert not scores[count:].any()
    assert not classes[count:].any()
    assert not found.boxes_image[0, count:].numpy().any()


def test_a_batch_gives_what_its_images_give(predictor):
    images = np.stack([random_image(90, 130, seed) for seed in range(3)])
    together = predictor.predict(images)
    for index in range(3):
        alone = predictor.predict(images[index : index + 1])
        for name, values in alone._asdict().items():
            ours = getattr(together, name)[index].numpy()
            np.testing.assert_allclose(ours, values[0], rtol=1e-4, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("chunk", [1, 7, 64, 300, 5000])
def test_chunks_of_the_head_change_nothing(model, predictor, chunk):
    images = np.stack([random_image(90, 130, seed) for seed in range(2)])
    if chunk == 1:
        images = images[:1]
    chunked = NetworkDetector(model, EVERYTHING, head_chunk=chunk)
    found_in_chunks = chunked.predict(images)
    for name, values in predictor.predict(images)._asdict().items():
        found = getattr(found_in_chunks, name)
        assert found.shape == values.shape
        np.testing.assert_allclose(found, values, rtol=1e-4, atol=1e-3, err_msg=name)


def test_the_filter_is_the_one_asked_for(model, predictor):
    pixels = random_image(100, 140)
    every = find(predictor, pixels)
    limit = float(np.median(every.scores))
    strict = DetectionFilter(score_threshold=limit, nms_iou=0.3, per_image=5)
    some = find(NetworkDetector(model, strict), pixels)
    assert len(some) == 5
    np.testing.assert_allclose(some.scores, every.scores[:5], atol=1e-6)
    none = find(NetworkDetector(model, DetectionFilter(score_threshold=1.0)), pixels)
    assert len(none) == 0


# --- run folders -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def models(tiny_recipe):
    """Networks of stages 1 and 2 and of the result, all with other weights."""
    return {
        name: random_network(tiny_recipe, CLASSES, seed)
        for seed, name in enumerate(("stage1", "stage2", "final"))
    }


@pytest.fixture
def run(run_config, models, tmp_path):
    """``run(**changes)``: a run folder with the weights of a finished training."""

    def make(**changes):
        folder = RunFolder(tmp_path / "run")
        folder.create(run_config(class_names=CLASSES, **changes), ["train_frcnn.py"])
        for name, model in models.items():
            write_part(folder, name, model.layers())
        return folder

    return make


def same_weights(found: FasterRcnn, expected: FasterRcnn) -> bool:
    return all(
        np.array_equal(a.numpy(), b.numpy())
        for one, other in zip(found.layers(), expected.layers(), strict=True)
        for a, b in zip(one.weights, other.weights, strict=True)
    )


def test_a_run_gives_the_final_network(run, models):
    folder = run()
    predictor = load_run(folder.path)
    assert same_weights(predictor.model, models["final"])
    assert predictor.detector_model is predictor.model
    assert predictor.class_names == CLASSES
    assert predictor.proposals.after_nms == 300
    pixels = random_image(80, 100)
    expected = find(NetworkDetector(models["final"], predictor.detection_filter), pixels)
    found = find(predictor, pixels)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-6)
    np.testing.assert_allclose(found.boxes_image, expected.boxes_image, atol=1e-3)


def test_stage_2_is_the_rpn_of_stage_1_with_the_detector_of_stage_2(run, models):
    predictor = load_run(run().path, EVERYTHING, stage=2)
    assert same_weights(predictor.model, models["stage1"])
    assert same_weights(predictor.detector_model, models["stage2"])
    pixels = random_image(80, 100)
    found = find(predictor, pixels)
    mixed = NetworkDetector(models["stage1"], EVERYTHING, detector_model=models["stage2"])
    np.testing.assert_allclose(found.scores, find(mixed, pixels).scores, atol=1e-6)
    shared = find(NetworkDetector(models["stage1"], EVERYTHING), pixels)
    assert len(shared) != len(found) or not np.allclose(shared.scores, found.scores)


@pytest.mark.parametrize(
    ("mode", "stages", "expected"),
    [
        ("alternating", (1, 2, 3, 4), 4),
        ("alternating", (1, 2), 2),
        ("alternating", (1, 2, 3), 2),
        ("joint", (), 4),
    ],
)
def test_the_result_of_a_run(run, models, mode, stages, expected):
    folder = run(mode=mode, stages=stages)
    assert result_stage(folder) == expected
    predictor = load_run(folder.path)
    assert same_weights(predictor.model, models["final" if expected == 4 else "stage1"])


def test_the_number_of_proposals(run):
    predictor = load_run(run().path, number_of_proposals=7000)
    assert (predictor.proposals.before_nms, predictor.proposals.after_nms) == (7000, 7000)
    assert predictor.proposals.min_size_image == 16.0


def test_what_is_wrong_with_a_run_is_said(run, tmp_path):
    with pytest.raises(UserError, match="is not a run folder"):
        load_run(tmp_path)
    folder = run(stages=(1,))
    with pytest.raises(UserError, match="holds no detector: it was trained with `stages` 1"):
        load_run(folder.path)
    folder.weights_file("final").unlink()
    with pytest.raises(UserError, match=r"no final weights yet \(finished: stage1, stage2\)"):
        load_model(folder)
    values = json.loads(folder.config_file.read_text())
    folder.config_file.write_text(json.dumps({**values, "mode": "joint", "stages": []}))
    with pytest.raises(UserError, match="in the mode joint: no `stage` 2"):
        load_run(folder.path, stage=2)


def test_weights_of_another_network_do_not_fit(run, tiny_recipe):
    folder = run()
    anchors = dataclasses.replace(tiny_recipe.anchors, scales=(1.0, 2.0, 3.0))
    recipe = dataclasses.replace(tiny_recipe, anchors=anchors)
    other = FasterRcnn("tiny", CLASSES, recipe)
    write_part(folder, "final", other.layers())
    with pytest.raises(UserError, match="does not fit the network"):
        load_model(folder)
    write_part(folder, "final", other.layers("base"))
    with pytest.raises(UserError, match="holds no weights for"):
        load_model(folder)
