"""Settings hold what their types allow, whether they are made or read."""

from __future__ import annotations

import dataclasses
import json

import pytest

from keras_frcnn.errors import UserError
from keras_frcnn.recipes import PAPER, AnchorConfig, Compression, ProposalConfig, Recipe
from keras_frcnn.system.settings import Settings, from_json

HUGE = 10**18
IMPOSSIBLE = {
    "image.short_side": (0, -5, 10**6, HUGE),
    "image.long_side": (0, -1, HUGE),
    "image.pixel_means_rgb": ([-1.0, 0, 0], [0, 0, 256]),
    "anchors.base_size": (0, -16, HUGE),
    "anchors.scales": ([], [0.0], [-8.0], [1e6], [1e308], 101 * [8.0]),
    "anchors.ratios": ([], [0.0], [1e308], 40 * [1.0]),
    "rpn.positive_iou": (-0.1, 1.5),
    "rpn.minibatch_size": (0, -1, HUGE),
    "rpn.images_per_step": (0, HUGE),
    "rpn.positive_fraction": (-1.0, 2.0),
    "rpn.sigma": (0.0, -1.0, 1e300),
    "rpn.box_weight": (-1.0, 1e300),
    "rpn.box_normaliser": ("cat", None),
    "test_proposals.nms_iou": (2.0, -1.0),
    "test_proposals.after_nms": (0, -1, 10**8, HUGE),
    "test_proposals.before_nms": (0, -5, HUGE),
    "test_proposals.min_size_image": (-1.0, 1e300),
    "detector.dropout": (-1.0, 1.0, 2.0),
    "detector.foreground_fraction": (0.0, 1.1),
    "detector.background_iou_low": (-0.1, 2),
    "detector.roi_pooling": ("mean", 1),
    "detector.rois_per_step": (0, HUGE),
    "optimizer.momentum": (-0.1, 1.0),
    "optimizer.weight_decay": (-1.0,),
    "optimizer.clip_norm": (0.0, -1.0),
    "test_filter.nms_iou": (5.0,),
    "test_filter.score_threshold": (-1.0, 2.0),
    "test_filter.per_image": (0, -1, HUGE),
    "evaluation_filter.per_class_before_nms": (0, -1),
    "stages": ([], [{"iterations": 1, "drop_at": 1, "learning_rate": 0.1}]),
    "joint.iterations": (0, HUGE),
    "joint.learning_rate": (-0.1, 1e300),
    "joint_delta_std": ([0.1, 0.1, 0.2], [0.1, 0.1, 0.2, 0.0]),
    "joint_images_per_step": (0, -1),
    "joint_rois_per_image": (0,),
}


@pytest.mark.parametrize(("field", "values"), IMPOSSIBLE.items(), ids=IMPOSSIBLE)
def test_what_is_of_the_right_type_and_impossible_is_refused_by_field(field, values):
    *parents, name = field.split(".")
    for value in values:
        plain = json.loads(json.dumps(dataclasses.asdict(PAPER)))
        place, part = plain, PAPER
        for parent in parents:
            place, part = place[parent], getattr(part, parent)
        place[name] = value
        with pytest.raises(UserError, match="config." + ".".join(parents or [name])):
            from_json(plain, Recipe, "config")
        with pytest.raises(UserError):
            dataclasses.replace(part, **{name: value})


def test_compression_has_ranks_that_exist():
    for rank in (0, -1, 10**9):
        with pytest.raises(UserError, match="fc7"):
            Compression(fc6=1, fc7=rank)


def test_every_number_has_a_range():
    """Of a new field, too: a number without one is any of 64 bits."""
    for kind in Settings.__subclasses__():
        for field in dataclasses.fields(kind):
            assert field.type.split(" |")[0] not in ("int", "float"), (
                f"{kind.__name__}.{field.name}"
            )


def test_the_limits_themselves_are_allowed():
    ProposalConfig(before_nms=1, after_nms=10**6, nms_iou=0, min_size_image=0)
    anchors = AnchorConfig(scales=(), ratios=(), shapes=100 * ((1e5, 0.1),))
    assert anchors.per_position == 100
    assert isinstance(ProposalConfig(nms_iou=1).nms_iou, float)
    with pytest.raises(UserError, match="scales times ratios"):
        AnchorConfig(scales=11 * (1.0,), ratios=10 * (1.0,))
