"""Run folders: configuration, numbering, never overwritten, metrics, the training images.

Shapes and names
----------------
run  a folder of the layout of :mod:`keras_frcnn.runs.folder`.
"""

from __future__ import annotations

import dataclasses
import json

import pytest

from keras_frcnn.errors import UserError
from keras_frcnn.runs.config import GivenSource, identity, plain, versions
from keras_frcnn.runs.folder import RunFolder, find_run, latest_run_folder, new_run_folder


@pytest.fixture
def config(run_config):
    return run_config()


@pytest.fixture
def run(config, tmp_path):
    folder = RunFolder(tmp_path / "runs" / "tiny")
    folder.create(config, ["train_frcnn.py", "-p", "devkit"])
    return folder


def with_data(config, **changes):
    return dataclasses.replace(config, data=dataclasses.replace(config.data, **changes))


def rewrite(run, **changes):
    values = json.loads(run.config_file.read_text())
    values.update(changes)
    run.config_file.write_text(json.dumps(values))


def test_configuration_round_trip(run, config):
    assert run.read_config() == config
    values = json.loads(run.config_file.read_text())
    assert values["command"] == ["train_frcnn.py", "-p", "devkit"]
    assert values["versions"] == versions()
    assert {"keras_frcnn", "python", "tensorflow", "keras", "numpy"} <= set(values["versions"])
    assert values["seed"] == 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"netwrok": "tiny"}, r"config\.json has the unknown field 'netwrok'"),
        ({"seed": "5"}, r"config\.json\.seed should be of type int, not '5'"),
        ({"flips": 1}, r"config\.json\.flips should be of type bool"),
        ({"class_names": "cat"}, r"config\.json\.class_names should be a list"),
        ({"class_names": ["cat", 3]}, r"config\.json\.class_names\[1\] should be of type str"),
        ({"recipe": {"name": "paper"}}, r"config\.json\.recipe lacks the field 'image'"),
        (
            {"precision": "float64"},
            r"config\.json\.precision should be one of float32, .* 'float64'",
        ),
        ({"mode": "../joint"}, r"config\.json\.mode should be one of alternating, "),
        ({"stages": [1, 5]}, r"config\.json\.stages\[1\] should be one of 1, 2, 3, 4, not 5"),
        ({"seed": 10**30}, r"config\.json\.seed should be a finite number"),
        ({"recipe": float("nan")}, r"config\.json\.recipe should be an object"),
        ({"format": 99}, "format 99.*newer keras_frcnn"),
        ({"format": "1"}, "is not the configuration of a run"),
        ({"format": True}, "is not the configuration of a run"),
        ({"format": 0}, "is not the configuration of a run"),
        ({"format": -1}, "is not the configuration of a run"),
        ({"seed": 2**28}, r"config\.json\.seed should be at least 0 and at most"),
        ({"network": "alexnet"}, r"config\.json\.network should be one of vgg16"),
        ({"class_names": []}, r"config\.json\.class_names should have at least 1"),
        ({"class_names": 1_000_000 * ["a"]}, r"config\.json\.class_names should have .*10,000"),
        ({"class_names": ["cat", ""]}, r"config\.json.*class_names"),
        ({"class_names": ["cat", "cat"]}, r"config\.json.*class_names"),
        ({"class_names": ["cat", "\ud800"]}, r"config\.json.*class_names"),
        ({"data": None}, r"config\.json\.data should be an object"),
        ({"data": {}}, r"config\.json\.data lacks the field"),
    ],
)
def test_a_damaged_configuration_is_refused_by_field(run, changes, message):
    rewrite(run, **changes)
    with pytest.raises(UserError, match=message):
        run.read_config()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"config\.json cannot be read"),
        ("[1]", "not the configuration of a run"),
        ("", r"config\.json cannot be read"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_what_is_no_configuration_is_refused(run, text, message):
    run.config_file.write_text(text)
    with pytest.raises(UserError, match=message):
        run.read_config()


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="not a run folder: it has no config.json"):
        RunFolder(tmp_path).read_config()


def test_a_run_is_never_overwritten(run, config, tmp_path):
    before = run.config_file.read_text()
    with pytest.raises(UserError, match="exists and is not empty"):
        run.create(config, [])
    assert run.config_file.read_text() == before
    foreign = tmp_path / "photos"
    foreign.mkdir()
    (foreign / "a.jpg").write_text("x")
    with pytest.raises(UserError, match="exists and is not empty"):
        RunFolder(foreign).create(config, [])
    assert [path.name for path in foreign.iterdir()] == ["a.jpg"]
    with pytest.raises(UserError, match="is a file"):
        RunFolder(foreign / "a.jpg").create(config, [])
    empty = tmp_path / "empty"
    empty.mkdir()
    RunFolder(empty).create(config, [])
    assert RunFolder(empty).read_config() == config


