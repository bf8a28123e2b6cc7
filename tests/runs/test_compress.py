"""Truncated SVD of fc6 and fc7: against numpy.linalg.svd, at full rank, as a run folder.

Shapes and names
----------------
kernel  (u, v) float32.
"""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

from keras_frcnn.detection.network_detector import NetworkDetector, load_run
from keras_frcnn.detection.saved_model import load_exported
from keras_frcnn.errors import UserError
from keras_frcnn.export.saved_model import export, largest_difference
from keras_frcnn.network.backbones import build_backbone
from keras_frcnn.network.compression import check_ranks, truncated_svd
from keras_frcnn.recipes import Compression, DetectionFilter
from keras_frcnn.runs.compress import compress_model, compress_run, head_parameters, region_seconds
from keras_frcnn.runs.folder import RunFolder
from keras_frcnn.runs.networks import load_model
from tests.random_networks import find, random_image, random_network, write_part
from tests.read_weights import read_layers

CLASSES = ("disc", "square", "star")
EVERYTHING = DetectionFilter(score_threshold=0.0)
FULL = Compression(fc6=256, fc7=256)


@pytest.fixture(scope="module")
def model(tiny_recipe):
    return random_network(tiny_recipe, CLASSES, seed=1)


# --- the decomposition -------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(60, 20), (20, 60), (5000, 12), (16, 16)])
@pytest.mark.parametrize("rank", [1, 5, 12])
def test_it_is_the_best_approximation_of_its_rank(shape, rank):
    generator = np.random.default_rng(0)
    # Singular values that fall off, as those of trained layers do.
    kernel = generator.normal(0, 1, shape) * np.geomspace(1, 0.01, shape[1])
    kernel = kernel.astype(np.float32)
    first, second = truncated_svd(kernel, rank)
    assert (first.shape, second.shape) == ((shape[0], rank), (rank, shape[1]))
    assert first.dtype == second.dtype == np.float32
    u, s, vt = np.linalg.svd(kernel.astype(np.float64), full_matrices=False)
    expected = u[:, :rank] * s[:rank] @ vt[:rank]
    np.testing.assert_allclose(first.astype(np.float64) @ second, expected, atol=1e-5)
    # Eckart-Young: the error is that of the singular values that were dropped.
    error = np.linalg.norm(kernel - first.astype(np.float64) @ second)
    assert error == pytest.approx(np.sqrt((s[rank:] ** 2).sum()), rel=1e-4, abs=1e-5)
    # The columns of the first are U S, but for their signs.
    np.testing.assert_allclose(np.linalg.norm(first, axis=0), s[:rank], rtol=1e-4)


@pytest.mark.parametrize("condition", [1.0, 1e-6, 0.0])
def test_at_full_rank_the_product_is_the_kernel(condition):
    kernel = np.random.default_rng(1).normal(0, 1, (80, 30)) * np.linspace(condition, 1, 30)
    kernel = kernel.astype(np.float32)
    first, second = truncated_svd(kernel, 30)
    np.testing.assert_allclose(first @ second, kernel, atol=2e-6)


# --- the network -------------------------------------------------------------------------------


def test_layers_are_called_as_in_compress_net(model):
    compressed = compress_model(model, Compression(fc6=40, fc7=24))
    shapes = {
        layer.name: [tuple(weight.shape) for weight in layer.weights]
        for layer in compressed.layers("head")[:4]
    }
    assert shapes == {
        "fc6_L": [(6272, 40)],
        "fc6_U": [(40, 256), (256,)],
        "fc7_L": [(256, 24)],
        "fc7_U": [(24, 256), (256,)],
    }
    assert head_parameters(compressed) == 6272 * 40 + 40 * 256 + 256 + 2 * 24 * 256 + 256 + sum(
        int(np.prod(weight.shape)) for layer in model.layers("head")[2:] for weight in layer.weights
    )


def test_the_head_is_the_product_of_its_layers(model):
    """By hand: two products and one ReLU a layer, the bias after the second."""
    compressed = compress_model(model, Compression(fc6=40, fc7=24))
    pooled = np.random.default_rng(0).random((5, 7, 7, 128), np.float32)
    x = pooled.reshape(5, -1).astype(np.float64)
    for layer, rank in zip(model.layers("head")[:2], (40, 24), strict=True):
        kernel, bias = (weight.astype(np.float64) for weight in layer.get_weights())
        u, s, vt = np.linalg.svd(kernel, full_matrices=False)
        x = np.maximum(x @ (u[:, :rank] * s[:rank] @ vt[:rank]) + bias, 0)
    np.testing.assert_allclose(compressed.backbone.head(pooled), x, rtol=1e-3, atol=1e-4)


def test_at_full_rank_detections_are_the_same(model):
    compressed = compress_model(model, FULL)
    for size in ((100, 140), (231, 90)):
        expected = find(NetworkDetector(model, EVERYTHING), random_image(*size))
        found = find(NetworkDetector(compressed, EVERYTHING), random_image(*size))
        assert len(expected) > 20
        pixels, scores = largest_difference(expected, found)
        assert pixels < 0.01
        assert scores < 1e-4
    less = find(
        NetworkDetector(compress_model(model, Compression(8, 8)), EVERYTHING), random_image(231, 90)
    )
    assert largest_difference(expected, less)[1] > 1e-3


