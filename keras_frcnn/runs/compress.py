"""A compressed copy of a run, and what it gains."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import tensorflow as tf

from keras_frcnn.network.compression import compress_model
from keras_frcnn.network.faster_rcnn import FasterRcnn
from keras_frcnn.network.weights import write_layers
from keras_frcnn.recipes import Compression
from keras_frcnn.runs.folder import RunFolder
from keras_frcnn.runs.networks import load_model, result_stage
from keras_frcnn.runs.provenance import weights_metadata
from keras_frcnn.runs.stage_table import FINAL
from keras_frcnn.system.timing import in_turns


def compress_run(
    run: RunFolder, out: RunFolder, compression: Compression, command: Sequence[str]
) -> tuple[FasterRcnn, FasterRcnn]:
    """Writes a compressed copy of a run's result as a run folder.

    The new folder has the result's weights only (the final ones; those of stages 1 and 2 where the
    run stopped there), the configuration, the list of training images and the sample pictures.

    Returns:
        the detector's network before and after.

    Raises:
        UserError: ``out`` is in use, the run is not finished, or as :func:`check_ranks`.
    """
    out.check_unused("give another --out")
    config = run.read_config()
    name = FINAL if result_stage(run) == 4 else "stage2"
    before = load_model(run, name)
    after = compress_model(before, compression)
    out.create(replace(config, compression=compression), command)
    metadata = weights_metadata(out, config, name)
    if name == FINAL:
        write_layers(out.weights_file(name), after.layers(), metadata)
    else:
        write_layers(out.weights_file(name), after.layers("base", "head"), metadata)
        if config.mode != "fast-rcnn":  # the RPN of stage 1 is not compressed
            shutil.copyfile(run.weights_file("stage1"), out.weights_file("stage1"))
    if run.training_images_file.is_file():
        shutil.copyfile(run.training_images_file, out.training_images_file)
    if (run.path / "samples").is_dir():
        shutil.copytree(run.path / "samples", out.path / "samples")
    return before, after


def head_parameters(model: FasterRcnn) -> int:
    """Weights of the layers above RoI pooling."""
    return sum(int(np.prod(w.shape)) for layer in model.layers("head") for w in layer.weights)


def region_seconds(
    models: Sequence[FasterRcnn], *, rois: int = 300, repeats: int = 7
) -> list[float]:
    """Median time of RoI pooling, fc layers and outputs on one image, for each of some networks.

    Features and RoIs are random, of the recipe's short side and a ratio of 4 to 3. All networks
    run once to warm up, then in turns.
    """
    calls = {str(index): _region_function(model, rois) for index, model in enumerate(models)}
    timings = in_turns(calls, repetitions=repeats, warm_up=1)
    return [timing.median_wall for timing in timings.values()]


def _region_function(model: FasterRcnn, rois: int) -> Callable[[], np.ndarray]:
    config = model.recipe.image
    height = config.short_side
    width = min(config.long_side, height * 4 // 3)
    cells = [int(model.backbone.feature_size(side)) for side in (height, width)]
    generator = np.random.default_rng(0)
    features = generator.random((1, *cells, model.backbone.channels), np.float32)
    corners = np.sort(generator.random((rois, 2, 2), np.float32), axis=1) * (height, width)
    inputs = [
        tf.cast(features, model.base.output.dtype),
        tf.cast(corners.reshape(rois, 4), tf.float32),
        tf.zeros(rois, tf.int32),
    ]
    detector = tf.function(model.detector)
    return lambda: detector(inputs)[0].numpy()
