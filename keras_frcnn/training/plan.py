"""The plan of a training that has so many minutes: every choice, with its reason.

The rules look at sizes, counts and times of the data and the machine at hand, never at what a data
set is called. What was measured for each stands in docs/plan.md.

Shapes and names
----------------
side     short side of the network's input, in pixels.
shapes   (G, 2) float64 (height, width) of the objects in pixels of the network's input.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np

from keras_frcnn.data.anchor_clustering import cluster_shapes, count_different
from keras_frcnn.data.coverage import best_ious, shapes_input
from keras_frcnn.data.dataset import Dataset, Example
from keras_frcnn.errors import UserError
from keras_frcnn.geometry.anchors import configured_anchors
from keras_frcnn.recipes import AnchorConfig, ImageConfig, Recipe
from keras_frcnn.runs.config import Choice, RunConfig
from keras_frcnn.training.duration import joint_seconds

SIDES = (200, 250, 300, 400, 500, 600)
"""Short sides to choose from; the paper's is 600."""

PASSES, LEAST_STEPS, MOST_STEPS = 4, 400, 70_000
"""A larger input is worth its time when this many passes, and iterations, still fit."""

SMALL_OBJECT = 24
"""Side in the input of the median object of the smallest class, below which it is hard to find."""

COVERED = 0.9
"""Share of objects with an anchor at IoU 0.5 from which the paper's nine anchors do."""

ANCHORS = 9
LOOKED_AT = 1000
"""Images that anchors are fitted to, evenly over the data set."""

SHARE_OF_TIME = 0.94
"""Of what is left of the minutes; the rest is for checkpoints, curves and the end."""

RATES = {False: 0.003, True: 0.01}
"""Learning rate by whether all weights are random."""

CLIP_NORM = 10.0
KEEPS_DROPOUT = 20_000
"""Iterations from which dropout is worth its noise where fc6 and fc7 start at random."""

Seconds = Callable[[Sequence[int]], Sequence[float]]


def planned_training(
    config: RunConfig,
    dataset: Dataset,
    minutes: float,
    *,
    given: Collection[str] = (),
    elapsed: float = 0.0,
    seconds_of: Seconds | None = None,
) -> RunConfig:
    """The configuration of a joint training that ends within some minutes.

    Args:
        config: what was asked for; the mode is joint.
        dataset: the training images.
        minutes: for everything, the reading of the data included.
        given: fields of the recipe that the user chose, which stay as they are, of ``short_side``,
            ``anchors``, ``learning_rate``, ``iterations``, ``dropout``, ``clip_norm``,
            ``min_size_image``.
        elapsed: seconds of the minutes that are gone.
        seconds_of: the seconds of a step at some short sides; default: measured here.

    Returns:
        It, with ``minutes`` and ``choices``.

    Raises:
        UserError: there is not time enough for a training.
    """
    started = time.monotonic()
    sides = [config.recipe.image.short_side] if "short_side" in given else SIDES
    seconds = seconds_of(sides) if seconds_of else joint_seconds(config, dataset, sides)
    elapsed += time.monotonic() - started
    facts = _Facts(
        dataset,
        given,
        is_random=config.initial_weights == "random",
        left=max(0.0, 60 * minutes - elapsed) * SHARE_OF_TIME,
        seconds=dict(zip(sides, seconds, strict=True)),
    )
    recipe, choices = config.recipe, [_precision(config)]
    for rule in _RULES:
        recipe, choice = rule(recipe, facts)
        if choice is not None:
            choices.append(choice)
    return dataclasses.replace(
        config, recipe=recipe, minutes=float(minutes), choices=tuple(choices)
    )


@dataclass(frozen=True, eq=False)
class _Facts:
    """What the rules look at.

    Attributes:
        dataset: the training images.
        given: as of :func:`planned_training`.
        is_random: whether all weights start at random.
        left: seconds for iterations.
        seconds: of a step, by short side.
    """

    dataset: Dataset
    given: Collection[str]
    is_random: bool
    left: float
    seconds: dict[int, float]

    def steps(self, side: int) -> int:
        """Iterations that there is time for."""
        return int(self.left / self.seconds[side])


def _precision(config: RunConfig) -> Choice:
    is_plain = config.precision == "float32"
    reason = "nothing is faster on this machine" if is_plain else "faster on this machine"
    return Choice("precision", config.precision, reason, f"--precision {config.precision}")


