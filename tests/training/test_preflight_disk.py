"""Room on the disk: counted before the training, taken before it is needed, never half a file.

Shapes and names
----------------
bytes  of files.
"""

from __future__ import annotations

import errno
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from keras_frcnn.errors import UserError
from keras_frcnn.network.faster_rcnn import FasterRcnn
from keras_frcnn.runs.folder import RunFolder
from keras_frcnn.system import files
from keras_frcnn.training import caches, feeding, preflight, stages
from keras_frcnn.training.caches import FeatureCache, ImageCache
from keras_frcnn.training.checkpoint import Checkpoints
from keras_frcnn.training.preflight import OTHER_BYTES, bytes_to_write, check_room
from tests.random_networks import write_part


@pytest.fixture(scope="module")
def model(run_config):
    config = run_config()
    return FasterRcnn("tiny", config.class_names, config.recipe)


def numbers(layers):
    return sum(layer.count_params() for layer in layers)


def test_what_a_training_still_writes(run_config, model, tmp_path):
    run, config = RunFolder(tmp_path), run_config()
    base, rpn, head = (
        numbers(layers)
        for layers in (model.layers("base"), model.layers("rpn"), model.layers("head"))
    )
    trained = numbers(model.layers("base", trained=True))
    weights = base + rpn + base + head + rpn + head + (base + rpn + head)
    proposals = 2 * 60 * 8 * 5  # after stages 1 and 3, of 8 units at most 60, box and score
    checkpoints = 3 * 2 * (trained + head)  # stage 2 trains most
    expected = 4 * (weights + proposals + checkpoints) + OTHER_BYTES
    assert bytes_to_write(run, config, model, 1, 8) == expected
    # What is written already is not written again.
    for file, size in (("stage1", base + rpn), ("stage2", base + head)):
        run.weights_file(file).parent.mkdir(exist_ok=True)
        run.weights_file(file).touch()
        weights -= size
    run.proposals_file(1).parent.mkdir()
    run.proposals_file(1).touch()
    run.checkpoints.mkdir()
    (run.checkpoints / "stage3-00000020.h5").touch()
    checkpoints = 2 * 2 * max(rpn, head)
    expected = 4 * (weights + proposals // 2 + checkpoints) + OTHER_BYTES
    assert bytes_to_write(run, config, model, 3, 8) == expected
    joint = run_config(mode="joint", stages=())
    everything = trained + rpn + head
    expected = 4 * (base + rpn + head + 3 * 2 * everything) + OTHER_BYTES
    assert bytes_to_write(RunFolder(tmp_path / "joint"), joint, model, 0, 8) == expected


def test_a_disk_without_room_is_refused_before_the_first_iteration(
    run_config, demo_dataset, trainer_of, tmp_path, monkeypatch
):
    run, config = RunFolder(tmp_path / "run"), run_config()
    run.create(config, [])
    usage = SimpleNamespace(free=2**20)
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda folder: usage)
    trainer, _ = trainer_of(config, demo_dataset, run, feature_cache="off", image_cache="off")
    with pytest.raises(UserError, match=r"still writes 0\.1\d GiB to .* has 0\.00 GiB free"):
        trainer.train()
    assert not run.metrics_file.exists() and not run.checkpoints.exists()


@pytest.fixture
def disk(monkeypatch):
    """``disk(run, bytes)``: a disk of this size, on which only the caches take room; no memory."""

    def make(run, size):
        def usage(folder):
            caches = [run.path / name for name in ("images.bin", "features.bin")]
            taken = sum(file.stat().st_size for file in caches if file.exists())
            return SimpleNamespace(free=size - taken)

        monkeypatch.setattr(preflight.shutil, "disk_usage", usage)
        nothing = SimpleNamespace(available=0)
        monkeypatch.setattr(caches.psutil, "virtual_memory", lambda: nothing)

    return make


