"""Which images train and which test, of data without lists."""

from __future__ import annotations

from collections import Counter

import pytest

from keras_frcnn.data.split import make_split, part_named, read_split, write_split
from keras_frcnn.errors import UserError


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("train", "train"),
        ("Training", "train"),
        ("train2017", "train"),
        ("valid", "val"),
        ("Validation", "val"),
        ("val_2014", "val"),
        ("TEST", "test"),
        ("trains", ""),
        ("latest", ""),
        ("test data", ""),
        ("", ""),
    ],
)
def test_names_of_parts(name, part):
    assert part_named(name) == part


def of_one_class(*names: str) -> dict[str, set[str]]:
    return {name: {"cell"} for name in names}


@pytest.mark.parametrize("number", [40, 50, 60, 199, 200, 1000])
def test_a_fifth_is_held_out_and_from_200_images_on_half_of_it_validates(number):
    parts = Counter(make_split(of_one_class(*(f"{i}.jpg" for i in range(number)))).values())
    assert 0.1 * number <= number - parts["train"] <= 0.3 * number
    assert (parts["val"] > 0) == (number >= 200)
    if number == 1000:
        assert all(abs(parts[part] - 100) < 30 for part in ("val", "test"))


def test_more_pictures_leave_the_others_where_they_are():
    names = [f"photo {i} of {i % 7}.jpg" for i in range(500)]
    for few, more in ((30, 60), (60, 199), (200, 500)):
        before, after = (make_split(of_one_class(*names[:n])) for n in (few, more))
        assert all(after[name] == part for name, part in before.items())


def test_the_order_and_the_layout_do_not_matter():
    names = [f"slide {i}.jpg" for i in range(100)]
    split = make_split(of_one_class(*names))
    assert make_split(of_one_class(*reversed(names))) == split
    inside = make_split(of_one_class(*(f"images/{name.replace('.jpg', '.PNG')}" for name in names)))
    assert list(inside.values()) == list(split.values())


@pytest.mark.parametrize(("number", "trained", "tested"), [(1, 1, 0), (2, 1, 1), (5, 4, 1)])
def test_few_images(number, trained, tested):
    parts = Counter(make_split(of_one_class(*(f"{i}.jpg" for i in range(number)))).values())
    assert (parts["train"], parts["test"]) == (trained, tested)
    assert make_split({}) == {}


@pytest.mark.parametrize("seed", range(20))
def test_every_class_is_trained_on_and_tested_where_it_is_in_three_images(seed):
    classes = {f"{seed}x{i}.jpg": {"cell"} for i in range(60)}
    for rare, count in (("one", 1), ("two", 2), ("three", 3), ("four", 4)):
        for index in range(count):
            classes[f"{seed}{rare}{index}x.jpg"] = {rare, "cell"}
    split = make_split(classes)
    for name, least in (("one", 0), ("two", 0), ("three", 1), ("four", 1), ("cell", 1)):
        parts = Counter(split[image] for image, found in classes.items() if name in found)
        assert parts["train"] > 0 and parts["test"] >= least


FRAMES = (
    "{film}_frame{number:04d}.jpg",
    "{film}/frame_{number}.png",
    "{film}.mp4_{number:06d}.jpg",
    "{film}_mp4-{number}_jpg.rf.0123456789abcdef.jpg",
    "{film} burst{number:03d}.jpg",
    "{film}_{number:05d}.jpg",
    "{film} ({number}).jpg",
)


@pytest.mark.parametrize("form", FRAMES)
def test_frames_of_one_film_stay_together(form):
    names = {
        form.format(film=f"film{film}", number=number): f"film{film}"
        for film in range(12)
        for number in range(5 + film)
    }
    split = make_split(of_one_class(*names))
    parts = {}
    for name, film in names.items():
        parts.setdefault(film, set()).add(split[name])
    assert all(len(found) == 1 for found in parts.values())
    assert {"train", "test"} == set.union(*parts.values())


def test_versions_of_one_picture_stay_together():
    versions = {
        f"cell_{i}_jpg.rf.{'0123456789abcdef' * 2}{version}.jpg": i
        for i in range(50)
        for version in "abc"
    }
    split = make_split(of_one_class(*versions))
    for i in range(50):
        assert len({split[name] for name, picture in versions.items() if picture == i}) == 1
    assert Counter(split.values())["test"] >= 15


@pytest.mark.parametrize(
    "form", ["BloodImage_{:05d}.jpg", "cells ({}).jpg", "0{}.jpg", "2008_{}.jpg"]
)
def test_numbers_that_count_all_pictures_make_no_series(form):
    parts = Counter(make_split(of_one_class(*(form.format(i) for i in range(100)))).values())
    assert 10 <= parts["test"] <= 30


def test_names_of_classes_make_no_series():
    classes = {f"{name}_{i:03d}.jpg": {name} for name in "abcdefghijkl" for i in range(30)}
    split = make_split(classes)
    for name in "abcdefghijkl":
        parts = Counter(split[image] for image in classes if image[0] == name)
        assert parts["train"] > 15 and parts["test"] > 0


def test_one_film_alone_is_cut_into_stretches():
    split = make_split(of_one_class(*(f"film_frame{i:04d}.jpg" for i in range(100))))
    parts = list(split.values())
    assert 10 <= 100 - parts.count("train") <= 30
    assert sum(a != b for a, b in zip(parts, parts[1:], strict=False)) <= 7


def test_a_split_that_was_kept_holds_and_new_frames_follow_it():
    films = [f"film{film}_frame{i}.jpg" for film in range(8) for i in range(6)]
    split = make_split(of_one_class(*films))
    turned = {name: "train" if part == "test" else "test" for name, part in split.items()}
    more = [f"film{film}_frame{i}.jpg" for film in range(10) for i in range(12)]
    after = make_split(of_one_class(*more), turned)
    assert all(after[name] == part for name, part in turned.items())
    for film in range(8):
        assert len({after[name] for name in more if name.startswith(f"film{film}_")}) == 1


def test_a_split_in_a_file(tmp_path):
    split = {"a\udcff b.jpg": "train", "ä.jpg": "test"}
    write_split(tmp_path / "split.json", split)
    assert read_split(tmp_path / "split.json") == split
    for text in ("[]", "{", '{"a": "other"}', '{"a": ["train"]}'):
        (tmp_path / "split.json").write_text(text)
        with pytest.raises(UserError, match="split.json cannot be read as the split of a run"):
            read_split(tmp_path / "split.json")
