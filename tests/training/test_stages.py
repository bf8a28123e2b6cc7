"""The four stages: what each trains and starts from, resuming bit for bit, who sees which images.

One uninterrupted run is shared by most tests; a second one is interrupted in every stage.

Shapes and names
----------------
before, after  {layer: [kernel, bias] or [gamma, beta]} of the network around a stage's fitting.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import signal
from types import SimpleNamespace
from unittest.mock import ANY

import numpy as np
import pytest

from keras_frcnn.errors import UserError
from keras_frcnn.network.weights import read_layers
from keras_frcnn.proposals.given import GivenProposals, ranked
from keras_frcnn.recipes import PY_FASTER_RCNN, StageSchedule
from keras_frcnn.runs import RunFolder
from keras_frcnn.stopping import TrainingStopped, sigterm_raises
from keras_frcnn.training import fitting, normalisation, stages
from keras_frcnn.training.checkpoint import Checkpoints
from keras_frcnn.training.proposal_store import ProposalStore
from keras_frcnn.training.units import training_units

BASE = {f"conv{index}{part}" for index in range(1, 6) for part in ("", "_norm")}
RPN = {"rpn_conv", "rpn_cls_score", "rpn_bbox_pred"}
HEAD = {"fc6", "fc7", "cls_score", "bbox_pred"}
TRAINED = {1: BASE | RPN, 2: BASE | HEAD, 3: RPN, 4: HEAD}


def weights_of(model):
    return {layer.name: layer.get_weights() for layer in model.all_layers}


def same(one, other):
    return all(np.array_equal(left, right) for left, right in zip(one, other, strict=True))


def file_weights(run, name):
    """{layer: [kernel, bias]} of a weight file."""
    layers = read_layers(run.weights_file(name)).layers
    return {name: list(weights.values()) for name, weights in layers.items()}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, run_config, demo_dataset, trainer_of):
    """A run of all stages: its folder, what it said, and each stage's weights and units."""
    run = RunFolder(tmp_path_factory.mktemp("runs") / "whole")
    config = run_config()
    run.create(config, [])
    trainer, said = trainer_of(
        config, demo_dataset, run, feature_cache="memory", checkpoint_seconds=-1.0
    )
    before, after, seen, steps = {}, {}, {}, {}
    fit, training_step = fitting.Fitting.fit, fitting.TrainingStep

    def watched(self, model, stage, schedule, *arguments, eligible, **others):
        before[stage], seen[stage] = weights_of(model), eligible.tolist()

        def kept_step(*step_arguments, **step_others):
            steps[stage] = training_step(*step_arguments, **step_others)
            return steps[stage]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(fitting, "TrainingStep", kept_step)
            fit(self, model, stage, schedule, *arguments, eligible=eligible, **others)
        after[stage] = weights_of(model)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fitting.Fitting, "fit", watched)
        patch.setattr(fitting, "save_curves", lambda *arguments: None)
        trainer.train()
    return SimpleNamespace(
        run=run,
        config=config,
        said=said.getvalue(),
        before=before,
        after=after,
        seen=seen,
        traces={stage: step.traces for stage, step in steps.items()},
        fresh=weights_of(trainer.new_model()),
        trainer=trainer,
    )


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
    means, stds = normalisation.detector_statistics(
        trainer.new_model(), trainer.units, store.boxes_of
    )
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
    mean, std = normalisation.rpn_statistics(trainer.new_model(), trainer.units)
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
    assert trainer.fitting.eligible(2).tolist() == list(range(8))
    assert said.getvalue() == ""
    empty = dataclasses.replace(demo_dataset, examples=demo_dataset.examples[3:])
    trainer, _ = trainer_of(run_config(), empty, RunFolder(tmp_path))
    with pytest.raises(UserError, match="None of the 2 training images has an object"):
        trainer.fitting.eligible(2)


def test_proposals_of_every_unit_lie_in_the_run_folder(uninterrupted, demo_dataset):
    keys = [unit.key for unit in training_units(demo_dataset.examples, flips=True)]
    for stage in (1, 3):
        store = ProposalStore.load(uninterrupted.run.proposals_file(stage), keys)
        counts = np.diff(store.offsets)
        assert counts.min() > 0 and counts.max() <= 60
    assert f"written to {uninterrupted.run.proposals_file(3)}" in uninterrupted.said


def test_a_finished_run_is_left_alone(uninterrupted, demo_dataset, trainer_of):
    run = uninterrupted.run
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
        trainer.fitting.records(None)
    assert said.getvalue().count("image cache: off") == 1


def interrupt(patch, stage, done, how):
    """Lets the given stage fail after ``done`` iterations, by a signal or while saving."""
    run_stage, save = fitting.run_stage, Checkpoints.save

    def with_signal(step, *arguments, **others):
        def run(batches, rate, seed):
            metrics = step.run(batches, rate, seed)
            if (others["stage"], int(seed[1]) + 1) == (stage, done):
                signal.raise_signal(how)
            return metrics

        run_stage(SimpleNamespace(run=run), *arguments, **others)

    def failing(self, iteration, *arguments):
        hit = (self.stage, iteration) == (stage, done)
        if hit and how == "before saving":
            raise OSError("No space left on device")
        save(self, iteration, *arguments)
        if hit:
            raise OSError("killed")

    if isinstance(how, signal.Signals):
        patch.setattr(fitting, "run_stage", with_signal)
    else:
        patch.setattr(Checkpoints, "save", failing)


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
            patch.setattr(fitting, "save_curves", lambda *arguments: None)
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
        np.testing.assert_array_equal(expected.boxes_image, found.boxes_image)
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
        patch.setattr(fitting, "save_curves", lambda *arguments: None)
        interrupt(patch, 1, 2, "after saving")
        trainer.train()
    shutil.copytree(other.checkpoints, run.checkpoints)
    trainer, _ = trainer_of(run.read_config(), demo_dataset, run)
    with pytest.raises(UserError, match=r"stage1-00000002\.h5 was written with another config"):
        trainer.train()
    assert not run.weights_file("stage1").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("during", ["make_proposals", "fill_feature_cache", "write_layers"])
