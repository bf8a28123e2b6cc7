"""How a run is trained, where that does not change its result."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from keras_frcnn.system.settings import Factor, Range, Settings, flagged

Place = Literal["auto", "memory", "disk", "off"]


@dataclass(frozen=True)
class TrainingOptions(Settings):
    """How, not what, to train: nothing here changes a result, but callbacks that mean to.

    Attributes:
        initial_weights: the file that stages 1 and 2 start from; ``None``: random.
        feature_cache: where features are kept.
        image_cache: the same for the decoded images.
        cache_budget: GiB for each of them; ``None``: by what is free.
        checkpoint_seconds: time between checkpoints; -1: one after every iteration.
        workers: decoding threads.
        callbacks: Keras', see :mod:`keras_frcnn.training.callbacks`: they may end a stage.
    """

    initial_weights: Path | None
    feature_cache: Place = flagged(
        "auto",
        "--feature_cache PLACE",
        "where stages 3 and 4 keep the frozen base's features: memory, disk, off",
        "{}, memory, else disk, else computed at each step (ours)",
    )
    image_cache: Place = flagged(
        "auto",
        "--cache PLACE",
        "where the decoded images are kept, in 8 bits: memory, disk, off",
        "{}, memory, else disk, else read at each step (ours)",
    )
    cache_budget: Factor | None = flagged(
        None,
        "--cache_budget GIB",
        "most for each of the two",
        "half of the free memory, 80%% of the disk that training leaves free (ours)",
    )
    checkpoint_seconds: Annotated[float, Range(-1, 10**9)] = 600.0
    workers: Annotated[int, Range(1, 256)] = flagged(
        2, "--workers N", "decoding threads", "{} (ours)"
    )
    callbacks: tuple = ()
