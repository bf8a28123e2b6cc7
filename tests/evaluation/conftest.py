"""Small data sets and detections, written as rows.

Shapes and names
----------------
box  (y1, x1, y2, x2), half-open.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from keras_frcnn.data.dataset import Dataset, Example
from keras_frcnn.evaluation.detection_files import ImageDetections


@pytest.fixture(scope="session")
def make_dataset():
    """``make_dataset(*images, class_names=, ids=)``: an image is a list of (box, class, difficult).

    Its id is its position, unless ``ids`` gives it.
    """

    def make(*images, class_names=("cat",), ids=None, size=(100, 100)):
        examples = []
        for index, objects in enumerate(images):
            boxes, classes, difficult = zip(*objects, strict=True) if objects else ([], [], [])
            image_id = str(index) if ids is None else ids[index]
            examples.append(
                Example(
                    image_id=image_id,
                    source="VOC2007",
                    path=Path(f"{image_id}.jpg"),
                    height=size[0],
                    width=size[1],
                    boxes_image=np.array(boxes, np.float32).reshape(-1, 4),
                    classes=np.array(classes, np.int32),
                    difficult=np.array(difficult, bool),
                )
            )
        return Dataset(class_names, tuple(examples), ("2007:test",))

    return make


@pytest.fixture(scope="session")
def make_detections():
    """``make_detections(*rows)``: each is (image id, box, score[, class])."""

    def make(*rows):
        by_image = {}
        for image, box, score, *class_index in rows:
            values = (*box, score, *(class_index or [1]))
            by_image.setdefault(f"VOC2007/{image}", []).append(values)
        return {
            key: ImageDetections(
                np.array(values, np.float32)[:, :4],
                np.array(values, np.float32)[:, 4],
                np.array(values)[:, 5].astype(np.int32),
            )
            for key, values in by_image.items()
        }

    return make
