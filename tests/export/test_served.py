"""The SavedModel in TensorFlow's C++ loader, as servers and other languages use it.

Shapes and names
----------------
signature  ``serving_default`` takes pixels, ``encoded`` takes files.
"""

from __future__ import annotations

import dataclasses

import pytest
import tensorflow as tf

from keras_frcnn.detection.network_detector import NetworkDetector
from keras_frcnn.export.saved_model import (
    detect_as_served,
    export,
    found_in_outputs,
    largest_difference,
)
from keras_frcnn.recipes import Compression, DetectionFilter
from tests.c_interface import available, served
from tests.random_networks import find, random_image, random_network

pytestmark = pytest.mark.skipif(not available(), reason="needs libtensorflow_cc")

CLASSES = ("disc", "square", "star")
NETWORKS = ("tiny", "zf", "resnet50", "vgg16")
PRECISIONS = ("float32", "bfloat16", "float16")
POOLINGS = ("crop", "max", "align")
SMALL = Compression(fc6=8, fc7=8)
CASES = [
    *(("tiny", precision, pooling, {}) for precision in PRECISIONS for pooling in POOLINGS),
    ("tiny", "float32", "crop", {"compression": SMALL}),
    ("tiny", "bfloat16", "crop", {"compression": SMALL, "half_weights": True}),
    ("tiny", "float16", "crop", {"half_weights": True}),
    ("tiny", "float32", "crop", {"short_sides": (64, 96, 128)}),
    ("tiny", "float32", "crop", {"head_chunk": 7}),
    ("tiny", "float32", "crop", {"unshared": True}),
]
# Every network meets every precision and every pooling.
LARGE = [
    *((network, precision, POOLINGS[(i + j) % 3], {"half_weights": True})
      for i, network in enumerate(NETWORKS[1:])
      for j, precision in enumerate(PRECISIONS)),
    ("zf", "float32", "crop", {"compression": SMALL}),
    ("vgg16", "float16", "crop", {"compression": SMALL, "half_weights": True}),
]  # fmt: skip


def make_predictor(recipe, network, precision, pooling, options) -> NetworkDetector:
    detector = dataclasses.replace(recipe.detector, roi_pooling=pooling)
    recipe = dataclasses.replace(recipe, detector=detector)
    of_network = {key: options[key] for key in ("compression", "half_weights") if key in options}
    of_predictor = {key: options[key] for key in ("short_sides", "head_chunk") if key in options}
    models = [
        random_network(recipe, CLASSES, seed, network, precision=precision, **of_network)
        for seed in range(2 if "unshared" in options else 1)
    ]
    return NetworkDetector(
        models[0], DetectionFilter(0.2), detector_model=models[-1], **of_predictor
    )


@pytest.mark.parametrize(
    ("network", "precision", "pooling", "options"),
    [
        # A few always, for they take seconds each: every precision and every pooling, once.
        pytest.param(*case, marks=[pytest.mark.slow] * (index not in (0, 4, 8, 9, 14)))
        for index, case in enumerate((*CASES, *LARGE))
    ],
)
def test_every_export_serves(tmp_path, tiny_recipe, network, precision, pooling, options):
    predictor = make_predictor(tiny_recipe, network, precision, pooling, options)
    image = random_image(60, 90)
    expected = find(predictor, image)
    assert len(expected) > 0
    export(predictor, tmp_path / "model")
    del predictor
    inputs = {"serving_default": image[None], "encoded": [tf.io.encode_png(image).numpy()]}
    with served(tmp_path / "model") as model:
        outputs = {name: model.run(name, value) for name, value in inputs.items()}
    found = {
        name: found_in_outputs(each, (1, *image.shape), len(CLASSES))[0]
        for name, each in outputs.items()
    }
    by_session = detect_as_served(tmp_path / "model", image, len(CLASSES))
    assert set(by_session) == set(found)
    for detections in (*found.values(), *by_session.values()):
        pixels, scores = largest_difference(expected, detections)
        assert pixels <= 0.01
        assert scores <= 1e-4


@pytest.mark.slow
def test_a_converter_finds_the_weights(tmp_path, tiny_recipe):
    export(make_predictor(tiny_recipe, "tiny", "float32", "crop", {}), tmp_path / "model")
    converter = tf.lite.TFLiteConverter.from_saved_model(str(tmp_path / "model"))
    builtin, others = tf.lite.OpsSet.TFLITE_BUILTINS, tf.lite.OpsSet.SELECT_TF_OPS
    converter.target_spec.supported_ops = [builtin, others]
    weights = (tmp_path / "model" / "variables" / "variables.data-00000-of-00001").stat().st_size
    assert len(converter.convert()) > 0.9 * weights
