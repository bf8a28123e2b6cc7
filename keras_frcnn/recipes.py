"""Every hyper-parameter of training and testing, each with its source.

Two self-consistent recipes exist and must not be mixed: ``PAPER`` follows ML, the MATLAB code
behind the paper's numbers (ShaoqingRen/faster_rcnn @49ad099); ``PY_FASTER_RCNN`` follows PY, its
Python port (rbgirshick/py-faster-rcnn @781a917). A recipe is frozen; variants are made with
``dataclasses.replace`` and are stored whole, as JSON, with every run.

Shapes and names
----------------
iterations  solver iterations; one iteration sees ``images_per_step`` images.
*_iou       intersection over union in [0, 1].
*_side, *_size  pixels; of the rescaled network input unless the name says otherwise.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from keras_frcnn.errors import UserError

# Of fields that files of earlier versions lack; their default is what those versions did.
ADDED_LATER = {"added_later": True}


@dataclass(frozen=True)
class ImageConfig:
    """How a decoded image becomes the network's input (recipe 4.4)."""

    short_side: int = 600  # config.py:38
    long_side: int = 1000  # config.py:41
    # ML subtracts a mean-image file that is lost; these are the VGG means (R, G, B).
    pixel_means_rgb: tuple[float, float, float] = (123.68, 116.779, 103.939)


@dataclass(frozen=True)
class AnchorConfig:
    """The reference boxes at every position (generate_anchors.py:37-97), or shapes of one's own."""

    base_size: int = 16
    scales: tuple[float, ...] = (8.0, 16.0, 32.0)
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    # (height, width) in pixels of the network input; then there are no scales and ratios. Ours.
    shapes: tuple[tuple[float, float], ...] | None = field(default=None, metadata=ADDED_LATER)

    def __post_init__(self) -> None:
        if self.shapes is None:
            return
        if self.scales or self.ratios:
            raise UserError(
                "anchors.shapes takes the place of anchors.scales and anchors.ratios: leave those "
                "empty, or leave the shapes out."
            )
        sides = [side for shape in self.shapes for side in shape]
        if not sides or not all(math.isfinite(side) and side > 0 for side in sides):
            raise UserError(
                "anchors.shapes should be at least one (height, width), both above 0, not "
                f"{list(self.shapes)}."
            )

    @property
    def per_position(self) -> int:
        """Anchors at each position of the feature map: nine in the paper."""
        if self.shapes is not None:
            return len(self.shapes)
        return len(self.scales) * len(self.ratios)


# "positions": lambda / (N H W), footnote 3; "sampled": weight / sampled anchors, PY.
BOX_NORMALISERS = ("positions", "sampled")
# Footnote 2: a two-class softmax, or one logistic output an anchor.
OBJECTNESS = ("softmax", "logistic")


@dataclass(frozen=True)
class RpnConfig:
    """Labels, minibatch and losses of the region proposal network (recipe 4.5)."""

    positive_iou: float = 0.7  # anchor_target_layer.py:137-150
    negative_iou: float = 0.3
    minibatch_size: int = 256  # config.py:108
    positive_fraction: float = 0.5  # config.py:110
    images_per_step: int = 1
    sigma: float = 1.0  # proposal_train.m:312-317
    box_normaliser: str = "positions"
    box_weight: float = 10.0  # lambda of the paper, footnote 3
    normalise_targets: bool = True  # proposal_prepare_image_roidb.m:70-104
    keep_cross_boundary: bool = False  # section 3.3: training does not converge with them
    # stage1_rpn_train.pt:450-458
    objectness: str = field(default="softmax", metadata=ADDED_LATER)

    def __post_init__(self) -> None:
        for name, known in (("box_normaliser", BOX_NORMALISERS), ("objectness", OBJECTNESS)):
            if getattr(self, name) not in known:
                raise UserError(
                    f"rpn.{name} should be one of {', '.join(known)}, not {getattr(self, name)!r}."
                )


@dataclass(frozen=True)
class ProposalConfig:
    """From scored anchors to proposals (recipe 4.6)."""

    before_nms: int | None = None  # None: all
    after_nms: int = 2000
    nms_iou: float = 0.7
    min_size_image: float = 16.0  # pixels of the original image, config.py:118


