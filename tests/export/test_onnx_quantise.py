"""int8: which layers it takes, and that the detections stay."""

from __future__ import annotations

import re

import numpy as np
import pytest

from keras_frcnn.evaluation.agreement import ROUGH, agreement
from tests.random_networks import find, random_image

onnx = pytest.importorskip("onnx", reason="needs the extra onnx")
pytest.importorskip("tf2onnx", reason="needs the extra onnx")

from keras_frcnn.detection.exported_model import OnnxDetector  # noqa: E402
from keras_frcnn.export.onnx import quantise as module  # noqa: E402
from keras_frcnn.export.onnx.quantise import needs_seven_bits, quantised_nodes  # noqa: E402


def eight_bit_weights(model) -> dict[str, np.ndarray]:
    """8-bit tensors of a model of more than one dimension, by name."""
    tensors = {
        tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer
    }
    return {
        name: values
        for name, values in tensors.items()
        if values.dtype == np.int8 and values.ndim > 1
    }


def test_base_and_fully_connected_layers_have_8_bits_and_no_others(int8_model):
    names = eight_bit_weights(int8_model)
    layers = sorted(re.search(r"/(\w+?\d)(_1)?/", name.split("tiny_1")[-1])[1] for name in names)
    assert layers == ["conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7"]


def test_every_output_channel_has_its_scale(int8_model):
    """So every channel uses the whole range, where one scale would serve the largest only."""
    for name, weights in eight_bit_weights(int8_model).items():
        channels = weights if weights.ndim == 4 else weights.T
        largest = np.abs(channels.reshape(len(channels), -1).astype(int)).max(axis=1)
        assert (largest == 127).all(), name


def test_most_detections_stay(model, int8_model):
    float32, int8 = (OnnxDetector(each.SerializeToString()) for each in (model, int8_model))
    assert int8.class_names == float32.class_names
    images = {str(seed): random_image(90, 120, 100 + seed) for seed in range(6)}
    references, others = (
        {key: find(each, image) for key, image in images.items()} for each in (float32, int8)
    )
    found = agreement(references, others, ROUGH)
    assert found.detections > 20
    # Random weights leave no margin between classes: trained ones keep 97 %.
    assert found.share > 0.5
    # And it is another computation.
    assert any(not np.array_equal(references[key].scores, others[key].scores) for key in images)


def test_layers_of_other_names_are_refused(model):
    renamed = onnx.ModelProto()
    renamed.CopyFrom(model)
    for node in renamed.graph.node:
        node.name = node.name.replace("/cls_score", "/other")
        node.input[:] = [name.replace("/cls_score", "/other") for name in node.input]
    for tensor in renamed.graph.initializer:
        tensor.name = tensor.name.replace("/cls_score", "/other")
    with pytest.raises(ValueError, match="expected the layers"):
        quantised_nodes(renamed.graph)


@pytest.mark.parametrize(
    ("machine", "text", "expected"),
    [
        ("x86_64", "flags : sse avx2", True),
        ("x86_64", "flags : sse avx512_vnni", False),
        ("AMD64", "flags : avx_vnni", False),
        ("x86_64", None, True),
        ("aarch64", "Features : asimd", False),
    ],
)
def test_seven_bits_without_vnni(monkeypatch, tmp_path, machine, text, expected):
    file = tmp_path / "cpuinfo"
    if text is not None:
        file.write_text(text)
    monkeypatch.setattr(module, "_CPU_INFO", file)
    monkeypatch.setattr(module.platform, "machine", lambda: machine)
    assert needs_seven_bits() is expected
