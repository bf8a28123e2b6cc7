"""The assembled network: what is shared, what is trained where, how it starts, its precision.

Shapes and names
----------------
N  images, R  RoIs of all of them, C  classes incl. background.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from keras_frcnn.network.detector import detector_class_loss
from keras_frcnn.network.faster_rcnn import FasterRcnn
from keras_frcnn.network.weights import load_layers
from keras_frcnn.recipes import PAPER

SHARED = Path(__file__).resolve().parents[2].parent / "shared"
VGG_WEIGHTS = SHARED / "weights" / "vgg16_imagenet_notop.h5"
PHOTOS = SHARED / "data" / "voc" / "VOCdevkit" / "VOC2007"
CLASSES = ("cat", "dog", "sheep")


@pytest.fixture(scope="module")
def model(tiny_recipe):
    return FasterRcnn("tiny", CLASSES, tiny_recipe, seed=2)


def inputs(size=(64, 96)):
    image = tf.random.stateless_normal((1, *size, 3), (3, 4)) * 60
    rois = tf.constant([[0, 0, 40, 50], [10, 20, 60, 90]], tf.float32)
    return image, rois, tf.zeros(2, tf.int32)


def test_one_weight_of_the_base_moves_both_networks(model):
    image, rois, roi_image = inputs()

    def outputs():
        both = (
            *model.rpn_head(model.base(image)),
            *model.detector([model.base(image), rois, roi_image]),
            model.base(image),
        )
        return [output.numpy() for output in both]

    before = outputs()
    layer = model.base.get_layer("conv5")
    kernel, bias = layer.get_weights()
    changed = bias.copy()
    changed[7] += 100.0
    layer.set_weights([kernel, changed])
    after = outputs()
    layer.set_weights([kernel, bias])
    for old, new, restored in zip(before, after, outputs(), strict=True):
        assert np.abs(new - old).max() > 1e-4
        np.testing.assert_array_equal(old, restored)


def test_training_and_inference_share_the_detectors_layers(model):
    image, rois, roi_image = inputs()
    arguments = [model.base(image), rois, roi_image]
    class_logits, deltas = model.detector(arguments)
    assert class_logits.shape == (2, 4)
    assert deltas.shape == (2, 16)
    training = model.detector_training([*arguments, tf.constant([1, 2])])
    np.testing.assert_array_equal(training[0], class_logits)  # tiny has no dropout
    np.testing.assert_array_equal(training[1], deltas)
    of_training = {id(weight) for weight in model.detector_training.weights}
    assert of_training == {id(weight) for weight in model.detector.weights}


def test_dropout_acts_with_a_seed_only(vgg):
    features = tf.abs(tf.random.stateless_normal((1, 6, 8, 512), (5, 6)))
    arguments = [features, *inputs()[1:]]
    plain = vgg.detector(arguments)[0].numpy()

    def trained(*seed):
        return vgg.detector_training([*arguments, tf.constant(seed)])[0].numpy()

    np.testing.assert_array_equal(vgg.detector(arguments)[0], plain)
    np.testing.assert_array_equal(trained(1, 2), trained(1, 2))
    assert np.abs(trained(1, 2) - trained(1, 3)).max() > 0
    assert np.abs(trained(1, 2) - plain).max() > 0


def test_every_weight_belongs_to_one_part(model):
    parts = (model.layers("base"), model.layers("rpn"), model.layers("head"))
    assert [[layer.name for layer in part] for part in parts] == [
        [f"conv{index}{part}" for index in range(1, 6) for part in ("", "_norm")],
        ["rpn_conv", "rpn_cls_score", "rpn_bbox_pred"],
        ["fc6", "fc7", "cls_score", "bbox_pred"],
    ]
    assert [layer.name for layer in model.layers()] == [
        layer.name for part in parts for layer in part
    ]
    held = {id(weight) for layer in model.layers() for weight in layer.weights}
    networks = (model.base, model.rpn_head, model.detector_training)
    assert held == {id(weight) for network in networks for weight in network.weights}


def test_what_stages_1_and_2_train(vgg, model):
    names = [layer.name for layer in vgg.layers("base")]
    assert len(names) == 13
    trained = [layer.name for layer in vgg.layers("base", trained=True)]
    assert trained == names[names.index("block3_conv1") :]
    assert [name for name in names if name not in trained] == [
        "block1_conv1", "block1_conv2", "block2_conv1", "block2_conv2",
    ]  # fmt: skip
    assert model.layers("base", trained=True) == model.layers("base")


def test_outputs_start_as_published():
    model = FasterRcnn("tiny", tuple(f"class{index}" for index in range(20)), PAPER, seed=1)
    deviations = {"cls_score": 0.01, "bbox_pred": 0.001}
    for layer in model.layers("head")[-2:]:
        kernel, bias = layer.get_weights()
        assert kernel.std() == pytest.approx(deviations[layer.name], rel=0.05)
        np.testing.assert_array_equal(bias, 0)
    assert model.layers("head")[-1].get_weights()[0].shape[1] == 84


def test_the_seed_decides_every_weight(tiny_recipe):
    def weights(seed):
        model = FasterRcnn("tiny", CLASSES, tiny_recipe, seed=seed)
        first = [layer.get_weights()[0] for layer in model.layers()]
        return [kernel for kernel in first if kernel.ndim > 1]  # gamma starts at 1

    for one, same, other in zip(weights(1), weights(1), weights(2), strict=True):
        np.testing.assert_array_equal(one, same)
        assert not np.array_equal(one, other)


def test_without_a_seed_nothing_is_drawn(tiny_recipe):
    model = FasterRcnn("tiny", CLASSES, tiny_recipe, seed=None)
    for layer in model.layers():
        kernel = layer.get_weights()[0]
        assert kernel.ndim == 1 or not kernel.any(), layer.name  # gamma starts at 1


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_output_layers_stay_float32(precision, tiny_recipe):
    model = FasterRcnn("tiny", CLASSES, tiny_recipe, precision=precision, seed=2)
    image, rois, roi_image = inputs()
    features = model.base(image)
    assert features.dtype == precision
    outputs = {
        "rpn_cls_score": model.rpn_head(features)[0],
        "rpn_bbox_pred": model.rpn_head(features)[1],
        "cls_score": model.detector([features, rois, roi_image])[0],
        "bbox_pred": model.detector([features, rois, roi_image])[1],
    }
    layers = {layer.name: layer for layer in model.layers()}
    for name, output in outputs.items():
        assert output.dtype == tf.float32
        assert layers[name].compute_dtype == "float32"
        rounded = tf.cast(tf.cast(output, precision), tf.float32)
        assert np.any(rounded.numpy() != output.numpy())
    for name in ("conv3", "rpn_conv", "fc6"):
        assert layers[name].compute_dtype == precision
    assert all(weight.dtype == "float32" for layer in layers.values() for weight in layer.weights)


def test_anchors_are_those_of_the_recipe(model, tiny_recipe):
    anchors = model.anchors(2, 3).numpy()
    assert anchors.shape == (2 * 3 * 4, 4)
    # Row 1, column 2, first shape: ratio 0.7 of base 16 is 19 wide and 13 high, at scale 1.5.
    cell = np.array([8 + 16, 8 + 32])
    half = 1.5 * np.array([13, 19]) / 2
    np.testing.assert_allclose(anchors[(1 * 3 + 2) * 4], [*(cell - half), *(cell + half)])


@pytest.mark.slow
@pytest.mark.skipif(not VGG_WEIGHTS.is_file(), reason=f"needs {VGG_WEIGHTS.name} in ../shared")
@pytest.mark.skipif(not PHOTOS.is_dir(), reason="needs the photos of ../shared")
def test_first_cross_entropy_of_vgg_is_near_the_uniform_one(vgg):
    """Wrong means, channel order or initial weights show as a first loss far above ln C."""
    from keras_frcnn.data.images import read_image
    from keras_frcnn.network.network_input import prepare_image

    load_layers(vgg.layers(), VGG_WEIGHTS)
    photo = sorted((PHOTOS / "JPEGImages").glob("*.jpg"))[0]
    config = dataclasses.replace(PAPER.image, short_side=300, long_side=500)
    image, _ = prepare_image(read_image(photo), config)
    corner = tf.random.stateless_uniform((32, 2), (1, 2), maxval=200.0)
    sides = tf.random.stateless_uniform((32, 2), (3, 4), minval=40.0, maxval=100.0)
    rois = tf.concat((corner, corner + sides), axis=1)
    features = vgg.base(image[None])
    assert 0.1 < float(tf.reduce_mean(features)) < 20
    arguments = [features, rois, tf.zeros(32, tf.int32), tf.constant([1, 2])]
    class_logits, _ = vgg.detector_training(arguments)
    loss = detector_class_loss(tf.repeat(class_logits, 21, axis=0), tf.range(32 * 21) % 21)
    # Over all labels 3.4, where ln 21 is 3.0: fc6 and fc7 are new and drawn from N(0, 0.005); from
    # N(0, 0.01) it would be 5.9.
    assert float(loss) == pytest.approx(np.log(21), abs=0.6)
