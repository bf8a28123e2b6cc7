"""What several test files share: small data, a small recipe, a way to train it.

Shapes and names
----------------
unit  one training image in one orientation.
"""

from __future__ import annotations

import dataclasses
import io
import signal
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope="session", autouse=True)
def signals_are_heard():
    """A shell lets programs in its background ignore Ctrl-C, and ``nohup`` a lost terminal."""
    heard = {signal.SIGINT: signal.default_int_handler}
    if hasattr(signal, "SIGHUP"):
        heard[signal.SIGHUP] = signal.SIG_DFL
    previous = {number: signal.signal(number, handler) for number, handler in heard.items()}
    yield
    for number, handler in previous.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def repeatable():
    """Op determinism, as the command line switches it on for the CPU; it cannot be undone."""
    import tensorflow as tf

    tf.config.experimental.enable_op_determinism()


@pytest.fixture(scope="session")
def tiny_recipe():
    """The paper's recipe at a size that trains in milliseconds: 96 pixels, four anchors."""
    from keras_frcnn import recipes

    paper = recipes.PAPER
    return dataclasses.replace(
        paper,
        image=dataclasses.replace(paper.image, short_side=96, long_side=160),
        anchors=recipes.AnchorConfig(scales=(1.5, 3.0), ratios=(0.7, 1.4)),
        training_proposals=dataclasses.replace(paper.training_proposals, after_nms=60),
        joint_proposals=dataclasses.replace(paper.joint_proposals, after_nms=60),
        stages=tuple(
            recipes.StageSchedule(iterations=4, drop_at=2, learning_rate=0.01) for _ in range(4)
        ),
        joint=recipes.StageSchedule(iterations=2, drop_at=1, learning_rate=0.01),
    )


@pytest.fixture(scope="session")
def vgg():
    """A random VGG-16 for the 20 classes of VOC, half a gigabyte: made once."""
    from keras_frcnn.network.faster_rcnn import FasterRcnn
    from keras_frcnn.recipes import PAPER

    return FasterRcnn("vgg16", tuple(f"class{index}" for index in range(20)), PAPER, seed=0)


@pytest.fixture(scope="session")
def demo_dataset(tmp_path_factory):
    """Four generated images; the last has lost its objects and the third is cut to a portrait."""
    from PIL import Image

    from keras_frcnn.data.dataset import Dataset
    from keras_frcnn.data.voc import load_voc
    from keras_frcnn.demo.devkit import write_demo_devkit

    folder = tmp_path_factory.mktemp("devkit")
    write_demo_devkit(folder, seed=3, train_images=4, test_images=1, size=(200, 260))
    dataset = load_voc(folder, "2007:trainval")
    examples = list(dataset.examples)
    empty = {
        "boxes_image": np.zeros((0, 4), np.float32),
        "classes": np.zeros(0, np.int32),
        "difficult": np.zeros(0, bool),
    }
    examples[3] = dataclasses.replace(examples[3], **empty)
    with Image.open(examples[2].path) as image:
        image.crop((0, 0, 150, 200)).save(examples[2].path)
    boxes = np.array([[20, 30, 120, 110], [60, 70, 180, 140]], np.float32)
    examples[2] = dataclasses.replace(
        examples[2],
        width=150,
        boxes_image=boxes,
        classes=np.array([1, 2], np.int32),
        difficult=np.array([False, False]),
    )
    return Dataset(dataset.class_names, tuple(examples), dataset.sets)


@pytest.fixture(scope="session")
def run_config(demo_dataset, tiny_recipe):
    """``run_config(**changes)``: the configuration of a run on ``demo_dataset``."""
    from keras_frcnn.runs.config import DataSource, RunConfig

    def make(**changes):
        config = RunConfig(
            network="tiny",
            precision="float32",
            mode="alternating",
            seed=5,
            flips=True,
            class_names=demo_dataset.class_names,
            initial_weights="random",
            stages=(1, 2, 3, 4),
            data=DataSource(path="devkit", ids_hash=demo_dataset.ids_hash),
            recipe=tiny_recipe,
        )
        return dataclasses.replace(config, **changes)

    return make


@pytest.fixture(scope="session")
def trainer_of(repeatable):
    """``trainer_of(config, dataset, run, **options)``: a trainer and what it says, as a stream."""
    from rich.console import Console

    from keras_frcnn.training.display import TrainingDisplay
    from keras_frcnn.training.options import TrainingOptions
    from keras_frcnn.training.stages import Trainer

    def make(config, dataset, run, **options):
        said = io.StringIO()
        display = TrainingDisplay(Console(file=said, width=1000), [])
        options = TrainingOptions(**{"initial_weights": None, **options})
        return Trainer(config, dataset, run, options, display), said

    return make


@pytest.fixture(scope="session")
def make_dataset():
    """``make_dataset(*images, class_names=, ids=)``: an image is a list of (box, class, difficult).

    Its id is its position, unless ``ids`` gives it.
    """

    from keras_frcnn.data.dataset import Dataset, Example

    def make(*images, class_names=("cat",), ids=None, size=(100, 100)):
        examples = []
        for index, objects in enumerate(images):
            boxes, classes, difficult = zip(*objects, strict=True) if objects else ([], [], [])
            image_id = str(index) if ids is None else ids[index]
            examples.append(
                Example(
                    image_id=image_id,
                    source="VOC2007",
                    path=Path(f"{image_id}.jpg"),
                    height=size[0],
                    width=size[1],
                    boxes_image=np.array(boxes, np.float32).reshape(-1, 4),
                    classes=np.array(classes, np.int32),
                    difficult=np.array(difficult, bool),
                )
            )
        return Dataset(class_names, tuple(examples), ("2007:test",))

    return make


@pytest.fixture(scope="session")
def make_detections():
    """``make_detections(*rows)``: each is (image id, box, score[, class])."""

    from keras_frcnn.detection.detections import ImageDetections

    def make(*rows):
        by_image = {}
        for image, box, score, *class_index in rows:
            values = (*box, score, *(class_index or [1]))
            by_image.setdefault(f"VOC2007/{image}", []).append(values)
        return {
            key: ImageDetections(
                np.array(values, np.float32)[:, :4],
                np.array(values, np.float32)[:, 4],
                np.array(values)[:, 5].astype(np.int32),
            )
            for key, values in by_image.items()
        }

    return make
