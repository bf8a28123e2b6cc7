"""The four stages: what each trains, starts from and keeps, and who sees which images.

Shapes and names
----------------
before, after  {layer: [kernel, bias] or [gamma, beta]} of the network around a stage's fitting.
"""

from __future__ import annotations

import dataclasses
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from keras_frcnn.errors import UserError
from keras_frcnn.network.normalisation import Normalisation
from keras_frcnn.recipes import PY_FASTER_RCNN
from keras_frcnn.runs.folder import RunFolder
from keras_frcnn.runs.stage_table import STAGES
from keras_frcnn.training import stages, statistics
from keras_frcnn.training.proposal_store import ProposalStore
from keras_frcnn.training.units import training_units
from tests.read_weights import read_layers
from tests.training.runs import BASE, HEAD, RPN, file_weights, same

TRAINED = {1: BASE | RPN, 2: BASE | HEAD, 3: RPN, 4: HEAD}


@pytest.mark.parametrize("stage", [1, 2, 3, 4])
def test_each_stage_trains_its_layers_and_no_other(uninterrupted, stage):
    before, after = uninterrupted.before[stage], uninterrupted.after[stage]
    assert set(before) == BASE | RPN | HEAD
    for name in before:
        for old, new in zip(before[name], after[name], strict=True):
            assert np.any(old != new) == (name in TRAINED[stage]), f"{name} in stage {stage}"


