"""What every command says of data that were left out, mended or doubtful."""

from __future__ import annotations

import pytest

from keras_frcnn.cli import anchors, evaluate, recall, train
from keras_frcnn.proposals.files import write_proposals
from keras_frcnn.proposals.given import GivenProposals, ranked
from tests.data.devkits import Devkit, box_xml, object_xml


@pytest.fixture
def folder(tmp_path):
    """Twenty sound objects and one without a number, in VOC2007 and in ``list.txt``."""
    folder = tmp_path / "data"
    devkit = Devkit(folder)
    boxes = [box_xml(place, place, 30 + 2 * place, 20 + place) for place in range(1, 6)]
    for image_id in "1234":
        devkit.add(image_id, *(object_xml("disc", box) for box in boxes))
    devkit.add("5", object_xml("disc", box_xml("abc", 1, 9, 9)))
    for split in ("trainval", "test"):
        devkit.list(split, *"12345")
    lines = [
        f"VOC2007/JPEGImages/{image_id}.jpg,{p},{p},{p + 20},{p + 20},disc\n"
        for image_id in "1234"
        for p in range(5)
    ]
    lines += ["VOC2007/JPEGImages/5.jpg,1,1,9,disc\n", "VOC2007/JPEGImages/5.jpg,a,1,9,9,disc\n"]
    (folder / "list.txt").write_text("".join(lines))
    return folder


def flags_of(main, tmp_path):
    if main is anchors.main:
        return ("--short_side", "40", "-k", "2", "--out", tmp_path / "a.json")
    if main is train.main:
        return ("--network", "tiny", "--weights", "random", "--out", tmp_path / "run")
    (tmp_path / "p.json").write_text("[]")
    flag = "--detections" if main is evaluate.main else "--proposals"
    return (flag, tmp_path / "p.json")


@pytest.mark.parametrize("main", [anchors.main, recall.main])
def test_objects_and_lines_left_out_are_named(folder, command, main):
    flags = flags_of(main, folder.parent)
    outcome = command(main, "-p", folder, *flags)
    assert "5.xml, object 1 (disc)" in outcome.out and "'abc'" in outcome.out
    assert "1 of the 21 objects" in outcome.out
    outcome = command(main, "-o", "simple", "-p", folder / "list.txt", *flags)
    assert "list.txt, line 21" in outcome.out and "list.txt, line 22 (disc)" in outcome.out


@pytest.mark.parametrize("main", [anchors.main, recall.main, train.main, evaluate.main])
def test_lost_objects_stop_and_may_be_allowed(folder, command, main):
    path = folder / "VOC2007/Annotations"
    for image_id in "345":
        (path / f"{image_id}.xml").write_text((path / "5.xml").read_text())
    flags = flags_of(main, folder.parent)
    outcome = command(main, "-p", folder, *flags)
    assert outcome.refused("3 of the 13 objects", "3.xml", "--allow_bad")
    if main is anchors.main:
        outcome = command(main, "-p", folder, *flags, "--allow_bad")
        assert outcome.code == 0, outcome.err
        assert "3 of the 13 objects" in outcome.out


def test_doubtful_class_names_are_told(folder, command):
    file = folder / "VOC2007/Annotations/1.xml"
    file.write_text(file.read_text().replace("disc", "bg", 1).replace("disc", "Disc", 1))
    outcome = command(anchors.main, "-p", folder, *flags_of(anchors.main, folder.parent))
    assert outcome.code == 0 and "'bg'" in outcome.out
    assert "'Disc'" in outcome.out and "'disc'" in outcome.out


def test_the_method_of_a_file_moves_no_cursor(folder, command):
    boxes = {image_id: ranked([(1, 1, 30, 30)]) for image_id in "1234"}
    boxes["5"] = boxes["1"]
    given = GivenProposals(boxes, "a\x1b]0;x\x07\x9b31m\nerror: forged", {}, "")
    write_proposals(folder / "p.h5", given)
    outcome = command(recall.main, "-p", folder, "--proposals", folder / "p.h5")
    assert outcome.code == 0 and "forged" in outcome.out, outcome
    assert outcome.out.replace("\n", "").isprintable()
    assert not any(line.startswith("error: ") for line in outcome.out.splitlines())


@pytest.mark.parametrize("main", [train.main, evaluate.main])
def test_boxes_that_all_are_none_stop(folder, command, main):
    list_file = folder / "sizes.txt"
    lines = [f"VOC2007/JPEGImages/{i}.jpg,40,30,9,8,disc\n" for i in "12345"]
    list_file.write_text("".join(lines))
    outcome = command(main, "-o", "simple", "-p", list_file, *flags_of(main, folder.parent))
    assert outcome.refused("5 of the 5 objects", "width, height", "line 1", "--allow_bad")