def test_caches_leave_the_room_that_the_training_needs(
    run_config, demo_dataset, trainer_of, model, tmp_path, monkeypatch, disk
):
    run, config = RunFolder(tmp_path / "run"), run_config()
    run.create(config, [])
    trainer, said = trainer_of(config, demo_dataset, run)
    units = trainer.units
    needed = bytes_to_write(run, config, model, 1, len(units))
    pixels = ImageCache.size_of([unit.example for unit in units])
    monkeypatch.setattr(stages, "run_iterations", lambda *arguments, **others: 1 / 0)
    for left, place in ((pixels // 2, "off"), (pixels * 2, "disk")):
        disk(run, needed + left)
        trainer, said = trainer_of(config, demo_dataset, run)
        with pytest.raises(ZeroDivisionError):  # it has got as far as the iterations
            trainer.train()
        assert f"image cache: {place} (" in said.getvalue()


def test_a_disk_without_room_is_refused_before_the_pass_over_all_images(
    run_config, demo_dataset, trainer_of, model, tmp_path, monkeypatch, disk
):
    run, config = RunFolder(tmp_path / "run"), run_config()
    run.create(config, [])
    run.proposals_file(1).touch()
    for name in ("stage1", "stage2"):
        write_part(run, name, model.layers())
    trainer, _ = trainer_of(config, demo_dataset, run)
    monkeypatch.setattr(feeding, "fill_features", lambda *arguments: 1 / 0)
    disk(run, bytes_to_write(run, config, model, 3, len(trainer.units)) - 1)
    with pytest.raises(UserError, match="still writes"):
        trainer.train()
    assert not (run.path / "features.bin").exists()


def test_caches_on_a_full_disk_are_named_with_their_flags(run_config, model, tmp_path, disk):
    run = RunFolder(tmp_path)
    disk(run, 2**25)
    for name, size in (("images.bin", 2**24), ("features.bin", 2**23)):
        with (tmp_path / name).open("wb") as file:
            file.truncate(size)
    with pytest.raises(UserError) as error:
        check_room(run, run_config(), model, 1, 8)
    assert (
        "its disk has 0.01 GiB free, besides 0.02 GiB that --cache off would give back and 0.01 "
        "GiB that --feature_cache off would give back (train_frcnn.py). Make room; train_frcnn.py "
        "goes on with --resume, paper by the same command. Or start again with --out on another"
    ) in str(error.value)


def test_there_is_room_here(run_config, model, tmp_path):
    assert shutil.disk_usage(tmp_path).free > 2**30
    check_room(RunFolder(tmp_path), run_config(), model, 1, 8)


def test_the_room_of_a_cache_is_taken_at_once(tmp_path):
    """Else a full disk kills the process at an iteration, by SIGBUS."""
    shapes = np.array([[64, 64, 64]] * 4)
    cache = FeatureCache(shapes, tf.float16, tmp_path / "features.bin")
    assert (tmp_path / "features.bin").stat().st_blocks * 512 >= 4 * 64**3 * 2
    cache.close()


def test_a_cache_without_room_is_one_error(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "posix_fallocate", full, raising=False)
    with pytest.raises(OSError, match="No space left") as error:
        FeatureCache(np.array([[4, 4, 4]]), tf.float16, tmp_path / "features.bin")
    assert error.value.filename == str(tmp_path / "features.bin")
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_on_a_full_disk(tmp_path):
    """A real limit, of the system: the older checkpoint stays, the error names the new one."""
    resource = pytest.importorskip("resource")
    from keras_frcnn.recipes import OptimizerConfig
    from keras_frcnn.training.optimizer import LossScale, MomentumOptimizer

    variable = tf.Variable(np.random.default_rng(0).normal(size=(300, 300)).astype("f"))
    optimizer, scale = MomentumOptimizer([variable], OptimizerConfig()), LossScale(dynamic=False)
    checkpoints = Checkpoints(tmp_path, 1)
    checkpoints.save(10, optimizer, scale, {})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
    try:
        with pytest.raises(OSError) as error:
            checkpoints.save(20, optimizer, scale, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert error.value.errno == errno.EFBIG
    assert error.value.filename == str(tmp_path / "stage1-00000020.h5")
    assert [path.name for path in tmp_path.iterdir()] == ["stage1-00000010.h5"]
    assert checkpoints.restore(optimizer, scale, lambda done, window: None)[0] == 10
