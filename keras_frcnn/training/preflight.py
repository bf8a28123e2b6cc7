"""What is looked at before a training takes hours: its data, its anchors, its classes."""

from __future__ import annotations

import json

from keras_frcnn.data.coverage import without_anchors
from keras_frcnn.data.dataset import Dataset
from keras_frcnn.errors import UserError
from keras_frcnn.geometry.anchors import configured_anchors
from keras_frcnn.network.weight_files import MAX_METADATA_BYTES
from keras_frcnn.run_config import RunConfig


def check_objects(dataset: Dataset) -> None:
    """Makes sure that there is something to learn.

    Raises:
        UserError: no object is sound and not difficult.
    """
    if any(len(example.without_difficult().classes) for example in dataset.examples):
        return
    first = f"; the first problem: {dataset.problems[0].reason}" if dataset.problems else ""
    raise UserError(
        f"None of the {len(dataset)} images in {' + '.join(dataset.sets)} has an object that "
        f"is sound and not difficult{first}. There is nothing to learn from them."
    )


def check_class_names(dataset: Dataset) -> None:
    """Makes sure that weight files have room for the classes: they are written after a stage.

    Raises:
        UserError: they have not.
    """
    names = dataset.class_names
    size = len(json.dumps(names))
    if size > 0.9 * MAX_METADATA_BYTES:
        raise UserError(
            f"The data have {len(names)} classes ({names[0]!r:.40}, ...), whose "
            f"names take {size} bytes; a weight file has room for {MAX_METADATA_BYTES}. Look "
            "whether objects have names of their own where their class belongs; else shorten the "
            "names."
        )


def check_anchors(config: RunConfig, dataset: Dataset) -> str | None:
    """One sentence where the RPN cannot learn from some images: no anchor lies inside of them.

    Raises:
        UserError: they are all like that, and the RPN has stages of its own, which would train
            nothing.
    """
    recipe = config.recipe
    if config.mode == "fast-rcnn" or recipe.rpn.keep_cross_boundary:
        return None
    found = without_anchors(dataset.examples, configured_anchors(recipe.anchors), recipe.image)
    if not found:
        return None
    sentence = (
        f"No anchor lies inside of {len(found)} of the {len(dataset)} images at the input's size "
        f"(such as {found[0].key}), and the RPN learns nothing from them: give smaller "
        "`anchors.scales` (or anchors of python -m keras_frcnn anchors), a larger "
        "`image.short_side` and `image.long_side`, or `rpn.keep_cross_boundary`."
    )
    if len(found) == len(dataset) and config.mode == "alternating":
        raise UserError(sentence)
    return sentence
