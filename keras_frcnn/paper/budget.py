"""How much of the paper's work an experiment does, and how its caption says so.

Shapes and names
----------------
fraction  of the paper's solver iterations.
network   what the experiments run on in place of the paper's; ``None``: the paper's own.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from keras_frcnn.recipes import PAPER, AnchorConfig, Recipe, StageSchedule


@dataclass(frozen=True)
class Budget:
    """What replaces the paper's setting.

    Attributes:
        fraction: of the iterations of every stage.
        images: the first so many images of every training and test set; ``None``: all.
        detect_images: of these, the first so many of a test set that detectors are run on; recall
            of proposals takes all. ``None``: all.
        seeds: how often the runs that a table compares are repeated.
        network: in place of every network of the paper; ``None``: its own.
        short_side: in place of 600.
        anchors: in place of the nine.
        learning_rate: in place of 0.001.
        dropout: in place of the network's own.
        precision: of training and testing.
        window_stride: of the dense windows of table 5, in positions of the feature map.
    """

    fraction: float = 1.0
    images: int | None = None
    detect_images: int | None = None
    seeds: int = 1
    network: str | None = None
    short_side: int | None = None
    anchors: AnchorConfig | None = None
    learning_rate: float | None = None
    dropout: float | None = None
    precision: str = "float32"
    window_stride: int = 1

    def recipe(self, recipe: Recipe = PAPER) -> Recipe:
        """The paper's recipe at this budget."""
        image = recipe.image
        if self.short_side is not None:
            long = round(image.long_side * self.short_side / image.short_side)
            image = dataclasses.replace(image, short_side=self.short_side, long_side=long)
        return dataclasses.replace(
            recipe,
            image=image,
            anchors=self.anchors or recipe.anchors,
            detector=dataclasses.replace(recipe.detector, dropout=self.dropout),
            stages=tuple(self._schedule(schedule) for schedule in recipe.stages),
        )

    def _schedule(self, schedule: StageSchedule) -> StageSchedule:
        iterations = max(1, round(schedule.iterations * self.fraction))
        schedule = schedule.scaled_to(iterations)
        if self.learning_rate is None:
            return schedule
        return dataclasses.replace(schedule, learning_rate=self.learning_rate)

    def network_or(self, network: str) -> str:
        """The network that stands for one of the paper's."""
        return self.network or network

    def caption(self, *, reproduces: bool = True) -> str:
        """One sentence that tells this from a reproduction.

        Args:
            reproduces: whether data, initial weights and runs are the paper's, too.
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
        if self.anchors is not None:
            parts.append(f"{self.anchors.per_position} other anchors")
        if self.learning_rate is not None:
            parts.append(f"learning rate {self.learning_rate:g}")
        if self.dropout is not None:
            parts.append(f"dropout {self.dropout:g}")
        parts.append(f"{self.precision}")
        parts.append("1 run" if self.seeds == 1 else f"{self.seeds} runs each")
        full = dataclasses.replace(self, seeds=1) == Budget()
        kind = "The paper's full setting" if full and reproduces else "Not a reproduction"
        return f"{kind}: {', '.join(parts)}."