def test_what_each_stage_starts_from(uninterrupted):
    before, after, fresh = uninterrupted.before, uninterrupted.after, uninterrupted.fresh
    for stage in (1, 2):  # the initial weights, in stage 2 again, new outputs as published
        assert all(same(before[stage][name], fresh[name]) for name in fresh)
    for stage in (3, 4):  # the detector's convolutions
        assert all(same(before[stage][name], after[2][name]) for name in BASE)
    assert all(same(before[3][name], fresh[name]) for name in RPN)  # a new RPN head
    for name in HEAD - {"bbox_pred"}:
        assert same(before[4][name], after[2][name])
    # The stored bbox_pred gives plain deltas; training goes on in normalised ones, by the
    # statistics of the new proposals.
    run = uninterrupted.run
    stored = file_weights(run, "stage2")["bbox_pred"]
    trainer = uninterrupted.trainer
    store = ProposalStore.load(run.proposals_file(3), [unit.key for unit in trainer.units])
    means, stds = statistics.detector_statistics(trainer.new_model(), trainer.units, store)
    kernel, bias = before[4]["bbox_pred"]
    np.testing.assert_allclose(kernel * stds.ravel(), stored[0], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(bias * stds.ravel() + means.ravel(), stored[1], rtol=1e-4, atol=1e-6)
    assert not np.allclose(kernel, stored[0])


def test_what_each_file_holds(uninterrupted):
    run, after = uninterrupted.run, uninterrupted.after
    for stage in (1, 2, 3, 4):
        stored = file_weights(run, f"stage{stage}")
        assert set(stored) == TRAINED[stage]
        for name in set(stored) - {"rpn_bbox_pred", "bbox_pred"}:
            assert same(stored[name], after[stage][name])
    final = file_weights(run, "final")
    assert set(final) == BASE | RPN | HEAD
    for stage, part in ((2, BASE), (3, RPN), (4, HEAD)):
        stored = file_weights(run, f"stage{stage}")
        assert all(same(final[name], stored[name]) for name in part)
    metadata = read_layers(run.weights_file("final")).metadata
    assert metadata["class_names"] == list(uninterrupted.config.class_names)
    assert metadata["network"] == "tiny"


def test_stored_deltas_are_plain(uninterrupted):
    trainer = uninterrupted.trainer
    mean, std = statistics.rpn_statistics(trainer.new_model(), trainer.units)
    for stage in (1, 3):
        kernel, bias = uninterrupted.after[stage]["rpn_bbox_pred"]
        stored = file_weights(uninterrupted.run, f"stage{stage}")["rpn_bbox_pred"]
        np.testing.assert_allclose(stored[0], kernel * np.tile(std, 4), rtol=1e-5)
        expected = bias * np.tile(std, 4) + np.tile(mean, 4)
        np.testing.assert_allclose(stored[1], expected, rtol=1e-4, atol=1e-6)


def test_one_trace_for_all_image_sizes(uninterrupted, demo_dataset):
    assert len({(example.height, example.width) for example in demo_dataset.examples}) == 2
    assert uninterrupted.traces == {1: 1, 2: 1, 3: 1, 4: 1}


def test_images_without_objects(uninterrupted):
    """Kept in the RPN's stages; left out of the detector's by the paper's background rule."""
    # Units 3 and 7 are the empty image and its mirror image.
    assert uninterrupted.seen[1] == uninterrupted.seen[3] == list(range(8))
    assert uninterrupted.seen[2] == uninterrupted.seen[4] == [0, 1, 2, 4, 5, 6]
    assert (
        "stage 2: images without objects give no RoI and are left out, 1 of them (named in "
        "data_report.txt): VOC2007/000004\n" in uninterrupted.said
    )


def test_images_without_objects_stay_under_py_faster_rcnn(
    run_config, demo_dataset, trainer_of, tmp_path, tiny_recipe
):
    low = dataclasses.replace(tiny_recipe, detector=PY_FASTER_RCNN.detector)
    trainer, said = trainer_of(run_config(recipe=low), demo_dataset, RunFolder(tmp_path))
    assert trainer.eligible(STAGES["alternating"][1]).tolist() == list(range(8))
    assert said.getvalue() == ""
    empty = dataclasses.replace(demo_dataset, examples=demo_dataset.examples[3:])
    trainer, _ = trainer_of(run_config(), empty, RunFolder(tmp_path))
    with pytest.raises(UserError, match="None of the 2 training images has an object"):
        trainer.eligible(STAGES["alternating"][1])


def test_proposals_of_every_unit_lie_in_the_run_folder(uninterrupted, demo_dataset):
    keys = [unit.key for unit in training_units(demo_dataset.examples, flips=True)]
    for stage in (1, 3):
        store = ProposalStore.load(uninterrupted.run.proposals_file(stage), keys)
        counts = store.counts
        assert counts.min() > 0 and counts.max() <= 60
    assert f"written to {uninterrupted.run.proposals_file(3)}" in uninterrupted.said


def test_a_finished_run_is_left_alone(uninterrupted, demo_dataset, trainer_of, tmp_path):
    run = RunFolder(shutil.copytree(uninterrupted.run.path, tmp_path / "run"))
    assert not list(run.checkpoints.iterdir())
    assert not (run.path / "features.bin").exists()
    times = {path: path.stat().st_mtime_ns for path in run.path.rglob("*.h5")}
    trainer, _ = trainer_of(uninterrupted.config, demo_dataset, run)
    trainer.train()
    assert {path: path.stat().st_mtime_ns for path in run.path.rglob("*.h5")} == times
    run.weights_file("final").unlink()
    stopped_early = dataclasses.replace(uninterrupted.config, stages=(1, 2))
    trainer_of(stopped_early, demo_dataset, run)[0].train()
    assert not run.weights_file("final").exists()  # the unshared variant has no single network
    trainer_of(uninterrupted.config, demo_dataset, run)[0].train()
    assert run.weights_file("final").exists()


def test_that_nothing_is_cached_is_said_once(run_config, demo_dataset, trainer_of, tmp_path):
    run, config = RunFolder(tmp_path / "run"), run_config()
    run.create(config, [])
    trainer, said = trainer_of(config, demo_dataset, run, image_cache="off")
    for _ in (1, 2):  # as every stage does
        trainer.sources.feed()
    assert said.getvalue().count("image cache: off") == 1


def test_a_run_that_goes_on_keeps_the_room_of_the_features(
    run_config, demo_dataset, trainer_of, tmp_path
):
    """A cache of images beside them, which is emptied at once, could take what they need."""
    run, config = RunFolder(tmp_path / "run"), run_config()
    run.create(config, [])
    options = {"image_cache": "memory", "feature_cache": "memory"}
    trainer, said = trainer_of(config, demo_dataset, run, **options)
    model = trainer.new_model()
    trainer.sources.compute_features(model)
    assert "image cache" not in said.getvalue()
    assert trainer.sources.feed().record(0)["features"].shape[-1] == model.backbone.channels
    trainer.sources.close()


def test_layers_of_vgg_trained_in_each_stage(
    run_config, demo_dataset, trainer_of, tmp_path, monkeypatch, vgg
):
    """Only the lists of variables: blocks 1 and 2 never, convolutions in stages 1 and 2 only."""
    trained = {}

    def remember(self, model, stage, *arguments):
        layers = model.layers(*stage.trains, trained=True)
        trained[stage.number] = [layer.name for layer in layers]

    nothing = lambda *arguments, **others: None  # noqa: E731
    identity = Normalisation.identity(4)
    monkeypatch.setattr(stages.Trainer, "_fit", remember)
    monkeypatch.setattr(stages.Trainer, "new_model", lambda self: vgg)
    for name in ("_save", "_prepare"):
        monkeypatch.setattr(stages.Trainer, name, nothing)
    monkeypatch.setattr(stages, "load_layers", nothing)
    made = SimpleNamespace(save=nothing, counts=np.ones(1, int))
    monkeypatch.setattr(stages, "make_proposals", lambda *arguments: made)
    for name in ("rpn_statistics", "detector_statistics"):
        monkeypatch.setattr(stages, name, lambda *arguments: identity)
    for name in ("make_plain", "make_normalised"):
        monkeypatch.setattr(Normalisation, name, nothing)
    for name in ("save_sampled_anchors", "save_sampled_rois"):
        monkeypatch.setattr(stages.pictures, name, nothing)
    store = SimpleNamespace(boxes_of=None, record=None, check_boxes=nothing)
    monkeypatch.setattr(stages, "check_record", nothing)
    monkeypatch.setattr(stages.ProposalStore, "load", lambda *arguments: store)
    config = run_config(network="vgg16", class_names=vgg.class_names)
    trainer_of(config, demo_dataset, RunFolder(tmp_path))[0].train()
    convolutions = [f"block{block}_conv{index}" for block in (3, 4, 5) for index in (1, 2, 3)]
    rpn = ["rpn_conv", "rpn_cls_score", "rpn_bbox_pred"]
    head = ["fc6", "fc7", "cls_score", "bbox_pred"]
    assert trained == {1: convolutions + rpn, 2: convolutions + head, 3: rpn, 4: head}
