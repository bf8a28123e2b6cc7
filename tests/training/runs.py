"""What the tests of whole trainings look at, and how they stop one.

Shapes and names
----------------
weights  {layer: [kernel, bias] or [gamma, beta]}.
"""

from __future__ import annotations

import json
import signal
from types import SimpleNamespace

import numpy as np

from keras_frcnn.training import stages
from keras_frcnn.training.checkpoint import Checkpoints
from tests.read_weights import read_layers

BASE = {f"conv{index}{part}" for index in range(1, 6) for part in ("", "_norm")}
RPN = {"rpn_conv", "rpn_cls_score", "rpn_bbox_pred"}
HEAD = {"fc6", "fc7", "cls_score", "bbox_pred"}


def weights_of(model):
    return {layer.name: layer.get_weights() for layer in model.layers()}


def same(one, other):
    return all(np.array_equal(left, right) for left, right in zip(one, other, strict=True))


def file_weights(run, name):
    """{layer: [kernel, bias]} of a weight file."""
    layers = read_layers(run.weights_file(name)).layers
    return {name: list(weights.values()) for name, weights in layers.items()}


def losses_of(run):
    """The metrics without their times."""
    records = [json.loads(line) for line in run.metrics_file.read_text().splitlines()]
    times = ("images_per_second", "waiting")
    return [{name: record[name] for name in record if name not in times} for record in records]


def interrupt(patch, stage, done, how):
    """Lets the given stage fail after ``done`` iterations, by a signal or while saving."""
    run_iterations, save = stages.run_iterations, Checkpoints.save

    def with_signal(step, batches, schedule, log, *arguments, **others):
        def run(found, rate, seed):
            metrics = step.run(found, rate, seed)
            if (log.stage, int(seed[1]) + 1) == (stage, done):
                signal.raise_signal(how)
            return metrics

        stopped = SimpleNamespace(run=run, batches_per_step=step.batches_per_step)
        return run_iterations(stopped, batches, schedule, log, *arguments, **others)

    def failing(self, iteration, *arguments):
        hit = (self.stage, iteration) == (stage, done)
        if hit and how == "before saving":
            raise OSError("No space left on device")
        save(self, iteration, *arguments)
        if hit:
            raise OSError("killed")

    if isinstance(how, signal.Signals):
        patch.setattr(stages, "run_iterations", with_signal)
    else:
        patch.setattr(Checkpoints, "save", failing)
