"""Tells a training that has diverged: by its losses, long before they are infinite."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence

import numpy as np
import tensorflow as tf

from keras_frcnn.errors import UserError
from keras_frcnn.runs.stage_table import stage_name

# A loss this many times the recent median counts as diverged,
FACTOR = 100.0
# unless recent losses were nearly as high: where most images are empty, one with many objects
# stands out. The newest do not count, a divergence may begin with them; the median follows a slow
# one.
OUTLIER_FACTOR = 10.0
NEWEST = 50
# A network that has learnt its images is surprised by others: smaller medians count as this one.
LEAST_MEDIAN = 0.1
WINDOW = 200
LEAST_KNOWN = 5


class TrainingDiverged(UserError):
    """What the training computes is of no use any more.

    Attributes:
        what: has happened to what, as ``"its loss is not finite"``.
        iteration: 1-based.
        stage: of the four, 0 for joint training.
    """

    def __init__(self, message: str, what: str, iteration: int, stage: int):
        super().__init__(message)
        self.what = what
        self.iteration = iteration
        self.stage = stage


def check_weights(variables: Sequence[tf.Variable], iteration: int, stage: int) -> None:
    """Makes sure that weights are fit to be kept.

    Raises:
        TrainingDiverged: one of them has an element that is not finite.
    """
    # Waited for once, not after each variable.
    finite = tf.stack([tf.reduce_all(tf.math.is_finite(variable)) for variable in variables])
    bad = [variable for variable, sound in zip(variables, finite.numpy(), strict=True) if not sound]
    if not bad:
        return
    more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
    names = bad[0].name.split(":")[0] + more
    raise TrainingDiverged(
        f"The weights {names} are not finite after iteration {iteration} of {stage_name(stage)}, "
        "and nothing of them is kept: a gradient was not finite since the last checkpoint, though "
        "the loss was. Go on from there with --resume; if it happens again, start anew with a "
        "lower --learning_rate or with --clip_gradients.",
        f"its weights are not finite ({names})",
        iteration,
        stage,
    )


class ExplosionGuard:
    """Remembers the last losses of a stage and tells one that is out of all proportion.

    Args:
        last: the losses that a stopped training remembered.
    """

    def __init__(self, last: Iterable[float] = ()) -> None:
        self._last: deque[float] = deque(last, maxlen=WINDOW)

    @property
    def last(self) -> list[float]:
        """What is remembered, the newest at the end."""
        return list(self._last)

    def fault_of(self, loss: float) -> str | None:
        """What is wrong with a loss; one that is sound is remembered."""
        if not math.isfinite(loss):
            return "is not finite"
        if len(self._last) >= LEAST_KNOWN:
            median = float(np.median(self._last))
            highest = max(self.last[:-NEWEST], default=0.0)
            if loss > max(FACTOR * max(median, LEAST_MEDIAN), OUTLIER_FACTOR * highest):
                return f"is more than {FACTOR:g} times its median of {median:.3g}"
        self._last.append(loss)
        return None
