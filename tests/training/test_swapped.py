"""Files of another run or another stage in the place of a run's own: refused wherever they are.

Shapes and names
----------------
own    a finished run of all stages; ``other`` has another seed and nothing else.
part   a file of a run, see :mod:`keras_frcnn.runs.provenance`.
"""

from __future__ import annotations

import dataclasses
import json
import shutil

import h5py
import numpy as np
import pytest

from keras_frcnn.detection.network_detector import load_run
from keras_frcnn.errors import UserError
from keras_frcnn.proposals.region_proposal_network import load_rpn
from keras_frcnn.recipes import Compression
from keras_frcnn.runs.compress import compress_run
from keras_frcnn.runs.folder import RunFolder
from keras_frcnn.runs.networks import load_model
from keras_frcnn.runs.provenance import check_parts, file_of
from keras_frcnn.training import output
from tests.training.runs import interrupt, same, weights_of

PARTS = ("stage1", "proposals1", "stage2", "stage3", "proposals3", "stage4", "final")
WEIGHTS = tuple(part for part in PARTS if not part.startswith("proposals"))


@pytest.fixture(scope="module")
def other(uninterrupted, tmp_path_factory):
    """The files of ``own`` as if a run of another seed had written them."""
    run = RunFolder(tmp_path_factory.mktemp("other") / "run")
    shutil.copytree(uninterrupted.run.path, run.path)
    for part in PARTS:
        change_record(file_of(run, part), run="0" * 32)
    return run


@pytest.fixture
def own(uninterrupted, tmp_path):
    run = RunFolder(tmp_path / "run")
    shutil.copytree(uninterrupted.run.path, run.path)
    return run


@pytest.fixture
def train(uninterrupted, demo_dataset, trainer_of, monkeypatch):
    """``train(run, **options)``: goes on with the run."""
    monkeypatch.setattr(output, "save_curves", lambda *arguments: None)

    def make(run, **options):
        trainer_of(uninterrupted.config, demo_dataset, run, **options)[0].train()

    return make


def change_record(file, **changes):
    with h5py.File(file, "r+") as content:
        if "settings" in content.attrs:
            values = json.loads(content.attrs["settings"])
            content.attrs["settings"] = json.dumps({**values, **changes})
        else:
            values = json.loads(content.attrs["keras_frcnn"])
            values["metadata"].update(changes)
            content.attrs["keras_frcnn"] = json.dumps(values)


def forget(run, *parts):
    for part in parts:
        file_of(run, part).unlink()


def swap(run, part, source_run, source=None):
    shutil.copyfile(file_of(source_run, source or part), file_of(run, part))


def test_a_finished_run_is_its_own(own, train, uninterrupted):
    check_parts(own, uninterrupted.config)
    train(own)
    for part in PARTS:
        assert file_of(own, part).read_bytes() == file_of(uninterrupted.run, part).read_bytes()


@pytest.mark.parametrize("part", WEIGHTS)
def test_weights_of_another_run_are_refused_by_resume(own, other, train, part):
    forget(own, "final")
    swap(own, part, other)
    with pytest.raises(UserError, match=rf"{part}\.weights\.h5 is of another run"):
        train(own)


@pytest.mark.parametrize(("part", "source"), [("stage2", "stage1"), ("stage4", "stage2")])
def test_weights_of_another_stage_are_refused(own, train, part, source):
    swap(own, part, own, source)
    with pytest.raises(UserError, match=rf"{part}\.weights\.h5 is the '{source}' of this run"):
        train(own)


@pytest.mark.parametrize("part", ["final", "stage1", "stage2", "stage3"])
@pytest.mark.parametrize("metadata", ["another run", "none"])
def test_weights_of_another_run_are_not_loaded(own, other, part, metadata):
    swap(own, part, other)
    if metadata == "none":  # as other programs write them
        with h5py.File(file_of(own, part), "r+") as file:
            file.attrs["keras_frcnn"] = json.dumps({"format_version": 1, "metadata": {}})
    load = {"final": load_model, "stage3": load_rpn}.get(part, lambda run: load_model(run, part))
    with pytest.raises(UserError, match=rf"{part}\.weights\.h5 is of "):
        load(own)
    if part in ("stage1", "stage2"):
        with pytest.raises(UserError, match=rf"{part}\.weights\.h5 is of "):
            load_run(own.path, stage=2)


