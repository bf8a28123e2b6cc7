"""How a run is trained, where that does not change its result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class TrainingOptions:
    """How, not what, to train: nothing here changes a result, but callbacks that mean to.

    Attributes:
        initial_weights: the file that stages 1 and 2 start from; ``None``: random.
        feature_cache: ``auto``, ``memory``, ``disk`` or ``off``.
        image_cache: the same for the decoded images.
        cache_budget: GiB for each of them; ``None``: by what is free.
        checkpoint_seconds: time between checkpoints.
        workers: decoding threads.
        callbacks: Keras', see :mod:`keras_frcnn.training.callbacks`: they may end a stage.
    """

    initial_weights: Path | None
    feature_cache: str = "auto"
    image_cache: str = "auto"
    cache_budget: float | None = None
    checkpoint_seconds: float = 600.0
    workers: int = 2
    callbacks: Sequence[Any] = ()
