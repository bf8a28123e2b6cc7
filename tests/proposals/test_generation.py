"""Computing proposals: over processes, after interruptions, with images that cannot be read."""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pytest

from keras_frcnn.data.images import read_image
from keras_frcnn.errors import UserError
from keras_frcnn.proposals import generation
from keras_frcnn.proposals.files import read_proposals
from keras_frcnn.proposals.generation import Parts, compute_proposals, jobs_for
from keras_frcnn.proposals.given import ranked
from keras_frcnn.proposals.methods import SelectiveSearch

METHOD = SelectiveSearch(width=80)


class Corner:
    """A method whose one box tells the image: as long as its first row's mean brightness."""

    name = "corner"

    def __init__(self, fails_after: int | None = None):
        self.calls, self.fails_after = 0, fails_after

    def settings(self) -> dict:
        return {"version": 1}

    def __call__(self, image: np.ndarray):
        self.calls += 1
        if self.fails_after is not None and self.calls > self.fails_after:
            raise KeyboardInterrupt
        side = 1 + image[:, :5].mean() / 10
        return ranked(np.array([[0, 0, side, side]]))


@pytest.fixture
def examples(demo_dataset):
    return demo_dataset.examples[:3]


def compute(examples, method, out, *, flips=False, processes=None, **others):
    reported = []
    result = compute_proposals(
        jobs_for(examples, flips),
        method,
        out,
        processes=processes,
        about={"sets": ["2007:trainval"]},
        report=reported.append,
        **others,
    )
    return *result, reported


def same(one, other) -> bool:
    return list(one.entries) == list(other.entries) and all(
        np.array_equal(one.entries[name].boxes_image, other.entries[name].boxes_image)
        for name in one.entries
    )


def test_images_and_mirror_images_in_one_order(examples, tmp_path):
    out = tmp_path / "boxes.h5"
    proposals, unreadable, reported = compute(examples, Corner(), out, flips=True)
    keys = [example.key for example in examples]
    assert list(proposals.entries) == keys + [f"{key} flipped" for key in keys]
    for example in examples:
        image = read_image(example.path)
        for name, pixels in ((example.key, image), (f"{example.key} flipped", image[:, ::-1])):
            side = 1 + pixels[:, :5].mean() / 10
            expected = [[0, 0, side, side]]
            np.testing.assert_allclose(proposals.entries[name].boxes_image, expected, rtol=1e-6)
    assert (unreadable, reported[-1]) == ([], 6)
    again = read_proposals(out)
    assert same(again, proposals)
    assert (again.method, again.settings["sets"]) == ("corner", ["2007:trainval"])
    assert [path.name for path in tmp_path.iterdir()] == ["boxes.h5"]


def test_selective_search_does_not_depend_on_the_processes(examples, tmp_path):
    """One process or two, twice: the same boxes in the same order."""
    pytest.importorskip("cv2")
    one, *_ = compute(examples[:2], METHOD, tmp_path / "a.h5", flips=True, processes=1)
    two, *_ = compute(examples[:2], METHOD, tmp_path / "b.h5", flips=True, processes=2)
    assert same(one, two)
    assert all(len(entry.scores) > 5 for entry in one.entries.values())
    for example in examples[:2]:
        here = METHOD(read_image(example.path)).boxes_image
        np.testing.assert_array_equal(one.entries[example.key].boxes_image, here)


def test_an_interrupted_command_goes_on(examples, tmp_path):
    whole, *_ = compute(examples, Corner(), tmp_path / "whole.h5", flips=True)
    out = tmp_path / "boxes.h5"
    for calls in (2, 3):
        with pytest.raises(KeyboardInterrupt):
            compute(examples, Corner(calls), out, flips=True, save_seconds=0.0)
    assert not out.exists()
    (tmp_path / "boxes.h5.parts" / ".000009.h5.7.partial").write_text("half")  # killed then
    last = Corner()
    proposals, _, reported = compute(examples, last, out, flips=True)
    assert last.calls == 1
    assert reported[0] == 5
    assert same(proposals, whole)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["boxes.h5", "whole.h5"]


def test_what_is_finished_is_kept_between_saves(examples, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        compute(examples, Corner(2), tmp_path / "boxes.h5", save_seconds=1000.0)
    parts = Parts(tmp_path / "boxes.h5", "corner", {"version": 1, "sets": ["2007:trainval"]})
    assert len(parts.files()) == 1
    assert list(parts.read()) == [example.key for example in examples[:2]]


def test_parts_of_other_settings_are_refused(examples, tmp_path):
    out = tmp_path / "boxes.h5"
    with pytest.raises(KeyboardInterrupt):
        compute(examples, Corner(1), out, save_seconds=0.0)
    other = Corner()
    other.settings = lambda: {"version": 2}
    with pytest.raises(UserError, match=r"boxes\.h5\.parts .* other settings \(version\); delete"):
        compute(examples, other, out)
    other.name, other.settings = "edge-boxes", lambda: {"version": 1}
    with pytest.raises(UserError, match="with corner; delete"):
        compute(examples, other, out)


def test_images_that_cannot_be_read_are_named(examples, tmp_path):
    copies = [
        dataclasses.replace(example, path=tmp_path / f"{index}{example.path.suffix}")
        for index, example in enumerate(examples)
    ]
    for example, copy in zip(examples, copies, strict=True):
        shutil.copy(example.path, copy.path)
    copies[1].path.write_bytes(b"no image")
    proposals, unreadable, _ = compute(copies, Corner(), tmp_path / "boxes.h5")
    assert list(proposals.entries) == [copies[0].key, copies[2].key]
    assert len(unreadable) == 1
    assert copies[1].path.name in unreadable[0]
    with pytest.raises(UserError, match="None of the 1 images could be read; the first: "):
        compute(copies[1:2], Corner(), tmp_path / "none.h5")
    assert not (tmp_path / "none.h5").exists()


def test_a_killed_process_is_told(examples, tmp_path, monkeypatch):
    def killed(*arguments):
        raise generation.BrokenProcessPool
        yield

    monkeypatch.setattr(generation, "_in_processes", killed)
    with pytest.raises(UserError, match="was killed.*fewer `workers`"):
        compute(examples, Corner(), tmp_path / "boxes.h5", processes=2)


def test_boxes_of_a_method_lie_in_the_image(examples, tmp_path):
    class Beyond(Corner):
        def __call__(self, image):
            return ranked(np.array([[-0.5, 0, image.shape[0] + 0.5, 5]]))

    proposals, *_ = compute(examples[:1], Beyond(), tmp_path / "boxes.h5")
    (entry,) = proposals.entries.values()
    np.testing.assert_array_equal(entry.boxes_image, [[0, 0, examples[0].height, 5]])
