"""From proposals in a file to a trained, tested and evaluated Fast R-CNN, and what is refused.

Shapes and names
----------------
boxes  EdgeBoxes of the devkit's pictures, in one file for each list: quicker than the others.
"""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from keras_frcnn.cli import compress, evaluate, export, proposals, recall
from keras_frcnn.cli import test as test_command
from keras_frcnn.cli import train as train_command
from keras_frcnn.data.images import read_image
from keras_frcnn.data.voc import load_voc
from keras_frcnn.detection.loops import keep_best_per_class
from keras_frcnn.detection.network_detector import load_run
from keras_frcnn.evaluation.voc import evaluate_voc
from keras_frcnn.proposals.files import read_proposals, write_proposals
from keras_frcnn.proposals.given import GivenProposals, mirror, ranked
from keras_frcnn.runs.folder import RunFolder
from keras_frcnn.training.proposal_store import ProposalStore
from keras_frcnn.training.units import training_units
from tests.random_networks import find
from tests.read_weights import read_layers


@pytest.fixture(scope="module")
def boxes(devkit, command, tmp_path_factory):
    """``{split: file}``."""
    pytest.importorskip("cv2")
    folder = tmp_path_factory.mktemp("boxes")
    files = {split: folder / f"{split}.h5" for split in ("trainval", "test")}
    for split, file in files.items():
        outcome = command(
            proposals.main,
            *("-p", devkit, "--set", f"2007:{split}", "--method", "edge-boxes"),
            *("--num_proposals", 60, "--workers", 2, "--out", file),
        )
        assert outcome.code == 0, outcome.err
        assert f"written to {file}" in outcome.out
    return files


@pytest.fixture(scope="module")
def fast_rcnn(boxes, devkit, command, tiny_flags, tmp_path_factory):
    """The flags of a training on these boxes, and its outcome."""
    run = tmp_path_factory.mktemp("fast") / "run"
    flags = ("-p", devkit, "--proposals", boxes["trainval"], "--out", run, *tiny_flags)
    flags = (*flags, "--iterations", "6", "--learning_rate", "0.01", "-n", "16")
    outcome = command(train_command.main, *flags)
    assert outcome.code == 0, outcome.err
    return RunFolder(run), flags, outcome


def test_the_file_of_proposals(boxes, devkit):
    given = read_proposals(boxes["trainval"])
    assert list(given.entries) == [
        example.key for example in load_voc(devkit, "2007:trainval").examples
    ]
    assert given.method == "edge-boxes"
    assert given.settings["sets"] == ["2007:trainval"]
    assert max(len(entry.scores) for entry in given.entries.values()) == 60


def test_what_the_run_says_and_holds(fast_rcnn, boxes, devkit):
    run, _, outcome = fast_rcnn
    for words in ("paper, fast-rcnn", "edge-boxes", "6 iterations", "--proposals FILE"):
        assert words in outcome.out
    assert "anchors  " not in outcome.out
    assert "of the objects have no proposal at IoU 0.5" in outcome.out
    assert (run.path / "labels.png").is_file()
    config = run.read_config()
    assert (config.mode, config.stages) == ("fast-rcnn", (2,))
    assert [stage.iterations for stage in config.recipe.stages] == [80000, 6, 80000, 40000]
    assert config.data.proposals.files == (str(boxes["trainval"]),)
    assert (run.path / "samples" / "stage2-rois-1.png").is_file()
    examples = load_voc(devkit, "2007:trainval").examples
    units = training_units(examples, flips=True)
    store = ProposalStore.load(run.given_proposals_file, [unit.key for unit in units])
    given = read_proposals(boxes["trainval"])
    for index, example in enumerate(examples):
        plain = given.entries[example.key].boxes_image
        np.testing.assert_array_equal(store.boxes_of(index), plain)
        mirrored = store.boxes_of(len(examples) + index)
        np.testing.assert_array_equal(mirrored, mirror(plain, example.width))


