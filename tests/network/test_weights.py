"""Weight files: round trip, foreign layouts, strictness, and files that lie.

Shapes and names
----------------
kernel  (3, 3, 3, 4) of "conv", (5, 2) of "dense".
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_frcnn.errors import UserError
from keras_frcnn.network import weights
from keras_frcnn.network.backbones import resnet50, vgg16
from keras_frcnn.network.weights import (
    assign_rows,
    imagenet_file,
    load_layers,
    trained_variables,
    write_arrays,
    write_layers,
)
from tests.read_weights import read_layers

VGG16_FILE = Path(__file__).resolve().parents[3] / "shared/weights/vgg16_imagenet_notop.h5"


def make_layers(seed, classes=2):
    """A convolution over an image, a batch norm and two dense layers, built, random weights."""
    layers = [
        keras.layers.Conv2D(4, 3, name="conv"),
        resnet50.FrozenBatchNormalization(name="conv_bn"),
        keras.layers.Flatten(name="flatten"),
        keras.layers.Dense(5, name="fc6"),
        keras.layers.Dense(classes, name="cls_score"),
    ]
    x = np.zeros((1, 3, 3, 3), np.float32)
    for layer in layers:
        x = layer(x)
    generator = np.random.default_rng(seed)
    for layer in layers:
        for weight in layer.weights:
            weight.assign(generator.standard_normal(tuple(weight.shape)).astype(np.float32))
    return layers


def values(layers):
    return [weight.numpy() for layer in layers for weight in layer.weights]


def write_keras_file(path, layers, root_name=None):
    """A file as Keras 2 writes it: group name -> {data set name: array}."""
    with h5py.File(path, "w") as file:
        root = file if root_name is None else file.create_group(root_name)
        root.attrs["layer_names"] = [name.encode() for name in layers]
        for name, arrays in layers.items():
            group = root.create_group(name)
            group.attrs["weight_names"] = [weight.encode() for weight in arrays]
            for weight, array in arrays.items():
                group.create_dataset(weight, data=array)


@pytest.mark.parametrize("suffix", [".weights.h5", ".hdf5", ""])
def test_round_trip_is_exact_whatever_the_suffix(tmp_path, suffix):
    path = tmp_path / f"model{suffix}"
    source, target = make_layers(1), make_layers(2)
    write_layers(path, source, {"class_names": ["cat", "Äpfel"], "stage": 2})
    report = load_layers(target, path)
    for expected, actual in zip(values(source), values(target), strict=True):
        np.testing.assert_array_equal(actual, expected)
    assert report.loaded == ("conv", "conv_bn", "fc6", "cls_score")
    assert report.new == report.ignored == report.reinitialised == ()
    assert read_layers(path).metadata == {"class_names": ["cat", "Äpfel"], "stage": 2}
    assert list(tmp_path.iterdir()) == [path]


def test_read_layers_names_every_weight(tmp_path):
    path = tmp_path / "model.h5"
    write_layers(path, make_layers(1), {})
    names = {layer: sorted(arrays) for layer, arrays in read_layers(path).layers.items()}
    assert names == {
        "conv": ["bias", "kernel"],
        "conv_bn": ["beta", "gamma", "moving_mean", "moving_variance"],
        "fc6": ["bias", "kernel"],
        "cls_score": ["bias", "kernel"],
    }


def test_keras_reads_our_files(tmp_path):
    path = tmp_path / "model.h5"
    layers = [keras.layers.Conv2D(4, 3, name="conv"), keras.layers.Dense(5, name="fc")]
    model = keras.Sequential([keras.Input((4, 4, 3)), *layers])
    expected = [weight + 1 for weight in model.get_weights()]
    model.set_weights(expected)
    write_layers(path, layers, {})
    model.set_weights([0 * weight for weight in expected])
    model.load_weights(path)
    for actual, weight in zip(model.get_weights(), expected, strict=True):
        np.testing.assert_array_equal(actual, weight)


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "model.h5"
    write_arrays(path, {"conv": {"bias": np.ones(2)}}, {})
    before = path.read_bytes()
    with pytest.raises(ValueError, match="could not convert"):
        write_arrays(path, {"conv": {"bias": np.ones(2), "kernel": np.array(["x"])}}, {})
    with pytest.raises(ValueError, match="60000 bytes"):
        write_arrays(path, {}, {"text": "x" * 60_000})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_layers_of_one_name_are_refused(tmp_path):
    layers = [*make_layers(1)[:1], *make_layers(2)[:1]]
    with pytest.raises(ValueError, match="Two layers are called 'conv'"):
        write_layers(tmp_path / "model.h5", layers, {})


def test_first_kernel_of_a_foreign_file_is_turned_to_rgb_once(tmp_path):
    kernel = np.zeros((1, 1, 3, 2), np.float32)
    kernel[0, 0] = [[1, 10], [2, 20], [3, 30]]  # blue, green, red
    second = np.arange(6, dtype=np.float32).reshape(1, 1, 3, 2)
    foreign, ours = tmp_path / "foreign.h5", tmp_path / "ours.h5"
    arrays = {"conv1": {"conv1/kernel:0": kernel}, "conv2": {"conv2/kernel:0": second}}
    write_keras_file(foreign, arrays)
    once = read_layers(foreign)
    assert once.metadata == {}
    assert once.layers["conv1"]["kernel"][0, 0].tolist() == [[3, 30], [2, 20], [1, 10]]
    np.testing.assert_array_equal(once.layers["conv2"]["kernel"], second)
    write_arrays(ours, once.layers, {})
    assert read_layers(ours).layers["conv1"]["kernel"][0, 0].tolist() == [
        [3, 30],
        [2, 20],
        [1, 10],
    ]


@pytest.mark.parametrize(
    ("stored", "weight"),
    [
        ("block1_conv1/kernel:0", "kernel"),
        ("block1_conv1/block1_conv1/bias:0", "bias"),
        ("block1_conv1_W_1:0", "kernel"),
        ("block1_conv1_b_1:0", "bias"),
        ("conv2_block1_1_conv_1/kernel:0", "kernel"),
        ("conv1_bn_1/moving_mean:0", "moving_mean"),
        ("gru/recurrent_kernel:0", "recurrent_kernel"),
        ("bn/gamma_3", "gamma"),
        ("beta", "beta"),
    ],
)
def test_names_of_weights(stored, weight):
    assert weights.canonical_weight_name(stored) == weight


def test_layout_of_the_keras_applications_file_with_top(tmp_path):
    path = tmp_path / "vgg16.h5"
    generator = np.random.default_rng(0)
    kernel = generator.standard_normal((3, 3, 3, 4)).astype(np.float32)
    fc1 = generator.standard_normal((4, 5)).astype(np.float32)
    arrays = {
        "input_1": {},
        "conv": {"conv_W_1:0": kernel, "conv_b_1:0": np.arange(4.0)},
        "fc1": {"fc1_W_1:0": fc1, "fc1_b_1:0": np.ones(5)},
        "predictions": {
            "predictions_W_1:0": np.ones((5, 7)),
            "predictions_b_1:0": np.ones(7),
        },
    }
    write_keras_file(path, arrays, root_name="model_weights")
    layers = make_layers(3)
    report = load_layers(layers, path)
    assert report.loaded == ("conv", "fc6")
    assert report.new == ("conv_bn", "cls_score")
    assert report.ignored == ("predictions",)
    np.testing.assert_array_equal(layers[0].kernel.numpy(), kernel[:, :, ::-1])
    np.testing.assert_array_equal(layers[0].bias.numpy(), [0, 1, 2, 3])
    np.testing.assert_array_equal(layers[3].kernel.numpy(), fc1)


@pytest.mark.skipif(not VGG16_FILE.exists(), reason="../shared/weights is not here")
def test_vgg16_on_rgb_equals_keras_applications_on_bgr():
    reference = keras.applications.VGG16(include_top=False, weights=str(VGG16_FILE))
    reference = keras.Model(reference.input, reference.get_layer("block5_conv3").output)
    base = vgg16.build_base("float32", seed=0)
    report = load_layers(base.layers, VGG16_FILE)
    assert len(report.loaded) == 13 and report.new == report.ignored == ()
    rgb = (np.random.default_rng(0).standard_normal((1, 64, 48, 3)) * 64).astype(np.float32)
    expected = reference(np.ascontiguousarray(rgb[..., ::-1])).numpy()
    np.testing.assert_allclose(base(rgb).numpy(), expected, rtol=1e-3, atol=1e-3)
    assert np.abs(base(rgb[..., ::-1].copy()).numpy() - expected).max() > 1


def test_other_shape_is_an_error_that_names_layer_and_shapes_and_assigns_nothing(
    tmp_path,
):
    path = tmp_path / "model.h5"
    source, target = make_layers(1), make_layers(2)
    arrays = {
        layer.name: dict(zip(("kernel", "bias"), layer.get_weights(), strict=False))
        for layer in source
        if layer.name in ("conv", "fc6")
    }
    arrays["fc6"]["kernel"] = np.ones((9, 5))
    write_arrays(path, arrays, {})
    before = values(target)
    with pytest.raises(UserError) as error:
        load_layers(target, path)
    assert "Layer fc6 in" in str(error.value)
    assert "expects bias (5,), kernel (4, 5)" in str(error.value)
    assert "the file has bias (5,), kernel (9, 5)" in str(error.value)
    for now, then in zip(values(target), before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_layer_with_a_weight_less_is_an_error(tmp_path):
    path = tmp_path / "model.h5"
    write_arrays(path, {"fc6": {"kernel": np.ones((4, 5))}}, {})
    with pytest.raises(UserError, match=r"Layer fc6 .* the file has kernel \(4, 5\)\. Give"):
        load_layers(make_layers(1), path)


def test_outputs_for_other_classes_stay_new_and_are_reported(tmp_path):
    path = tmp_path / "model.h5"
    source, target = make_layers(1, classes=21), make_layers(2, classes=4)
    write_layers(path, source, {})
    before = target[-1].kernel.numpy()
    report = load_layers(target, path)
    assert report.loaded == ("conv", "conv_bn", "fc6")
    assert report.new == ("cls_score",) and report.ignored == ()
    np.testing.assert_array_equal(target[-1].kernel.numpy(), before)
    assert report.lines() == [
        f"Weights from {path}:",
        "    3 loaded: conv, conv_bn, fc6",
        "    1 new (initial weights): cls_score",
        "    0 ignored (not in this network)",
        "      cls_score: the network expects bias (4,), kernel (5, 4), "
        "the file has bias (21,), kernel (5, 21)",
    ]
    with pytest.raises(UserError, match="Layer cls_score"):
        load_layers(target, path, reinitialise=())


def test_file_of_another_network_and_missing_required_layers(tmp_path):
    path = tmp_path / "other.h5"
    write_arrays(path, {"stem": {"bias": np.ones(2)}, "fc6": {"bias": np.ones(2)}}, {})
    with pytest.raises(UserError, match="no weights for conv, conv_bn; its layers are stem, fc6"):
        load_layers(make_layers(1)[:2], path)
    write_layers(path, make_layers(1)[3:4], {})
    assert load_layers(make_layers(2), path).loaded == ("fc6",)
    with pytest.raises(UserError, match="no weights for conv;"):
        load_layers(make_layers(2), path, required=("conv", "fc6"))


def test_newer_and_damaged_formats_are_refused(tmp_path):
    path = tmp_path / "model.h5"
    write_layers(path, make_layers(1), {})
    with h5py.File(path, "a") as file:
        file.attrs["keras_frcnn"] = json.dumps({"format_version": 2, "metadata": {}})
    with pytest.raises(UserError, match=r"has weight format 2.*update keras_frcnn"):
        read_layers(path)
    for text in (
        "[]",
        "{",
        '{"format_version": "x", "metadata": {}}',
        '{"format_version": 1}',
    ):
        with h5py.File(path, "a") as file:
            file.attrs["keras_frcnn"] = text
        with pytest.raises(UserError, match="cannot be read"):
            read_layers(path)


def test_files_of_other_kinds_are_user_errors(tmp_path):
    with pytest.raises(UserError, match="There is no weight file"):
        read_layers(tmp_path / "absent.h5")
    with pytest.raises(UserError, match="There is no weight file"):
        read_layers(tmp_path)
    text = tmp_path / "text.h5"
    text.write_text("not HDF5 at all")
    with pytest.raises(UserError, match="cannot be read as a whole HDF5 file"):
        read_layers(text)
    cut = tmp_path / "cut.h5"
    write_layers(cut, make_layers(1), {})
    cut.write_bytes(cut.read_bytes()[:-2000])
    with pytest.raises(UserError, match="cannot be read as a whole HDF5 file"):
        read_layers(cut)
    keras3 = tmp_path / "model.weights.h5"
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    model.save_weights(keras3)
    with pytest.raises(UserError, match="cannot be read as a whole Keras weight file"):
        read_layers(keras3)


def test_nested_model_is_refused(tmp_path):
    path = tmp_path / "nested.h5"
    arrays = {"a/kernel:0": np.ones((2, 2)), "b/kernel:0": np.ones((2, 2))}
    write_keras_file(path, {"vgg16": arrays})
    with pytest.raises(UserError, match="several weights called kernel"):
        read_layers(path)


def test_imagenet_file_put_by_hand_is_checked(tmp_path, monkeypatch):
    content = b"pretend weights"
    path = tmp_path / "file.h5"
    path.write_bytes(content)
    digest = hashlib.md5(content).hexdigest()
    monkeypatch.setitem(weights.IMAGENET_FILES, "vgg16", ("vgg16", "file.h5", digest))
    assert imagenet_file("vgg16", tmp_path) == path
    path.write_bytes(content[:-1])
    with pytest.raises(UserError, match=f"should have {digest}"):
        imagenet_file("vgg16", tmp_path)


def test_imagenet_file_out_of_reach_names_the_ways_out(tmp_path, monkeypatch):
    asked = []

    def unreachable(name, origin, **options):
        asked.append((name, origin, options["file_hash"]))
        raise Exception(f"URL fetch failure on {origin}: None -- no route")

    monkeypatch.setattr(keras.utils, "get_file", unreachable)
    for network in ("vgg16", "resnet50"):
        with pytest.raises(UserError) as error:
            imagenet_file(network, tmp_path)
        assert "no route" in str(error.value)
        assert "`input_weight_path` FILE" in str(error.value)
        assert "`weights` random" in str(error.value)
    assert [origin.rsplit("keras-applications/", 1)[1] for _, origin, _ in asked] == [
        "vgg16/vgg16_weights_tf_dim_ordering_tf_kernels.h5",
        "resnet/resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5",
    ]
    with pytest.raises(UserError, match="no ImageNet weights of zf.*`input_weight_path` FILE"):
        imagenet_file("zf", tmp_path)


def test_large_weights_are_read_a_few_rows_at_a_time(tmp_path, monkeypatch):
    source, target = make_layers(1), make_layers(2)
    write_layers(tmp_path / "a.h5", source, {})
    reads = []
    read = weights.OpenLayerFile.read

    def counted(self, layer, weight, rows=slice(None)):
        reads.append((layer, weight))
        return read(self, layer, weight, rows)

    monkeypatch.setattr(weights.OpenLayerFile, "read", counted)
    monkeypatch.setattr(weights, "ASSIGNED_ELEMENTS", 20)
    load_layers(target, tmp_path / "a.h5", reinitialise=())
    assert max(reads.count(key) for key in reads) > 1
    for found, expected in zip(values(target), values(source), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_the_trained_variables_of_layers_in_their_order():
    layers = [keras.layers.Dense(2), keras.layers.BatchNormalization(), keras.layers.Dense(1)]
    layers[2].trainable = False
    for layer in layers:
        layer.build((None, 3))
    found = trained_variables(layers)
    assert all(isinstance(variable, tf.Variable) for variable in found)
    # Kernel and bias; gamma and beta, not the moving mean and variance; nothing of a frozen layer.
    assert [tuple(variable.shape) for variable in found] == [(3, 2), (2,), (3,), (3,)]


@pytest.fixture
def variable():
    with tf.device("CPU:0"):
        return tf.Variable(tf.zeros((6, 2)))


def test_rows_are_overwritten_and_the_others_kept(variable):
    assign_rows(variable, 2, np.array([[1, 2], [3, 4]], np.float32))
    expected = [[0, 0], [0, 0], [1, 2], [3, 4], [0, 0], [0, 0]]
    np.testing.assert_array_equal(variable.numpy(), expected)


def test_reading_copies_nothing_afterwards(variable):
    assign_rows(variable, 2, np.ones((2, 2), np.float32))
    reads = [variable.read_value() for _ in range(2)]
    first, second = (np.asarray(read) for read in reads)
    assert np.shares_memory(first, second)


def test_what_was_read_before_is_not_overwritten(variable):
    before = variable.read_value()
    assign_rows(variable, 0, np.ones((2, 2), np.float32))
    assert not before.numpy().any()
    assert variable.numpy()[:2].all()
