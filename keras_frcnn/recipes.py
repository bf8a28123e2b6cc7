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
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal, get_args

from keras_frcnn.errors import UserError
from keras_frcnn.system.settings import (
    Count,
    Factor,
    PositiveFactor,
    PositiveShare,
    Range,
    Settings,
    Share,
    flagged,
)

# Of an input; a decoded image may have more.
Side = Annotated[int, Range(1, 20_000)]
Pixel = Annotated[float, Range(0, 255)]
# In units of the base size or in pixels: what is larger overflows pictures and boxes.
AnchorSize = Annotated[float, Range(0, 100_000, above=True)]
MOST_ANCHORS = 100
# (height, width) each.
AnchorShapes = Annotated[tuple[tuple[AnchorSize, AnchorSize], ...], Range(1, MOST_ANCHORS)]
# Modules of network/backbones/.
Network = Literal["vgg16", "zf", "resnet50", "tiny"]
NETWORKS = get_args(Network)
Precision = Literal["float32", "bfloat16", "float16"]
PRECISIONS = get_args(Precision)
# Names of functions of network/roi_pooling.py.
Pooling = Literal["crop", "max", "align"]
POOLINGS = get_args(Pooling)
# "positions": lambda / (N H W), footnote 3; "sampled": weight / sampled anchors, PY.
BoxNormaliser = Literal["positions", "sampled"]
# Footnote 3: the normaliser and the weight that balances the two losses go together.
BOX_WEIGHTS: dict[str, float] = {"positions": 10.0, "sampled": 1.0}
# Footnote 2: a two-class softmax, or one logistic output an anchor.
Objectness = Literal["softmax", "logistic"]
Rank = Annotated[int, Range(1, 100_000)]


@dataclass(frozen=True)
class ImageConfig(Settings):
    """How a decoded image becomes the network's input (section 3.3)."""

    short_side: Side = flagged(
        600, "--short_side PX", "short side of the input", "{} (config.py:38)"
    )
    long_side: Side = flagged(
        1000,
        "--long_side PX",
        "most for its long side",
        "{} (config.py:41), with another --short_side in proportion",
    )
    # ML subtracts a mean-image file that is lost; these are the VGG means (R, G, B).
    pixel_means_rgb: tuple[Pixel, Pixel, Pixel] = (123.68, 116.779, 103.939)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.long_side < self.short_side:
            raise UserError(
                f"`image.long_side` {self.long_side} must not be below the short side "
                f"{self.short_side}."
            )

    def with_short_side(self, short_side: int) -> ImageConfig:
        """Another size of the input, the long side in proportion."""
        long_side = round(self.long_side * short_side / self.short_side)
        return dataclasses.replace(self, short_side=short_side, long_side=long_side)


@dataclass(frozen=True)
class AnchorConfig(Settings):
    """The reference boxes at every position (generate_anchors.py:37-97), or shapes of one's own."""

    base_size: Annotated[int, Range(1, 10_000)] = 16
    scales: Annotated[tuple[AnchorSize, ...], Range(0, MOST_ANCHORS)] = flagged(
        (8.0, 16.0, 32.0),
        "--anchor_scales S,S,...",
        "sides in units of 16 px of the input",
        "{} (generate_anchors.py:37-97)",
    )
    ratios: Annotated[tuple[AnchorSize, ...], Range(0, MOST_ANCHORS)] = flagged(
        (0.5, 1.0, 2.0),
        "--anchor_ratios R,R,...",
        "height / width",
        "{} (generate_anchors.py:37-97)",
    )
    # (height, width) in pixels of the network input; then there are no scales and ratios. Ours.
    shapes: AnchorShapes | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shapes is not None and (self.scales or self.ratios):
            raise UserError(
                "anchors.shapes takes the place of anchors.scales and anchors.ratios: leave those "
                "empty, or leave the shapes out."
            )
        if self.per_position not in Range(1, MOST_ANCHORS):
            raise UserError(
                f"The anchors of a position should be 1 to {MOST_ANCHORS}, not {self.per_position}:"
                " as many as scales times ratios."
            )

    @property
    def per_position(self) -> int:
        """Anchors at each position of the feature map: nine in the paper."""
        if self.shapes is not None:
            return len(self.shapes)
        return len(self.scales) * len(self.ratios)


