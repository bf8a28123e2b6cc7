"""Hard data train without a NaN in every stage: no objects, one class, 500, specks, whole images.

Shapes and names
----------------
objects  (y1, x1, y2, x2), class of one image of 120 x 160 pixels (height x width).
"""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from keras_frcnn.data.dataset import Dataset
from keras_frcnn.recipes import PY_FASTER_RCNN, StageSchedule
from keras_frcnn.runs.folder import RunFolder
from keras_frcnn.training import output
from tests.read_weights import read_layers

HEIGHT, WIDTH = 120, 160
WHOLE = ((0, 0, HEIGHT, WIDTH), 1)
ORDINARY = ((20, 30, 90, 100), 1)


def scattered(count: int, side: int) -> list[tuple]:
    """Objects of one size anywhere, of classes 1 and 2 in turns."""
    corners = np.random.default_rng(0).integers(0, (HEIGHT - side, WIDTH - side), (count, 2))
    return [((y, x, y + side, x + side), 1 + n % 2) for n, (y, x) in enumerate(corners.tolist())]


# The objects of each of three images.
IMAGES = {
    "two of three images without objects": ([ORDINARY], [], []),
    "objects of one class": ([ORDINARY], [ORDINARY, WHOLE], [ORDINARY]),
    "500 objects": (scattered(500, 20), [ORDINARY], scattered(500, 8)),
    "objects of 2 pixels": (scattered(5, 2), scattered(1, 2), scattered(30, 2)),
    "objects of the whole image": ([WHOLE], [WHOLE, WHOLE], [WHOLE]),
    "everything at once, and objects of 1 pixel": (
        [WHOLE, *scattered(300, 2)],
        [],
        [*scattered(100, 1), WHOLE],
    ),
}
MIXED = "everything at once, and objects of 1 pixel"
CASES = [
    *((name, "paper", "alternating", "float32") for name in IMAGES if name != MIXED),
    (MIXED, "paper", "alternating", "float16"),
    (MIXED, "py-faster-rcnn", "joint", "float32"),
    (MIXED, "py-faster-rcnn", "joint", "bfloat16"),
]


@pytest.fixture
def dataset(make_dataset, tmp_path):
    """``dataset(name)``: the three images, written as noise."""

    def make(name):
        classes = ("cat",) if name == "objects of one class" else ("cat", "dog")
        images = [[(box, index, False) for box, index in objects] for objects in IMAGES[name]]
        made = make_dataset(*images, class_names=classes, size=(HEIGHT, WIDTH))
        examples = []
        for number, example in enumerate(made.examples):
            path = tmp_path / f"{number}.png"
            pixels = np.random.default_rng(number).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
            Image.fromarray(pixels).save(path)
            examples.append(dataclasses.replace(example, path=path))
        return Dataset(classes, tuple(examples), made.sets)

    return make


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "recipe_name", "mode", "precision"), CASES, ids=[", ".join(case) for case in CASES]
)
def test_hard_data(
    dataset, run_config, trainer_of, tmp_path, monkeypatch, name, recipe_name, mode, precision
):
    monkeypatch.setattr(output, "save_curves", lambda *arguments: None)
    monkeypatch.setattr("keras_frcnn.training.loop.LOG_EVERY", 1)
    data = dataset(name)
    recipe = run_config().recipe
    if recipe_name == PY_FASTER_RCNN.name:
        recipe = dataclasses.replace(
            recipe, rpn=PY_FASTER_RCNN.rpn, detector=PY_FASTER_RCNN.detector
        )
    schedule = StageSchedule(3, 2, 0.001)
    recipe = dataclasses.replace(recipe, stages=(schedule,) * 4, joint=schedule)
    config = run_config(
        mode=mode,
        stages=() if mode == "joint" else (1, 2, 3, 4),
        precision=precision,
        recipe=recipe,
        class_names=data.class_names,
    )
    run = RunFolder(tmp_path / "run")
    run.create(config, [])
    trainer, _ = trainer_of(config, data, run)
    trainer.train()
    records = [json.loads(line) for line in run.metrics_file.read_text().splitlines()]
    numbers = [0] if mode == "joint" else [1, 2, 3, 4]
    assert [record["stage"] for record in records] == [stage for stage in numbers for _ in range(3)]
    for record in records:
        assert all(np.isfinite(value) for value in record.values())
    for layer in read_layers(run.weights_file("final")).layers.values():
        assert all(np.isfinite(weight).all() for weight in layer.values())