@dataclass(frozen=True)
class DetectorConfig:
    """RoI sampling and losses of Fast R-CNN (recipe 4.7)."""

    rois_per_step: int = 128  # config.py:50, over all images of the step
    images_per_step: int = 2
    foreground_fraction: float = 0.25
    foreground_iou: float = 0.5
    background_iou_low: float = 0.1  # fast_rcnn_config.m:31-32
    background_iou_high: float = 0.5
    sigma: float = 1.0
    roi_pooling: str = "crop"
    # After fc6 and fc7; None: the network's own, 0.5 of VGG-16 and ZF.
    dropout: float | None = field(default=None, metadata=ADDED_LATER)

    @property
    def needs_objects(self) -> bool:
        """Whether images without objects give no RoI: all theirs have IoU 0."""
        return self.background_iou_low > 0


@dataclass(frozen=True)
class Compression:
    """Ranks of fc6 and fc7 after truncated SVD (Fast R-CNN, sections 3.1 and 4.4)."""

    fc6: int = 1024
    fc7: int = 256

    def __post_init__(self) -> None:
        if min(self.fc6, self.fc7) < 1:
            raise UserError(
                f"Ranks of fc6 and fc7 should be at least 1, not {self.fc6} and {self.fc7}."
            )


@dataclass(frozen=True)
class StageSchedule:
    """Length and learning rate of one stage; the rate is divided by ten at ``drop_at``."""

    iterations: int
    drop_at: int
    learning_rate: float = 0.001

    def rate_at(self, iteration: int) -> float:
        """Learning rate of the 0-based iteration: a pure function, so that resuming is exact."""
        return self.learning_rate * (0.1 if iteration >= self.drop_at else 1.0)

    def scaled_to(self, iterations: int) -> StageSchedule:
        """Another length with the drop at the same fraction."""
        drop_at = round(iterations * self.drop_at / self.iterations)
        return dataclasses.replace(self, iterations=iterations, drop_at=drop_at)


@dataclass(frozen=True)
class OptimizerConfig:
    """Caffe's SGD (recipe 4.2): the decay is part of the gradient and biases are decayed too."""

    momentum: float = 0.9
    weight_decay: float = 0.0005
    bias_rate_multiplier: float = 2.0  # lr_mult 2 of every bias, its decay doubled with it
    # The largest norm of all gradients together; None: they are left as they are (Caffe).
    clip_norm: float | None = field(default=None, metadata=ADDED_LATER)


@dataclass(frozen=True)
class DetectionFilter:
    """Which scored, class-specific boxes become detections (recipe 4.8)."""

    score_threshold: float = 0.05
    nms_iou: float = 0.3
    per_class_before_nms: int | None = None
    per_image: int | None = 100
    # Kept over the data set for each class: this many times the number of images.
    mean_per_class: int | None = None


