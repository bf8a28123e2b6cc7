"""The plan of a training that has so many minutes: every choice, with its reason.

The rules look at sizes, counts and times of the data and the machine at hand, never at what a data
set is called. docs/training.md tells each rule in words.

Shapes and names
----------------
side     short side of the network's input, in pixels.
shapes   (G, 2) float64 (height, width) of the objects in pixels of the network's input.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from keras_frcnn.data.anchor_clustering import cluster_shapes, count_different
from keras_frcnn.data.anchor_fit import whole_tenths
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


def planned_training(
    config: RunConfig,
    dataset: Dataset,
    minutes: float,
    *,
    given: Collection[str] = (),
    elapsed: float = 0.0,
) -> RunConfig:
    """The configuration of a joint training that ends within some minutes, on this machine.

    Args:
        config: what was asked for; the mode is joint.
        dataset: the training images.
        minutes: for everything, the reading of the data included.
        given: what the user chose and the plan leaves as it is: ``precision`` and names of
            :data:`RULES`.
        elapsed: seconds of the minutes that are gone.

    Returns:
        It, with ``minutes`` and ``choices``.

    Raises:
        UserError: there is not time enough for a training.
    """
    started = time.monotonic()
    sides = [config.recipe.image.short_side] if "short_side" in given else SIDES
    seconds = dict(zip(sides, joint_seconds(config, dataset, sides), strict=True))
    left = 60 * minutes - elapsed - (time.monotonic() - started)
    is_random = config.initial_weights == "random"
    facts = Facts(dataset, seconds, max(0.0, left) * SHARE_OF_TIME, is_random)
    recipe, choices = choose(config.recipe, facts, given)
    if "precision" not in given:
        reason = "measured fastest on this machine"
        choices = (Choice("precision", config.precision, reason), *choices)
    return dataclasses.replace(config, recipe=recipe, minutes=float(minutes), choices=choices)


@dataclass(frozen=True, eq=False)
class Facts:
    """What the rules look at.

    Attributes:
        dataset: the training images.
        seconds: of a step, by short side.
        left: seconds for iterations.
        is_random: whether all weights start at random.
    """

    dataset: Dataset
    seconds: Mapping[int, float]
    left: float
    is_random: bool

    def steps(self, side: int) -> int:
        """Iterations that there is time for."""
        return int(self.left / self.seconds[side])


def choose(
    recipe: Recipe, facts: Facts, given: Collection[str] = ()
) -> tuple[Recipe, tuple[Choice, ...]]:
    """The recipe by every rule of :data:`RULES` but those whose part was given.

    Raises:
        UserError: there is not time enough for an iteration.
    """
    choices = []
    for part, rule in RULES.items():
        if part in given:
            continue
        recipe, value, reason = rule(recipe, facts)
        if value:
            choices.append(Choice(part, value, reason))
    return recipe, tuple(choices)


# The recipe, what was chosen ("": nothing to tell), and why.
Ruled = tuple[Recipe, str, str]


def _short_side(recipe: Recipe, facts: Facts) -> Ruled:
    """The largest input that leaves time for enough passes; larger still for small objects."""
    native = float(np.median([min(e.height, e.width) for e in facts.dataset.examples]))
    share = _smallest_class_share(facts.dataset.examples)
    clear = SIDES[0] if share is None else SMALL_OBJECT / share
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
    if share is not None:
        reason += f"; the median object of the smallest class has {share * side:.0f} px"
    recipe = dataclasses.replace(recipe, image=recipe.image.with_short_side(side))
    return recipe, f"{side} px", reason


def _smallest_class_share(examples: Sequence[Example]) -> float | None:
    """Side of the median object of the class whose median is smallest, as a share of the image's.

    Of an object the geometric mean of its sides, of an image the short side; None without objects.
    """
    shares, classes = [], []
    for example in (each.without_difficult() for each in examples):
        boxes = example.boxes_image
        sides = np.sqrt(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1))
        shares.append(sides / min(example.height, example.width))
        classes.append(example.classes)
    share, of_class = np.concatenate(shares), np.concatenate(classes)
    if not len(share):
        return None
    return min(float(np.median(share[of_class == k])) for k in np.unique(of_class))


def _anchors(recipe: Recipe, facts: Facts) -> Ruled:
    """Anchors of the data where the paper's leave objects out."""
    examples = _some(facts.dataset.examples)
    fit = _covered(examples, recipe.anchors, recipe.image)
    if fit is None or fit >= COVERED:
        reason = "" if fit is None else f"{fit:.0%} of the objects have one at IoU 0.5"
        return recipe, f"{recipe.anchors.per_position}, the paper's", reason
    shapes = fitted_anchors(examples, recipe.image)
    own = AnchorConfig(scales=(), ratios=(), shapes=shapes)
    own_fit = _covered(examples, own, recipe.image)
    assert own_fit is not None
    if own_fit <= fit:
        reason = f"{fit:.0%} of the objects have one at IoU 0.5; anchors of the data fit no better"
        return recipe, f"{recipe.anchors.per_position}, the paper's", reason
    reason = f"the paper's nine fit {fit:.0%} of the objects at IoU 0.5, these {own_fit:.0%}"
    value = ", ".join(f"{height:g}x{width:g}" for height, width in shapes)
    recipe = dataclasses.replace(recipe, anchors=own)
    return recipe, f"{len(shapes)} of your data", f"{reason}: {value}"


