"""Telling an exploding loss from a hard image, long before it is infinite.

Shapes and names
----------------
loss  the objective of one iteration.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import numpy as np

# A loss this many times the median of the last ones is none that an image could give.
FACTOR = 100.0
# Medians below this count as it: a network that has learnt its images is surprised by others.
LEAST_MEDIAN = 0.1
WINDOW = 200
LEAST_KNOWN = 5


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
