"""Memory does not grow with the number of iterations, nor with that of the images tested.

A list that keeps every image, or a function that is traced again and again, takes hundreds of
mebibytes here: one 48 x 80 input with its features is a quarter of a mebibyte.

Shapes and names
----------------
resident  bytes of this process in memory.
"""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import psutil
import pytest
from PIL import Image

from keras_frcnn.cli import test as test_command
from keras_frcnn.cli.common import run_main
from keras_frcnn.detection import folder
from keras_frcnn.network.faster_rcnn import FasterRcnn
from keras_frcnn.recipes import PY_FASTER_RCNN, StageSchedule
from keras_frcnn.runs.folder import RunFolder
from keras_frcnn.runs.stage_table import FINAL
from keras_frcnn.training import output
from keras_frcnn.training.log import Log
from tests.random_networks import write_part

MEBIBYTE = 2**20
NUMBER = 2000
# From here on everything is traced and all buffers have their size.
WARM = 500
BOUND = 32 * MEBIBYTE

pytestmark = pytest.mark.slow


def resident() -> int:
    return psutil.Process().memory_info().rss


@pytest.fixture
def small_config(run_config, tiny_recipe):
    """Joint training at 48 pixels: RPN and detector in every iteration."""
    recipe = dataclasses.replace(
        tiny_recipe,
        image=dataclasses.replace(tiny_recipe.image, short_side=48, long_side=80),
        rpn=PY_FASTER_RCNN.rpn,
        detector=PY_FASTER_RCNN.detector,
        joint=StageSchedule(NUMBER, NUMBER, 0.0001),
        joint_images_per_step=1,
    )
    return run_config(mode="joint", stages=(), recipe=recipe)


def test_memory_of_a_training_stays_flat(
    small_config, demo_dataset, trainer_of, tmp_path, monkeypatch
):
    run = RunFolder(tmp_path / "run")
    run.create(small_config, [])
    monkeypatch.setattr(output, "save_curves", lambda *arguments: None)
    seen = {}
    record = Log.record

    def measured(self, done, rate):
        seen[done] = resident()
        return record(self, done, rate)

    monkeypatch.setattr(Log, "record", measured)
    trainer, _ = trainer_of(small_config, demo_dataset, run)
    trainer.train()
    assert max(seen) == NUMBER
    grown = max(seen[done] for done in seen if done > NUMBER - WARM) - seen[WARM]
    print(f"training: {grown / MEBIBYTE:+.1f} MiB in {NUMBER - WARM} iterations")
    assert grown < BOUND


def test_memory_of_testing_stays_flat(small_config, tmp_path, monkeypatch):
    run = RunFolder(tmp_path / "run")
    run.create(small_config, [])
    model = FasterRcnn("tiny", small_config.class_names, small_config.recipe, seed=0)
    write_part(run, FINAL, model.layers())
    photos = tmp_path / "photos"
    photos.mkdir()
    rng = np.random.default_rng(0)
    sizes = [(60, 80), (80, 60), (64, 64), (50, 90)]
    for index, size in enumerate(sizes):
        pixels = rng.integers(0, 256, (*size, 3), np.uint8)
        Image.fromarray(pixels).save(photos / f"{index:04d}.jpg")
    for index in range(len(sizes), NUMBER):
        shutil.copyfile(photos / f"{index % len(sizes):04d}.jpg", photos / f"{index:04d}.jpg")
    seen = []
    draw = folder.draw

    def measured(*arguments):
        seen.append(resident())
        return draw(*arguments)

    monkeypatch.setattr(folder, "draw", measured)
    flags = ["-p", photos, "--run", run.path, "--out", tmp_path / "out", "--score_thresh", "0"]
    assert run_main(test_command.main, [str(flag) for flag in flags]) == 0
    assert len(seen) == NUMBER
    grown = max(seen[-WARM:]) - seen[WARM]
    print(f"testing: {grown / MEBIBYTE:+.1f} MiB in {NUMBER - WARM} images")
    assert grown < BOUND
