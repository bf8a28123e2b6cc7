"""The precision of a network: chosen by measuring, and the same results however weights are kept.

Shapes and names
----------------
seconds  what a convolution takes in each precision.
"""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from keras_frcnn.detection.network_detector import NetworkDetector
from keras_frcnn.errors import UserError
from keras_frcnn.network.faster_rcnn import FasterRcnn
from keras_frcnn.recipes import DetectionFilter
from keras_frcnn.system import precision
from keras_frcnn.system.timing import Timing
from tests.random_networks import find, random_image, random_network

EVERYTHING = DetectionFilter(score_threshold=0.0)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ({"float32": 1.0, "bfloat16": 0.5}, "bfloat16"),
        ({"float32": 1.0, "bfloat16": 0.9}, "float32"),
        ({"float32": 1.0, "bfloat16": 2.0}, "float32"),
        ({"float32": 1.0, "bfloat16": 0.50, "float16": 0.46}, "bfloat16"),
        ({"float32": 1.0, "bfloat16": 0.50, "float16": 0.40}, "float16"),
        ({"float32": 1.0, "bfloat16": 1.50, "float16": 0.40}, "float16"),
    ],
)
def test_half_precision_has_to_be_measured_faster(monkeypatch, seconds, expected):
    def in_turns(calls, *, repetitions):
        return {name: Timing(np.array([seconds[name]]), np.array([1.0])) for name in calls}

    monkeypatch.setattr(precision, "in_turns", in_turns)
    monkeypatch.setattr(precision, "_convolution", lambda name: lambda: None)
    chosen, reason = precision.fastest_precision(tuple(seconds))
    assert chosen == expected
    assert f"chose {expected}" in reason
    assert "bfloat16" in reason


def test_it_is_measured_here():
    chosen, reason = precision.fastest_precision()
    assert chosen in precision.candidates()
    assert "float32 " in reason and " ms" in reason
    assert all(name in reason for name in precision.candidates())


def test_a_precision_without_a_convolution_here_is_not_chosen(monkeypatch):
    def convolution(name):
        def call():
            if name == "bfloat16":
                raise tf.errors.AbortedError(None, None, "could not create a descriptor")

        return call

    monkeypatch.setattr(precision, "_convolution", convolution)
    chosen, reason = precision.fastest_precision(("float32", "bfloat16"))
    assert chosen == "float32"
    assert reason.endswith("ms; bfloat16 fails here: could not create a descriptor")


def test_a_precision_that_is_asked_for_is_tried(monkeypatch):
    def convolution(name, *shapes):
        raise_it = tf.errors.UnimplementedError(None, None, f"no convolution in {name}")

        def call():
            raise raise_it

        return call

    monkeypatch.setattr(precision, "_convolution", convolution)
    words = "in float16 fails on this machine: no convolution in float16. Give --precision float32"
    with pytest.raises(UserError, match=words):
        precision.check_computes("float16")
    precision.check_computes("float32")  # there is nothing else to give


@pytest.mark.parametrize("kind", ["bfloat16", "float16"])
def test_weights_kept_in_half_precision_give_the_same_detections(tiny_recipe, kind):
    source = random_network(tiny_recipe, ("disc", "square"), seed=3)
    models = [
        FasterRcnn(
            "tiny", source.class_names, tiny_recipe, precision=kind, seed=None, half_weights=half
        )
        for half in (False, True)
    ]
    for model in models:
        for ours, theirs in zip(model.layers(), source.layers(), strict=True):
            ours.set_weights(theirs.get_weights())
    assert {str(model.layers("head")[0].kernel.dtype) for model in models} == {"float32", kind}
    assert str(models[1].layers("head")[-1].kernel.dtype) == "float32"
    mixed, half = (
        find(NetworkDetector(model, EVERYTHING), random_image(100, 140)) for model in models
    )
    assert len(mixed) > 5
    np.testing.assert_array_equal(mixed.boxes_image, half.boxes_image)
    np.testing.assert_array_equal(mixed.scores, half.scores)
