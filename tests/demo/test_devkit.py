"""The demo's devkit: the files say what the pictures show, for every seed and every time."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from defusedxml import ElementTree
from PIL import Image

from keras_frcnn.demo import devkit as demo_devkit
from keras_frcnn.demo.devkit import MARKER, claim_folder
from keras_frcnn.demo.scene import CLEARLY_VISIBLE, tight_box
from keras_frcnn.errors import UserError

SIZE = (240, 320)


def files_of(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def devkit(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("devkit") / "devkit"
    demo_devkit.write_demo_devkit(folder, seed=3, train_images=4, test_images=3)
    return folder


@pytest.fixture(scope="module", params=[0, 7])
def test_scenes(request):
    return [demo_devkit.devkit_scene(request.param, "test", index, SIZE) for index in range(48)]


def test_same_seed_gives_the_same_bytes_and_another_seed_others(devkit, tmp_path):
    demo_devkit.write_demo_devkit(tmp_path / "again", seed=3, train_images=4, test_images=3)
    demo_devkit.write_demo_devkit(tmp_path / "other", seed=4, train_images=4, test_images=3)
    assert files_of(tmp_path / "again") == files_of(devkit)
    same = set(files_of(tmp_path / "other").items()) & set(files_of(devkit).items())
    assert {Path(name).suffix for name, _ in same} == {".txt"}


def test_layout_and_lists(devkit):
    sets = devkit / "VOC2007" / "ImageSets" / "Main"
    assert (sets / "trainval.txt").read_text().split() == ["000001", "000002", "000003", "000004"]
    assert (sets / "test.txt").read_text().split() == ["000005", "000006", "000007"]
    for folder, suffix in (("Annotations", ".xml"), ("JPEGImages", ".jpg")):
        names = sorted(path.name for path in (devkit / "VOC2007" / folder).iterdir())
        assert names == [f"{number:06d}{suffix}" for number in range(1, 8)]


def test_xml_says_what_the_scene_holds(devkit):
    scene = demo_devkit.devkit_scene(3, "test", 1, SIZE)
    root = ElementTree.parse(devkit / "VOC2007" / "Annotations" / "000006.xml").getroot()
    assert root.findtext("filename") == "000006.jpg"
    size = [root.findtext(f"size/{name}") for name in ("width", "height", "depth")]
    assert size == ["320", "240", "3"]
    written = [
        (
            node.findtext("name"),
            int(node.findtext("truncated")),
            int(node.findtext("difficult")),
            [int(node.findtext(f"bndbox/{side}")) for side in ("xmin", "ymin", "xmax", "ymax")],
        )
        for node in root.iter("object")
    ]
    expected = []
    for item in scene.objects:
        rows, columns = np.nonzero(item.visible_mask >= 0.5)
        # 1-based and inclusive: the first and the last pixel, counted from one.
        box = [columns.min() + 1, rows.min() + 1, columns.max() + 1, rows.max() + 1]
        expected.append((item.name, int(item.truncated), int(item.difficult), box))
    assert written == expected
    picture = Image.open(devkit / "VOC2007" / "JPEGImages" / "000006.jpg")
    assert picture.size == (320, 240)
    assert np.abs(np.asarray(picture, float) - scene.picture).mean() < 6  # JPEG's loss only


def test_tight_box_of_a_known_mask():
    mask = np.zeros((6, 8), np.float32)
    mask[2:4, 3:7] = 1.0
    mask[4, 3:7] = 0.5
    mask[1, 3:7] = 0.49
    assert tight_box(mask).tolist() == [2, 3, 5, 7]
    assert tight_box(np.zeros((6, 8), np.float32)).tolist() == [0, 0, 0, 0]


def test_masks_show_in_the_picture(test_scenes):
    """What a mask covers looks different from the pixels around it, so the boxes are where it is.

    An object's colour is at least 0.5 of 255 away from what it covers, before texture and light.
    """
    differences = []
    for scene in test_scenes[:12]:
        covered = np.max([item.visible_mask for item in scene.objects], axis=0)
        for item in scene.objects:
            y1, x1, y2, x2 = item.box_image
            window = np.s_[max(y1 - 6, 0) : y2 + 6, max(x1 - 6, 0) : x2 + 6]
            picture, free = scene.picture[window].astype(float), covered[window] == 0
            if free.sum() > 50:
                inside = picture[item.visible_mask[window] == 1].mean(axis=0)
                differences.append(np.linalg.norm(inside - picture[free].mean(axis=0)))
    assert np.median(differences) > 80


def test_enough_test_objects_of_every_class_in_a_fourfold_range_of_sides(test_scenes):
    objects = [item for scene in test_scenes for item in scene.objects if not item.difficult]
    assert len(objects) >= 192
    assert {item.name for item in objects} == {"cross", "ring", "star", "triangle"}
    whole = [item.box_image for item in objects if not item.truncated]
    sides = [max(y2 - y1, x2 - x1) for y1, x1, y2, x2 in whole]
    assert max(sides) > 100
    assert 24 <= min(sides) < 32
    assert all(sum(not item.difficult for item in scene.objects) >= 4 for scene in test_scenes)


def test_flags_follow_from_what_is_hidden(test_scenes):
    objects = [item for scene in test_scenes for item in scene.objects]
    assert all(item.difficult == (item.visible_part < CLEARLY_VISIBLE) for item in objects)
    assert any(item.difficult for item in objects)
    for item in objects:
        (y1, x1, y2, x2), (top, left, bottom, right) = item.box_image, item.whole_box_image
        assert top <= y1 < y2 <= bottom
        assert left <= x1 < x2 <= right
        seen = (y2 - y1) * (x2 - x1) / ((bottom - top) * (right - left))
        assert item.truncated == (seen < 0.95)
    assert 20 < sum(item.truncated for item in objects) < len(objects) / 2
    beyond = [item for item in objects if item.whole_box_image.min() < -20]
    assert beyond
    assert all(item.truncated for item in beyond)


def test_some_objects_overlap(test_scenes):
    partly_hidden = [
        item
        for scene in test_scenes
        for item in scene.objects
        if item.visible_part < 0.95 and item.box_image[:2].min() > 0
    ]
    assert len(partly_hidden) >= 10


def test_every_picture_has_a_random_stream_of_its_own(monkeypatch):
    monkeypatch.setattr(demo_devkit, "draw_scene", lambda rng, *_, **__: rng.random())
    draws = [
        demo_devkit.devkit_scene(seed, name, index, SIZE)
        for name in ("trainval", "test")
        for seed in range(3)
        for index in range(10)
    ]
    assert len(set(draws)) == 2 * 3 * 10


def test_some_training_pictures_are_empty():
    counts = [
        len(demo_devkit.devkit_scene(5, "trainval", index, SIZE).objects) for index in range(16, 24)
    ]
    assert counts[19 - 16] == 0
    assert all(count >= 3 for position, count in enumerate(counts) if position != 3)


def test_replaces_its_own_devkit_and_nothing_else(tmp_path):
    ours = tmp_path / "ours"
    demo_devkit.write_demo_devkit(ours, seed=1, train_images=3, test_images=2)
    (ours / "notes.txt").write_text("mine")
    demo_devkit.write_demo_devkit(ours, seed=2, train_images=1, test_images=1)
    assert len(list((ours / "VOC2007" / "JPEGImages").iterdir())) == 2
    assert json.loads((ours / "made_by.json").read_text())["seed"] == 2
    assert (ours / "notes.txt").read_text() == "mine"

    theirs = tmp_path / "theirs"
    (theirs / "VOC2007").mkdir(parents=True)
    with pytest.raises(UserError, match="did not make"):
        demo_devkit.write_demo_devkit(theirs, seed=1, train_images=1, test_images=1)
    (theirs / "made_by.json").write_text('{"made_by": "somebody"}')
    with pytest.raises(UserError, match="did not make"):
        demo_devkit.write_demo_devkit(theirs, seed=1, train_images=1, test_images=1)
    assert sorted(path.name for path in theirs.iterdir()) == ["VOC2007", "made_by.json"]
    with pytest.raises(UserError, match="is a file"):
        demo_devkit.write_demo_devkit(ours / "notes.txt", seed=1, train_images=1, test_images=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": -1}, "seed must be 0 or larger, but it is -1"),
        ({"test_images": 0}, "at least one training and one test"),
        ({"size": (100, 320)}, "100 x 320"),
    ],
)
def test_numbers_out_of_range_are_refused(tmp_path, change, message):
    wanted = {"seed": 0, "train_images": 1, "test_images": 1, **change}
    with pytest.raises(UserError, match=message):
        demo_devkit.write_demo_devkit(tmp_path / "devkit", **wanted)
    assert not (tmp_path / "devkit").exists()


def test_makes_a_folder_and_takes_an_empty_one(tmp_path):
    (tmp_path / "empty").mkdir()
    for name in ("empty", "new/below"):
        claim_folder(tmp_path / name, "me", ["result"], seed=3)
        assert (tmp_path / name / MARKER).read_text() == '{"made_by": "me", "seed": 3}\n'


def test_removes_its_own_contents_only(tmp_path):
    folder, elsewhere = tmp_path / "folder", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").write_text("")
    claim_folder(folder, "me", [])
    (folder / "result").mkdir()
    (folder / "result" / "old").write_text("")
    (folder / "table.json").write_text("")
    (folder / "notes.txt").write_text("")
    (folder / "link").symlink_to(elsewhere)
    claim_folder(folder, "me", ["result", "table.json", "link", "missing"])
    assert sorted(path.name for path in folder.iterdir()) == [MARKER, "notes.txt"]
    assert (elsewhere / "precious").exists()


@pytest.mark.parametrize("marker", [None, '{"made_by": "somebody"}', "[]", "no json"])
def test_refuses_what_somebody_else_made(tmp_path, marker):
    (tmp_path / "result").write_text("")
    if marker is not None:
        (tmp_path / MARKER).write_text(marker)
    with pytest.raises(UserError, match="me did not make"):
        claim_folder(tmp_path, "me", ["result"])
    assert (tmp_path / "result").exists()


def test_refuses_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        claim_folder(tmp_path / "file", "me", [])
