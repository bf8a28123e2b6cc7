"""The ONNX file: names and shapes, equality with the predictor, what cannot be read."""

from __future__ import annotations

import dataclasses
import os

import numpy as np
import pytest

from keras_frcnn.detection.network_detector import NetworkDetector
from keras_frcnn.errors import UserError
from keras_frcnn.evaluation.agreement import paired
from keras_frcnn.recipes import DetectionFilter
from tests.random_networks import find, random_image, random_network

onnx = pytest.importorskip("onnx", reason="needs the extra onnx")
pytest.importorskip("tf2onnx", reason="needs the extra onnx")

from keras_frcnn.detection.exported_model import OnnxDetector  # noqa: E402
from keras_frcnn.export.onnx.convert import to_onnx, write_onnx  # noqa: E402

OUTPUTS = {
    "detection_boxes": [1, 100, 4],
    "detection_scores": [1, 100],
    "detection_classes": [1, 100],
    "num_detections": [1],
}


@pytest.fixture(scope="module")
def detector(model, tmp_path_factory):
    file = tmp_path_factory.mktemp("onnx") / "model.onnx"
    write_onnx(model, file)
    return OnnxDetector(file)


def test_names_types_and_shapes_are_those_of_the_saved_model(model):
    (pixels,) = model.graph.input
    assert pixels.name == "input_tensor"
    assert pixels.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    sides = pixels.type.tensor_type.shape.dim
    assert [side.dim_value for side in sides] == [1, 0, 0, 3]
    assert {output.name for output in model.graph.output} == set(OUTPUTS)
    for output in model.graph.output:
        kind = output.type.tensor_type
        assert kind.elem_type == onnx.TensorProto.FLOAT
        assert [side.dim_value for side in kind.shape.dim] == OUTPUTS[output.name]


def test_only_standard_operators_and_no_loop(model):
    kinds = {node.op_type for node in model.graph.node}
    assert {node.domain for node in model.graph.node} == {""}
    assert {"RoiAlign", "NonMaxSuppression"} <= kinds
    assert "Loop" not in kinds


@pytest.mark.parametrize("size", [(60, 90), (200, 64), (33, 200), (1, 1), (3, 2)])
def test_detections_are_those_of_the_predictor(detector, predictor, size):
    pixels = random_image(*size)
    expected = find(predictor, pixels)
    found = find(detector, pixels)
    assert len(found) == len(expected)
    if min(size) > 30:
        assert len(expected) > 0
    boxes, scores = paired(expected, found)
    assert len(boxes) == len(expected)
    assert boxes.max(initial=0) < 0.01
    assert scores.max(initial=0) < 1e-4


def test_boxes_are_normalised_and_padded_with_zeros(detector, predictor):
    pixels = random_image(60, 90)
    outputs = detector.outputs(pixels[None])
    for name, shape in OUTPUTS.items():
        assert outputs[name].shape == tuple(shape), name
        assert outputs[name].dtype == np.float32, name
    count = int(outputs["num_detections"][0])
    boxes = outputs["detection_boxes"][0]
    expected = find(predictor, pixels).boxes_image / [60, 90, 60, 90]
    np.testing.assert_allclose(boxes[:count], expected, atol=1e-4)
    assert (boxes <= 1).all()
    for name in list(OUTPUTS)[:3]:
        assert not outputs[name][0, count:].any()


def test_class_names_are_metadata(model, detector):
    names = {entry.key: entry.value for entry in model.metadata_props}
    assert names == {"class_names": '["disc", "square", "star"]', "score_threshold": "0.2"}
    assert detector.class_names == ("disc", "square", "star")


def test_the_network_is_as_it_was(model, predictor):
    """The pooling was marked for the conversion only."""
    pixels = random_image(70, 100)
    again = NetworkDetector(predictor.model, predictor.detection_filter)
    found, expected = find(again, pixels), find(predictor, pixels)
    np.testing.assert_array_equal(found.boxes_image, expected.boxes_image)