@pytest.mark.parametrize("source", ["other", "proposals1"])
def test_proposals_of_another_run_or_stage_are_refused(own, other, train, source):
    forget(own, "final", "stage4")
    swap(own, "proposals3", *((other,) if source == "other" else (own, source)))
    with pytest.raises(UserError, match=r"stage3\.h5 is "):
        train(own)
    assert not file_of(own, "stage4").exists()


def test_weights_that_changed_after_a_later_stage_began_are_found(own, train):
    """Their record is right: only what was made from them tells."""
    change_record(file_of(own, "stage2"), recipe="something else")
    with pytest.raises(UserError, match=r"stage3\.weights\.h5 was not made from the stage2"):
        train(own)
    with pytest.raises(UserError, match=r"stage3\.weights\.h5 was not made from the stage2"):
        load_rpn(own)


def test_weights_that_changed_within_the_next_stage_are_found(own, train):
    """By its checkpoints."""
    forget(own, "final", "stage4", "proposals3", "stage3")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(OSError, match="killed"):
        interrupt(patch, 3, 2, "after saving")
        train(own, checkpoint_seconds=-1.0)
    change_record(file_of(own, "stage2"), recipe="something else")
    with pytest.raises(UserError, match=r"stage3-00000002\.h5 was written .* other weights"):
        train(own)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("part", ["final", "stage2"])
def test_weights_that_are_not_finite_are_refused(own, train, part, value):
    with h5py.File(file_of(own, part), "r+") as file:
        file["conv1/conv1/kernel:0"][0, 0, 0, 0] = value
    if part == "stage2":
        forget(own, "final", "stage4", "proposals3", "stage3")
        with pytest.raises(UserError, match=r"stage2\.weights\.h5 .*NaN.* kernel of layer conv1"):
            train(own)
    with pytest.raises(UserError, match=rf"{part}\.weights\.h5 .*NaN.* kernel of layer conv1"):
        load_model(own, part)


@pytest.mark.parametrize("what", ["nan", "infinite", "inverted", "outside", "none"])
def test_proposals_that_are_no_boxes_of_their_images_are_refused(own, train, what):
    forget(own, "final", "stage4")
    with h5py.File(file_of(own, "proposals3"), "r+") as file:
        boxes = file["boxes"][()]
        if what == "none":
            for name in ("boxes", "scores"):
                empty = file[name][:0]
                del file[name]
                file[name] = empty
            file["offsets"][:] = 0
        else:
            boxes[len(boxes) // 2] = {
                "nan": np.nan,
                "infinite": np.inf,
                "inverted": boxes[len(boxes) // 2][[2, 3, 0, 1]],
                "outside": boxes[len(boxes) // 2] + 1e6,
            }[what]
            file["boxes"][()] = boxes
    with pytest.raises(UserError, match=r"stage3\.h5 (holds|lies beyond) "):
        train(own)


def test_a_compressed_run_has_weights_of_its_own(own, other, tmp_path):
    out = RunFolder(tmp_path / "svd")
    compress_run(own, out, Compression(30, 20), [])
    load_model(out)
    swap(own, "final", other)
    with pytest.raises(UserError, match=r"final\.weights\.h5 is of another run"):
        compress_run(own, RunFolder(tmp_path / "again"), Compression(30, 20), [])


def test_weights_under_another_configuration_are_refused(own, uninterrupted):
    """Detections would bear the names of other classes."""
    names = tuple(name + "x" for name in uninterrupted.config.class_names)
    values = json.loads(own.config_file.read_text())
    own.config_file.write_text(json.dumps({**values, "class_names": names}))
    with pytest.raises(UserError, match=r"final\.weights\.h5 is of another run"):
        load_model(own)


def test_data_that_lie_elsewhere_leave_the_run_its_own(own, uninterrupted, demo_dataset):
    config = uninterrupted.config
    moved = dataclasses.replace(config, data=dataclasses.replace(config.data, path="elsewhere"))
    assert own.resume(moved).data.path == own.read_config().data.path == "elsewhere"
    check_parts(own, own.read_config())
    assert same(*(weights_of(load_model(run))["fc7"] for run in (own, uninterrupted.run)))
