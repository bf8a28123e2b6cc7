"""Tells a training that has diverged: by its losses, long before they are infinite."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

import numpy as np
import tensorflow as tf

from keras_frcnn.errors import UserError
from keras_frcnn.runs.stage_table import stage_name

# A loss this many times the median of the last ones is none that an image could give,
FACTOR = 100.0
# unless others were not far below it: where most images are empty, one with many objects stands out
# from the start. The newest losses do not count, they may be those of a divergence that begins;
# one that takes longer is followed by the median, too.
OUTLIER_FACTOR = 10.0
NEWEST = 50
# Medians below this count as it: a network that has learnt its images is surprised by others.
LEAST_MEDIAN = 0.1
WINDOW = 200
LEAST_KNOWN = 5


class TrainingDiverged(UserError):
    """What the training computes is of no use any more.

    Args:
        message: the whole sentence.
        what: has happened to what, as ``"its loss is not finite"``.
        iteration: 1-based.
        stage: of the four, 0 for joint training.
    """

    def __init__(self, message: str, what: str, iteration: int, stage: int):
        super().__init__(message)
        self.what = what
        self.iteration = iteration
        self.stage = stage


class LossExploded(TrainingDiverged):
    """A loss is not finite or out of all proportion.

    Args:
        what: the loss has done.
        iteration: 1-based.
        stage: of the four, 0 for joint training.
        details: the values, and the images of the iteration.
    """

    def __init__(self, what: str, iteration: int, stage: int, details: str):
        super().__init__(
            f"The loss {what} at iteration {iteration} of {stage_name(stage)}: {details} Look at "
            "their boxes in data_report.txt; else start again with a lower --learning_rate or with "
            "--clip_gradients.",
            f"its loss {what}",
            iteration,
            stage,
        )


class WeightsNotFinite(TrainingDiverged):
    """Trained weights are NaN or infinite, which no loss has told.

    Args:
        names: of the variables.
        iteration: after which it was seen, 1-based.
        stage: of the four, 0 for joint training.
    """

    def __init__(self, names: Sequence[str], iteration: int, stage: int):
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        super().__init__(
            f"The weights {names[0]}{more} are not finite after iteration {iteration} of "
            f"{stage_name(stage)}, and nothing of them is kept: a gradient was not finite since "
            "the last checkpoint, though the loss was. Go on from there with --resume; if it "
            "happens again, start anew with a lower --learning_rate or with --clip_gradients.",
            f"its weights are not finite ({names[0]}{more})",
            iteration,
            stage,
        )


def check_weights(variables: Sequence[tf.Variable], iteration: int, stage: int) -> None:
    """Makes sure that weights are fit to be kept.

    Args:
        variables: the trained ones.
        iteration, stage: for the message.

    Raises:
        WeightsNotFinite: one of them has an element that is not.
    """
    # Waited for once, not after each variable.
    finite = tf.stack([tf.reduce_all(tf.math.is_finite(variable)) for variable in variables])
    bad = [variable for variable, sound in zip(variables, finite.numpy(), strict=True) if not sound]
    if bad:
        raise WeightsNotFinite([variable.name.split(":")[0] for variable in bad], iteration, stage)


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
                usual = max(FACTOR * max(median, LEAST_MEDIAN), OUTLIER_FACTOR * self._highest())
                if loss > usual:
                    return position, median
            self._last.append(float(loss))
        return None

    def _highest(self) -> float:
        return max(list(self._last)[:-NEWEST], default=0.0)