def test_fast_rcnn_on_the_boxes_of_stage_1_is_stage_2(
    trained, devkit, command, tiny_flags, tmp_path
):
    """The same images, boxes and samples: the same weights, but for the clipping of rounding."""
    run = RunFolder(trained.path)
    keys = [unit.key for unit in training_units(load_voc(devkit, "2007:trainval").examples, True)]
    store = ProposalStore.load(run.proposals_file(1), keys)
    entries = {key: ranked(store.boxes_of(index)) for index, key in enumerate(keys)}
    write_proposals(tmp_path / "stage1.h5", GivenProposals(entries, "rpn", {}, "x"))
    flags = ("-p", devkit, "--proposals", tmp_path / "stage1.h5", "--out", tmp_path / "run")
    flags = (*flags, *tiny_flags, "--iterations", "8", "--learning_rate", "0.01", "-n", "16")
    assert command(train_command.main, *flags).code == 0
    layers = [
        read_layers(folder.weights_file("stage2")).layers
        for folder in (run, RunFolder(tmp_path / "run"))
    ]
    assert set(layers[0]) == set(layers[1])
    for name, weights in layers[0].items():
        for part, values in weights.items():
            np.testing.assert_allclose(layers[1][name][part], values, atol=1e-5, err_msg=name)


def test_resuming_needs_the_same_proposals(fast_rcnn, boxes, command, tmp_path):
    run, flags, _ = fast_rcnn
    before = run.weights_file("stage2").stat().st_mtime_ns
    assert command(train_command.main, *flags, "--resume").code == 0
    assert run.weights_file("stage2").stat().st_mtime_ns == before
    given = read_proposals(boxes["trainval"])
    other = tmp_path / "trainval.h5"
    entries = {name: entry.best(5) for name, entry in given.entries.items()}
    write_proposals(other, GivenProposals(entries, given.method, given.settings, "x"))
    changed = [other if flag == boxes["trainval"] else flag for flag in flags]
    assert command(train_command.main, *changed, "--resume").refused("data.proposals")


@pytest.mark.parametrize("number", [None, 7])
def test_evaluating_is_running_the_detector_on_the_boxes(
    fast_rcnn, boxes, devkit, command, tmp_path, number
):
    run, *_ = fast_rcnn
    flags = ("--run", run.path, "-p", devkit, "--proposals", boxes["test"], "--out", tmp_path)
    flags += () if number is None else ("--num_proposals", number)
    outcome = command(evaluate.main, *flags)
    assert outcome.code == 0, outcome.err
    record = json.loads((tmp_path / "evaluation-proposals.json").read_text())
    dataset, given = load_voc(devkit, "2007:test"), read_proposals(boxes["test"])
    recipe = run.read_config().recipe
    classifier = load_run(run.path, recipe.evaluation_filter, boxes_given=True)
    found = {}
    for example in dataset.examples:
        best = given.entries[example.key].boxes_image[:number]
        found[example.key] = find(classifier, read_image(example.path), best)
    expected = evaluate_voc(dataset, keep_best_per_class(found, 2, 40 * len(dataset))).to_json()
    assert record["map_area"] == expected["map_area"]
    assert record["per_class"] == expected["per_class"]
    assert (record["stage"], record["proposals"]) == (2, number or 2000)
    assert record["given"]["files"] == [str(boxes["test"])]


def test_a_run_of_four_stages_on_given_boxes(trained, boxes, devkit, command, tmp_path):
    flags = ("--run", trained.path, "-p", devkit, "--proposals", boxes["test"], "--out", tmp_path)
    assert command(evaluate.main, *flags).code == 0
    assert command(evaluate.main, *flags, "--stage", 2).code == 0
    names = ("evaluation-proposals.json", "evaluation-stage2-proposals.json")
    records = [json.loads((tmp_path / name).read_text()) for name in names]
    assert [record["stage"] for record in records] == [4, 2]


