"""``python -m keras_frcnn anchors``, and training with the file that it writes."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from keras_frcnn.cli import anchors, evaluate, export, train
from keras_frcnn.cli import test as test_command
from keras_frcnn.cli.train_flags import build_parser, check_flags, recipe_from
from keras_frcnn.data.anchor_clustering import shape_iou
from keras_frcnn.data.voc import load_voc
from keras_frcnn.errors import UserError
from keras_frcnn.runs.folder import RunFolder
from keras_frcnn.runs.networks import load_model

INPUT = ("--short_side", "96", "--long_side", "160")


@pytest.fixture(scope="module")
def found(devkit, command, list_files, tmp_path_factory):
    """Three anchors of the hand-made devkit."""
    file = tmp_path_factory.mktemp("anchors") / "new" / "three.json"
    before = list_files(devkit)
    outcome = command(anchors.main, "-p", devkit, *INPUT, "-k", "3", "--out", file)
    assert outcome.code == 0, outcome.err
    assert list_files(devkit) == before, "the data folder was written to"
    return outcome, file


def test_what_is_written(found, devkit):
    outcome, file = found
    values = json.loads(file.read_text())
    dataset = load_voc(devkit, "2007:trainval")
    assert (values["short_side"], values["long_side"]) == (96, 160)
    assert values["about"]["ids_hash"] == dataset.ids_hash
    shapes = np.array(values["shapes"])
    assert shapes.shape == (3, 2)
    # Every object of 40 x 50 and 50 x 40 at 96 / 100 is met.
    for shape in ((38.4, 48.0), (48.0, 38.4)):
        assert shape_iou(np.array(shape), shapes).max() > 0.98
    with Image.open(file.with_suffix(".png")) as picture:
        picture.load()
        assert picture.width > 1000
    assert sorted(path.name for path in file.parent.iterdir()) == ["three.json", "three.png"]
    assert outcome.err == ""


def test_what_is_shown(found, devkit):
    text = found[0].out
    examples = [e.without_difficult() for e in load_voc(devkit, "2007:trainval").examples]
    count = sum(len(example.classes) for example in examples)
    assert f"{count} objects in 9 images (2007:trainval), difficult ones left out" in text
    shapes = json.loads(found[1].read_text())["shapes"]
    snippet = ", ".join(f"({height:g}, {width:g})" for height, width in shapes)
    assert f"AnchorConfig(scales=(), ratios=(), shapes=({snippet}))" in text
    assert f"train_frcnn.py -p ... --short_side 96 --long_side 160 --anchors {found[1]}" in text
    # The paper's nine are all larger than the input.
    nine = next(line for line in text.splitlines() if "the paper's nine" in line)
    assert nine.count("0 (0.0%)") == 2
    own = next(line for line in text.splitlines() if "k-means, 3" in line)
    assert f"{count} (100.0%)" in own


def test_equal_commands_write_equal_files_and_the_given_ones_are_compared(
    found, devkit, command, tmp_path
):
    flags = ("-p", devkit, *INPUT, "-k", "3", "--out", tmp_path / "again.json")
    outcome = command(anchors.main, *flags, "--anchors", found[1])
    assert outcome.code == 0, outcome.err
    assert (tmp_path / "again.json").read_text() == found[1].read_text()
    rows = [line.split("│")[2:] for line in outcome.out.splitlines() if line.startswith("│")]
    assert len(rows) == 3
    assert rows[1] == rows[2]


def test_one_anchor_is_a_tuple_in_the_recipe(devkit, command, tmp_path):
    flags = ("-p", devkit, *INPUT, "-k", "1", "--out", tmp_path / "one.json")
    text = command(anchors.main, *flags).out
    snippet = text.split("shapes=(")[1].splitlines()[0]
    assert snippet.endswith(",))")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["-k", "0"], ["--number", "from 1 up"]),
        (["-k", "99"], ["99 anchors cannot be told apart", "ask for at most"]),
        (["--short_side", "300", "--long_side", "100"], ["--long_side 100 must not be below"]),
        (["--out", "."], ["--out takes a file"]),
        (["--out", "a.PNG"], ["takes the JSON file"]),
        (["--anchors", "none.json"], ["--anchors none.json cannot be read"]),
        (["--train_set", "2012:trainval"], ["VOC2012/ImageSets/Main/trainval.txt"]),
        (["-p", "nowhere"], ["The data path nowhere does not exist"]),
        (["--anchor", "x"], ["Did you mean --anchors?"]),
    ],
)
def test_flags_that_are_wrong(flags, words, devkit, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outcome = command(anchors.main, "-p", devkit, *flags)
    assert outcome.refused(*words), outcome
    assert list(tmp_path.iterdir()) == []


def test_data_without_an_object_are_refused(devkit, command, tmp_path):
    image = devkit / "VOC2007" / "JPEGImages" / "000000.jpg"
    boxes = tmp_path / "boxes.txt"
    boxes.write_text(f"{image},60,10,10,50,disc\n")
    flags = ("-p", boxes, "-o", "simple", "--out", tmp_path / "a.json")
    assert command(anchors.main, *flags).refused("boxes.txt, line 1")
    assert command(anchors.main, *flags, "--allow_bad").refused("nothing to fit")


# --- training ----------------------------------------------------------------------------------


def parse(*flags: object):
    return build_parser().parse_args(["-p", "data", *map(str, flags)])


def test_the_flag_puts_the_shapes_into_the_recipe(found):
    recipe = recipe_from(parse(*INPUT, "--anchors", found[1]), lambda images, with_objects: 1)
    shapes = json.loads(found[1].read_text())["shapes"]
    assert recipe.anchors.shapes == tuple(map(tuple, shapes))
    assert (recipe.anchors.scales, recipe.anchors.ratios) == ((), ())
    assert recipe.anchors.per_position == 3


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--anchor_scales", "8"), "--anchors and --anchor_scales exclude each other"),
        (("--anchor_ratios", "1"), "--anchors and --anchor_ratios exclude each other"),
        (("--short_side", "300", "--long_side", "500"), "made for --short_side 96.* 300: give the"),
        (("--long_side", "170"), "made for --long_side 160.* 170"),
    ],
)
def test_flags_that_contradict_the_file(found, flags, message):
    with pytest.raises(UserError, match=message):
        check_flags(parse(*INPUT, "--anchors", found[1], *flags))


@pytest.mark.slow
def test_training_testing_and_export_with_a_file(found, devkit, command, tmp_path, tiny_flags):
    run = tmp_path / "run"
    rest = tiny_flags[: tiny_flags.index("--anchor_scales")]
    flags = ("-p", devkit, *rest, "--anchors", found[1], "--out", run)
    schedule = ("--iterations", "6,6,4,6", "--learning_rate", "0.01")
    outcome = command(train.main, *flags, *schedule)
    assert outcome.code == 0, outcome.err
    assert "3 anchors a position" in outcome.out
    config = RunFolder(run).read_config()
    shapes = json.loads(found[1].read_text())["shapes"]
    stored = json.loads((run / "config.json").read_text())["recipe"]["anchors"]
    assert stored == {"base_size": 16, "scales": [], "ratios": [], "shapes": shapes}
    assert config.recipe.anchors.shapes == tuple(map(tuple, shapes))
    model = load_model(RunFolder(run))
    sides = model.base_anchors[:, 2:] - model.base_anchors[:, :2]
    np.testing.assert_allclose(sides, shapes, atol=1e-5)
    np.testing.assert_array_equal(model.base_anchors[:, :2] + model.base_anchors[:, 2:], 16.0)
    # The run goes on where the file is the same, and only there.
    assert command(train.main, *flags, *schedule, "--resume").code == 0
    other = tmp_path / "other.json"
    other.write_text(json.dumps({"shapes": shapes[:2]}))
    changed = ("-p", devkit, *rest, "--anchors", other, "--out", run, *schedule, "--resume")
    assert command(train.main, *changed).refused("recipe.anchors.shapes")
    picture = devkit / "VOC2007" / "JPEGImages" / "000009.jpg"
    for main, more in (
        (test_command.main, ("-p", picture, "--out", tmp_path / "found")),
        (evaluate.main, ("-p", devkit)),
        (export.main, ("--out", tmp_path / "exported", "--score_thresh", "0.02")),
    ):
        outcome = command(main, "--run", run, *more)
        assert outcome.code == 0, outcome.err
