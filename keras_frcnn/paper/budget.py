"""How much of the paper's work an experiment does, and how its caption says so."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

from keras_frcnn.recipes import (
    NETWORKS,
    PAPER,
    AnchorConfig,
    Network,
    Precision,
    Recipe,
    StageSchedule,
    stages_on,
)
from keras_frcnn.runs.config import differences
from keras_frcnn.system.settings import Count, PositiveFactor, Range, Settings, Share, flagged


@dataclass(frozen=True)
class Budget(Settings):
    """What replaces the paper's setting; None: its own.

    Attributes:
        anchors: in place of the nine.
        dropout: in place of the network's own.
        base: what all this changes: the paper's recipe, or that of a run that is compared with.
    """

    fraction: PositiveFactor = flagged(
        1.0, "--budget FRACTION", "of the iterations of every training", "{}, the paper's schedules"
    )
    images: Count | None = flagged(
        None, "--images N", "the first N images of every training and test set", "all"
    )
    detect_images: Count | None = flagged(
        None,
        "--detect_images N",
        "of the test images, the first N that detectors are run on, for mAP and figures 1 and 3; "
        "recall takes all",
        "all",
    )
    seeds: Annotated[int, Range(1, 100)] = flagged(
        1,
        "--seeds N",
        "runs of every system of tables 1 to 3; mean and deviation are shown",
        "{} (the paper has six of one system)",
    )
    network: Network | None = flagged(
        None,
        "--network NAME",
        f"in place of the paper's: {', '.join(NETWORKS)}",
        "zf and vgg16 as published",
    )
    short_side: Annotated[int, Range(32, 20_000)] | None = flagged(
        None,
        "--short_side PX",
        "of the input, the long side in proportion",
        "600 (config.py:38)",
    )
    anchors: AnchorConfig | None = None
    learning_rate: PositiveFactor | None = flagged(
        None, "--learning_rate LR", "", "0.001 (stage1_rpn_solver60k80k.pt:3-10)"
    )
    dropout: Share | None = None
    base: Recipe = PAPER
    precision: Precision = flagged("float32", "--precision KIND", "", "{} (ours)")
    window_stride: Count = flagged(
        1, "--window_stride N", "dense windows of table 5 at every Nth position", "{} (table 5)"
    )

    def recipe(self, sets: Iterable[str] = ()) -> Recipe:
        """The recipe of a training at this budget; its lengths are the paper's, scaled.

        Args:
            sets: image sets to train on; some have schedules of their own.
        """
        base = self.base
        image, dropout = base.image, base.detector.dropout
        if self.short_side is not None:
            image = image.with_short_side(self.short_side)
        if self.dropout is not None:
            dropout = self.dropout
        rpn, detector, rpn_shared, detector_shared = (
            self._schedule(paper, own.learning_rate)
            for paper, own in zip(stages_on(PAPER, sets), base.stages, strict=True)
        )
        return dataclasses.replace(
            base,
            image=image,
            anchors=self.anchors or base.anchors,
            detector=dataclasses.replace(base.detector, dropout=dropout),
            stages=(rpn, detector, rpn_shared, detector_shared),
        )

    def _schedule(self, paper: StageSchedule, rate: float) -> StageSchedule:
        iterations = max(1, round(paper.iterations * self.fraction))
        if self.learning_rate is not None:
            rate = self.learning_rate
        return dataclasses.replace(paper.scaled_to(iterations), learning_rate=rate)

    def network_or(self, network: Network) -> Network:
        """The network that stands for one of the paper's."""
        return self.network or network

    def caption(self, *, reproduces: bool = True, seeds: int = 1) -> str:
        """One sentence that tells this from a reproduction.

        Args:
            reproduces: whether data, initial weights and runs are the paper's, too.
            seeds: how many runs of each system the table or figure is made of.
        """
        recipe = self.recipe()
        iterations = "/".join(f"{schedule.iterations:,}" for schedule in recipe.stages)
        parts = [f"{self.fraction:g} of the paper's schedule ({iterations} iterations)"]
        if self.network is not None:
            parts.append(f"{self.network} in place of the paper's networks")
        parts.append(f"short side {recipe.image.short_side}")
        if self.images is not None:
            parts.append(f"the first {self.images} images of every set")
        if self.detect_images is not None:
            parts.append(f"detection on the first {self.detect_images} test images")
        if recipe.anchors != PAPER.anchors:
            parts.append(f"{recipe.anchors.per_position} other anchors")
        rates = [schedule.learning_rate for schedule in recipe.stages]
        if rates != [schedule.learning_rate for schedule in PAPER.stages]:
            shown = rates if len(set(rates)) > 1 else rates[:1]
            parts.append("learning rate " + "/".join(f"{rate:g}" for rate in shown))
        parts += [f"{name} {value}" for name, value in _other_changes(recipe)]
        parts.append(f"{self.precision}")
        parts.append("1 run" if seeds == 1 else f"{seeds} runs each")
        full = dataclasses.replace(self, seeds=1) == Budget()
        kind = "The paper's full setting" if full and reproduces else "Not a reproduction"
        return f"{kind}: {', '.join(parts)}."


def _other_changes(recipe: Recipe):
    """Names and values of what is not the paper's beyond size, anchors and schedule."""
    described = {
        name: getattr(PAPER, name) for name in ("name", "image", "anchors", "stages", "joint")
    }
    rest = dataclasses.replace(recipe, **described)
    for name, _, value in differences(dataclasses.asdict(PAPER), dataclasses.asdict(rest)):
        yield name.removeprefix("detector."), f"{value:g}" if isinstance(value, float) else value