def test_ranks_and_networks_that_do_not_fit(model):
    with pytest.raises(UserError, match="`fc6` 257 exceeds .*, which is 6272 x 256: give at most"):
        check_ranks(model, Compression(257, 10))
    with pytest.raises(UserError, match="`fc7` 300 exceeds .* 256 x 256"):
        check_ranks(model, Compression(10, 300))
    with pytest.raises(UserError, match="fc6 should be at least 1"):
        Compression(0, 5)
    with pytest.raises(UserError, match=r"compressed already \(fc6 4, fc7 5\)"):
        check_ranks(compress_model(model, Compression(4, 5)), Compression(2, 2))
    convolutions = SimpleNamespace(
        network="resnet50",
        compression=None,
        layers=lambda part: [SimpleNamespace(name="conv5_block1")],
    )
    with pytest.raises(UserError, match="resnet50 has no fc6 and fc7"):
        check_ranks(convolutions, Compression())
    with pytest.raises(UserError, match="resnet50 has no fc6 and fc7"):
        build_backbone("resnet50", compression=Compression())


def test_times_are_those_of_every_network(model):
    seconds = region_seconds([model, compress_model(model, Compression(8, 8))], rois=20, repeats=2)
    assert len(seconds) == 2
    assert all(0 < second < 5 for second in seconds)


# --- run folders -------------------------------------------------------------------------------


@pytest.fixture
def run(run_config, tiny_recipe, tmp_path):
    """``run(**changes)``: a run folder with the weights of a finished training."""

    def make(**changes):
        folder = RunFolder(tmp_path / "run")
        folder.create(run_config(class_names=CLASSES, **changes), ["train_frcnn.py"])
        for seed, name in enumerate(("stage1", "stage2", "final")):
            made = random_network(tiny_recipe, CLASSES, seed)
            layers = {
                "stage1": made.layers("base", "rpn"),
                "stage2": made.layers("base", "head"),
            }.get(name, made.layers())
            write_part(folder, name, layers)
        folder.training_images_file.write_text("VOC2007/000001\t000001.jpg\tabc\n")
        (folder.path / "samples").mkdir()
        (folder.path / "samples" / "anchors-1.png").write_bytes(b"PNG")
        return folder

    return make


def test_a_compressed_run_is_a_run(run, tmp_path):
    source, out = run(), RunFolder(tmp_path / "new" / "svd")
    compress_run(source, out, Compression(30, 20), ["keras_frcnn", "compress"])
    assert json.loads(out.config_file.read_text())["compression"] == {"fc6": 30, "fc7": 20}
    config = out.read_config()
    assert config.compression == Compression(30, 20)
    assert config.recipe == source.read_config().recipe
    assert source.read_config().compression is None
    assert [path.name for path in (out.path / "weights").iterdir()] == ["final.weights.h5"]
    assert (out.path / "samples" / "anchors-1.png").read_bytes() == b"PNG"
    # Evaluation still refuses the images that were trained on.
    assert out.training_images_file.read_text() == source.training_images_file.read_text()
    stored = read_layers(out.weights_file("final"))
    assert stored.metadata["class_names"] == list(CLASSES)
    expected = compress_model(load_model(source), Compression(30, 20))
    found = load_model(out)
    for one, other in zip(found.layers(), expected.layers(), strict=True):
        for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)


def test_the_unshared_variant_is_compressed_in_its_detector(run, tmp_path):
    source, out = run(stages=(1, 2)), RunFolder(tmp_path / "svd")
    compress_run(source, out, FULL, [])
    predictor = load_run(out.path, EVERYTHING)
    assert predictor.model.compression is None
    assert predictor.detector_model.compression == FULL
    expected = find(load_run(source.path, EVERYTHING), random_image(100, 140))
    pixels, scores = largest_difference(expected, find(predictor, random_image(100, 140)))
    assert pixels < 0.01
    assert scores < 1e-4


def test_an_export_of_it_agrees(run, tmp_path):
    out = RunFolder(tmp_path / "svd")
    compress_run(run(), out, Compression(30, 20), [])
    predictor = load_run(out.path, DetectionFilter(score_threshold=0.2))
    export(predictor, tmp_path / "exported")
    pixels = random_image(90, 130)
    expected = find(predictor, pixels)
    found = find(load_exported(tmp_path / "exported"), pixels)
    assert len(expected) > 0
    difference = largest_difference(expected, found)
    assert difference[0] < 0.01
    assert difference[1] < 1e-4


def test_loading_stays_strict(run, tmp_path, tiny_recipe):
    source, out = run(), RunFolder(tmp_path / "svd")
    compress_run(source, out, Compression(30, 20), [])
    good = out.weights_file("final").read_bytes()
    out.weights_file("final").write_bytes(source.weights_file("final").read_bytes())
    with pytest.raises(UserError, match="holds no weights for fc6_L, fc6_U, fc7_L, fc7_U"):
        load_model(out)
    other = compress_model(random_network(tiny_recipe, CLASSES, 0), Compression(31, 20))
    write_part(out, "final", other.layers())
    with pytest.raises(UserError, match=r"fc6_L.*does not fit the network.*\(6272, 30\)"):
        load_model(out)
    source.weights_file("final").write_bytes(good)
    with pytest.raises(UserError, match="holds no weights for fc6, fc7"):
        load_model(source)


def test_what_cannot_be_done_with_it_is_said(run, tmp_path, run_config):
    source, out = run(), RunFolder(tmp_path / "svd")
    compress_run(source, out, Compression(30, 20), [])
    with pytest.raises(UserError, match="is a compressed run, whose training cannot go on"):
        out.resume(run_config(class_names=CLASSES))
    with pytest.raises(UserError, match="no stage2 weights yet .*a compressed run has its result"):
        load_run(out.path, stage=2)
    with pytest.raises(UserError, match="compressed already"):
        compress_run(out, RunFolder(tmp_path / "again"), Compression(3, 2), [])
    assert not (tmp_path / "again").exists()
    with pytest.raises(UserError, match="exists and is not empty"):
        compress_run(source, out, Compression(3, 2), [])
