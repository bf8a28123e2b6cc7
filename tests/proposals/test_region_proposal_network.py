"""Proposals of a trained RPN, and with parts of it taken away, against plain calculations.

Shapes and names
----------------
every  all decoded and clipped boxes of an image, with their scores, in the order of the anchors.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from keras_frcnn.errors import UserError
from keras_frcnn.geometry import boxes as box_geometry
from keras_frcnn.network.faster_rcnn import FasterRcnn
from keras_frcnn.network.network_input import network_input
from keras_frcnn.proposals.region_proposal_network import (
    Ablation,
    RegionProposalNetwork,
    load_rpn,
)
from keras_frcnn.recipes import ProposalConfig
from keras_frcnn.runs.folder import RunFolder
from tests.random_networks import write_part

CLASSES = ("disc", "square")
CONFIG = ProposalConfig(before_nms=50, after_nms=12, min_size_image=8)


@pytest.fixture(scope="module")
def model(tiny_recipe):
    model = FasterRcnn("tiny", CLASSES, tiny_recipe, seed=2)
    generator = np.random.default_rng(2)
    for layer in model.layers("rpn")[-2:]:
        layer.kernel.assign(generator.normal(0, 0.2, layer.kernel.shape))
    return model


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (100, 140, 3), np.uint8)


def every_box(model, pixels, *, decoded=True):
    """(A, 4) boxes in pixels of the image and (A,) scores; those that are too small left out."""
    inputs, frames = network_input(pixels[None], model.recipe.image)
    logits, deltas = (output.numpy()[0] for output in model.rpn_head(model.base(inputs)))
    features = model.base(inputs)
    anchors = model.anchors(features.shape[1], features.shape[2])
    boxes = box_geometry.decode(anchors, deltas) if decoded else anchors
    boxes = box_geometry.clip(boxes, *frames.sizes_input[0].numpy()).numpy() / np.tile(
        frames.scales[0], 2
    )
    scores = 1 / (1 + np.exp(logits[:, 0] - logits[:, 1]))
    large = ((boxes[:, 2:] - boxes[:, :2]) >= 8 - 1e-4).all(axis=1)
    return boxes[large], scores[large]


def iou(boxes, box):
    both = np.maximum(
        np.minimum(boxes[:, 2:], box[2:]) - np.maximum(boxes[:, :2], box[:2]), 0
    ).prod(axis=1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) + np.prod(box[2:] - box[:2])
    return both / (areas - both)


def test_the_whole_rpn(model, pixels):
    boxes, scores = every_box(model, pixels)
    order = np.argsort(-scores, kind="stable")[:50]
    kept: list = []
    for index in order:
        if not kept or iou(boxes[kept], boxes[index]).max() <= 0.7:
            kept.append(index)
    found = RegionProposalNetwork(model, CONFIG)(pixels)
    np.testing.assert_allclose(found.boxes_image, boxes[kept[:12]], atol=1e-2)
    np.testing.assert_allclose(found.scores, scores[kept[:12]], atol=1e-5)


def test_without_suppression_the_best_by_score(model, pixels):
    """Any number, more than before_nms too: that is a cut before the suppression."""
    boxes, scores = every_box(model, pixels)
    most = dataclasses.replace(CONFIG, after_nms=70)
    found = RegionProposalNetwork(model, most, Ablation(nms=False))(pixels)
    order = np.argsort(-scores, kind="stable")[:70]
    assert len(found.scores) == 70
    np.testing.assert_allclose(found.scores, scores[order], atol=1e-5)
    np.testing.assert_allclose(found.boxes_image, boxes[order], atol=1e-2)


def test_without_scores_a_draw_from_all_boxes(model, pixels):
    boxes, _ = every_box(model, pixels)
    rpn = RegionProposalNetwork(model, CONFIG, Ablation(cls=False))
    found = rpn(pixels)
    assert found.scores.tolist() == [-float(place) for place in range(12)]
    distances = np.abs(found.boxes_image[:, None] - boxes[None]).max(axis=2)
    assert distances.min(axis=1).max() < 1e-2
    assert len(set(distances.argmin(axis=1))) == 12  # drawn without replacement
    np.testing.assert_array_equal(rpn(pixels).boxes_image, found.boxes_image)
    other = RegionProposalNetwork(model, CONFIG, Ablation(cls=False, seed=1))(pixels)
    assert not np.array_equal(other.boxes_image, found.boxes_image)
    mirrored = rpn(np.ascontiguousarray(pixels[:, ::-1]))
    assert not np.array_equal(mirrored.boxes_image, found.boxes_image)


def test_any_box_may_be_drawn(model, pixels):
    boxes, _ = every_box(model, pixels)
    most = dataclasses.replace(CONFIG, after_nms=len(boxes) + 10)
    found = RegionProposalNetwork(model, most, Ablation(cls=False))(pixels)
    ours, expected = (np.unique(np.round(b, 2), axis=0) for b in (found.boxes_image, boxes))
    np.testing.assert_allclose(ours, expected, atol=1e-2)
    assert len(found.boxes_image) == len(boxes)


def test_without_regression_the_anchors(model, pixels):
    anchors, scores = every_box(model, pixels, decoded=False)
    found = RegionProposalNetwork(
        model, dataclasses.replace(CONFIG, nms_iou=1.0), Ablation(reg=False)
    )(pixels)
    order = np.argsort(-scores, kind="stable")[:12]
    np.testing.assert_allclose(found.boxes_image, anchors[order], atol=1e-2)
    np.testing.assert_allclose(found.scores, scores[order], atol=1e-5)


def test_settings_tell_all(model):
    settings = RegionProposalNetwork(model, CONFIG, Ablation(nms=False), {"run": "r"}).settings()
    assert (settings["run"], settings["after_nms"], settings["nms"]) == ("r", 12, False)
    assert (settings["before_nms"], settings["nms_iou"]) == (12, 1.0)


# --- run folders -------------------------------------------------------------------------------


@pytest.fixture
def run(run_config, tiny_recipe, tmp_path):
    """``run(names, **changes)``: a run with some weight files, each of its own seed."""

    def make(names, **changes):
        folder = RunFolder(tmp_path / "run")
        folder.create(run_config(class_names=CLASSES, **changes), [])
        for seed, name in enumerate(names):
            model = FasterRcnn("tiny", CLASSES, tiny_recipe, seed=seed)
            write_part(folder, name, model.layers())
        return folder

    return make


def seeds(model, tiny_recipe, count):
    """Of which seed the base and the RPN head are."""
    fresh = [FasterRcnn("tiny", CLASSES, tiny_recipe, seed=seed) for seed in range(count)]
    return tuple(
        next(
            seed
            for seed, other in enumerate(fresh)
            if np.array_equal(
                model.layers(part)[0].get_weights()[0], other.layers(part)[0].get_weights()[0]
            )
        )
        for part in ("base", "rpn")
    )


NAMES = ("stage1", "stage2", "stage3", "final")


@pytest.mark.parametrize(
    ("names", "changes", "stage", "expected", "told"),
    [
        (NAMES, {}, None, (1, 2), 3),  # stage 3 trains a head on the base of stage 2
        (NAMES, {}, 1, (0, 0), 1),
        (("stage1",), {"stages": (1,)}, None, (0, 0), 1),
        (("final",), {"mode": "joint", "stages": ()}, None, (0, 0), None),
    ],
)
def test_the_rpn_of_a_run(run, tiny_recipe, names, changes, stage, expected, told):
    model, about = load_rpn(run(names, **changes), stage)
    assert seeds(model, tiny_recipe, len(names)) == expected
    assert about["stage"] == told
    assert len(about["weights"]) == 32


def test_what_a_run_has_not(run):
    folder = run(("stage1", "stage2"))
    with pytest.raises(UserError, match="no stage3 weights yet"):
        load_rpn(folder, 3)
    folder.weights_file("stage1").unlink()
    with pytest.raises(UserError, match="no stage1 weights yet"):
        load_rpn(folder)


@pytest.mark.parametrize(("mode", "words"), [("fast-rcnn", "makes none"), ("joint", "no stages")])
def test_modes_without_stages(run, mode, words):
    with pytest.raises(UserError, match=words):
        load_rpn(run(("final",), mode=mode, stages=()), 1)
