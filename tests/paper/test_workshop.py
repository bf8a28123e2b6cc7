"""One folder is of one setting, captions tell it, and given runs must be able to serve.

Shapes and names
----------------
workshop  of the tiny network on a generated devkit of six training and four test images.
"""

from __future__ import annotations

import dataclasses
import io
import json
import shutil
import signal

import numpy as np
import pytest
from rich.console import Console

from keras_frcnn.cli import paper
from keras_frcnn.cli.common import run_main
from keras_frcnn.demo.devkit import write_demo_devkit
from keras_frcnn.detection.detections import NO_DETECTIONS
from keras_frcnn.detection.detector import Detector
from keras_frcnn.errors import UserError
from keras_frcnn.paper import detection_sheets, kept, recall_sheets, systems
from keras_frcnn.paper.budget import Budget
from keras_frcnn.paper.kept import external_proposals, four_steps, rpn_alone, rpn_proposals
from keras_frcnn.paper.systems import Length, System, detect_all, evaluate, kept_detections
from keras_frcnn.paper.workshop import Absent, Workshop, devkit_of, initial_weights
from keras_frcnn.proposals.region_proposal_network import Ablation
from keras_frcnn.recipes import AnchorConfig
from keras_frcnn.runs.folder import RunFolder
from keras_frcnn.training import loop, watch

BUDGET = Budget(
    fraction=0.00005,
    network="tiny",
    short_side=128,
    anchors=AnchorConfig(scales=(1.5, 3.0)),
    window_stride=2,
)
FLAGS = (
    *("--network", "tiny", "--weights", "random", "--budget", "0.00005", "--short_side", "128"),
    *("--anchor_scales", "1.5,3", "--workers", "1"),
)


@pytest.fixture(scope="module")
def devkit(tmp_path_factory):
    path = tmp_path_factory.mktemp("workshop") / "VOCdevkit"
    write_demo_devkit(path, seed=1, train_images=6, test_images=4, size=(200, 260))
    return path


@pytest.fixture(scope="module")
def make(devkit, tmp_path_factory):
    """A workshop in a folder of its own unless one is given."""

    def make_workshop(folder=None, runs=(), **changes):
        return Workshop(
            devkit=devkit,
            folder=folder or tmp_path_factory.mktemp("kept"),
            budget=dataclasses.replace(BUDGET, **changes),
            weights={"tiny": None},
            runs=tuple(runs),
            console=Console(file=io.StringIO()),
            workers=1,
        )

    return make_workshop


@pytest.fixture(scope="module")
def trained(make):
    workshop = make()
    return workshop, four_steps(workshop, "tiny")


def test_a_folder_is_of_one_setting(make):
    workshop = make()
    workshop.check()
    make(workshop.folder).check()
    # What names of kept things tell may change.
    make(workshop.folder, seeds=2, detect_images=1, window_stride=1).check()
    with pytest.raises(UserError, match=r"begun with fraction = 5e-05, .* asks for 0\.1"):
        make(workshop.folder, fraction=0.1).check()
    with pytest.raises(UserError, match="begun with images = None, .* asks for 3"):
        make(workshop.folder, images=3).check()


def test_a_folder_of_something_else_is_left_alone(make, tmp_path):
    readme = tmp_path / "project" / "README.md"
    readme.parent.mkdir()
    readme.write_text("mine")
    with pytest.raises(UserError, match="holds files but no setting.json: paper did not begin it"):
        make(readme.parent).check()
    assert [path.read_text() for path in readme.parent.iterdir()] == ["mine"]


def test_a_folder_whose_setting_was_being_written_is_begun_again(make, tmp_path):
    partial = tmp_path / "killed" / ".setting.json.123.partial"
    partial.parent.mkdir()
    partial.touch()
    make(partial.parent).check()
    assert (partial.parent / "setting.json").is_file()


