"""One tiny network as a predictor, as an ONNX model and as an int8 one: made once a session.

Shapes and names
----------------
predictor  of a network with random weights; model  its ONNX graph.
"""

from __future__ import annotations

import pytest

from keras_frcnn.detection.network_detector import NetworkDetector
from keras_frcnn.recipes import DetectionFilter
from tests.random_networks import random_image, random_network

CLASSES = ("disc", "square", "star")


@pytest.fixture(scope="session")
def predictor(tiny_recipe):
    """A predictor whose scores reach 0.2 in noise."""
    model = random_network(tiny_recipe, CLASSES, seed=4)
    return NetworkDetector(model, DetectionFilter(score_threshold=0.2))


@pytest.fixture(scope="session")
def model(predictor):
    """The float32 ONNX model."""
    pytest.importorskip("tf2onnx", reason="needs the extra onnx")
    from keras_frcnn.export.onnx.convert import to_onnx

    return to_onnx(predictor)


@pytest.fixture(scope="session")
def int8_model(model):
    """The same, quantised on noise."""
    from keras_frcnn.export.onnx.quantise import quantise

    images = (random_image(90, 120, seed) for seed in range(20))
    return quantise(model, images, seven_bit_weights=False)