@pytest.fixture(scope="module")
def photos(devkit, tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for image_id in ("000009", "000011"):
        shutil.copy(devkit / "VOC2007" / "JPEGImages" / f"{image_id}.jpg", folder)
    return folder


def test_test_frcnn_on_given_boxes(fast_rcnn, boxes, photos, command, tmp_path):
    run, *_ = fast_rcnn
    flags = (
        "-p",
        photos,
        "--run",
        run.path,
        "--proposals",
        boxes["test"],
        "--out",
        tmp_path / "out",
    )
    outcome = command(test_command.main, *flags, "--score_thresh", "0.01")
    assert outcome.code == 0, outcome.err
    records = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert {record["image_id"] for record in records} == {"000009", "000011"}
    classifier = load_run(run.path, boxes_given=True)
    given = read_proposals(boxes["test"]).entries["VOC2007/000009"].boxes_image
    expected = find(classifier, read_image(photos / "000009.jpg"), given)
    ours = [record["score"] for record in records if record["image_id"] == "000009"]
    assert max(ours) == pytest.approx(float(expected.scores[0]), abs=1e-5)


def test_the_rpn_of_a_run(trained, devkit, command, tmp_path):
    flags = ("-p", devkit, "--set", "2007:test", "--method", "rpn", "--run", trained.path)
    files = [tmp_path / name for name in ("rpn.h5", "no-cls.h5")]
    for file, more in zip(files, (("--flips",), ("--no-cls",)), strict=True):
        outcome = command(proposals.main, *flags, "--num_proposals", 40, *more, "--out", file)
        assert outcome.code == 0, outcome.err
    given = read_proposals(files[0])
    assert len(given.entries) == 6
    assert given.settings["stage"] == 3
    outcome = command(
        recall.main,
        *("-p", devkit, "--proposals", *files, "--numbers", "10,40"),
        *("--out", tmp_path / "recall.json"),
    )
    assert outcome.code == 0, outcome.err
    tables = json.loads((tmp_path / "recall.json").read_text())
    assert list(tables) == [str(file) for file in files]
    for rows in tables.values():
        assert [row["proposals"] for row in rows] == [10, 40]
        assert rows[0]["average_recall"][0] <= rows[1]["average_recall"][0]
        values = [row["recall"]["0.5"][0] for row in rows]
        assert 0 <= values[0] <= values[1] <= 1
    for words in ("rpn.h5 (rpn)", "IoU 0.9", "average recall", "3 images of 2007:test, 6 objects"):
        assert words in outcome.out


def test_recall_of_perfect_boxes(devkit, command, tmp_path):
    """Every object found exactly, then only the first of each image: half of them."""
    dataset = load_voc(devkit, "2007:test")
    entries = {example.image_id: ranked(example.boxes_image) for example in dataset.examples}
    write_proposals(tmp_path / "all.h5", GivenProposals(entries, "truth", {}, "x"))
    flags = ("-p", devkit, "--proposals", tmp_path / "all.h5", "--numbers", "1,9")
    outcome = command(recall.main, *flags, "--out", tmp_path / "recall.json")
    assert outcome.code == 0, outcome.err
    ((first, every),) = json.loads((tmp_path / "recall.json").read_text()).values()
    assert [values[0] for values in first["recall"].values()] == [0.5] * 5
    assert [values[0] for values in every["recall"].values()] == [1] * 5
    assert every["average_recall"][0] == pytest.approx(1)
    assert every["mean_proposals"] == pytest.approx(7 / 3)


# --- mistakes ----------------------------------------------------------------------------------


def test_images_without_proposals_are_named(
    boxes, fast_rcnn, photos, devkit, command, tiny_flags, tmp_path
):
    run, *_ = fast_rcnn
    of_test = ("--proposals", boxes["test"])
    refusals = (
        (train_command.main, ("-p", devkit, *of_test, *tiny_flags, "--out", tmp_path / "run")),
        (test_command.main, ("-p", photos, "--run", run.path, "--proposals", boxes["trainval"])),
        (recall.main, ("-p", devkit, "--proposals", boxes["trainval"])),
        (
            evaluate.main,
            ("--run", run.path, "-p", devkit, "--proposals", boxes["trainval"], "--out", tmp_path),
        ),
    )
    for main, flags in refusals:
        assert command(main, *flags).refused("holds", "none for", "0000"), flags
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--mode", "joint"), "--mode joint"),
        (("--stages", "1,2"), "--stages"),
        (("--iterations", "1,2,3,4"), "one number"),
        (("--output_weight_path", "w.h5"), "trains the detector alone"),
    ],
)
def test_flags_that_do_not_go_with_given_proposals(boxes, devkit, command, flags, words):
    outcome = command(train_command.main, "-p", devkit, "--proposals", boxes["trainval"], *flags)
    assert outcome.refused(words)