def _short_side(recipe: Recipe, facts: _Facts) -> Ruled:
    """The largest input that leaves time for enough passes; larger still for small objects."""
    if "short_side" in facts.given:
        return recipe, None
    native = float(np.median([min(e.height, e.width) for e in facts.dataset.examples]))
    smallest = _smallest_class_side(facts.dataset.examples)
    clear = SIDES[0] if smallest is None else SMALL_OBJECT * native / smallest
    needed = max(LEAST_STEPS, round(PASSES * len(facts.dataset) / recipe.joint_images_per_step))
    # Beyond the images' own size there is nothing to see, unless objects are small.
    useful = [side for side in SIDES if side <= 1.05 * max(native, clear)] or [SIDES[0]]
    affordable = [side for side in useful if facts.steps(side) >= needed]
    side = affordable[-1] if affordable else useful[0]
    clearer = [each for each in useful if each <= clear * 1.05 and facts.steps(each) >= LEAST_STEPS]
    if clearer and clearer[-1] > side:
        side = clearer[-1]
        reason = "objects would be too small in a smaller one"
    elif not affordable:
        reason = "the smallest, as there is little time"
    elif side == useful[-1] and side < SIDES[-1]:
        reason = f"the images have {native:.0f} px"
    else:
        reason = "the largest that leaves time for enough iterations"
    if smallest is not None:
        reason += f"; the median object of the smallest class has {smallest * side / native:.0f} px"
    recipe = dataclasses.replace(recipe, image=recipe.image.with_short_side(side))
    return recipe, Choice("short side", f"{side} px", reason, f"--short_side {side}")


def _smallest_class_side(examples: Sequence[Example]) -> float | None:
    """Geometric mean side of the median object of the class whose median is smallest, or None.

    In pixels of images of the median short side.
    """
    native = float(np.median([min(e.height, e.width) for e in examples]))
    sides, classes = [], []
    for example in (each.without_difficult() for each in examples):
        boxes = example.boxes_image
        share = np.sqrt(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1))
        sides.append(share / min(example.height, example.width))
        classes.append(example.classes)
    side, of_class = np.concatenate(sides), np.concatenate(classes)
    if not len(side):
        return None
    return native * min(float(np.median(side[of_class == k])) for k in np.unique(of_class))


def _anchors(recipe: Recipe, facts: _Facts) -> Ruled:
    """Anchors of the data where the paper's leave objects out."""
    if "anchors" in facts.given:
        return recipe, None
    examples = _some(facts.dataset.examples)
    fit = _covered(examples, recipe.anchors, recipe.image)
    if fit is None or fit >= COVERED:
        reason = "" if fit is None else f"{fit:.0%} of the objects have one at IoU 0.5"
        return recipe, Choice("anchors", f"{recipe.anchors.per_position}, the paper's", reason, "")
    shapes = fitted_anchors(examples, recipe.image)
    own = AnchorConfig(scales=(), ratios=(), shapes=shapes)
    own_fit = _covered(examples, own, recipe.image)
    assert own_fit is not None
    if own_fit <= fit:
        reason = f"{fit:.0%} of the objects have one at IoU 0.5; anchors of the data fit no better"
        return recipe, Choice("anchors", f"{recipe.anchors.per_position}, the paper's", reason, "")
    reason = f"the paper's nine fit {fit:.0%} of the objects at IoU 0.5, these {own_fit:.0%}"
    value = ", ".join(f"{height:g}x{width:g}" for height, width in shapes)
    choice = Choice(
        "anchors", f"{len(shapes)} of your data", f"{reason}: {value}", "--anchors FILE"
    )
    return dataclasses.replace(recipe, anchors=own), choice


def fitted_anchors(
    examples: Sequence[Example], image: ImageConfig, number: int = ANCHORS
) -> tuple[tuple[float, float], ...]:
    """(height, width) of anchors that fit the objects, in pixels of the network's input."""
    shapes = shapes_input([example.without_difficult() for example in examples], image)
    shapes = _some(shapes, 5 * LOOKED_AT)
    number = min(number, count_different(shapes))
    centres = np.maximum(np.round(cluster_shapes(shapes, number).centres, 1), 0.1)
    return tuple((float(height), float(width)) for height, width in centres)


def _covered(
    examples: Sequence[Example], anchors: AnchorConfig, image: ImageConfig
) -> float | None:
    """Share of the objects that an anchor covers at IoU 0.5; None without objects."""
    counted = [example.without_difficult() for example in examples]
    best = best_ious(counted, configured_anchors(anchors), image)
    return float((best >= 0.5).mean()) if len(best) else None


