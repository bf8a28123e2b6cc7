"""Keras callbacks: a stage is to them a ``fit``, a record of ``metrics.jsonl`` an epoch.

A stage, not the training, so that ``EarlyStopping`` compares losses of one kind, and what it stops
is a stage.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_frcnn.errors import UserError
from keras_frcnn.network.faster_rcnn import FasterRcnn
from keras_frcnn.recipes import OptimizerConfig, StageSchedule
from keras_frcnn.runs.stage_table import Stage
from keras_frcnn.training.log import LOG_EVERY

_OF_BATCHES = ("on_train_batch_begin", "on_train_batch_end", "on_batch_begin", "on_batch_end")


def check_callbacks(callbacks: Sequence[Any]) -> None:
    """Makes sure that all of them are Keras'.

    Raises:
        UserError: one is something else, of Keras 2 say.
    """
    for callback in callbacks:
        if not isinstance(callback, keras.callbacks.Callback):
            raise UserError(
                f"`callbacks` should be a list of keras.callbacks.Callback, not {callback!r:.80}."
            )


class StageCallbacks:
    """The callbacks of a training while one stage is trained.

    They are given a model of the layers that the stage uses: its weights are those that are
    trained, its optimizer tells the learning rate and the iteration, ``stop_training`` ends the
    stage. The schedule is the recipe's: a rate that a callback sets is refused.

    Args:
        callbacks: without any, nothing is made and nothing called.
        first_epoch: records of ``metrics.jsonl`` that are there.
        epochs: records of the whole training.
    """

    def __init__(
        self,
        callbacks: Sequence[keras.callbacks.Callback],
        network: FasterRcnn,
        stage: Stage,
        schedule: StageSchedule,
        *,
        first_epoch: int,
        epochs: int,
    ):
        self.epoch = first_epoch
        self._stage = stage.number
        self._callbacks = list(callbacks)
        self._schedule = schedule
        self._rate = schedule.rate_at(0)
        self._logs: dict[str, float] = {}
        self._model: Any = None
        if self._callbacks:
            self._model = keras_model_of(network, tuple(stage.starts))
            self._model.compile(_shown_optimizer(network.recipe.optimizer, self._rate))
        self._list = keras.callbacks.CallbackList(
            self._callbacks, model=self._model, epochs=epochs, steps=LOG_EVERY, verbose=0
        )
        # Metrics of every batch are read from the device only where somebody wants them.
        self.see_batches = any(
            getattr(getattr(callback, name), "__func__", None)
            is not getattr(keras.callbacks.Callback, name)
            for callback in self._callbacks
            for name in _OF_BATCHES
        )

    @property
    def ask_to_stop(self) -> bool:
        """Whether the stage is to end with the newest record."""
        return self._model is not None and self._model.stop_training

    def begin(self) -> None:
        """Before the first iteration.

        Raises:
            UserError: as :meth:`record`.
        """
        if self._model is not None:
            self._list.on_train_begin()
            self._begin_epoch()

    def before_batch(self, iteration: int) -> None:
        """Before an iteration; 0-based."""
        if self.see_batches:
            self._list.on_train_batch_begin(iteration % LOG_EVERY)

    def after_batch(self, iteration: int, metrics: dict[str, tf.Tensor]) -> None:
        """After an iteration; 0-based."""
        if self.see_batches:
            self._show(iteration + 1)
            values = {name: float(value) for name, value in metrics.items()}
            logs = {"stage": float(self._stage), "iteration": float(iteration + 1), **values}
            self._list.on_train_batch_end(iteration % LOG_EVERY, logs)

    def record(self, record: dict[str, Any], *, is_last: bool) -> None:
        """After a record is written, the last of the stage perhaps.

        Raises:
            UserError: a callback has set a learning rate.
        """
        if self._model is None:
            return
        self._show(record["iteration"])
        self._logs = {name: float(value) for name, value in record.items()}
        self._list.on_epoch_end(self.epoch, dict(self._logs))
        self._check_rate()
        self.epoch += 1
        if not (is_last or self.ask_to_stop):
            self._begin_epoch()

    def end(self) -> None:
        """After the last iteration, before the weights are written."""
        if self._model is not None:
            self._list.on_train_end(self._logs)

    def _begin_epoch(self) -> None:
        self._list.on_epoch_begin(self.epoch)
        self._check_rate()

    def _show(self, done: int) -> None:
        """Lets the optimizer tell the rate and the number of the newest iteration."""
        self._check_rate()
        self._rate = self._schedule.rate_at(done - 1)
        self._model.optimizer.learning_rate = self._rate
        self._model.optimizer.iterations.assign(done)

    def _check_rate(self) -> None:
        if np.float32(self._model.optimizer.learning_rate) != np.float32(self._rate):
            raise UserError(
                "A callback has set the learning rate of `model.optimizer`, which only shows that "
                "of the recipe: leave it out of `callbacks`, and give the rate and where it drops "
                "by `stages` (or `joint`) of the recipe."
            )


def keras_model_of(network: FasterRcnn, parts: Sequence[str]) -> keras.Model:
    """One model of some parts of a network, over the very layers.

    Args:
        parts: of ``base``, ``rpn`` and ``head``; the base is always there.
    """
    inputs, features = [network.base.input], network.base.output
    outputs = list(network.rpn_head(features)) if "rpn" in parts else []
    if "head" in parts:
        rois = [keras.Input((4,), name="rois"), keras.Input((), dtype="int32", name="roi_image")]
        inputs, outputs = [*inputs, *rois], [*outputs, *network.detector([features, *rois])]
    return keras.Model(inputs, outputs, name="faster_rcnn")


def _shown_optimizer(config: OptimizerConfig, rate: float) -> keras.optimizers.Optimizer:
    """Applied to nothing: what callbacks such as MLflow's, W&B's and TensorBoard's read."""
    return keras.optimizers.SGD(
        rate, momentum=config.momentum, weight_decay=config.weight_decay, name="momentum"
    )