@dataclass(frozen=True)
class RpnConfig(Settings):
    """Labels, minibatch and losses of the region proposal network (sections 3.1.2 and 3.1.3)."""

    positive_iou: PositiveShare = flagged(
        0.7,
        "--rpn_positive_iou IOU",
        "from which an anchor is positive",
        "{} (anchor_target_layer.py:137-150)",
    )
    negative_iou: Share = flagged(
        0.3,
        "--rpn_negative_iou IOU",
        "below which it is negative",
        "{} (anchor_target_layer.py:142-154)",
    )
    minibatch_size: Annotated[int, Range(2, 10**9)] = flagged(
        256, "--rpn_minibatch N", "anchors sampled of an image", "{} (config.py:108)"
    )
    positive_fraction: Share = 0.5  # config.py:110
    images_per_step: Count = 1
    sigma: PositiveFactor = 1.0  # proposal_train.m:312-317
    box_normaliser: BoxNormaliser = flagged(
        "positions",
        "--rpn_box_normaliser KIND",
        "of the RPN's box loss: positions of the map with lambda 10, or sampled anchors with "
        "lambda 1",
        "{} (footnote 3); sampled with py-faster-rcnn (anchor_target_layer.py:181-194)",
    )
    box_weight: Factor = 10.0  # lambda of the paper, footnote 3
    normalise_targets: bool = True  # proposal_prepare_image_roidb.m:70-104
    # Training does not converge with them.
    keep_cross_boundary: bool = flagged(
        False,
        "--keep_cross_boundary",
        "train on anchors that cross the image's border too",
        "they are left out (section 3.3)",
    )
    objectness: Objectness = flagged(
        "softmax",
        "--objectness KIND",
        "softmax of two logits an anchor, or logistic: one",
        "{} (footnote 2, stage1_rpn_train.pt:450-458)",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.negative_iou > self.positive_iou:
            raise UserError("`rpn.negative_iou` must not exceed `rpn.positive_iou`.")


@dataclass(frozen=True)
class ProposalConfig(Settings):
    """From scored anchors to proposals (section 3.3)."""

    before_nms: Count | None = None  # None: all
    after_nms: Annotated[int, Range(1, 10**6)] = 2000
    nms_iou: Share = flagged(
        0.7, "--nms_iou IOU", "above which a worse box is dropped", "{} (config.py:158)"
    )
    min_size_image: Factor = flagged(
        16.0,
        "--min_size PX",
        "smallest side of a proposal in pixels of the original image",
        "{} (config.py:118)",
    )

    def at_most(self, number: int, before_nms: int | None = None) -> ProposalConfig:
        """The best so many proposals of an image.

        Args:
            before_nms: boxes that go into the suppression, 0: all; default: as many as now, or
                ``number`` where that is more.
        """
        if before_nms is not None:
            before = before_nms or None
        else:
            before = None if self.before_nms is None else max(self.before_nms, number)
        return dataclasses.replace(self, before_nms=before, after_nms=number)


@dataclass(frozen=True)
class DetectorConfig(Settings):
    """RoI sampling and losses of Fast R-CNN (its section 2.3)."""

    rois_per_step: Count = flagged(
        128,
        "-n --num_rois N",
        "RoIs of a step, over its 2 images; joint: of an image",
        "{} (config.py:50; 32 in the lineage)",
    )
    images_per_step: Count = 2
    foreground_fraction: PositiveShare = 0.25
    foreground_iou: PositiveShare = flagged(
        0.5, "--foreground_iou IOU", "from which a RoI is foreground", "{} (config.py:53)"
    )
    background_iou_low: Share = 0.1  # fast_rcnn_config.m:31-32
    background_iou_high: Share = 0.5
    sigma: PositiveFactor = 1.0
    roi_pooling: Pooling = flagged(
        "crop",
        "--roi_pooling KIND",
        "crop: crop_and_resize, then 2x2 max; max: exactly Caffe's; align: RoIAlign",
        "{} (ours, the fastest); max with --deterministic on a GPU",
    )
    # None: the network's own.
    dropout: Annotated[float, Range(0, 1, below=True)] | None = flagged(
        None,
        "--dropout RATE",
        "after fc6 and fc7; 0 where they start from random weights and the training is short",
        "0.5 (VGG16/stage1_fast_rcnn_train.pt:379-413); tiny and resnet50: 0 (ours)",
    )

    @property
    def needs_objects(self) -> bool:
        """Whether images without objects give no RoI: all theirs have IoU 0."""
        return self.background_iou_low > 0

    def check_rois(self, number: int, images: int) -> None:
        """Makes sure that the RoIs of a step can be shared out to its images.

        Of fewer none would be foreground, and objects never learnt.

        Raises:
            UserError: they cannot.
        """
        least = images * math.ceil(0.5 / self.foreground_fraction)
        if number % images or number < least:
            several = f" and a multiple of {images}, its images" if images > 1 else ""
            raise UserError(
                f"`detector.rois_per_step` {number} must be at least {least}{several}: a share of "
                f"{self.foreground_fraction:g} of an image's RoIs is foreground."
            )


@dataclass(frozen=True)
class Compression(Settings):
    """Ranks of fc6 and fc7 after truncated SVD (Fast R-CNN, sections 3.1 and 4.4)."""

    fc6: Rank = flagged(
        1024, "--fc6 RANK", "singular values kept of fc6", "{} (Fast R-CNN, section 4.4)"
    )
    fc7: Rank = flagged(
        256, "--fc7 RANK", "singular values kept of fc7", "{} (Fast R-CNN, section 4.4)"
    )


@dataclass(frozen=True)
class StageSchedule(Settings):
    """Length and learning rate of one stage; the rate is divided by ten at ``drop_at``."""

    iterations: Count
    drop_at: Annotated[int, Range(0, 10**9)]
    learning_rate: Factor = 0.001

    def rate_at(self, iteration: int) -> float:
        """Learning rate of the 0-based iteration: a pure function, so that resuming is exact."""
        return self.learning_rate * (0.1 if iteration >= self.drop_at else 1.0)

    def scaled_to(self, iterations: int) -> StageSchedule:
        """Another length with the drop at the same fraction."""
        drop_at = round(iterations * self.drop_at / self.iterations)
        return dataclasses.replace(self, iterations=iterations, drop_at=drop_at)


FourSchedules = tuple[StageSchedule, StageSchedule, StageSchedule, StageSchedule]


@dataclass(frozen=True)
class OptimizerConfig(Settings):
    """Caffe's SGD (section 3.1.3): the decay is part of the gradient and biases are decayed too."""

    momentum: Annotated[float, Range(0, 1, below=True)] = flagged(
        0.9, "--momentum M", "", "{} (stage1_rpn_solver60k80k.pt:3-10)"
    )
    weight_decay: Factor = flagged(
        0.0005,
        "--weight_decay D",
        "of weights and biases",
        "{} (stage1_rpn_solver60k80k.pt:3-10)",
    )
    bias_rate_multiplier: Factor = 2.0  # lr_mult 2 of every bias, its decay doubled with it
    clip_norm: PositiveFactor | None = flagged(
        None,
        "--clip_gradients NORM",
        "largest norm of all gradients together, where the loss explodes at the start",
        "they are left as they are (Caffe's)",
    )


@dataclass(frozen=True)
class DetectionFilter(Settings):
    """Which scored, class-specific boxes become detections (Fast R-CNN, section 3)."""

    score_threshold: Share = flagged(
        0.05, "--score_thresh SCORE", "lowest score of a detection", "{} (test.py:227)"
    )
    nms_iou: Share = flagged(
        0.3,
        "--nms_thresh IOU",
        "above which a worse detection of the same class is dropped",
        "{} (test.py:264; 0.5 in the lineage)",
    )
    per_class_before_nms: Count | None = None
    per_image: Count | None = 100
    # Kept over the data set for each class: this many times the number of images.
    mean_per_class: Count | None = None


@dataclass(frozen=True)
class Recipe(Settings):
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
    stages: FourSchedules = (
        StageSchedule(80_000, 60_000),  # stage1_rpn_solver60k80k.pt
        StageSchedule(40_000, 30_000),  # stage1_fast_rcnn_solver30k40k.pt
        StageSchedule(80_000, 60_000),
        StageSchedule(40_000, 30_000),
    )
    joint: StageSchedule = StageSchedule(70_000, 50_000)  # faster_rcnn_end2end/solver.prototxt
    joint_images_per_step: Count = 2  # iter_size 2 of one image each
    joint_rois_per_image: Count = 128
    # Fixed, with means 0, where the four stages measure them (config.py:87-89).
    joint_delta_std: Annotated[tuple[PositiveFactor, ...], Range(4, 4)] = (0.1, 0.1, 0.2, 0.2)
    test_filter: DetectionFilter = field(default_factory=DetectionFilter)
    evaluation_filter: DetectionFilter = field(default_factory=DetectionFilter)
    # The devkit matches at IoU >= 0.5, PY's evaluator at > 0.5.
    evaluation_strictly_greater: bool = False

    def schedules(self, mode: str) -> tuple[StageSchedule, ...]:
        """Of what a mode of :class:`keras_frcnn.runs.config.RunConfig` trains, in order."""
        if mode == "joint":
            return (self.joint,)
        return self.stages[1:2] if mode == "fast-rcnn" else self.stages

    def with_schedules(self, mode: str, schedules: Sequence[StageSchedule]) -> Recipe:
        """With others in place of :meth:`schedules`."""
        if mode == "joint":
            return dataclasses.replace(self, joint=schedules[0])
        first, second, third, fourth = self.stages
        if mode == "fast-rcnn":
            (second,) = schedules
        else:
            first, second, third, fourth = schedules
        return dataclasses.replace(self, stages=(first, second, third, fourth))

    def passes(self, mode: str) -> tuple[tuple[int, bool], ...]:
        """Of each of :meth:`schedules` the images of a step, and whether it needs their objects."""
        if mode == "joint":
            return ((self.joint_images_per_step, False),)
        detector = (self.detector.images_per_step, self.detector.needs_objects)
        if mode == "fast-rcnn":
            return (detector,)
        return ((self.rpn.images_per_step, False), detector) * 2


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


def stages_on(recipe: Recipe, sets: Iterable[str]) -> FourSchedules:
    """The four schedules of a recipe on image sets such as ``2007:trainval``."""
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