@pytest.mark.slow
def test_two_networks_and_max_pooling(tiny_recipe):
    """The unshared variant: proposals of one network, classes of another."""
    detector = dataclasses.replace(tiny_recipe.detector, roi_pooling="max")
    recipe = dataclasses.replace(tiny_recipe, detector=detector)
    first, second = (random_network(recipe, ("disc", "square"), seed) for seed in (1, 2))
    both = NetworkDetector(first, DetectionFilter(score_threshold=0.2), detector_model=second)
    model = to_onnx(both)
    assert "MaxRoiPool" in {node.op_type for node in model.graph.node}
    pixels = random_image(90, 120)
    expected, found = (
        find(each, pixels) for each in (both, OnnxDetector(model.SerializeToString()))
    )
    # RoIs of the same cells have equal scores: rounding decides which of them stays.
    boxes, scores = paired(expected, found)
    assert len(boxes) >= 0.8 * len(expected) > 0
    assert np.median(boxes) < 0.01
    assert scores.max() < 1e-3


def test_half_precision_is_refused(tiny_recipe):
    from keras_frcnn.network.faster_rcnn import FasterRcnn

    network = FasterRcnn("tiny", ("disc",), tiny_recipe, precision="bfloat16")
    with pytest.raises(ValueError, match="float32"):
        to_onnx(NetworkDetector(network, DetectionFilter()))


def test_what_is_no_export_is_refused(model, tmp_path):
    with pytest.raises(UserError, match="none.onnx"):
        OnnxDetector(tmp_path / "none.onnx")
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(b"no model")
    with pytest.raises(UserError, match="damaged.onnx cannot be read as an ONNX file"):
        OnnxDetector(damaged)
    damaged.write_bytes(model.SerializeToString()[:-2000])
    with pytest.raises(UserError, match=r"cannot be read as an ONNX file"):
        OnnxDetector(damaged)
    foreign = onnx.ModelProto()
    foreign.CopyFrom(model)
    del foreign.metadata_props[:]
    with pytest.raises(UserError, match="class_names"):
        OnnxDetector(foreign.SerializeToString())
    values = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy"
    ]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Relu", ["x"], ["y"])], "foreign", values[:1], values[1:]
    )
    opset = onnx.helper.make_opsetid("", 17)
    foreign = onnx.helper.make_model(graph, ir_version=9, opset_imports=[opset])
    onnx.helper.set_model_props(foreign, {"class_names": '["cat"]'})
    with pytest.raises(UserError, match="should have the input input_tensor"):
        OnnxDetector(foreign.SerializeToString())


def changed(change):
    def make(model) -> bytes:
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        change(copy)
        return copy.SerializeToString()

    return make


def fixed_size(model):
    for side in model.graph.input[0].type.tensor_type.shape.dim:
        side.dim_value = side.dim_value or 8


def multiplied(name: str, factor: float):
    """That output times a factor."""

    def change(model):
        for node in model.graph.node:
            node.output[:] = ["before" if each == name else each for each in node.output]
            node.input[:] = ["before" if each == name else each for each in node.input]
        model.graph.initializer.append(
            onnx.numpy_helper.from_array(np.float32(factor).reshape(1), "factor")
        )
        model.graph.node.append(onnx.helper.make_node("Mul", ["before", "factor"], [name]))

    return changed(change)


def without_an_output(model):
    del model.graph.output[0]


def of_another_type(model):
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.UINT16


def named(text: str):
    return changed(lambda model: onnx.helper.set_model_props(model, {"class_names": text}))


@pytest.mark.parametrize(
    "make",
    [
        *map(changed, (fixed_size, without_an_output, of_another_type)),
        *(multiplied(name, factor) for name in OUTPUTS for factor in (50, -1, np.nan, np.inf)),
        *(named(text) for text in ("[]", '["a"]', '["a", "b", "\\ud800"]', '["a", "b", "b"]', "[")),
        named('["a", "b", "c", "d"]'),
        lambda model: model.SerializeToString().replace(b"class_names", b"class_nam\x8ds"),
    ],
)
def test_a_file_that_gives_no_detections_is_one_sentence(model, tmp_path, make):
    (tmp_path / "model.onnx").write_bytes(make(model))
    with pytest.raises(UserError, match=r"model\.onnx"):
        find(OnnxDetector(tmp_path / "model.onnx"), random_image(60, 90))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "model.onnx")
    with pytest.raises(UserError, match="regular file"):
        OnnxDetector(tmp_path / "model.onnx")