@dataclass(frozen=True)
class Recipe:
    """One complete set of hyper-parameters."""

    name: str
    image: ImageConfig = field(default_factory=ImageConfig)
    anchors: AnchorConfig = field(default_factory=AnchorConfig)
    rpn: RpnConfig = field(default_factory=RpnConfig)
    training_proposals: ProposalConfig = field(default_factory=ProposalConfig)
    joint_proposals: ProposalConfig = ProposalConfig(before_nms=12000)  # config.py:114
    test_proposals: ProposalConfig = ProposalConfig(before_nms=6000, after_nms=300)
    detector: DetectorConfig = field(default_factory=DetectorConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    stages: tuple[StageSchedule, ...] = (
        StageSchedule(80_000, 60_000),  # stage1_rpn_solver60k80k.pt
        StageSchedule(40_000, 30_000),  # stage1_fast_rcnn_solver30k40k.pt
        StageSchedule(80_000, 60_000),
        StageSchedule(40_000, 30_000),
    )
    joint: StageSchedule = StageSchedule(70_000, 50_000)  # faster_rcnn_end2end/solver.prototxt
    joint_images_per_step: int = 2  # iter_size 2 of one image each
    joint_rois_per_image: int = 128
    # Fixed, with means 0, where the four stages measure them (config.py:87-89).
    joint_delta_std: tuple[float, float, float, float] = (0.1, 0.1, 0.2, 0.2)
    test_filter: DetectionFilter = field(default_factory=DetectionFilter)
    evaluation_filter: DetectionFilter = field(default_factory=DetectionFilter)
    # The devkit matches at IoU >= 0.5, PY's evaluator at > 0.5.
    evaluation_strictly_greater: bool = False


# On the larger training sets of section 4 the detector, and it alone, is trained for longer.
DETECTOR_SCHEDULES = {
    frozenset(("2007:trainval", "2012:trainval")): StageSchedule(
        60_000,
        30_000,  # VGG16_for_Faster_RCNN_VOC0712.m:20,34
    ),
    frozenset(("2007:trainval", "2007:test", "2012:trainval")): StageSchedule(
        100_000,
        40_000,  # fast_rcnn_solver_40k100k.prototxt, of 07++12
    ),
}


def stages_on(recipe: Recipe, sets: Iterable[str]) -> tuple[StageSchedule, ...]:
    """The four schedules of a recipe on image sets such as ``2007:trainval`` (recipe 4.1)."""
    detector = DETECTOR_SCHEDULES.get(frozenset(sets))
    if detector is None:
        return recipe.stages
    rpn, own, rpn_shared, own_shared = recipe.stages
    return (
        rpn,
        dataclasses.replace(detector, learning_rate=own.learning_rate),
        rpn_shared,
        dataclasses.replace(detector, learning_rate=own_shared.learning_rate),
    )


PAPER = Recipe(
    name="paper",
    evaluation_filter=DetectionFilter(  # fast_rcnn_test.m:74-79,103-111,130-150
        score_threshold=0.0, per_class_before_nms=100, per_image=None, mean_per_class=40
    ),
)

PY_FASTER_RCNN = Recipe(
    name="py-faster-rcnn",
    image=ImageConfig(pixel_means_rgb=(122.7717, 115.9465, 102.9801)),  # config.py:181
    rpn=RpnConfig(
        sigma=3.0,  # stage1_rpn_train.pt:469
        box_normaliser="sampled",  # anchor_target_layer.py:181-194
        box_weight=1.0,
        normalise_targets=False,  # train_faster_rcnn_alt_opt.py:112
    ),
    detector=DetectorConfig(background_iou_low=0.0),  # faster_rcnn_alt_opt.yml
    evaluation_strictly_greater=True,  # voc_eval.py:181
)

RECIPES = {recipe.name: recipe for recipe in (PAPER, PY_FASTER_RCNN)}


def to_json(recipe: Any) -> dict[str, Any]:
    """A recipe (or any part of one) as a JSON-able dictionary."""
    return dataclasses.asdict(recipe)


def from_json(values: Any, kind: type = Recipe, where: str = "recipe") -> Any:
    """The inverse of :func:`to_json`; fields that were added later may be missing.

    Raises:
        UserError: a field is unknown, missing or of the wrong type; the message names it.
    """
    if not isinstance(values, dict):
        raise UserError(f"{where} should be an object with named fields, not {values!r:.80}.")
    hints = typing.get_type_hints(kind)
    fields = dataclasses.fields(kind)
    names = [item.name for item in fields]
    unknown = sorted(set(values) - set(names))
    if unknown:
        raise UserError(
            f"{where} has the unknown field {unknown[0]!r:.80}; known are {', '.join(names)}."
        )
    needed = [item.name for item in fields if "added_later" not in item.metadata]
    missing = [name for name in needed if name not in values]
    if missing:
        raise UserError(f"{where} lacks the field {missing[0]!r}.")
    converted = {
        name: _convert(value, hints[name], f"{where}.{name}") for name, value in values.items()
    }
    try:
        return kind(**converted)
    except UserError as error:  # values that are of the right type and none of those allowed
        raise UserError(f"{where}: {error}") from error


def _convert(value: Any, hint: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return from_json(value, hint, where)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        return _convert(value, arguments[0], where)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise UserError(f"{where} should be a list, not {value!r:.80}.")
        fixed = Ellipsis not in arguments
        if fixed and len(value) != len(arguments):
            raise UserError(f"{where} should have {len(arguments)} entries, not {len(value)}.")
        return tuple(
            _convert(entry, arguments[index] if fixed else arguments[0], f"{where}[{index}]")
            for index, entry in enumerate(value)
        )
    # JSON has no such numbers, Python's reader takes them; and no count is beyond 64 bits.
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if is_number and not -(2.0**63) < value < 2.0**63:
        raise UserError(f"{where} should be a finite number, not {value!r:.80}.")
    number_as_float = hint is float and isinstance(value, int) and not isinstance(value, bool)
    if number_as_float:
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise UserError(f"{where} should be of type {hint.__name__}, not {value!r:.80}.")
    return value
