"""Joint training, and Fast R-CNN alone on given proposals.

Shapes and names
----------------
run  a run folder.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from keras_frcnn.proposals.given import GivenProposals, ranked
from keras_frcnn.recipes import PY_FASTER_RCNN, StageSchedule
from keras_frcnn.runs.folder import RunFolder
from keras_frcnn.runs.provenance import record_of
from keras_frcnn.training import output
from keras_frcnn.training.proposal_store import ProposalStore
from tests.random_networks import write_part
from tests.training.runs import BASE, HEAD, file_weights, interrupt, losses_of, same, weights_of


def test_joint_training_in_float16(run_config, demo_dataset, trainer_of, tmp_path, monkeypatch):
    monkeypatch.setattr(output, "save_curves", lambda *arguments: None)
    recipe = run_config().recipe
    recipe = dataclasses.replace(
        recipe,
        rpn=PY_FASTER_RCNN.rpn,
        detector=PY_FASTER_RCNN.detector,
        joint=StageSchedule(2, 1, 0.001),
    )
    config = run_config(mode="joint", stages=(), precision="float16", recipe=recipe)
    run = RunFolder(tmp_path / "run")
    run.create(config, [])
    trainer, _ = trainer_of(config, demo_dataset, run)
    trainer.train()
    final, fresh = file_weights(run, "final"), weights_of(trainer.new_model())
    assert set(final) == set(fresh)
    # bbox_pred aside, which is folded, every layer has moved, and not far in two steps.
    for name in final:
        for old, new in zip(fresh[name], final[name], strict=True):
            assert np.isfinite(new).all() and np.any(old != new)
    kernel = np.tile([0.1, 0.1, 0.2, 0.2], len(config.class_names) + 1) * fresh["bbox_pred"][0]
    np.testing.assert_allclose(final["bbox_pred"][0], kernel, atol=3e-4)
    (record,) = losses_of(run)
    assert (record["stage"], record["iteration"]) == (0, 2)
    assert {"rpn_class_loss", "rpn_box_loss", "detector_class_loss", "detector_box_loss"} <= set(
        record
    )


def given_store(trainer):
    """Two boxes for each object and two for nothing, mirrored for mirror images."""
    entries = {}
    for unit in trainer.units:
        boxes = unit.example.boxes_image
        far = np.array([[0, 0, 30, 30], [0, 0, unit.example.height, unit.example.width]])
        if not unit.flipped:
            moved = boxes + np.float32([[-4, 3, 5, 2]])
            border = np.tile((unit.example.height, unit.example.width), 2)
            boxes = np.clip(np.concatenate((boxes, moved, far)), 0, border)
            entries[unit.example.image_id] = ranked(boxes)
    return ProposalStore.from_given(GivenProposals(entries, "mat", {}, "ss.mat"), trainer.units)


@pytest.mark.slow
def test_fast_rcnn_alone_and_exactly_resumed(run_config, demo_dataset, trainer_of, tmp_path):
    """Stage 2 on given proposals; interrupted after its second iteration it ends the same."""
    config = run_config(mode="fast-rcnn", stages=(2,))
    runs = [RunFolder(tmp_path / name) for name in ("whole", "interrupted")]

    def train(run):
        trainer, said = trainer_of(config, demo_dataset, run, checkpoint_seconds=-1.0)
        if not run.given_proposals_file.exists():
            given_store(trainer).save(run.given_proposals_file, record_of(run, config, "given"))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(output, "save_curves", lambda *arguments: None)
            trainer.train()
        return trainer, said.getvalue()

    for run in runs:
        run.create(config, [])
    trainer, said = train(runs[0])
    assert "Fast R-CNN on given proposals" in said
    with pytest.MonkeyPatch.context() as patch, pytest.raises(OSError, match="killed"):
        interrupt(patch, 2, 2, "after saving")
        train(runs[1])
    assert "going on after iteration 2" in train(runs[1])[1]
    assert losses_of(runs[0]) == losses_of(runs[1])
    assert [(r["stage"], r["iteration"]) for r in losses_of(runs[0])] == [(2, 4)]
    whole, again = (file_weights(run, "stage2") for run in runs)
    fresh = weights_of(trainer.new_model())
    assert set(whole) == set(again) == BASE | HEAD
    for name in whole:
        assert same(whole[name], again[name])
        assert not same(whole[name], fresh[name])
    for run in runs:
        assert [path.name for path in (run.path / "weights").iterdir()] == ["stage2.weights.h5"]
        assert not run.proposals_file(1).exists()


@pytest.mark.parametrize(
    ("mode", "chosen", "weights", "checkpoint"),
    [
        ("joint", (), "final", "stage0-00000002.h5"),
        ("fast-rcnn", (2,), "stage2", "stage2-00000004.h5"),
    ],
)
def test_checkpoints_of_other_modes_go_too(
    run_config, demo_dataset, trainer_of, tmp_path, mode, chosen, weights, checkpoint
):
    run, config = RunFolder(tmp_path / "run"), run_config(mode=mode, stages=chosen)
    run.create(config, [])
    run.checkpoints.mkdir(exist_ok=True)
    left = run.checkpoints / checkpoint
    left.touch()
    trainer, _ = trainer_of(config, demo_dataset, run)
    write_part(run, weights, trainer.new_model().layers())
    trainer.train()
    assert not left.exists()
