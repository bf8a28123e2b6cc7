"""The four networks against keras.applications, NumPy loops and worked sizes.

Shapes and names
----------------
image  (N, height, width, 3) float32; features (N, h, w, F); pooled (R, p, p, F).
"""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_frcnn.errors import UserError
from keras_frcnn.network.backbones import build_backbone, resnet50, tiny, vgg16, zf
from keras_frcnn.network.backbones.heads import StatelessDropout
from keras_frcnn.recipes import NETWORKS

MODULES = {"vgg16": vgg16, "zf": zf, "resnet50": resnet50, "tiny": tiny}


@pytest.fixture(scope="module")
def bases():
    return {name: module.build_base("float32", seed=0) for name, module in MODULES.items()}


def random_images(height, width, seed=0):
    """Two images with the statistics of pixels minus their mean."""
    generator = np.random.default_rng(seed)
    return (generator.standard_normal((2, height, width, 3)) * 64).astype(np.float32)


def randomise(model, seed=1):
    """Give every weight a value that a mistake would show; variances stay positive."""
    generator = np.random.default_rng(seed)
    for weight in model.weights:
        values = generator.standard_normal(tuple(weight.shape)) * 0.05
        weight.assign(np.abs(values) + 0.5 if weight.name.startswith("moving_var") else values)


def copy_weights(source, layers):
    for layer in layers:
        if layer.weights:
            layer.set_weights(source.get_layer(layer.name).get_weights())


@pytest.mark.parametrize("network", NETWORKS)
def test_feature_size_is_the_size_of_the_real_output(network, bases):
    for side in range(16, 50):
        height, width = side, 65 - side
        features = bases[network](np.zeros((1, height, width, 3), np.float32))
        feature_size = MODULES[network].feature_size
        assert features.shape[1:3] == (feature_size(height), feature_size(width)), (
            height,
            width,
        )


def test_feature_sizes_of_the_paper(bases):
    # Caffe rounds pooled sizes up: the shared VGG map of a 600x1000 image is 38x63.
    assert [vgg16.feature_size(side) for side in (600, 800, 1000)] == [38, 50, 63]
    assert [zf.feature_size(side) for side in (600, 800, 1000)] == [39, 51, 64]
    assert bases["zf"](np.zeros((1, 600, 16, 3), np.float32)).shape[1] == 39
    assert bases["zf"](np.zeros((1, 16, 1000, 3), np.float32)).shape[2] == 64
    assert vgg16.feature_size(tf.constant([600, 1000])).numpy().tolist() == [38, 63]
    assert zf.feature_size(tf.constant([600, 1000])).numpy().tolist() == [39, 64]


@pytest.mark.parametrize(
    ("network", "channels", "rpn_channels", "roi_size", "vector"),
    [
        ("zf", 256, 256, 6, 4096),
        ("resnet50", 1024, 512, 7, 2048),
        ("tiny", 128, 128, 7, 256),
    ],
)
def test_description(network, channels, rpn_channels, roi_size, vector):
    backbone = build_backbone(network)
    assert backbone.name == network
    assert (backbone.channels, backbone.rpn_channels) == (channels, rpn_channels)
    assert backbone.base.output_shape == (None, None, None, channels)
    assert backbone.roi_size == roi_size
    pooled = keras.Input((roi_size, roi_size, channels))
    assert tuple(backbone.head(pooled).shape) == (None, vector)
    base_names = [layer.name for layer in backbone.base.layers]
    assert set(backbone.frozen) <= set(base_names)