def fitted_anchors(
    examples: Sequence[Example], image: ImageConfig, number: int = ANCHORS
) -> tuple[tuple[float, float], ...]:
    """(height, width) of anchors that fit the objects, in pixels of the network's input."""
    shapes = shapes_input([example.without_difficult() for example in examples], image)
    shapes = _some(shapes, 5 * LOOKED_AT)
    return whole_tenths(cluster_shapes(shapes, min(number, count_different(shapes))))


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


def _min_size(recipe: Recipe, facts: Facts) -> Ruled:
    """Proposals as small as the objects: the paper's 16 pixels would throw them away."""
    boxes = np.concatenate([e.without_difficult().boxes_image for e in facts.dataset.examples])
    if not len(boxes):
        return recipe, "", ""
    small = float(np.percentile((boxes[:, 2:] - boxes[:, :2]).min(axis=1), 5))
    least = recipe.test_proposals.min_size_image
    if small / 2 >= least:
        return recipe, "", ""
    value = float(max(1, np.floor(small / 2)))
    parts = {
        name: dataclasses.replace(getattr(recipe, name), min_size_image=value)
        for name in ("training_proposals", "joint_proposals", "test_proposals")
    }
    reason = f"one object in twenty has a side of {small:.0f} px or less"
    return dataclasses.replace(recipe, **parts), f"{value:g} px", reason


def _iterations(recipe: Recipe, facts: Facts) -> Ruled:
    """As many as there is time for.

    Raises:
        UserError: not a single one.
    """
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
    return recipe, f"{iterations:,}", reason


def _learning_rate(recipe: Recipe, facts: Facts) -> Ruled:
    rate = RATES[facts.is_random]
    reason = (
        "all weights start at random" if facts.is_random else "short training from ImageNet weights"
    )
    recipe = dataclasses.replace(
        recipe, joint=dataclasses.replace(recipe.joint, learning_rate=rate)
    )
    reason += f"; a tenth after {recipe.joint.drop_at:,} iterations"
    return recipe, f"{rate:g}", reason


def _clip_norm(recipe: Recipe, facts: Facts) -> Ruled:
    optimizer = dataclasses.replace(recipe.optimizer, clip_norm=CLIP_NORM)
    reason = "largest norm of all gradients: the loss cannot explode at this rate"
    recipe = dataclasses.replace(recipe, optimizer=optimizer)
    return recipe, f"{CLIP_NORM:g}", reason


def _dropout(recipe: Recipe, facts: Facts) -> Ruled:
    if recipe.joint.iterations >= KEEPS_DROPOUT:
        return recipe, "", ""
    detector = dataclasses.replace(recipe.detector, dropout=0.0)
    reason = f"fewer than {KEEPS_DROPOUT:,} iterations from random fc layers"
    return dataclasses.replace(recipe, detector=detector), "0", reason


# In order: the later ones see what the earlier ones chose.
RULES: dict[str, Callable[[Recipe, Facts], Ruled]] = {
    "short_side": _short_side,
    "anchors": _anchors,
    "min_size_image": _min_size,
    "iterations": _iterations,
    "learning_rate": _learning_rate,
    "clip_norm": _clip_norm,
    "dropout": _dropout,
}
"""What the plan chooses, by the names of ``given``."""
