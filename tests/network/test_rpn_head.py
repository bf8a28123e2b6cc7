"""The RPN's head: layout of its outputs, how it starts, precision of its outputs.

Shapes and names
----------------
A  anchors per position; logits (N, h*w*A, 2), deltas (N, h*w*A, 4).
"""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from keras_frcnn.network.rpn import AnchorLayout, build_rpn_head, rpn_class_loss


def head_of(policy="float32", seed=1, anchors=9, **options):
    feature_dtype = {"mixed_bfloat16": "bfloat16", "mixed_float16": "float16"}.get(policy, policy)
    return build_rpn_head(
        8,
        16,
        anchors,
        feature_dtype=feature_dtype,
        precision_policy=policy,
        seed=seed,
        **options,
    )


def test_objectness_is_laid_out_backgrounds_first():
    # Channel c of position (row, column) holds 1000 * row + 100 * column + c.
    rows, columns, anchors = 2, 3, 9
    grid = 1000 * np.arange(rows)[:, None, None] + 100 * np.arange(columns)[None, :, None]
    channels = (grid + np.arange(2 * anchors)).astype(np.float32)[None]
    logits = AnchorLayout(2, value_major=True)(channels).numpy()
    assert logits.shape == (1, rows * columns * anchors, 2)
    for row in range(rows):
        for column in range(columns):
            for anchor in range(anchors):
                index = (row * columns + column) * anchors + anchor
                position = 1000 * row + 100 * column
                # The first nine channels are background, the next nine object.
                expected = [position + anchor, position + 9 + anchor]
                assert logits[0, index].tolist() == expected


def test_deltas_are_laid_out_anchor_by_anchor():
    anchors = 3
    channels = np.arange(2 * 2 * 4 * anchors, dtype=np.float32).reshape(1, 2, 2, 4 * anchors)
    deltas = AnchorLayout(4, value_major=False)(channels).numpy()
    assert deltas.shape == (1, 12, 4)
    # Row 1, column 0, anchor 2: channels 8 to 11 of that position.
    np.testing.assert_array_equal(deltas[0, (1 * 2 + 0) * 3 + 2], channels[0, 1, 0, 8:12])


def test_the_head_uses_these_layouts():
    """Biases alone: channel c of the two output convolutions gives c."""
    head = head_of(anchors=9)
    for name, channels in (("rpn_cls_score", 18), ("rpn_bbox_pred", 36)):
        layer = head.get_layer(name)
        kernel, _ = layer.get_weights()
        layer.set_weights([np.zeros_like(kernel), np.arange(channels, dtype="f")])
    logits, deltas = head(np.zeros((1, 2, 1, 8), "f"))
    expected = np.stack((np.arange(9), np.arange(9, 18)), axis=1)
    np.testing.assert_array_equal(logits[0], np.concatenate((expected, expected)))
    np.testing.assert_array_equal(deltas[0], np.tile(np.arange(36).reshape(9, 4), (2, 1)))


def test_layout_survives_its_configuration():
    layer = AnchorLayout(2, value_major=True, name="rpn_logits")
    again = AnchorLayout.from_config(layer.get_config())
    assert (again.values, again.value_major, again.name) == (2, True, "rpn_logits")
    np.testing.assert_array_equal(again(np.ones((1, 1, 1, 18), "f")).shape, (1, 9, 2))


@pytest.mark.parametrize("name", ["rpn_conv", "rpn_cls_score", "rpn_bbox_pred"])
def test_weights_start_at_n_0_001(name):
    head = build_rpn_head(128, 128, 9, feature_dtype="float32", precision_policy="float32", seed=4)
    kernel, bias = head.get_layer(name).get_weights()
    assert kernel.std() == pytest.approx(0.01, rel=0.06)
    assert abs(kernel.mean()) < 0.001
    np.testing.assert_array_equal(bias, 0)


def test_layers_start_differently_and_repeatably():
    kernels = [layer.get_weights()[0] for layer in head_of(seed=1).layers if layer.weights]
    again = [layer.get_weights()[0] for layer in head_of(seed=1).layers if layer.weights]
    other = [layer.get_weights()[0] for layer in head_of(seed=2).layers if layer.weights]
    for kernel, same, different in zip(kernels, again, other, strict=True):
        np.testing.assert_array_equal(kernel, same)
        assert not np.array_equal(kernel, different)
    assert not np.array_equal(kernels[1].ravel()[:100], kernels[2].ravel()[:100])


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_outputs_are_float32_whatever_the_precision(policy):
    head = head_of(policy)
    dtype = head.inputs[0].dtype
    assert head.get_layer("rpn_conv").compute_dtype == dtype
    for name in ("rpn_cls_score", "rpn_bbox_pred"):
        assert head.get_layer(name).compute_dtype == "float32"
    features = tf.cast(tf.random.stateless_normal((1, 6, 7, 8), (1, 2)), dtype)
    logits, deltas = head(features)
    assert (logits.dtype, deltas.dtype) == (tf.float32, tf.float32)
    # Really computed in float32: not every value is one that the half precision has.
    assert np.any(tf.cast(tf.cast(logits, dtype), tf.float32).numpy() != logits.numpy())


def test_any_map_size():
    head = head_of(anchors=4)
    for height, width in ((1, 1), (5, 3)):
        logits, deltas = head(np.zeros((2, height, width, 8), "f"))
        assert logits.shape == (2, height * width * 4, 2)
        assert deltas.shape == (2, height * width * 4, 4)


def test_logistic_objectness_has_one_output_an_anchor():
    """Softmax scores and cross-entropy of (0, k) are the logistic function's of k."""
    head = head_of(anchors=3, objectness="logistic")
    layer = head.get_layer("rpn_cls_score")
    kernel, _ = layer.get_weights()
    assert kernel.shape[-1] == 3
    outputs = np.array([-2.0, 0.5, 3.0], "f")
    layer.set_weights([np.zeros_like(kernel), outputs])
    logits, _ = head(np.zeros((1, 2, 1, 8), "f"))
    assert logits.shape == (1, 6, 2)
    logistic = 1 / (1 + np.exp(-np.tile(outputs, 2)))
    np.testing.assert_allclose(tf.nn.softmax(logits)[0, :, 1], logistic, rtol=1e-6)
    labels = np.array([1, 0, -1, 0, 1, 1])
    expected = [
        -np.log(p if label else 1 - p)
        for p, label in zip(logistic, labels, strict=True)
        if label >= 0
    ]
    assert float(rpn_class_loss(logits[0], labels)) == pytest.approx(np.mean(expected), rel=1e-5)