def test_the_images(make):
    workshop = make(images=3, detect_images=2)
    for sets in ("2007:trainval", "2007:test"):
        assert len(workshop.data(sets)) == 3
    some = workshop.detected("2007:test")
    assert some.examples == workshop.data("2007:test").examples[:2]
    assert len(make().detected("2007:test")) == 4
    with pytest.raises(Absent, match="the devkit has no VOC 2012 test"):
        workshop.data("2012:test")


def test_the_caption_names_weights_and_lists_that_are_not_published(make):
    caption = make().caption()
    assert caption.startswith("Not a reproduction: ")
    assert "Trainings start from random weights." in caption
    assert "no VOC 2007 mAP: 2007:trainval 6 images (5,011 as published), 2007:test 4" in caption


def test_lists_of_the_published_size_are_the_papers(make, monkeypatch, tmp_path):
    sizes = {"2007:trainval": 6, "2007:test": 4}
    monkeypatch.setattr("keras_frcnn.paper.workshop.PUBLISHED_SIZES", sizes)
    workshop = dataclasses.replace(make(), budget=Budget(), weights={"vgg16": tmp_path / "w.h5"})
    caption = workshop.caption()
    assert caption.startswith("The paper's full setting: ")
    assert caption.endswith("1 run. Trainings start from w.h5.")


def test_many_bad_images_stop_unless_they_are_allowed(make, devkit, tmp_path):
    copy = tmp_path / "VOCdevkit"
    shutil.copytree(devkit, copy)
    (copy / "VOC2007/JPEGImages/000002.jpg").unlink()  # one of six
    workshop = dataclasses.replace(make(), devkit=copy)
    with pytest.raises(UserError, match="^1 of the 6 images in 2007:trainval .*--allow_bad"):
        workshop.data("2007:trainval")
    assert "000002.jpg" in workshop.console.file.getvalue()
    allowed = dataclasses.replace(make(), devkit=copy, allow_bad=True)
    assert len(allowed.data("2007:trainval")) == 5


def test_given_runs_take_the_place_of_training(make, trained):
    _, run = trained
    workshop = make(runs=[run])
    workshop.check()
    assert four_steps(workshop, "tiny") == run
    assert f"given: {run.path.name}, 4/2/4/2 iterations on 6 images" in workshop.caption()
    with pytest.raises(UserError, match="--seeds repeats trainings, --run"):
        make(runs=[run], seeds=2).check()


def test_given_runs_must_be_whole_and_of_other_images(make, trained, tmp_path):
    workshop, run = trained
    rpn = rpn_alone(workshop, "other", "tiny", dataclasses.replace(BUDGET.recipe(), name="other"))
    with pytest.raises(UserError, match="four stages; .* lacks the weights of stage2, stage3, fin"):
        make(runs=[rpn]).check()
    with pytest.raises(UserError, match="No experiment would use .*: they are of vgg16, on one"):
        make(runs=[run], network="vgg16").check()
    shutil.copytree(run.path, tmp_path / run.path.name)
    with pytest.raises(UserError, match="end in the same name, .*: rename one"):
        make(runs=[run, RunFolder(tmp_path / run.path.name)]).check()
    leaking = make(runs=[run])
    leaking._datasets["2007:test"] = leaking.data("2007:trainval")
    with pytest.raises(UserError, match="were in the training set"):
        leaking.check()


def test_a_run_on_the_test_images_of_2007_serves_those_of_2012(make, trained, tmp_path):
    """07++12, which table 3 alone uses."""
    _, run = trained
    copy = RunFolder(tmp_path / "larger")
    shutil.copytree(run.path, copy.path)
    values = json.loads(copy.config_file.read_text())
    values["data"]["sets"] = ["2007:trainval", "2007:test", "2012:trainval"]
    copy.config_file.write_text(json.dumps(values))
    workshop = make(runs=[copy, run])
    workshop._datasets["2007:test"] = workshop.data("2007:trainval")
    with pytest.raises(UserError, match=f"training set of {run.path}"):
        workshop.check()
    only = make(runs=[copy])
    only._datasets["2007:test"] = only.data("2007:trainval")
    only.check()
    assert four_steps(only, "tiny", "07++12") == copy


