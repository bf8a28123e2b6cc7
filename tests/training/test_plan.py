"""The plan of a training: its rules on data sets whose sizes, counts and times are known."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from keras_frcnn.data.dataset import Dataset, Example
from keras_frcnn.errors import UserError
from keras_frcnn.recipes import PY_FASTER_RCNN
from keras_frcnn.runs.config import RunConfig, identity, source_of
from keras_frcnn.training import plan
from keras_frcnn.training.plan import fitted_anchors, planned_training

SHAPES = ((40, 40), (80, 120))


def dataset(images=50, size=(480, 640), shapes=SHAPES) -> Dataset:
    """Images with one object of each shape; the class is the position of the shape."""
    examples = []
    for index in range(images):
        boxes = [
            (8 * k, 16 * (index % 5), 8 * k + h, 16 * (index % 5) + w)
            for k, (h, w) in enumerate(shapes)
        ]
        examples.append(
            Example(
                image_id=f"{index}",
                source="2007",
                path=Path(f"{index}.jpg"),
                height=size[0],
                width=size[1],
                boxes_image=np.array(boxes, np.float32).reshape(-1, 4),
                classes=np.arange(1, len(shapes) + 1, dtype=np.int32),
                difficult=np.zeros(len(shapes), bool),
            )
        )
    names = tuple(f"class {k}" for k in range(1, len(shapes) + 1))
    return Dataset(names, tuple(examples), ("all",), ())


def config_of(data, weights="imagenet", **changes) -> RunConfig:
    recipe = dataclasses.replace(PY_FASTER_RCNN, **changes)
    return RunConfig(
        network="vgg16", precision="bfloat16", mode="joint", seed=0, flips=True,
        class_names=data.class_names, initial_weights=weights, stages=(), data=source_of(data),
        recipe=recipe,
    )  # fmt: skip


def planned(data=None, minutes=20, second=1.0, *, config=None, given=(), elapsed=0.0) -> RunConfig:
    """The plan where a step takes so long at 300 pixels, in proportion to the pixels."""
    data = data or dataset()

    def joint_seconds(config, dataset, sides):
        return [second * (side / 300) ** 2 for side in sides]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "joint_seconds", joint_seconds)
        config = config or config_of(data)
        return planned_training(config, data, minutes, given=given, elapsed=elapsed)


def test_iterations_fill_the_minutes_and_no_more():
    found = planned(minutes=20, elapsed=60)
    side = found.recipe.image.short_side
    second = (side / 300) ** 2
    spent = 60 + found.recipe.joint.iterations * second
    assert 0.9 * 1200 < spent <= 1200
    share = PY_FASTER_RCNN.joint.drop_at / PY_FASTER_RCNN.joint.iterations
    assert found.recipe.joint.drop_at == round(share * found.recipe.joint.iterations)


@pytest.mark.parametrize(
    ("minutes", "images", "size", "shapes", "side"),
    [
        # 1128 s: 1128 steps at 300 px, 634 at 400, 406 at 500.
        (20, 50, (600, 800), SHAPES, 500),
        (20, 292, (600, 800), SHAPES, 400),  # four passes are 584 steps
        (20, 400, (600, 800), SHAPES, 300),  # 800 steps
        (60, 50, (600, 800), SHAPES, 600),  # the paper's is enough
        (60, 50, (300, 400), SHAPES, 300),  # nothing to see beyond the images' own size
        (60, 50, (300, 400), ((12, 12),), 600),  # but for small objects
        (20, 400, (600, 800), ((30, 30),), 500),  # 480 px make 24 of 30; 406 steps are few passes
        (1, 50, (600, 800), SHAPES, 200),
    ],
)
def test_short_side_by_time_size_and_objects(minutes, images, size, shapes, side):
    found = planned(dataset(images, size, shapes), minutes)
    assert found.recipe.image.short_side == side
    assert found.recipe.image.long_side == round(1000 * side / 600)


def test_anchors_of_the_data_where_the_papers_do_not_fit():
    found = planned(second=1.2)
    side = found.recipe.image.short_side
    scale = side / 480
    shapes = sorted(found.recipe.anchors.shapes)
    expected = [(40 * scale, 40 * scale), (80 * scale, 120 * scale)]
    assert np.abs(np.subtract(shapes, expected)).max() <= 0.1
    assert found.recipe.anchors.scales == ()


def test_the_papers_anchors_stay_where_they_fit():
    data = dataset(shapes=((128, 128), (256, 256)), size=(600, 800))
    found = planned(data, minutes=600)
    assert found.recipe.image.short_side == 600
    assert found.recipe.anchors == PY_FASTER_RCNN.anchors


def test_fitted_anchors_are_as_many_as_there_are_shapes_at_most():
    data = dataset(3, shapes=((16, 32),))
    image = dataclasses.replace(PY_FASTER_RCNN.image, short_side=480, long_side=800)
    assert fitted_anchors(data.examples, image) == ((16.0, 32.0),)


def test_small_objects_let_small_proposals_through():
    found = planned(dataset(shapes=((10, 40), (90, 90))))
    for name in ("training_proposals", "joint_proposals", "test_proposals"):
        assert getattr(found.recipe, name).min_size_image == 5
    assert planned().recipe.test_proposals.min_size_image == 16


def test_rate_clipping_and_dropout():
    data = dataset()
    found = planned(data)
    assert found.recipe.joint.learning_rate == plan.RATES[False]
    assert found.recipe.optimizer.clip_norm == plan.CLIP_NORM
    assert found.recipe.detector.dropout == 0
    random = planned(data, config=config_of(data, "random"))
    assert random.recipe.joint.learning_rate == plan.RATES[True]
    assert planned(minutes=100_000).recipe.detector.dropout is None


def test_what_was_given_stays():
    data = dataset()
    image = PY_FASTER_RCNN.image.with_short_side(320)
    anchors = dataclasses.replace(PY_FASTER_RCNN.anchors, scales=(2.0, 4.0))
    schedule = dataclasses.replace(PY_FASTER_RCNN.joint.scaled_to(77), learning_rate=0.002)
    config = config_of(data, image=image, anchors=anchors, joint=schedule)
    given = {
        *("short_side", "anchors", "iterations", "learning_rate", "dropout", "clip_norm"),
        *("min_size_image", "precision"),
    }
    found = planned(data, config=config, given=given)
    assert found.recipe == config.recipe
    assert found.choices == ()
    assert found.minutes == 20


def test_every_choice_is_told_with_a_reason():
    found = planned()
    told = {choice.part: choice for choice in found.choices}
    assert told.keys() == {"precision", *plan.RULES} - {"min_size_image"}
    assert all(choice.value and choice.reason for choice in found.choices)
    assert told["short_side"].value == f"{found.recipe.image.short_side} px"
    assert told["iterations"].value == f"{found.recipe.joint.iterations:,}"


def test_no_time_at_all_is_refused_with_what_is_needed():
    with pytest.raises(UserError, match="minutes"):
        planned(minutes=1, elapsed=60)


def test_the_plan_is_no_part_of_what_a_run_is():
    found = planned()
    by_flags = dataclasses.replace(found, minutes=None, choices=())
    assert identity(found) == identity(by_flags)
    assert RunConfig(**{f.name: getattr(found, f.name) for f in dataclasses.fields(found)}) == found
