"""What a run was trained on: told from a test set, and found unchanged when it goes on."""

from __future__ import annotations

import dataclasses

import pytest

from keras_frcnn.data.dataset import DataProblem
from keras_frcnn.data.voc import load_voc
from keras_frcnn.demo.devkit import write_demo_devkit
from keras_frcnn.errors import UserError
from keras_frcnn.runs.training_images import (
    check_not_trained_on,
    copies_in_test_lists,
    keep_training_images,
)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "training_images.txt"


def with_example(dataset, index, **changes):
    examples = list(dataset.examples)
    examples[index] = dataclasses.replace(examples[index], **changes)
    return dataclasses.replace(dataset, examples=tuple(examples))


@pytest.fixture
def other_file(demo_dataset, tmp_path):
    """The first image with one byte more, elsewhere."""
    path = tmp_path / "copy" / demo_dataset.examples[0].path.name
    path.parent.mkdir()
    path.write_bytes(demo_dataset.examples[0].path.read_bytes() + b"\0")
    return with_example(demo_dataset, 0, path=path)


@pytest.fixture
def other_objects(demo_dataset):
    """The first object of the third image a pixel further to the right."""
    boxes = demo_dataset.examples[2].boxes_image.copy()
    boxes[0, 3] += 1
    return with_example(demo_dataset, 2, boxes_image=boxes)


def test_the_same_images_are_found_again(file, demo_dataset):
    keep_training_images(file, demo_dataset)
    before = file.read_text()
    assert before.count("\n") == 4
    keep_training_images(file, demo_dataset)
    backwards = dataclasses.replace(demo_dataset, examples=demo_dataset.examples[::-1])
    keep_training_images(file, backwards)
    assert file.read_text() == before


def test_a_changed_file_is_named(file, demo_dataset, other_file):
    keep_training_images(file, demo_dataset)
    before = file.read_text()
    key = demo_dataset.examples[0].key
    with pytest.raises(UserError, match=rf"1 of the 4 training images.*\({key}: its file\)"):
        keep_training_images(file, other_file)
    assert file.read_text() == before


@pytest.mark.parametrize("change", ["box", "class", "difficult"])
def test_changed_objects_are_named(change, file, demo_dataset, other_objects):
    keep_training_images(file, demo_dataset)
    third = demo_dataset.examples[2]
    changed = {
        "box": other_objects,
        "class": with_example(demo_dataset, 2, classes=third.classes[::-1] + 1),
        "difficult": with_example(demo_dataset, 2, difficult=~third.difficult),
    }
    with pytest.raises(UserError, match=rf"1 of the 4 .*\({third.key}: its objects\)"):
        keep_training_images(file, changed[change])


def test_training_images_are_told_from_a_test_set(file, demo_dataset):
    check_not_trained_on(file, demo_dataset)  # nothing is known yet
    train = dataclasses.replace(demo_dataset, examples=demo_dataset.examples[:3])
    test = dataclasses.replace(demo_dataset, examples=demo_dataset.examples[3:])
    keep_training_images(file, train)
    check_not_trained_on(file, test)
    with pytest.raises(UserError, match="3 of the 4 images were in the training set.*000001"):
        check_not_trained_on(file, demo_dataset)


@pytest.mark.parametrize(
    "name", ["a\tb.jpg", "a\rb.jpg", "a\nb.jpg", "caf\udce9.jpg", "\u2028.jpg"]
)
def test_any_name_and_any_id_are_read_again_as_they_were(file, demo_dataset, tmp_path, name):
    path = tmp_path / "images" / name
    path.parent.mkdir()
    path.write_bytes(demo_dataset.examples[0].path.read_bytes())
    odd = with_example(demo_dataset, 0, path=path, image_id=name)
    keep_training_images(file, odd)
    keep_training_images(file, odd)
    with pytest.raises(UserError, match="4 of the 4"):
        check_not_trained_on(file, odd)
    path.write_bytes(b"others")
    with pytest.raises(UserError, match="1 of the 4 training images changed"):
        keep_training_images(file, odd)


def test_images_that_lie_elsewhere_are_the_same(file, demo_dataset, tmp_path):
    keep_training_images(file, demo_dataset)
    moved = tmp_path / "moved.jpg"
    moved.write_bytes(demo_dataset.examples[0].path.read_bytes())
    keep_training_images(file, with_example(demo_dataset, 0, path=moved))


def test_an_image_that_is_gone_is_named_with_the_reason(file, demo_dataset):
    keep_training_images(file, demo_dataset)
    first, *others = demo_dataset.examples
    problem = DataProblem("image unreadable", str(first.path), "", "it is damaged", "image dropped")
    less = dataclasses.replace(demo_dataset, examples=tuple(others), problems=(problem,))
    with pytest.raises(UserError, match=rf"1 of the 4 .*{first.key}: it is damaged"):
        keep_training_images(file, less)
    fewer = dataclasses.replace(demo_dataset, examples=(first,))
    file.unlink()
    keep_training_images(file, fewer)
    with pytest.raises(UserError, match="3 of the .*not in its list"):
        keep_training_images(file, demo_dataset)


@pytest.mark.parametrize("content", [b"\xff\n", b"[1]\n", b'["a", "b", "c", 5]\n', b"a\tb\tc\td\n"])
def test_a_list_that_is_none_is_refused(file, demo_dataset, content):
    file.write_bytes(content)
    for use in (keep_training_images, check_not_trained_on):
        with pytest.raises(UserError, match=r"training_images\.txt cannot be read"):
            use(file, demo_dataset)


def test_byte_copies_under_other_names_are_training_images(file, tmp_path):
    write_demo_devkit(tmp_path / "kit", seed=3, train_images=3, test_images=2, size=(200, 200))
    train = load_voc(tmp_path / "kit", "2007:trainval")
    test = load_voc(tmp_path / "kit", "2007:test")
    keep_training_images(file, train)
    check_not_trained_on(file, test)
    assert copies_in_test_lists(tmp_path / "kit", train) == []
    copied, original = test.examples[0], train.examples[1]
    copied.path.write_bytes(original.path.read_bytes())
    with pytest.raises(
        UserError, match=f"1 of the 2 .*{copied.path}, trained on as {original.key}"
    ):
        check_not_trained_on(file, test)
    (phrase,) = copies_in_test_lists(tmp_path / "kit", train)
    assert copied.path.name in phrase and original.key in phrase


def test_the_same_id_in_another_devkit_is_another_image(file, demo_dataset, tmp_path):
    keep_training_images(file, demo_dataset)
    other = tmp_path / "000001.jpg"
    other.write_bytes(b"another size")
    example = dataclasses.replace(demo_dataset.examples[0], path=other)
    check_not_trained_on(file, dataclasses.replace(demo_dataset, examples=(example,)))