def _some(items, most: int = LOOKED_AT):
    """At most so many of them, evenly spread."""
    if len(items) <= most:
        return items
    chosen = np.linspace(0, len(items) - 1, most).astype(int)
    return items[chosen] if isinstance(items, np.ndarray) else [items[i] for i in chosen]


def _min_size(recipe: Recipe, facts: _Facts) -> Ruled:
    """Proposals as small as the objects: the paper's 16 pixels would throw them away."""
    if "min_size_image" in facts.given:
        return recipe, None
    boxes = np.concatenate([e.without_difficult().boxes_image for e in facts.dataset.examples])
    if not len(boxes):
        return recipe, None
    small = float(np.percentile((boxes[:, 2:] - boxes[:, :2]).min(axis=1), 5))
    least = recipe.test_proposals.min_size_image
    if small / 2 >= least:
        return recipe, None
    value = float(max(1, np.floor(small / 2)))
    parts = {
        name: dataclasses.replace(getattr(recipe, name), min_size_image=value)
        for name in ("training_proposals", "joint_proposals", "test_proposals")
    }
    reason = f"one object in twenty has a side of {small:.0f} px or less"
    choice = Choice("smallest proposal", f"{value:g} px", reason, f"--min_size {value:g}")
    return dataclasses.replace(recipe, **parts), choice


def _iterations(recipe: Recipe, facts: _Facts) -> Ruled:
    """As many as there is time for.

    Raises:
        UserError: not a single one.
    """
    if "iterations" in facts.given:
        return recipe, None
    side = recipe.image.short_side
    second, iterations = facts.seconds[side], min(MOST_STEPS, facts.steps(side))
    if iterations < 1:
        needed = LEAST_STEPS * second / 60
        raise UserError(
            f"The `minutes` leave no time for training: {LEAST_STEPS} iterations, which make a "
            f"useful detector, take {max(1, round(needed))} minutes on this machine. Give more."
        )
    passes = iterations * recipe.joint_images_per_step / len(facts.dataset)
    reason = f"{second:.2g} s each here, {passes:.1f} passes over the {len(facts.dataset)} images"
    if iterations < LEAST_STEPS:
        reason += "; few: give more minutes for a better detector"
    recipe = dataclasses.replace(recipe, joint=recipe.joint.scaled_to(iterations))
    return recipe, Choice("iterations", f"{iterations:,}", reason, f"--iterations {iterations}")


def _learning_rate(recipe: Recipe, facts: _Facts) -> Ruled:
    if "learning_rate" in facts.given:
        return recipe, None
    rate = RATES[facts.is_random]
    reason = (
        "all weights start at random" if facts.is_random else "short training from ImageNet weights"
    )
    recipe = dataclasses.replace(
        recipe, joint=dataclasses.replace(recipe.joint, learning_rate=rate)
    )
    reason += f"; a tenth after {recipe.joint.drop_at:,} iterations"
    return recipe, Choice("learning rate", f"{rate:g}", reason, f"--learning_rate {rate:g}")


def _clip_norm(recipe: Recipe, facts: _Facts) -> Ruled:
    if "clip_norm" in facts.given:
        return recipe, None
    optimizer = dataclasses.replace(recipe.optimizer, clip_norm=CLIP_NORM)
    reason = "the loss cannot explode at this rate"
    choice = Choice(
        "gradients", f"norm up to {CLIP_NORM:g}", reason, f"--clip_gradients {CLIP_NORM:g}"
    )
    return dataclasses.replace(recipe, optimizer=optimizer), choice


def _dropout(recipe: Recipe, facts: _Facts) -> Ruled:
    if "dropout" in facts.given or recipe.joint.iterations >= KEEPS_DROPOUT:
        return recipe, None
    detector = dataclasses.replace(recipe.detector, dropout=0.0)
    reason = f"fewer than {KEEPS_DROPOUT:,} iterations from random fc layers"
    return (
        dataclasses.replace(recipe, detector=detector),
        Choice("dropout", "0", reason, "--dropout 0"),
    )


Ruled = tuple[Recipe, Choice | None]
# In order: the later ones see what the earlier ones chose.
_RULES: tuple[Callable[[Recipe, _Facts], Ruled], ...] = (
    _short_side,
    _anchors,
    _min_size,
    _iterations,
    _learning_rate,
    _clip_norm,
    _dropout,
)
