"""Nothing between the image and the detections leaves the GPU.

Shapes and names
----------------
graph  of a function, traced for any size of image.
"""

from __future__ import annotations

import pytest

from benchmarks.gpu_kernels import has_gpu_kernel, without_gpu_kernel
from keras_frcnn.benchmark.setting import Setting, random_batch, random_model
from keras_frcnn.benchmark.training import step_on
from keras_frcnn.detection.network_detector import NetworkDetector
from keras_frcnn.network import suppression

pytestmark = pytest.mark.skipif(
    not has_gpu_kernel("Conv2D"), reason="this build of TensorFlow knows no GPU kernels"
)


@pytest.fixture(scope="module")
def model():
    return random_model(Setting("tiny", 96, 128, 20), "float32")


def graph_of(function):
    return function.get_concrete_function().graph.as_graph_def()


def test_on_the_cpu_the_combined_kernel_is_found(model):
    predictor = NetworkDetector(model, model.recipe.test_filter)
    found = without_gpu_kernel(graph_of(predictor.predict))
    assert found == {"CombinedNonMaxSuppression": 2}


def test_on_a_gpu_nothing_is_left_on_the_host(model, monkeypatch):
    monkeypatch.setattr(suppression, "gpu_present", lambda: True)
    predictor = NetworkDetector(model, model.recipe.test_filter)
    step = step_on(model, "joint", random_batch(model.recipe.image, 1))
    for function in (predictor.predict, step.run):
        assert not without_gpu_kernel(graph_of(function))
