"""Pictures of the data: which objects count, and where they are written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keras_frcnn.data.dataset import Dataset, Example
from keras_frcnn.proposals.given import GivenProposals, ranked
from keras_frcnn.recipes import PAPER
from keras_frcnn.training import pictures


def dataset_of(boxes, difficult) -> Dataset:
    """One image of 600 x 600 pixels, which the paper's recipe leaves at its size."""
    example = Example(
        image_id="000001",
        source="VOC2007",
        path=Path("none.jpg"),
        height=600,
        width=600,
        boxes_image=np.array(boxes, np.float32).reshape(-1, 4),
        classes=np.ones(len(boxes), np.int32),
        difficult=np.array(difficult, bool),
    )
    return Dataset(("disc",), (example,), ("2007:trainval",))


# An anchor of the paper, ten cells down and right: (-56, -56, 72, 72) + 160.
ANCHOR = (104, 104, 232, 232)
# Half of it: IoU 0.5, and no other anchor comes nearer than 0.7.
HALF = (104, 104, 232, 168)
SPECK = (300, 300, 305, 305)
ELSEWHERE = (400, 400, 500, 500)


@pytest.mark.parametrize(
    ("boxes", "difficult", "expected"),
    [
        ([ANCHOR], [False], (0.0, 0.0)),
        ([ANCHOR, SPECK], [False, False], (0.5, 0.5)),
        ([ANCHOR, SPECK], [False, True], (0.0, 0.0)),  # training never sees the speck
        ([ANCHOR, HALF, HALF, SPECK], [False] * 4, (0.25, 0.75)),
        ([], [], (0.0, 0.0)),
    ],
)
def test_shares_of_objects_without_an_anchor(boxes, difficult, expected, tmp_path):
    png = tmp_path / "labels.png"
    assert pictures.save_labels(dataset_of(boxes, difficult), PAPER, png) == expected
    with Image.open(png) as picture:
        picture.load()


@pytest.mark.parametrize(
    ("proposals", "expected"),
    [
        ([ANCHOR, ELSEWHERE], (0.0, 0.0)),
        ([ANCHOR, (400, 400, 500, 460)], (0.0, 0.5)),  # IoU 0.6 with the second
        ([HALF], (0.5, 1.0)),
        ([], (1.0, 1.0)),
    ],
)
def test_shares_of_objects_without_a_given_proposal(proposals, expected, tmp_path):
    data = dataset_of([ANCHOR, SPECK, ELSEWHERE], [False, True, False])
    nothing = dataset_of([SPECK], [True])
    key = data.examples[0].key
    given = GivenProposals({key: ranked(proposals)}, "mat", {}, "file.mat")
    assert pictures.save_labels(data, PAPER, tmp_path / "labels.png", given) == expected
    assert pictures.save_labels(nothing, PAPER, tmp_path / "labels.png", given) == (0.0, 0.0)
