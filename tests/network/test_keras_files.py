"""The functional models are Keras models like any other: saved, loaded, summarised, drawn."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_frcnn.network.faster_rcnn import FasterRcnn
from keras_frcnn.network.roi_pooling import RULES
from keras_frcnn.recipes import NETWORKS, POOLINGS, Recipe

ROOT = Path(__file__).parents[2]
# A process of its own: what this one has imported would be registered for it too.
LOADING = """
import sys
import keras
from keras_frcnn import FasterRcnn
import numpy as np

folder = sys.argv[1]
for name in sys.argv[2:]:
    loaded = keras.models.load_model(f"{folder}/{name}.keras")
    stored = np.load(f"{folder}/{name}.npz")
    inputs = [stored[key] for key in stored.files if key.startswith("input")]
    found = loaded(inputs if len(inputs) > 1 else inputs[0])
    found = found if isinstance(found, list) else [found]
    assert len(found) == sum(key.startswith("output") for key in stored.files)
    for index, output in enumerate(found):
        np.testing.assert_array_equal(output, stored[f"output{index}"], err_msg=name)
    loaded.summary(print_fn=lambda line: None)
    print(name)
"""


def saved_models(model: FasterRcnn, folder: Path) -> list[str]:
    """Writes each model, and what it makes of some inputs."""
    image = tf.random.stateless_normal((1, 64, 96, 3), (3, 4)) * 60
    features = model.base(image)
    rois = tf.constant([[0, 0, 40, 50], [10, 20, 60, 90]], tf.float32)
    roi_image = tf.zeros(2, tf.int32)
    arguments = {
        "base": [image],
        "rpn_head": [features],
        "detector": [features, rois, roi_image],
        "detector_training": [features, rois, roi_image, tf.constant([1, 2])],
    }
    for name, inputs in arguments.items():
        network = getattr(model, name)
        network.save(folder / f"{name}.keras")
        outputs = tf.nest.flatten(network(inputs if len(inputs) > 1 else inputs[0]))
        assert any(np.ptp(output) > 0 for output in outputs)
        arrays = {f"input{index}": value for index, value in enumerate(inputs)}
        arrays |= {f"output{index}": value for index, value in enumerate(outputs)}
        np.savez(folder / f"{name}.npz", **arrays)
    return list(arguments)


def assert_loaded_alike(recipe: Recipe, folder: Path, *networks: tuple[str, str, str]) -> None:
    """Every model of every (network, pooling, objectness) comes back and gives the same outputs."""
    names = []
    for network, pooling, objectness in networks:
        changed = dataclasses.replace(
            recipe,
            rpn=dataclasses.replace(recipe.rpn, objectness=objectness),
            detector=dataclasses.replace(recipe.detector, roi_pooling=pooling),
        )
        (folder / network / pooling).mkdir(parents=True)
        model = FasterRcnn(network, ("cat", "dog"), changed, seed=2)
        written = saved_models(model, folder / network / pooling)
        names += [f"{network}/{pooling}/{name}" for name in written]
    done = subprocess.run(
        [sys.executable, "-c", LOADING, str(folder), *names],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == names, done.stderr


def test_models_of_every_pooling_rule_are_loaded_without_custom_objects(tiny_recipe, tmp_path):
    networks = (
        ("tiny", "crop", "softmax"),
        ("tiny", "max", "logistic"),
        ("tiny", "align", "softmax"),
    )
    assert {pooling for _, pooling, _ in networks} == set(RULES) == set(POOLINGS)
    assert_loaded_alike(tiny_recipe, tmp_path, *networks)


@pytest.mark.slow
@pytest.mark.parametrize("network", [name for name in NETWORKS if name != "tiny"])
def test_models_of_every_network_are_loaded_without_custom_objects(tiny_recipe, tmp_path, network):
    assert_loaded_alike(tiny_recipe, tmp_path, (network, "crop", "softmax"))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_every_layer_of_ours_is_registered_and_made_again_from_its_config(tiny_recipe, precision):
    recipe = dataclasses.replace(
        tiny_recipe, rpn=dataclasses.replace(tiny_recipe.rpn, objectness="logistic")
    )
    own = {}
    for network in ("tiny", "resnet50", "zf"):
        model = FasterRcnn(network, ("cat",), recipe, seed=None, precision=precision)
        for part in (model.base, model.rpn_head, model.detector_training):
            layers = [layer for layer in part.layers if type(layer).__module__.startswith("keras_")]
            own |= {type(layer): layer for layer in layers}
    assert {layer.__name__ for layer in own} == {
        "AnchorLayout",
        "FrozenBatchNormalization",
        "RoiPooling",
        "StatelessDropout",
        "WithinChannelNormalization",
        "ZeroBackground",
    }
    for kind, layer in own.items():
        assert keras.saving.get_registered_name(kind) == f"keras_frcnn>{kind.__name__}"
        again = kind.from_config(layer.get_config())
        assert again.get_config() == layer.get_config()
        assert again.compute_dtype == layer.compute_dtype


def test_summaries_name_the_papers_layers(tiny_recipe):
    model = FasterRcnn("tiny", ("cat",), tiny_recipe, seed=None)
    lines: list[str] = []
    for part in (model.base, model.rpn_head, model.detector):
        part.summary(print_fn=lines.append)
    text = "\n".join(lines)
    for name in ("conv5", "rpn_conv", "rpn_cls_score", "rpn_bbox_pred"):
        assert name in text
    for name in ("roi_pooling", "fc6", "fc7", "cls_score", "bbox_pred"):
        assert name in text