@pytest.mark.parametrize(
    ("network", "asked", "rate"),
    [("zf", None, 0.5), ("zf", 0.0, 0.0), ("tiny", None, 0.0), ("tiny", 0.3, 0.3)],
)
def test_dropout_is_the_networks_own_unless_asked_for(network, asked, rate):
    """The share of a vector of ones that comes out as 0, the rest scaled up."""
    head = build_backbone(network, dropout=asked).head
    fc6, fc7 = head.layers
    pooled = tf.ones((64, 7, 7, 8))
    head(pooled)
    for layer in (fc6, fc7):
        layer.set_weights([np.zeros(layer.kernel.shape), np.ones(layer.bias.shape)])
    out = head(pooled, tf.constant([1, 2])).numpy()
    assert np.mean(out == 0) == pytest.approx(rate, abs=0.02)
    np.testing.assert_allclose(out[out > 0], 1 / (1 - rate), rtol=1e-6)


def test_dropout_is_refused_where_no_layer_takes_it():
    with pytest.raises(UserError, match="`detector.dropout` has no place in resnet50"):
        build_backbone("resnet50", dropout=0.5)


def test_vgg16_description_and_first_fully_connected_weights():
    backbone = build_backbone("vgg16", seed=3)
    assert (backbone.channels, backbone.rpn_channels, backbone.roi_size) == (
        512,
        512,
        7,
    )
    assert backbone.frozen == (
        "block1_conv1",
        "block1_conv2",
        "block2_conv1",
        "block2_conv2",
    )
    assert len([layer for layer in backbone.base.layers if layer.weights]) == 13
    backbone.head(keras.Input((7, 7, 512)))
    fc6, fc7 = backbone.head.layers
    assert (fc6.name, fc7.name) == ("fc6", "fc7")
    assert tuple(fc6.kernel.shape) == (25088, 4096)
    assert np.std(fc6.kernel.numpy()[:1000]) == pytest.approx(0.005, rel=0.01)
    assert np.std(fc7.kernel.numpy()) == pytest.approx(0.005, rel=0.01)
    assert not fc6.bias.numpy().any()


def test_vgg16_equals_keras_applications_on_even_sizes():
    reference = keras.applications.VGG16(include_top=False, weights=None)
    randomise(reference)
    base = vgg16.build_base("float32", seed=0)
    copy_weights(reference, base.layers)
    until_conv5 = keras.Model(reference.input, reference.get_layer("block5_conv3").output)
    images = random_images(48, 64)
    expected = until_conv5(images).numpy()
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(base(images).numpy(), expected, rtol=1e-4, atol=1e-5)


def test_vgg16_pools_the_last_odd_row_by_itself(bases):
    layer = bases["vgg16"].get_layer("block1_pool")
    x = np.arange(15, dtype=np.float32).reshape(1, 5, 3, 1) - 20
    # A cell that "valid" pooling would drop; all are negative, so zero padding would show.
    expected = [[4, 5], [10, 11], [13, 14]]
    assert (layer(x).numpy()[0, :, :, 0] + 20).tolist() == expected


def test_resnet50_equals_keras_applications():
    reference = keras.applications.ResNet50(include_top=False, weights=None)
    randomise(reference)
    conv4 = reference.get_layer("conv4_block6_out").output
    conv5 = reference.get_layer("conv5_block3_out").output
    images = random_images(224, 96)
    expected_conv4, expected_conv5 = keras.Model(reference.input, [conv4, conv5])(images)

    backbone = build_backbone("resnet50")
    backbone.head(keras.Input((7, 7, 1024)))
    copy_weights(reference, [*backbone.base.layers, *backbone.head.layers])
    features = backbone.base(images).numpy()
    assert features.shape == (2, 14, 6, 1024)
    scale = np.abs(expected_conv4).max()
    np.testing.assert_allclose(features / scale, expected_conv4 / scale, atol=1e-5)

    # The stride of conv5 sits on 1x1 convolutions only: stride 1 on every second cell is stride 2.
    vectors = backbone.head(features[:, ::2, ::2]).numpy()
    expected_vectors = np.mean(expected_conv5, axis=(1, 2))
    scale = np.abs(expected_vectors).max()
    np.testing.assert_allclose(vectors / scale, expected_vectors / scale, atol=1e-5)