def test_folders_are_numbered(run, tmp_path, config):
    parent = tmp_path / "runs"
    assert new_run_folder(parent / "none", "tiny").path == parent / "none" / "tiny"
    assert new_run_folder(parent, "zf").path == parent / "zf"
    assert new_run_folder(parent, "tiny").path == parent / "tiny-2"
    for name in ("tiny-2", "tiny-9", "tiny-b", "tiny-10-x", "atiny-50"):
        (parent / name).mkdir()
    # The next after the highest, so that a run that was deleted does not come back.
    assert new_run_folder(parent, "tiny").path == parent / "tiny-10"
    (parent / "tiny-10").write_text("a file takes its number too")
    assert new_run_folder(parent, "tiny").path == parent / "tiny-11"
    assert new_run_folder(parent, "t.ny").path == parent / "t.ny"


def test_a_number_in_a_name_that_was_asked_for_is_no_number_of_a_run(config, tmp_path):
    parent = tmp_path / "runs"
    for name in ("voc", "voc-2012", "voc-2012", "voc"):
        folder = new_run_folder(parent, name)
        folder.create(config, [], name)
    names = sorted(path.name for path in parent.iterdir())
    assert names == ["voc", "voc-2", "voc-2012", "voc-2012-2"]
    assert latest_run_folder(parent, "voc").path == parent / "voc-2"
    assert latest_run_folder(parent, "voc-2012").path == parent / "voc-2012-2"
    assert RunFolder(parent / "voc-2012").read_config() == config
    # Another's number is not taken, and folders that were renamed keep their place.
    new_run_folder(parent, "voc-3").create(config, [], "voc-3")
    assert new_run_folder(parent, "voc").path == parent / "voc-4"
    (parent / "voc-2").rename(parent / "best-2")
    assert latest_run_folder(parent, "best").path == parent / "best-2"


def test_the_latest_run_is_the_one_with_the_highest_number(run, tmp_path):
    parent = tmp_path / "runs"
    assert latest_run_folder(parent, "tiny").path == parent / "tiny"
    for name in ("tiny-2", "tiny-10", "tiny-9"):
        (parent / name).mkdir()
    assert latest_run_folder(parent, "tiny").path == parent / "tiny-10"
    with pytest.raises(UserError, match="no run called 'zf'"):
        latest_run_folder(parent, "zf")


def test_resuming_needs_the_same_configuration(run, config):
    run.resume(config)
    recipe = config.recipe
    rpn = dataclasses.replace(recipe.rpn, sigma=2.0)
    changed = dataclasses.replace(config, recipe=dataclasses.replace(recipe, rpn=rpn))
    with pytest.raises(UserError, match=r"recipe\.rpn\.sigma = 1\.0, this command asks for 2\.0"):
        run.resume(changed)
    with pytest.raises(UserError, match="with seed = 5, this command asks for 6"):
        run.resume(dataclasses.replace(config, seed=6))
    with pytest.raises(UserError, match="data.ids_hash"):
        run.resume(with_data(config, ids_hash="other"))


@pytest.mark.parametrize("path", [5, ["a"], None, {}])
def test_a_path_of_data_that_is_no_text_is_refused(run, config, path):
    rewrite(run, data={**plain(config)["data"], "path": path})
    with pytest.raises(UserError, match=r"config\.json\.data\.path"):
        run.resume(config)


@pytest.mark.parametrize("path", ["a\0b", "\ud800", "~nobody", "", "../elsewhere"])
def test_data_may_lie_elsewhere_than_they_did(run, config, path):
    rewrite(run, data={**plain(config)["data"], "path": path})
    assert run.read_config().data.path == path
    assert identity(run.read_config()) == identity(config)
    assert run.resume(config) == run.read_config() == config


def test_given_proposals_and_initial_weights_may_lie_elsewhere(config, tmp_path):
    """Their digests tell whether they are the same."""

    def from_folder(folder, digest="d"):
        given = GivenSource((f"{folder}/a.h5",), "mat", {f"{folder}/a.h5": {}}, digest)
        return with_data(
            dataclasses.replace(config, initial_weights=f"{folder}/w.h5"), proposals=given
        )

    run = RunFolder(tmp_path / "run")
    run.create(from_folder("here"), [])
    assert run.resume(from_folder("there")) == run.read_config() == from_folder("there")
    with pytest.raises(UserError, match="proposals = 'd', this command asks for 'e'"):
        run.resume(from_folder("there", "e"))
    for name in ("random", "imagenet"):
        with pytest.raises(UserError, match="initial_weights"):
            run.resume(dataclasses.replace(from_folder("there"), initial_weights=name))


