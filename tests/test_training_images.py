"""What a run was trained on: told from a test set, and found unchanged when it goes on."""

from __future__ import annotations

import dataclasses

import pytest

from keras_frcnn.errors import UserError
from keras_frcnn.training_images import check_not_trained_on, keep_training_images


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


def test_a_list_of_an_older_version_has_no_objects(file, demo_dataset, other_file, other_objects):
    keep_training_images(file, demo_dataset)
    lines = file.read_text().splitlines()
    file.write_text("".join(line.rsplit("\t", 1)[0] + "\n" for line in lines))
    keep_training_images(file, demo_dataset)
    keep_training_images(file, other_objects)
    with pytest.raises(UserError, match="its file"):
        keep_training_images(file, other_file)


def test_training_images_are_told_from_a_test_set(file, demo_dataset):
    check_not_trained_on(file, demo_dataset)  # nothing is known yet
    train = dataclasses.replace(demo_dataset, examples=demo_dataset.examples[:3])
    test = dataclasses.replace(demo_dataset, examples=demo_dataset.examples[3:])
    keep_training_images(file, train)
    check_not_trained_on(file, test)
    with pytest.raises(UserError, match="3 of the 4 images were in the training set.*000001"):
        check_not_trained_on(file, demo_dataset)


def test_names_of_training_images_that_are_no_utf_8_are_read_again(file, demo_dataset):
    keep_training_images(file, demo_dataset)
    with open(file, "ab") as stream:
        stream.write(b"x/caf\xe9\tcaf\xe9.jpg\t00\n")
    with pytest.raises(UserError, match="were in the training set"):
        check_not_trained_on(file, demo_dataset)


def test_the_same_id_in_another_devkit_is_another_image(file, demo_dataset, tmp_path):
    keep_training_images(file, demo_dataset)
    other = tmp_path / "000001.jpg"
    other.write_bytes(b"another size")
    example = dataclasses.replace(demo_dataset.examples[0], path=other)
    check_not_trained_on(file, dataclasses.replace(demo_dataset, examples=(example,)))