def test_a_signal_between_the_stages_is_one_sentence(
    uninterrupted, demo_dataset, trainer_of, tmp_path, monkeypatch, number, during
):
    """And what was finished stays: here the weights of stages 1 and 2."""
    run = RunFolder(tmp_path / "run")
    shutil.copytree(uninterrupted.run.path, run.path)
    gone = {
        "make_proposals": [run.proposals_file(1)],
        "fill_feature_cache": [run.weights_file("stage3")],
        "write_layers": [run.weights_file("final")],
    }[during]
    for file in gone:
        file.unlink()
    place = stages if hasattr(stages, during) else fitting
    monkeypatch.setattr(place, during, lambda *arguments: signal.raise_signal(number))
    trainer, _ = trainer_of(uninterrupted.config, demo_dataset, run, feature_cache="disk")
    with sigterm_raises(), pytest.raises(TrainingStopped) as stopped:
        trainer.train()
    assert str(stopped.value) == (
        f"{number.name} received: stopped between two stages; all that was finished is kept, go "
        "on with --resume."
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
    run.weights_file(weights).parent.mkdir(exist_ok=True)
    run.weights_file(weights).touch()
    left = run.checkpoints / checkpoint
    left.touch()
    trainer_of(config, demo_dataset, run)[0].train()
    assert not left.exists()


def test_a_run_sees_features_of_one_kind(uninterrupted, demo_dataset, trainer_of, tmp_path):
    """Kept ones are rounded: what is free when it goes on must not change the result."""
    run = RunFolder(tmp_path / "run")
    run.create(uninterrupted.config, [])
    model = uninterrupted.trainer.new_model()

    def compute(**options):
        trainer, said = trainer_of(uninterrupted.config, demo_dataset, run, **options)
        trainer.fitting.compute_features(model)
        kept = trainer.fitting.cache is not None
        trainer.fitting.close()
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


def losses_of(run):
    """The metrics without their times."""
    records = [json.loads(line) for line in run.metrics_file.read_text().splitlines()]
    times = ("images_per_second", "waiting")
    return [{name: record[name] for name in record if name not in times} for record in records]


def test_joint_training_in_float16(run_config, demo_dataset, trainer_of, tmp_path, monkeypatch):
    monkeypatch.setattr(fitting, "save_curves", lambda *arguments: None)
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
            given_store(trainer).save(run.given_proposals_file)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(fitting, "save_curves", lambda *arguments: None)
            trainer.train()
        return trainer, said.getvalue()

    for run in runs:
        run.create(config, [])
    trainer, said = train(runs[0])
    assert fitting.FAST_RCNN_TITLE in said
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


def test_layers_of_vgg_trained_in_each_stage(
    run_config, demo_dataset, trainer_of, tmp_path, monkeypatch, vgg
):
    """Only the lists of variables: blocks 1 and 2 never, convolutions in stages 1 and 2 only."""
    trained = {}

    def remember(self, model, stage, schedule, objective, layers, **others):
        trained[stage] = [layer.name for layer in layers]

    nothing = lambda *arguments, **others: None  # noqa: E731
    identity = (np.zeros(4, np.float32), np.ones(4, np.float32))
    monkeypatch.setattr(fitting.Fitting, "fit", remember)
    for name in ("check_room", "compute_features"):
        monkeypatch.setattr(fitting.Fitting, name, nothing)
    monkeypatch.setattr(stages.Trainer, "new_model", lambda self: vgg)
    for name in ("_load", "_save", "_write_proposals"):
        monkeypatch.setattr(stages.Trainer, name, nothing)
    for name in ("rpn_statistics", "detector_statistics"):
        monkeypatch.setattr(stages.normalise, name, lambda *arguments: identity)
    for name in ("fold", "unfold"):
        monkeypatch.setattr(stages.normalise, name, nothing)
    for name in ("save_sampled_anchors", "save_sampled_rois"):
        monkeypatch.setattr(stages.pictures, name, nothing)
    store = SimpleNamespace(boxes_of=None)
    monkeypatch.setattr(stages.ProposalStore, "load", lambda *arguments: store)
    config = run_config(network="vgg16", class_names=vgg.class_names)
    trainer_of(config, demo_dataset, RunFolder(tmp_path))[0].train()
    convolutions = [f"block{block}_conv{index}" for block in (3, 4, 5) for index in (1, 2, 3)]
    rpn = ["rpn_conv", "rpn_cls_score", "rpn_bbox_pred"]
    head = ["fc6", "fc7", "cls_score", "bbox_pred"]
    assert trained == {1: convolutions + rpn, 2: convolutions + head, 3: rpn, 4: head}
