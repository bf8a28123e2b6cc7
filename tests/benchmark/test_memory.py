"""Peak memory of testing and training at the paper's size, and none that grows with the images.

Shapes and names
----------------
peak  the most memory of a process that does one kind of work, GB (1e9 bytes), TensorFlow included.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from keras_frcnn.benchmark.memory import peak_memory, peak_of_this_process
from keras_frcnn.benchmark.setting import Setting, random_model
from keras_frcnn.detection.network_detector import NetworkDetector
from tests.random_networks import find

SMALL = Setting("tiny", 96, 128, 20)


@pytest.mark.slow
def test_the_peak_is_that_of_another_process():
    held = np.ones(250_000_000)  # 2 GB that are not the other's
    assert peak_of_this_process() > held.nbytes / 1e9
    assert 0.3 < peak_memory("testing", SMALL, "float32") < 2.0
    with pytest.raises(RuntimeError, match="nonsense failed"):
        peak_memory("nonsense", SMALL, "float32")


# Weights of VGG-16 are 0.55 GB, with velocities 1.1, with gradients 1.6; TensorFlow and Keras 0.7.
@pytest.mark.slow
@pytest.mark.parametrize(("work", "most"), [("testing", 1.8), ("joint", 2.9)])
def test_peak_of_vgg16_at_600_by_800(work, most):
    assert 1.2 < peak_memory(work, Setting(), "float32") < most


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
def test_memory_does_not_grow_over_500_images():
    """A leak of one input (98 kB) an image would be 39 MB."""

    def held() -> float:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6

    model = random_model(Setting("tiny", 64, 128, 20), "float32")
    predictor = NetworkDetector(model, model.recipe.test_filter)
    generator = np.random.default_rng(0)
    for image in range(500):
        size = generator.integers(40, 90, 2)
        find(predictor, generator.integers(0, 255, (*size, 3)).astype(np.uint8))
        if image == 99:
            before = held()
    assert held() - before < 30