def test_resnet50_freezes_conv1_conv2_and_every_batch_norm():
    backbone = build_backbone("resnet50")
    with_weights = [layer.name for layer in backbone.base.layers if layer.weights]
    trained = [name for name in with_weights if name not in backbone.frozen]
    # 1 + (3*3+1) + (4*3+1) + (6*3+1) convolutions, each with a batch norm; 11 of conv1 and conv2.
    assert len(with_weights) == 2 * 43
    assert len(trained) == 43 - 11
    assert all(name.startswith(("conv3_", "conv4_")) for name in trained)
    assert all(name.endswith("_conv") for name in trained)


def test_frozen_batch_norm_cannot_be_trained():
    layer = resnet50.FrozenBatchNormalization(dtype="float32")
    x = tf.random.stateless_normal((4, 5, 5, 3), seed=(1, 2)) * 7 + 3
    before = layer(x).numpy()
    layer.trainable = True
    assert layer.trainable_variables == [] and len(layer.weights) == 4
    after = layer(x, training=True) if "training" in layer.call.__code__.co_varnames else layer(x)
    np.testing.assert_array_equal(before, after)
    np.testing.assert_allclose(before, x / np.sqrt(1 + 1.001e-5), rtol=1e-6)


def test_within_channel_normalization_counts_the_zeros_beyond_the_border():
    x = np.full((1, 3, 3, 1), 100.0, np.float32)
    y = zf.WithinChannelNormalization(dtype="float32")(x).numpy()[0, :, :, 0]
    # Of nine neighbours, 4 are inside at a corner, 6 at an edge, 9 in the middle;
    # 100 * (1 + 5e-5 * n / 9 * 10000) ** -0.75.
    corner, edge, middle = (
        100 * (1 + 0.5 * 4 / 9) ** -0.75,
        100 * (4 / 3) ** -0.75,
        100 * 1.5**-0.75,
    )
    expected = [[corner, edge, corner], [edge, middle, edge], [corner, edge, corner]]
    np.testing.assert_allclose(y, expected, rtol=1e-5)


def test_within_channel_normalization_equals_a_loop():
    x = np.random.default_rng(0).standard_normal((1, 5, 4, 2)).astype(np.float32) * 300
    expected = np.empty_like(x)
    for row, column, channel in np.ndindex(5, 4, 2):
        near = x[0, max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2, channel]
        mean = np.sum(near.astype(np.float64) ** 2) / 9
        expected[0, row, column, channel] = x[0, row, column, channel] * (1 + 5e-5 * mean) ** -0.75
    actual = zf.WithinChannelNormalization(dtype="float32")(x).numpy()
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(40, 41), (43, 46)])
def test_zf_pools_as_caffe_does(height, width, bases):
    norm1, pool1 = (bases["zf"].get_layer(name).output for name in ("norm1", "pool1"))
    x, y = keras.Model(bases["zf"].input, [norm1, pool1])(random_images(height, width))
    x, y = x.numpy(), y.numpy()
    sides = x.shape[1:3]
    # PoolingLayer: ceil((side + 2 * pad - kernel) / stride) + 1, here with pad 1, kernel 3.
    assert y.shape[1:3] == tuple(int(np.ceil((side + 2 - 3) / 2)) + 1 for side in sides)
    for row, column in np.ndindex(*y.shape[1:3]):
        rows = slice(max(2 * row - 1, 0), 2 * row + 2)
        columns = slice(max(2 * column - 1, 0), 2 * column + 2)
        expected = x[:, rows, columns].max(axis=(1, 2))
        np.testing.assert_array_equal(y[:, row, column], expected)


