"""RoI pooling and suppression as onnxruntime computes them, against TensorFlow's."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from keras_frcnn.network import suppression
from keras_frcnn.network.roi_pooling import RoiPooling
from keras_frcnn.network.suppression import suppress

pytest.importorskip("tf2onnx", reason="needs the extra onnx")
import onnxruntime  # noqa: E402
import tf2onnx  # noqa: E402

from keras_frcnn.export.onnx.convert import OPSET, handlers  # noqa: E402
from keras_frcnn.export.onnx.operators import MarkedPooling  # noqa: E402

POOLING = RoiPooling("crop", 7, 16)


def run_converted(function, signature, *inputs, pooling=POOLING) -> list[np.ndarray]:
    model, _ = tf2onnx.convert.from_function(
        tf.function(function), signature, opset=OPSET, custom_op_handlers=handlers(pooling)
    )
    kinds = {node.op_type for node in model.graph.node}
    assert "Loop" not in kinds
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    names = [spec.name for spec in signature]
    order = [f"out{index}" for index in range(len(session.get_outputs()))]
    return session.run(order, dict(zip(names, inputs, strict=True)))


def random_rois(generator, count: int, size: tuple[int, int]) -> np.ndarray:
    """RoIs within the input of a map; half of them with corners on multiples of 8 px.

    There the cells of ``max`` lie on .5. Farther out than proposals go, one cell beyond the map,
    ``crop`` and ``align`` jump to 0: at the very place rounding decides.
    """
    limit = 16 * np.array(size)
    corner = generator.uniform(0, limit - 8, (count, 2))
    boxes = np.concatenate([corner, corner + generator.uniform(1, 90, (count, 2))], axis=1)
    boxes[::2] = 8 * np.round(boxes[::2] / 8)
    boxes[::2, 2:] = np.maximum(boxes[::2, 2:], boxes[::2, :2] + 8)
    return np.minimum(boxes, np.tile(limit, 2)).astype(np.float32)


@pytest.mark.parametrize("kind", ["crop", "max", "align"])
@pytest.mark.parametrize("size", [(10, 12), (1, 1)])
def test_every_pooling_is_its_own(kind, size):
    generator = np.random.default_rng(0)
    features = generator.normal(0, 1, (1, *size, 5)).astype(np.float32)
    rois = random_rois(generator, 200, size)
    roi_image = np.zeros(200, np.int32)
    pooling = RoiPooling(kind, 7, 16)
    marked = MarkedPooling(pooling)
    (found,) = run_converted(
        lambda features, rois, roi_image: {"out0": marked([features, rois, roi_image])},
        [
            tf.TensorSpec((None, None, None, 5), tf.float32, "features"),
            tf.TensorSpec((None, 4), tf.float32, "rois"),
            tf.TensorSpec((None,), tf.int32, "roi_image"),
        ],
        *(features, rois, roi_image),
        pooling=pooling,
    )
    expected = pooling([features, rois, roi_image]).numpy()
    assert expected.any()
    if kind == "max":
        np.testing.assert_array_equal(found, expected)
    else:
        np.testing.assert_allclose(found, expected, atol=2e-5)


@pytest.mark.parametrize("threshold", [0.1, 0.999])
@pytest.mark.parametrize("in_total", [8, 200])
def test_suppression_of_classes_with_boxes_of_their_own(threshold, in_total, monkeypatch):
    """The same boxes in the same order, padded alike; nothing at all over 0.999."""
    monkeypatch.setattr(suppression, "gpu_present", lambda: False)
    generator = np.random.default_rng(1)
    corner = generator.uniform(0, 60, (1, 40, 3, 2))
    sides = generator.uniform(20, 60, (1, 40, 3, 2))
    boxes = np.concatenate([corner, corner + sides], axis=-1).astype(np.float32)
    scores = generator.uniform(0, 0.99, (1, 40, 3)).astype(np.float32)

    def kept(boxes, scores):
        found = suppress(
            boxes,
            scores,
            per_class=tf.shape(boxes)[1],
            in_total=in_total,
            iou_threshold=0.3,
            score_threshold=threshold,
        )
        return {f"out{index}": value for index, value in enumerate(found)}

    found = run_converted(
        kept,
        [
            tf.TensorSpec((1, None, 3, 4), tf.float32, "boxes"),
            tf.TensorSpec((1, None, 3), tf.float32, "scores"),
        ],
        *(boxes, scores),
    )
    expected = [value.numpy() for value in kept(boxes, scores).values()]
    count = expected[3][0]
    assert (count == 0) == (threshold > 0.99)
    assert count == 8 or in_total == 200 or not count
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
