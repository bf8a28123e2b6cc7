"""The training step: a batch in, losses out, one update of the trained variables.

Each step is one ``tf.function`` with a fixed signature: it is traced once, whatever the sizes of
the images. Gradients are taken only of the trained variables, so nothing below the first trained
layer is kept or computed twice.

Shapes and names
----------------
batch  the dictionary of :mod:`keras_frcnn.data.pipeline`.
seed   (2,) int32, of the step.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf

from keras_frcnn.network.faster_rcnn import FasterRcnn
from keras_frcnn.network.normalisation import Normalisation
from keras_frcnn.network.targets import derived_seed
from keras_frcnn.network.weights import trained_variables
from keras_frcnn.recipes import Recipe
from keras_frcnn.training.objectives import Objective, objective_of
from keras_frcnn.training.optimizer import LossScale, MomentumOptimizer, all_finite


def variable_taken_last(
    model: FasterRcnn, layers: Sequence[keras.layers.Layer]
) -> tf.Variable | None:
    """The weights whose gradient a step that trains these layers takes last: fc6's.

    It is as large (0.4 GB at VGG-16) as all that is kept for the backward pass of the base, which
    has been given back by then; otherwise both are held at the same time. What lies between the
    losses and fc6 is computed twice for it, 0.3 % of a step at 600 x 800. None where the base is
    not trained, or has more weights than any layer of the head.
    """
    names = {layer.name for layer in layers}

    def trained(candidates):
        return trained_variables(layer for layer in candidates if layer.name in names)

    def size(variable):
        return variable.shape.num_elements()

    base, head = trained(model.layers("base", trained=True)), trained(model.layers("head"))
    widest = max(head, key=size, default=None)
    if not base or widest is None or size(widest) < sum(map(size, base)):
        return None
    return widest


def step_of(
    model: FasterRcnn,
    parts: Sequence[str],
    normalisation: Normalisation,
    signature: dict[str, tf.TensorSpec],
    batches_per_step: int = 1,
) -> TrainingStep:
    """The step that trains some parts of a network, see :func:`objective_of`."""
    layers = model.layers(*parts, trained=True)
    return TrainingStep(
        objective_of(model, parts, normalisation),
        MomentumOptimizer(trained_variables(layers), model.recipe.optimizer),
        signature,
        batches_per_step=batches_per_step,
        loss_scale=LossScale(dynamic=model.precision == "float16"),
        taken_last=variable_taken_last(model, layers),
    )


def images_and_batches(recipe: Recipe, parts: Sequence[str]) -> tuple[int, int]:
    """Images of a batch, and batches of a step, of what trains these parts."""
    if "head" not in parts:
        return recipe.rpn.images_per_step, 1
    if "rpn" not in parts:
        return recipe.detector.images_per_step, 1
    return 1, recipe.joint_images_per_step


class TrainingStep:
    """One solver iteration: gradients of one or several batches averaged, one update.

    Args:
        objective: ``(batch, seed) -> metrics``; every entry whose name ends in ``_loss`` is summed
            into the objective.
        optimizer: holds the trained variables.
        batches_per_step: batches whose gradients are averaged (Caffe's ``iter_size``).
        loss_scale: dynamic for float16, else constant.
        taken_last: the trained variable whose gradient is taken when all others are there, see
            :func:`variable_taken_last`.
    """

    def __init__(
        self,
        objective: Objective,
        optimizer: MomentumOptimizer,
        signature: dict[str, tf.TensorSpec],
        *,
        batches_per_step: int,
        loss_scale: LossScale,
        taken_last: tf.Variable | None = None,
    ):
        self.objective = objective
        self.optimizer = optimizer
        self.loss_scale = loss_scale
        self.batches_per_step = batches_per_step
        trained = [id(variable) for variable in optimizer.variables_trained]
        self._last = None if taken_last is None else trained.index(id(taken_last))
        batches = tuple(signature for _ in range(batches_per_step))
        seed = tf.TensorSpec((2,), tf.int32)
        self.run = tf.function(
            self._run, input_signature=[batches, tf.TensorSpec((), tf.float32), seed]
        )
        self.probe = tf.function(self._probe, input_signature=[batches, seed])

    @property
    def traces(self) -> int:
        """How often the step was traced: once, whatever the shapes."""
        return self.run.experimental_get_tracing_count()

    def _run(self, batches, learning_rate, seed):
        metrics, gradients = self._gradients(batches, seed)
        if self.optimizer.config.clip_norm is not None:
            gradients, _ = tf.clip_by_global_norm(gradients, self.optimizer.config.clip_norm)
        if self.loss_scale.dynamic:
            finite = all_finite([gradient for gradient in gradients if gradient is not None])
            tf.cond(
                finite,
                lambda: self._apply(gradients, learning_rate),
                lambda: tf.constant(False),
            )
            self.loss_scale.update(finite)
        else:
            self.optimizer.apply(gradients, learning_rate)
        return metrics

    def _probe(self, batches, seed):
        """Gradients and nothing done with them: the memory of a step, and no weight moves."""
        _, gradients = self._gradients(batches, seed)
        return tf.add_n([tf.reduce_sum(entry) for entry in gradients if entry is not None])

    def _gradients(self, batches, seed):
        variables = self.optimizer.variables_trained
        persistent = self._last is not None
        all_metrics, tapes = [], []
        for index, batch in enumerate(batches):
            with tf.GradientTape(persistent, watch_accessed_variables=False) as tape:
                tape.watch(variables)
                metrics = self.objective(batch, derived_seed(seed, index))
                parts = [value for name, value in metrics.items() if name.endswith("_loss")]
                objective = tf.add_n(parts) * self.loss_scale.scale
            all_metrics.append(metrics)
            tapes.append((tape, objective))
        all_gradients = self._gradients_in_order(tapes)
        count = len(batches)
        metrics = {
            name: tf.add_n([entry[name] for entry in all_metrics]) / count
            for name in all_metrics[0]
        }
        metrics["loss"] = tf.add_n([metrics[name] for name in metrics if name.endswith("_loss")])
        divisor = count * self.loss_scale.scale
        gradients = [
            _mean_gradient(entries, divisor, rescale=count > 1 or self.loss_scale.dynamic)
            for entries in zip(*all_gradients, strict=True)
        ]
        return metrics, gradients

    def _gradients_in_order(self, tapes):
        """Of each (tape, objective), the gradients of all trained variables."""
        variables = list(self.optimizer.variables_trained)
        if self._last is None:
            return [tape.gradient(objective, variables) for tape, objective in tapes]
        last = variables.pop(self._last)
        all_gradients = [tape.gradient(objective, variables) for tape, objective in tapes]
        present = [entry for entry in tf.nest.flatten(all_gradients) if entry is not None]
        with tf.control_dependencies(present):
            for gradients, (tape, objective) in zip(all_gradients, tapes, strict=True):
                gradients.insert(self._last, tape.gradient(objective, last))
        return all_gradients

    def _apply(self, gradients, learning_rate):
        self.optimizer.apply(gradients, learning_rate)
        return tf.constant(True)


def _mean_gradient(entries, divisor, *, rescale: bool):
    present = [entry for entry in entries if entry is not None]
    if not present:
        return None
    total = tf.add_n([tf.convert_to_tensor(entry) for entry in present])
    return total / divisor if rescale else total
