"""The four stages stopped and resumed: the same weights bit for bit, and what must not be mixed.

Shapes and names
----------------
run  a run folder; ``uninterrupted`` is one of all stages that was never stopped.
"""

from __future__ import annotations

import shutil
import signal
from unittest.mock import ANY

import numpy as np
import pytest

from keras_frcnn.errors import UserError
from keras_frcnn.runs.folder import RunFolder
from keras_frcnn.system.signals import TrainingStopped, signals_raise
from keras_frcnn.training import feeding, output, stages
from keras_frcnn.training.checkpoint import Checkpoints
from keras_frcnn.training.proposal_store import ProposalStore
from keras_frcnn.training.units import training_units
from tests.training.runs import file_weights, interrupt, losses_of, same


@pytest.mark.slow
def test_an_interrupted_run_ends_with_the_same_weights(
    uninterrupted, demo_dataset, trainer_of, tmp_path
):
    """Stopped in each stage, by signals, a full disk and a crash; features on disk this time."""
    run, config = RunFolder(tmp_path / "run"), uninterrupted.config
    run.create(config, [])

    def train():
        trainer, said = trainer_of(
            config, demo_dataset, run, feature_cache="disk", checkpoint_seconds=-1.0
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(output, "save_curves", lambda *arguments: None)
            trainer.train()
        return said.getvalue()

    for stage, done, how, resumed_after in (
        (1, 2, signal.SIGINT, 2),
        (2, 2, "before saving", 1),
        (3, 4, signal.SIGTERM, 4),  # in the last iteration: nothing is left to train
        (4, 2, "after saving", 2),
    ):
        stop = TrainingStopped if isinstance(how, signal.Signals) else OSError
        with pytest.MonkeyPatch.context() as patch, pytest.raises(stop):
            interrupt(patch, stage, done, how)
            train()
        assert Checkpoints(run.checkpoints, stage).files()[0].stem == (
            f"stage{stage}-{resumed_after:08d}"
        )
        assert not run.weights_file(f"stage{stage}").exists()
        # Gigabytes of features do not stay behind.
        assert not (run.path / "features.bin").exists()
        run.resume(config)
    said = train()
    assert "going on after iteration 2" in said
    assert "feature cache: disk" in said
    assert not (run.path / "features.bin").exists()
    for name in ("stage1", "stage2", "stage3", "stage4", "final"):
        expected, found = file_weights(uninterrupted.run, name), file_weights(run, name)
        assert set(expected) == set(found)
        for layer in expected:
            assert same(expected[layer], found[layer]), f"{layer} of {name}"
    keys = [unit.key for unit in training_units(demo_dataset.examples, flips=True)]
    for stage in (1, 3):
        expected = ProposalStore.load(uninterrupted.run.proposals_file(stage), keys)
        found = ProposalStore.load(run.proposals_file(stage), keys)
        for index in range(len(keys)):
            np.testing.assert_array_equal(expected.boxes_of(index), found.boxes_of(index))
    assert losses_of(run) == losses_of(uninterrupted.run)
    iterations = [(entry["stage"], entry["iteration"]) for entry in losses_of(run)]
    assert iterations == [(1, 4), (2, 4), (3, 4), (4, 4)]  # means that no stop has cut in two


def test_a_checkpoint_of_another_seed_is_refused(run_config, demo_dataset, trainer_of, tmp_path):
    """Its network is the same, and so are its shapes."""
    run, other = RunFolder(tmp_path / "run"), RunFolder(tmp_path / "other")
    for folder, seed in ((other, 6), (run, 5)):
        folder.create(run_config(seed=seed, stages=(1,)), [])
    trainer, _ = trainer_of(other.read_config(), demo_dataset, other, checkpoint_seconds=-1.0)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(OSError, match="killed"):
        patch.setattr(output, "save_curves", lambda *arguments: None)
        interrupt(patch, 1, 2, "after saving")
        trainer.train()
    shutil.copytree(other.checkpoints, run.checkpoints)
    trainer, _ = trainer_of(run.read_config(), demo_dataset, run)
    with pytest.raises(UserError, match=r"stage1-00000002\.h5 was written with another config"):
        trainer.train()
    assert not run.weights_file("stage1").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("during", ["make_proposals", "fill_features", "write_layers"])
def test_a_signal_between_the_stages_is_one_sentence(
    uninterrupted, demo_dataset, trainer_of, tmp_path, monkeypatch, number, during
):
    """And what was finished stays: here the weights of stages 1 and 2."""
    run = RunFolder(tmp_path / "run")
    shutil.copytree(uninterrupted.run.path, run.path)
    gone = {
        "make_proposals": [run.proposals_file(3), run.weights_file("stage4")],
        "fill_features": [run.weights_file("stage3")],
        "write_layers": [run.weights_file("final")],
    }[during]
    for file in gone:
        file.unlink()
    place = stages if hasattr(stages, during) else feeding
    monkeypatch.setattr(place, during, lambda *arguments: signal.raise_signal(number))
    trainer, _ = trainer_of(uninterrupted.config, demo_dataset, run, feature_cache="disk")
    with signals_raise(), pytest.raises(TrainingStopped) as stopped:
        trainer.train()
    assert str(stopped.value) == (
        f"{number.name} received: stopped outside of the iterations; all that was finished is "
        "kept, go on with --resume."
    )
    assert stopped.value.received == number
    assert run.weights_file("stage1").exists() and run.weights_file("stage2").exists()
    assert not (run.path / "features.bin").exists()


def test_checkpoints_of_a_finished_stage_go_though_it_was_killed_meanwhile(
    uninterrupted, demo_dataset, trainer_of, tmp_path
):
    run = RunFolder(tmp_path / "run")
    shutil.copytree(uninterrupted.run.path, run.path)
    left = run.checkpoints / "stage2-00000004.h5"
    left.touch()
    trainer_of(uninterrupted.config, demo_dataset, run)[0].train()
    assert not left.exists()


def test_a_run_sees_features_of_one_kind(uninterrupted, demo_dataset, trainer_of, tmp_path):
    """Kept ones are rounded: what is free when it goes on must not change the result."""
    run = RunFolder(tmp_path / "run")
    run.create(uninterrupted.config, [])
    model = uninterrupted.trainer.new_model()

    def compute(**options):
        trainer, said = trainer_of(uninterrupted.config, demo_dataset, run, **options)
        trainer.sources.compute_features(model)
        kept = trainer.sources.features is not None
        trainer.sources.close()
        return kept, said.getvalue()

    assert run.features_kept() is None
    assert compute(feature_cache="disk")[0] and run.features_kept() is True
    assert compute(feature_cache="memory") == (True, ANY)
    for choice in ("auto", "memory", "disk"):
        with pytest.raises(UserError, match="now there is no room for them .*--feature_cache off"):
            compute(feature_cache=choice, cache_budget=0.0)
    kept, said = compute(feature_cache="off")
    assert not kept and "its result is not that of a run without a stop" in said.replace("\n", " ")
    run.features_file.unlink()
    assert compute(feature_cache="auto", cache_budget=0.0)[0] is False
    kept, said = compute(feature_cache="auto")  # there is room by now
    assert not kept and run.features_kept() is False
    assert "is not that of" not in said