def test_zf_convolutions_are_padded_alike_on_all_sides(bases):
    base = bases["zf"]
    for name, source, pad, stride in (("conv1", None, 3, 2), ("conv2", "pool1", 2, 2)):
        x = base.input if source is None else base.get_layer(source).output
        x, y = keras.Model(base.input, [x, base.get_layer(name).output])(random_images(38, 36))
        kernel = base.get_layer(name).kernel.numpy()
        padded = np.pad(x, [(0, 0), (pad, pad), (pad, pad), (0, 0)])
        for row, column in ((0, 0), (0, y.shape[2] - 1), (y.shape[1] - 1, 1)):
            top, left = stride * row, stride * column
            patch = padded[:, top : top + kernel.shape[0], left : left + kernel.shape[1]]
            expected = np.maximum(np.einsum("nhwc,hwcf->nf", patch, kernel), 0)
            np.testing.assert_allclose(y[:, row, column], expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("network", NETWORKS)
def test_random_weights_start_at_unit_scale(network, bases):
    features = bases[network](random_images(96, 96)).numpy()
    assert 0.3 < np.sqrt(np.mean(features**2)) < 10


@pytest.mark.parametrize("network", ["tiny", "resnet50"])
def test_weights_are_a_function_of_the_seed(network):
    def kernels(seed):
        base = MODULES[network].build_base("float32", seed)
        return {
            layer.name: layer.kernel.numpy()
            for layer in base.layers
            if isinstance(layer, keras.layers.Conv2D)
        }

    first, again, other = kernels(5), kernels(5), kernels(6)
    for name, kernel in first.items():
        np.testing.assert_array_equal(kernel, again[name])
        assert not np.array_equal(kernel, other[name])


def test_layers_of_one_shape_start_differently(bases):
    base = bases["vgg16"]
    one, other = (base.get_layer(f"block5_conv{index}").kernel.numpy() for index in (1, 2))
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("network", ["zf", "resnet50", "tiny"])
def test_bfloat16_computes_in_bfloat16_and_keeps_float32_weights(network):
    images = random_images(64, 48)
    exact = build_backbone(network, "float32", seed=1)
    rounded = build_backbone(network, "bfloat16", seed=1)
    assert keras.layers.Dense(1).compute_dtype == "float32"  # the global policy is left alone
    expected, features = exact.base(images).numpy(), rounded.base(images)
    assert features.dtype == tf.bfloat16
    assert all(weight.dtype == "float32" for weight in rounded.base.weights)
    difference = np.abs(tf.cast(features, tf.float32).numpy() - expected)
    assert difference.max() < 0.05 * np.abs(expected).max()
    assert difference.max() > 0


@pytest.mark.parametrize("network", ["vgg16", "zf", "resnet50", "tiny"])
@pytest.mark.parametrize("half_weights", [False, True])
def test_what_sees_the_image_computes_in_float32_in_every_precision(network, half_weights):
    base = build_backbone(network, "bfloat16", seed=None, half_weights=half_weights).base
    layers = [layer for layer in base.layers if not isinstance(layer, keras.layers.InputLayer)]
    first = [isinstance(layer, keras.layers.Conv2D) for layer in layers].index(True)
    assert {layer.compute_dtype for layer in layers[: first + 1]} == {"float32"}
    kernels = [layer for layer in layers[first + 1 :] if isinstance(layer, keras.layers.Conv2D)]
    assert {layer.compute_dtype for layer in kernels} == {"bfloat16"}
    assert {layer.dtype for layer in kernels} == {"bfloat16" if half_weights else "float32"}


def test_unknown_names_are_user_errors():
    with pytest.raises(UserError, match="`network` should be one of vgg16, zf, resnet50, tiny"):
        build_backbone("alexnet")
    with pytest.raises(UserError, match="`precision` should be one of float32, bfloat16, float16"):
        build_backbone("tiny", "int8")


@pytest.mark.parametrize(
    "layer",
    [
        StatelessDropout(0.3, 1, name="drop"),
        zf.WithinChannelNormalization(5, 1e-4, 0.5, name="norm"),
        resnet50.FrozenBatchNormalization(1e-3, name="bn"),
    ],
)
def test_custom_layers_can_be_rebuilt_from_their_config(layer):
    again = keras.layers.deserialize(keras.layers.serialize(layer))
    assert type(again) is type(layer)
    assert again.get_config() == layer.get_config()