def test_other_threads_are_noted_and_not_refused(run, config):
    stored = json.loads(run.config_file.read_text())["computing"]
    assert int(stored["intra_op_threads"]) >= 1 and int(stored["inter_op_threads"]) >= 1
    assert run.other_computing() is None
    rewrite(run, computing={**stored, "intra_op_threads": "999"})
    assert "intra_op_threads = '999'" in run.other_computing()
    assert run.resume(config) == config


def test_resuming_gives_the_runs_own_configuration(config, tmp_path):
    """The command need not read half a gigabyte to say what its initial weights are."""
    known = dataclasses.replace(config, stages=(1,), initial_weights_digest="a" * 32)
    run = RunFolder(tmp_path / "known")
    run.create(known, [])
    expected = dataclasses.replace(known, stages=(1, 2, 3, 4))
    assert run.resume(config) == run.read_config() == expected


def test_resuming_may_go_further_but_not_less_far(config, tmp_path):
    run = RunFolder(tmp_path / "unshared")
    unshared = dataclasses.replace(config, stages=(1, 2))
    run.create(unshared, ["train_frcnn.py"])
    run.resume(config)
    assert run.read_config() == config
    with pytest.raises(UserError, match="stages"):
        run.resume(unshared)


def test_the_identity_of_a_run_is_that_of_what_resuming_keeps(run, config):
    same = (run.read_config(), dataclasses.replace(config, stages=(1,)))
    assert {identity(one) for one in same} == {identity(config)}
    # 10 is 10.0 in the file.
    whole = dataclasses.replace(config.recipe.rpn, box_weight=10)
    recipe = dataclasses.replace(config.recipe, rpn=whole)
    assert identity(dataclasses.replace(config, recipe=recipe)) == identity(config)
    rpn = dataclasses.replace(config.recipe.rpn, objectness="logistic")
    others = (
        dataclasses.replace(config, seed=6),
        with_data(config, ids_hash="other"),
        dataclasses.replace(config, precision="float16"),
        dataclasses.replace(config, recipe=dataclasses.replace(config.recipe, rpn=rpn)),
    )
    assert len({identity(one) for one in (config, *others)}) == 5


def test_a_copied_configuration_leads_back(run, config, tmp_path):
    copy = tmp_path / "elsewhere" / "config.json"
    run.copy_config(copy)
    assert find_run(copy).path == run.path.resolve()
    assert find_run(copy).read_config() == config
    assert find_run(run.config_file).path == run.path
    copy.write_text('{"run": 5}')
    with pytest.raises(UserError, match="not the configuration"):
        find_run(copy)


def test_a_value_that_is_not_allowed_is_named_with_its_file(run):
    values = json.loads(run.config_file.read_text())
    values["recipe"]["rpn"]["objectness"] = "cat"
    rewrite(run, recipe=values["recipe"])
    with pytest.raises(
        UserError, match=r"config\.json\.recipe\.rpn\.objectness .*one of softmax.*'cat'"
    ):
        run.read_config()


def test_whether_features_are_kept_is_one_of_two_words(run):
    assert run.features_kept() is None
    for kept in (True, False):
        run.note_features_kept(kept)
        assert run.features_kept() is kept


@pytest.mark.parametrize("content", [b"", b"on", b"\xff\xfe", b"kept off", b"k" * 10**6])
def test_another_word_is_not_taken_for_one_of_them(run, content):
    run.features_file.write_bytes(content)
    with pytest.raises(UserError, match="features.txt"):
        run.features_kept()


def test_a_name_that_is_not_utf_8_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"run\? has a name that is not UTF-8"):
        RunFolder(f"{tmp_path}/run\udcff").check_unused()


@pytest.mark.parametrize(
    ("mode", "finished", "needed"),
    [
        ("alternating", (), True),
        ("alternating", ("stage1",), True),
        ("alternating", ("stage1", "stage2"), False),
        ("joint", ("stage1", "stage2"), True),
        ("joint", ("final",), False),
        ("fast-rcnn", ("stage2",), False),
    ],
)
def test_initial_weights_are_needed_until_all_that_starts_from_them_is_trained(
    run, mode, finished, needed
):
    for name in finished:
        run.weights_file(name).touch()
    assert run.needs_initial_weights(mode) is needed


def test_the_final_weights_are_copied_unless_they_are_there(run, tmp_path):
    final = run.weights_file("final")
    final.write_bytes(b"weights")
    run.copy_final(tmp_path / "new" / "copy.h5")
    assert (tmp_path / "new" / "copy.h5").read_bytes() == b"weights"
    (tmp_path / "link.h5").symlink_to(final)
    for same in (final, tmp_path / "link.h5"):
        run.copy_final(same)
    assert (tmp_path / "link.h5").is_symlink() and final.read_bytes() == b"weights"
