"""Telling an exploding loss from a hard image, long before it is infinite.

Shapes and names
----------------
loss  the objective of one iteration.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import numpy as np

from keras_frcnn.errors import UserError

# A loss this many times the median of the last ones is none that an image could give.
FACTOR = 100.0
# Medians below this count as it: a network that has learnt its images is surprised by others.
LEAST_MEDIAN = 0.1
WINDOW = 200
LEAST_KNOWN = 5


class LossExploded(UserError):
    """A loss is not finite or out of all proportion: the training has diverged.

    Args:
        what: the loss has done.
        iteration: 1-based.
        stage: of the four, 0 for joint training.
        details: the values, and the images of the iteration.
    """

    def __init__(self, what: str, iteration: int, stage: int, details: str):
        super().__init__(
            f"The loss {what} at iteration {iteration} of stage {stage}: {details} Look at their "
            "boxes in data_report.txt; else start again with a lower --learning_rate or with "
            "--clip_gradients."
        )
        self.what = what
        self.iteration = iteration
        self.stage = stage


class ExplosionGuard:
    """Remembers the last losses of a stage and names the first that is out of all proportion.

    Args:
        last: the losses that a stopped training remembered.
    """

    def __init__(self, last: Iterable[float] = ()) -> None:
        self._last: deque[float] = deque(last, maxlen=WINDOW)

    @property
    def last(self) -> list[float]:
        """What is remembered, the newest at the end."""
        return list(self._last)

    def first_explosion(self, losses: Iterable[float]) -> tuple[int, float] | None:
        """Position of the first exploded loss, and the median before it; ``None``: all are sound.

        Losses that are sound are remembered for the next call.
        """
        for position, loss in enumerate(losses):
            if len(self._last) >= LEAST_KNOWN:
                median = float(np.median(self._last))
                if loss > FACTOR * max(median, LEAST_MEDIAN):
                    return position, median
            self._last.append(float(loss))
        return None
