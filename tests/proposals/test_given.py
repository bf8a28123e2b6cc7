"""Looking up given proposals: names, mirror images, sizes, files that lack images."""

from __future__ import annotations

from pathlib import PurePath

import numpy as np
import pytest

from keras_frcnn.data.dataset import Example
from keras_frcnn.errors import UserError
from keras_frcnn.proposals.given import (
    GivenProposals,
    ScoredBoxes,
    fit_to_image,
    merge,
    mirror,
    ranked,
)
from keras_frcnn.training.proposal_store import ProposalStore
from keras_frcnn.training.units import training_units


def example(image_id: str, source: str = "VOC2007", height: int = 100, width: int = 60) -> Example:
    """An image of 100 x 60 pixels without objects."""
    return Example(
        image_id,
        source,
        PurePath(f"{image_id}.jpg"),
        height,
        width,
        np.zeros((0, 4), np.float32),
        np.zeros(0, np.int32),
        np.zeros(0, bool),
    )


def given(**boxes) -> GivenProposals:
    entries = {name: ranked(np.array(values, np.float32)) for name, values in boxes.items()}
    return GivenProposals(entries, "mat", {}, "ss.mat")


BOX, MIRRORED = [10, 5, 40, 25], [10, 35, 40, 55]  # in a width of 60: 60 - 25, 60 - 5


def test_mirror_images_get_their_own_proposals_or_mirrored_ones():
    own = given(**{"a": [BOX], "VOC2007/b": [BOX], "VOC2007/b flipped": [[1, 2, 3, 4]]})
    for image_id, flipped, expected in (
        ("a", False, BOX),
        ("a", True, MIRRORED),
        ("b", False, BOX),
        ("b", True, [1, 2, 3, 4]),
    ):
        found = own.of_example(example(image_id), flipped=flipped)
        np.testing.assert_array_equal(found.boxes_image, [expected], err_msg=f"{image_id}{flipped}")
    np.testing.assert_array_equal(mirror(mirror(np.array([BOX]), 60), 60), [BOX])


def test_a_store_for_training():
    units = training_units([example("a"), example("b")], flips=True)
    boxes = {"a": [BOX, [0, 0, 100, 60]], "b": np.zeros((0, 4))}
    store = ProposalStore.from_given(given(**boxes), units)
    keys = ["VOC2007/a", "VOC2007/b", "VOC2007/a flipped", "VOC2007/b flipped"]
    assert list(store.entries) == keys
    np.testing.assert_array_equal(store.boxes_of(0), [BOX, [0, 0, 100, 60]])
    np.testing.assert_array_equal(store.boxes_of(2), [MIRRORED, [0, 0, 100, 60]])
    assert len(store.boxes_of(1)) == len(store.boxes_of(3)) == 0
    scores = [entry.scores.tolist() for entry in store.entries.values()]
    assert scores == [[0, -1], [], [0, -1], []]


def test_missing_images_are_named():
    examples = [example(f"{number:03d}") for number in range(9)]
    with pytest.raises(UserError, match=r"ss\.mat holds 2 entries, but none for 7 of the 9") as e:
        given(**{"000": [BOX], "VOC2007/001": [BOX]}).check_covers(examples)
    assert "VOC2007/002, VOC2007/003, VOC2007/004, VOC2007/005, VOC2007/006 ..." in str(e.value)
    with pytest.raises(UserError, match=r"ss\.mat holds no proposals of VOC2007/002"):
        given().of_example(examples[2])


def test_a_bare_id_stands_for_one_image_only():
    two = [example("000001"), example("000001", "VOC2012")]
    bare = given(**{"000001": [BOX]})
    bare.check_covers(two[:1])
    with pytest.raises(UserError, match="could be VOC2007/000001 or VOC2012/000001"):
        bare.check_covers(two)
    given(**{"VOC2007/000001": [BOX], "000001": [BOX]}).check_covers(two)


def test_boxes_of_another_image_size_are_refused():
    rounding = np.array([[-0.4, 0, 100.9, 60], [0, 59.5, 100, 60.5]], np.float32)
    fitted = fit_to_image(rounding, 100, 60, "a")
    np.testing.assert_array_equal(fitted, [[0, 0, 100, 60], [0, 59, 100, 60]])
    # x before y: 90 pixels down become 90 to the right, beyond the width.
    with pytest.raises(UserError, match=r"\[5.0, 10.0, 25.0, 90.0\].*100 pixels high and 60 wide"):
        given(a=[BOX, [5, 10, 25, 90]]).of_example(example("a"))
    assert fit_to_image(np.zeros((0, 4), np.float32), 9, 9, "a").shape == (0, 4)


def test_files_are_found_by_their_names():
    entries = {"VOC2007/a": [BOX], "list/x.y.png": [BOX], "c.d": [BOX], "a flipped": [BOX]}
    found = given(**entries).of_files([PurePath(f"p/{n}") for n in ("a.jpg", "x.y.png", "c.d.gif")])
    assert len(found) == 3
    with pytest.raises(UserError, match=r"none for 1 of the 2 images here: z\.jpg\. Compute"):
        given(**entries).of_files([PurePath("a.jpg"), PurePath("z.jpg")])
    both = given(**{"VOC2007/a": [BOX], "VOC2012/a": [BOX]})
    with pytest.raises(UserError, match=r"VOC2007/a and VOC2012/a, each of which could be a\.jpg"):
        both.of_files([PurePath("a.jpg")])
    with pytest.raises(UserError, match=r"holds VOC2007/a, which could be p/a\.jpg or q/a\.jpg"):
        given(**{"VOC2007/a": [BOX]}).of_files([PurePath("p/a.jpg"), PurePath("q/a.jpg")])


def test_several_files_are_one_unless_they_share_an_image():
    one, other = given(a=[BOX]), given(b=[BOX])
    assert list(merge([one, other]).entries) == ["a", "b"]
    with pytest.raises(UserError, match=r"1 images that another .* \(such as a\)"):
        merge([one, given(a=[BOX])])


def test_the_best_come_first():
    boxes = ScoredBoxes(np.arange(12, dtype="f").reshape(3, 4), np.array([3, 2, 1], "f"))
    assert boxes.best(2).scores.tolist() == [3, 2]
    assert boxes.best(None).scores.tolist() == [3, 2, 1]


def test_boxes_of_files_lie_within_their_images():
    boxes_of = given(a=[[10.4, 5, 100.5, 25]]).boxes_of_files([PurePath("p/a.jpg")])
    pixels = np.zeros((100, 60, 3), np.uint8)
    np.testing.assert_allclose(boxes_of(PurePath("p/a.jpg"), pixels), [[10.4, 5, 100, 25]])
    with pytest.raises(UserError, match=r"of a\.jpg in ss\.mat lies beyond the image, 50 pixels"):
        boxes_of(PurePath("p/a.jpg"), pixels[:50])