def test_a_run_on_given_proposals_is_compressed(
    fast_rcnn, boxes, devkit, photos, command, tmp_path
):
    run, *_ = fast_rcnn
    ranks = ("--run", run.path, "--out", tmp_path / "svd", "--fc6", "256", "--fc7", "256")
    refused = command(compress.main, *ranks, "-p", devkit)
    assert refused.refused("compress it without -p", "evaluate --proposals FILE")
    assert not (tmp_path / "svd").exists()
    outcome = command(compress.main, *ranks)
    assert outcome.code == 0, outcome.err
    found = ("-p", photos, "--run", tmp_path / "svd", "--proposals", boxes["test"])
    outcome = command(test_command.main, *found, "--out", tmp_path / "found")
    assert outcome.code == 0, outcome.err


def test_a_run_on_given_proposals_makes_none(fast_rcnn, devkit, photos, command, tmp_path):
    run, *_ = fast_rcnn
    for main, flags in (
        (evaluate.main, ("-p", devkit, "--run", run.path)),
        (test_command.main, ("-p", photos, "--run", run.path)),
        (export.main, ("--run", run.path, "--out", tmp_path / "export")),
        (
            proposals.main,
            ("-p", devkit, "--method", "rpn", "--run", run.path, "--out", tmp_path / "b.h5"),
        ),
    ):
        assert command(main, *flags).refused("trained on given proposals and makes none"), flags


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--method", "rpn"), "--run DIR"),
        (("--method", "selective-search", "--no-nms"), "--no-nms does not belong"),
        (("--method", "selective-search", "--edge_model", "m"), "--edge_model does not belong"),
        (("--method", "edge-boxes", "--run", "r"), "--run does not belong"),
        (("--method", "edge-boxes", "--edge_model", "none.yml"), "is no file"),
        (("--method", "sliding-window"), "sliding-window"),
    ],
)
def test_flags_of_the_methods(devkit, command, tmp_path, flags, words):
    outcome = command(proposals.main, "-p", devkit, *flags, "--out", tmp_path / "b.h5")
    assert outcome.refused(words)
    assert not list(tmp_path.iterdir())


def test_suppression_that_is_off_takes_no_threshold(trained, devkit, command, tmp_path):
    flags = ("-p", devkit, "--method", "rpn", "--run", trained.path, "--out", tmp_path / "b.h5")
    outcome = command(proposals.main, *flags, "--no-cls", "--nms_iou", "0.5")
    assert outcome.refused("--no-cls suppresses nothing")


def test_a_file_that_exists_is_left_alone(devkit, command, tmp_path):
    (tmp_path / "b.h5").write_text("mine")
    flags = ("-p", devkit, "--method", "edge-boxes", "--out", tmp_path / "b.h5")
    assert command(proposals.main, *flags).refused("exists; give another file")
    assert (tmp_path / "b.h5").read_text() == "mine"