def test_a_training_that_diverges_leaves_its_row(make, monkeypatch):
    """The paper expects one to: footnotes 2 and 3, and the rule of section 3.3."""
    monkeypatch.setattr(watch, "FACTOR", 1e-9)
    monkeypatch.setattr(watch, "LEAST_KNOWN", 1)
    workshop = make()
    rows = recall_sheets.make(workshop, "loss").rows
    assert len(rows) == 4
    for row in rows:
        assert row[1:4] == (None, None, None)
        assert "diverged: its loss is more than" in row[-1]
        assert "at iteration 2 of stage 1" in row[-1]
    assert "--clip_gradients" in workshop.console.file.getvalue()


def test_pictures_without_a_network_say_why(make, monkeypatch):
    workshop = make()
    monkeypatch.setattr(workshop, "weights", {})
    sheet = detection_sheets.make(workshop, "figure3")
    assert (sheet.rows, sheet.figures) == (((0, 0),), ())
    assert sheet.remarks == (
        "Trained on 07+12: no ImageNet weights for tiny were given.",
        "Trained on 07: no ImageNet weights for tiny were given.",
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stopped_training_is_one_sentence(devkit, tmp_path, monkeypatch, capsys, number):
    add = loop.Log.add

    def stopped(log, *arguments):
        add(log, *arguments)
        signal.raise_signal(number)

    monkeypatch.setattr(loop.Log, "add", stopped)
    flags = ["anchors", "-p", str(devkit), "--out", str(tmp_path), *FLAGS]
    assert run_main(paper.main, flags) == 128 + number
    assert capsys.readouterr().err == (
        f"{number.name} received: stopped after iteration 1 of stage 1; a checkpoint is written, "
        "the same command goes on there.\n"
    )
    assert list(tmp_path.glob("runs/*/checkpoints/stage1-00000001.h5"))


def test_stage_1_is_trained_once(trained):
    """The four steps' own where the recipe is the same; another's writes no proposals."""
    workshop, run = trained
    assert rpn_alone(workshop, "softmax", "tiny", BUDGET.recipe()).path == run.path
    recipe = BUDGET.recipe()
    other = dataclasses.replace(recipe, rpn=dataclasses.replace(recipe.rpn, box_weight=1.0))
    alone = rpn_alone(workshop, "sampled", "tiny", other)
    assert alone.path.name == "rpn-tiny-sampled"
    assert alone.weights_file("stage1").exists()
    assert not alone.proposals_file(1).exists()
    assert run.proposals_file(1).exists()


@pytest.mark.parametrize("variant", kept.VARIANTS)
def test_fewer_proposals_are_the_first_of_more(trained, monkeypatch, tmp_path, variant):
    """Which lets all tables share one file: of an RPN, without a part of it, at random."""
    workshop, run = trained
    some = []
    for most in (8, 40):
        folder = dataclasses.replace(workshop, folder=tmp_path / str(most))
        ablation = kept.VARIANTS[variant][0]
        monkeypatch.setitem(kept.VARIANTS, variant, (ablation, most))
        some.append(rpn_proposals(folder, run, "2007:test", stage=1, variant=variant))
    few, many = some
    assert (few.mean_number(), many.mean_number(), many.mean_number(8)) == (8, 40, 8)
    for key, boxes in few.boxes.items():
        np.testing.assert_array_equal(boxes, many.boxes[key][:8])


def test_variants_leave_out_what_they_say():
    found = {name: ablation for name, (ablation, _) in kept.VARIANTS.items()}
    assert found["no-nms"] == Ablation(nms=False)
    assert found["no-cls"] == Ablation(cls=False)
    assert found["no-reg"] == Ablation(reg=False)


def test_a_system_is_detected_once_whatever_table_names_it(trained, monkeypatch):
    workshop, run = trained
    monkeypatch.setattr(workshop, "budget", dataclasses.replace(BUDGET, detect_images=2))
    proposals = rpn_proposals(workshop, run, "2007:test", stage=1)
    system = System(run, 2, proposals, 5)
    found = evaluate(workshop, system)
    assert (found.images, system.length) == (2, Length(2, 40_000))
    monkeypatch.setattr(systems, "detect_all", None)
    again = System(run, 2, rpn_proposals(workshop, run, "2007:test", stage=1), 5)
    assert evaluate(workshop, again).mean == found.mean
    dataset, detections = kept_detections(workshop, again)
    assert list(detections) == [example.key for example in dataset.examples]


def test_systems_that_differ_have_names_that_differ(trained):
    workshop, run = trained
    proposals = rpn_proposals(workshop, run, "2007:test", stage=1)
    windows = external_proposals(workshop, "windows", "2007:test")
    different = [
        System(run, 2, proposals, 5),
        System(run, 4, proposals, 5),
        System(run, None, proposals, 5),
        System(RunFolder(run.path.with_name("other")), 2, proposals, 5),
        System(run, 2, windows, 5),
        System(run, 2, proposals, None),
        System(run, 2, proposals, 5, (64, 128)),
    ]
    assert len({system.name for system in different}) == len(different)


def test_detectors_get_as_many_boxes_as_are_asked_for(trained, monkeypatch):
    workshop, run = trained
    proposals = rpn_proposals(workshop, run, "2007:test", stage=1)
    counts = []

    class Classifier(Detector):
        def find(self, images, boxes):
            counts.extend(map(len, boxes))
            return [NO_DETECTIONS for _ in images]

    monkeypatch.setattr(systems, "load_run", lambda *words, **options: Classifier())
    dataset = workshop.data("2007:test")
    for most in (3, None):
        detect_all(workshop, dataset, System(run, 2, proposals, most))
    everything = [len(proposals.boxes[example.key]) for example in dataset.examples]
    assert counts == [3, 3, 3, 3, *everything]


def test_a_devkit_needs_both_lists(devkit, tmp_path):
    assert devkit_of(devkit) == devkit
    with pytest.raises(UserError, match=r"has no VOC2007/ImageSets/Main/trainval\.txt"):
        devkit_of(tmp_path)


@pytest.mark.parametrize("flag", ["--input_weight_path", "--zf_weight_path"])
def test_given_files_are_looked_for_before_weights_are_fetched(flag, devkit, tmp_path, monkeypatch):
    monkeypatch.setattr("keras_frcnn.paper.workshop.imagenet_file", None)
    flags = ["table2", "-p", str(devkit), "--out", str(tmp_path / "out"), flag, "none.h5"]
    with pytest.raises(UserError, match=f"{flag} none.h5 does not exist"):
        paper.main(flags)


def test_the_weights_that_trainings_start_from(make, tmp_path, monkeypatch):
    asked = []

    def fetch(network):
        asked.append(network)
        if network == "resnet50":
            raise UserError("There is no network.")
        return tmp_path / f"{network}.h5"

    monkeypatch.setattr("keras_frcnn.paper.workshop.imagenet_file", fetch)
    given = {"zf": tmp_path / "zf.h5"}
    own = make(network=None)
    assert list(initial_weights(own, given)) == ["vgg16", "zf"]
    assert initial_weights(own, {"vgg16": tmp_path / "own.h5"}) == {"vgg16": tmp_path / "own.h5"}
    assert initial_weights(make(network="tiny"), {}) == {}
    assert asked == ["vgg16"]
    with pytest.raises(UserError, match="no network"):
        initial_weights(make(network="resnet50"), {})
    with_run = make(network="resnet50", runs=[RunFolder(tmp_path)])
    assert initial_weights(with_run, given) == given
    assert "that the given runs do not serve are left out" in with_run.console.file.getvalue()
