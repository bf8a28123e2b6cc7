"""A run goes on with the initial weights that it began with, or says that they changed.

Shapes and names
----------------
file  the initial weights.
"""

from __future__ import annotations

import dataclasses
import hashlib

import pytest

from keras_frcnn.errors import UserError
from keras_frcnn.network.faster_rcnn import FasterRcnn
from keras_frcnn.network.weights import write_layers
from keras_frcnn.runs import RunFolder
from keras_frcnn.training import fitting
from keras_frcnn.training.initial_weights import check_unchanged, with_digest


def write_weights(path, config, seed):
    model = FasterRcnn("tiny", config.class_names, config.recipe, seed=seed)
    write_layers(path, model.all_layers, {"class_names": list(config.class_names)})


@pytest.fixture
def file(tmp_path, run_config):
    path = tmp_path / "initial.h5"
    write_weights(path, run_config(), seed=1)
    return path


def test_the_digest_is_that_of_the_contents(run_config, file):
    config = run_config()
    assert with_digest(config, None) == config
    expected = hashlib.blake2b(file.read_bytes(), digest_size=16).hexdigest()
    assert with_digest(config, file) == dataclasses.replace(config, initial_weights_digest=expected)


def test_a_run_that_does_not_know_them_reads_no_file(run_config, tmp_path):
    check_unchanged(run_config(), tmp_path / "none.h5")


@pytest.mark.parametrize("mode", ["alternating", "joint"])
def test_changed_initial_weights_are_refused_as_long_as_they_are_needed(
    run_config, demo_dataset, trainer_of, tmp_path, monkeypatch, file, mode
):
    monkeypatch.setattr(fitting, "save_curves", lambda *arguments: None)
    stages = () if mode == "joint" else (1,)
    config = run_config(mode=mode, stages=stages, initial_weights=str(file))
    run = RunFolder(tmp_path / "run")
    run.create(with_digest(config, file), [])

    def train():
        trainer_of(run.resume(config), demo_dataset, run, initial_weights=file)[0].train()

    before = file.read_bytes()
    write_weights(file, config, seed=2)
    changed = file.read_bytes()
    with pytest.raises(UserError, match=r"The initial weights .*initial\.h5 changed since the run"):
        train()
    assert not list(run.path.glob("weights/*"))
    file.write_bytes(before)
    train()
    finished = run.weights_file("final" if mode == "joint" else "stage1")
    assert finished.exists()
    file.write_bytes(changed)  # nothing is left to start from it
    train()
