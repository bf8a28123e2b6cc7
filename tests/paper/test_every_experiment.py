"""The whole list of experiments on a generated devkit with the tiny network.

Shapes and names
----------------
folder  what ``paper all --out`` made.
"""

from __future__ import annotations

import json
import re

import pytest

from keras_frcnn.cli import paper
from keras_frcnn.demo.devkit import write_demo_devkit
from keras_frcnn.errors import UserError
from keras_frcnn.paper.catalogue import EXPERIMENTS

pytestmark = pytest.mark.slow
OPENCV = pytest.importorskip("cv2", reason="Selective Search and EdgeBoxes need OpenCV")
FLAGS = (
    *("--network", "tiny", "--weights", "random", "--budget", "0.00005", "--short_side", "128"),
    *("--anchor_scales", "1.5,3", "--window_stride", "2", "--workers", "1"),
    *("--detect_images", "2"),
)


@pytest.fixture(scope="module")
def devkit(tmp_path_factory):
    path = tmp_path_factory.mktemp("paper") / "VOCdevkit"
    write_demo_devkit(path, seed=1, train_images=6, test_images=4, size=(200, 260))
    return path


@pytest.fixture(scope="module")
def folder(devkit, tmp_path_factory):
    out = tmp_path_factory.mktemp("paper") / "out"
    paper.main(["all", "-p", str(devkit), "--out", str(out), *FLAGS])
    return out


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_writes_its_sheet(folder, name):
    text = (folder / f"{name}.md").read_text()
    values = json.loads((folder / f"{name}.json").read_text())
    assert "Not a reproduction: 5e-05 of the paper's schedule (4/2/4/2 iterations)" in text
    assert values["rows"]
    for figure in values["figures"]:
        assert (folder / figure).stat().st_size > 1000


def test_the_index_leads_to_every_sheet(folder):
    text = (folder / "README.md").read_text()
    links = re.findall(r"^- \[.+\]\((\w+)\.md\)$", text, re.MULTILINE)
    assert links == list(EXPERIMENTS)


def test_the_papers_numbers_stand_beside_ours(folder):
    rows = json.loads((folder / "table1.json").read_text())["rows"]
    assert len(rows) == 14
    for row in rows:
        assert 0 < row[4] <= row[3]  # an image cannot have more than are asked for
        assert row[5] > 40  # the paper's
        assert 0 <= row[6] <= 100  # ours
    assert rows[2][5] == 59.9


def test_table_4_names_the_papers_networks_on_the_papers_rows(folder):
    rows = json.loads((folder / "table4.json").read_text())["rows"]
    papers = [row[0] for row in rows if row[1] == "paper"]
    assert papers[:3] == [
        "SS + Fast R-CNN, VGG-16",
        "RPN + Fast R-CNN, VGG-16",
        "RPN + Fast R-CNN, ZF",
    ]
    ours = [row for row in rows if row[1] == "ours"]
    assert {row[0] for row in ours[1:3]} == {"RPN + Fast R-CNN, tiny"}
    assert ours[1] == ours[2]  # one network stands for both, and is measured once


def test_tables_share_their_systems(folder):
    """Of tables 1, 2, 5, 6 and figures 1 and 3 only these detect, on two images each."""
    names = [path.stem for path in (folder / "detections").iterdir()]
    assert all(name.endswith("-on-2") for name in names)
    assert len([name for name in names if "stage2-rpn" in name]) == 1
    assert len([name for name in names if "stage4-rpn" in name]) == 1
    assert len([name for name in names if "ss-2007-test" in name]) == 1


def test_rows_without_data_stay_and_say_why(folder):
    rows = json.loads((folder / "table3.json").read_text())["rows"]
    assert [row[3] for row in rows] == [65.7, 68.4, 67.0, 70.4]
    assert all(row[4] is None and "VOC 2012" in row[-1] for row in rows)
    rows = json.loads((folder / "table2.json").read_text())["rows"]
    ours = {(row[0], row[2]): row[4] for row in rows}
    assert ours["RPN, shared", "07+12"] is None
    assert ours["RPN, shared", "07"] is not None


def test_nothing_is_made_twice(devkit, folder, capsys):
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.h5")}
    with pytest.raises(UserError, match="begun with fraction = 5e-05"):
        paper.main(["table1", "-p", str(devkit), "--out", str(folder), *FLAGS, "--budget", "1"])
    paper.main(["table1", "-p", str(devkit), "--out", str(folder), *FLAGS])
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*.h5")}
    printed = capsys.readouterr().out
    assert "training" not in printed
    assert "detecting" not in printed
    assert "| 59.9 |" in printed


def test_weights_that_are_missing_leave_the_rows(devkit, tmp_path):
    """Without --network the ablations want ZF, whose weights nobody can fetch."""
    file = tmp_path / "some.h5"
    file.write_bytes(b"")
    flags = ("--input_weight_path", str(file), "--budget", "0.00005")
    paper.main(["table1", "-p", str(devkit), "--out", str(tmp_path / "out"), *flags])
    rows = json.loads((tmp_path / "out" / "table1.json").read_text())["rows"]
    assert {row[-1] for row in rows} == {"no ImageNet weights for zf were given"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tables4"], "not 'tables4'; did you mean table4?"),
        ([], "Name an experiment of table2"),
        (["table1"], "--path is needed"),
        (["table1", "-p", "."], "--out is needed"),
    ],
)
def test_what_is_wrong_is_said_at_once(words, message):
    with pytest.raises(UserError) as error:
        paper.main(words)
    assert message in str(error.value)


def test_a_folder_without_voc_2007_is_refused(tmp_path):
    with pytest.raises(UserError, match="need a VOCdevkit with VOC2007"):
        paper.main(["table1", "-p", str(tmp_path), "--out", f"{tmp_path}-out", *FLAGS])
