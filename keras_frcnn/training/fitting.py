"""Fitting some layers of a network to the training images: feeding, resuming, logging."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from keras_frcnn.data.dataset import Dataset
from keras_frcnn.data.pipeline import batch_signature, batches
from keras_frcnn.errors import UserError
from keras_frcnn.metrics import append_record, forget_after
from keras_frcnn.network.faster_rcnn import FasterRcnn
from keras_frcnn.network.variables import trained_variables
from keras_frcnn.plots import save_curves
from keras_frcnn.provenance import record_of
from keras_frcnn.recipes import StageSchedule
from keras_frcnn.run_config import RunConfig, stage_name, stage_title
from keras_frcnn.runs import FINAL, RunFolder
from keras_frcnn.training.checkpoint import Checkpoints
from keras_frcnn.training.display import TrainingDisplay
from keras_frcnn.training.events import EventFile
from keras_frcnn.training.explosion import check_weights
from keras_frcnn.training.loop import run_stage
from keras_frcnn.training.objectives import METRICS
from keras_frcnn.training.optimizer import LossScale, MomentumOptimizer
from keras_frcnn.training.options import TrainingOptions
from keras_frcnn.training.probe import PROBED_ITERATIONS, check_memory, largest_units
from keras_frcnn.training.records import TrainingRecords
from keras_frcnn.training.step import TrainingStep, variable_taken_last
from keras_frcnn.training.units import training_units, unit_order
from keras_frcnn.training.window import check_state


class Fitting:
    """What all stages of a run share: its units, their records, its options, its logs.

    Args:
        config: what to train.
        dataset: the training images.
        run: an existing run folder.
        options: how to train.
        display: where progress is shown.
    """

    def __init__(
        self,
        config: RunConfig,
        dataset: Dataset,
        run: RunFolder,
        options: TrainingOptions,
        display: TrainingDisplay,
    ):
        self.config = config
        self.recipe = config.recipe
        self.run = run
        self.options = options
        self.display = display
        self.units = training_units(dataset.examples, config.flips)
        self.records = TrainingRecords(config, self.units, run, options, display)
        self.events = EventFile(run.path / "tensorboard", display.say)

    def close(self) -> None:
        """Frees the caches and closes the event file."""
        self.events.close()
        self.records.close()

    def gives_rois(self) -> np.ndarray:
        """Of each unit, whether it does: all, or those with objects."""
        everything = not self.recipe.detector.needs_objects
        return np.array([everything or len(unit.example.classes) > 0 for unit in self.units])

    def eligible(self, stage: int) -> np.ndarray:
        """Units that can give RoIs, saying which cannot.

        Raises:
            UserError: there is none.
        """
        gives_rois = self.gives_rois()
        empty = [
            unit.example.key for unit, kept in zip(self.units, gives_rois, strict=True) if not kept
        ]
        left_out = list(dict.fromkeys(empty))  # once, not in each orientation
        if left_out:
            more = f" and {len(left_out) - 5} more" if len(left_out) > 5 else ""
            self.display.say(
                f"{stage_name(stage)}: images without objects give no RoI and are left out, "
                f"{len(left_out)} of them (named in data_report.txt): "
                f"{', '.join(left_out[:5])}{more}"
            )
        if not gives_rois.any():
            raise UserError(
                f"None of the {len(self.units)} training images has an object that is not "
                "difficult, so the detector has nothing to learn from; look at data_report.txt, "
                "or give images with objects."
            )
        return np.flatnonzero(gives_rois)

    def fit(
        self,
        model: FasterRcnn,
        stage: int,
        schedule: StageSchedule,
        objective,
        trained_layers: Sequence,
        *,
        images_per_step: int,
        batches_per_step: int,
        make_record,
        eligible: np.ndarray,
    ) -> None:
        """Trains some layers for one stage, from its newest checkpoint on.

        Args:
            objective: ``(batch, seed) -> metrics``, see :mod:`keras_frcnn.training.objectives`.
            trained_layers: what the optimizer changes; everything else stays as it is.
            images_per_step: images of a batch.
            batches_per_step: batches whose gradients are averaged.
            make_record: of :meth:`TrainingRecords.of`.
            eligible: units that this stage sees.

        Raises:
            TrainingDiverged: a loss or a weight is not finite, or a loss has exploded. What is
                kept is sound.
        """
        variables = trained_variables(trained_layers)
        optimizer = MomentumOptimizer(variables, self.recipe.optimizer)
        loss_scale = LossScale(dynamic=self.config.precision == "float16")
        part = f"stage{stage}" if stage else FINAL
        record = record_of(self.run, self.config, part)
        identity = json.dumps(record, sort_keys=True)
        checkpoints = Checkpoints(self.run.checkpoints, stage, identity)
        first, window, notes = checkpoints.restore(
            optimizer,
            loss_scale,
            lambda done, state: check_state(state, METRICS[stage], done, schedule.iterations),
        )
        for note in notes:
            self.display.say(note)
        if first:
            self.display.say(f"going on after iteration {first}")
        forget_after(self.run.metrics_file, stage, first)
        cache = self.records.features
        channels = None if cache is None else model.backbone.channels
        feature_dtype = None if cache is None else cache.dtype
        units = [self.units[index] for index in eligible]

        def order():
            positions = unit_order(
                units,
                images_per_step * batches_per_step,
                seed=self.config.seed,
                stage=stage,
                first_iteration=first,
                iterations=schedule.iterations,
            )
            return (int(eligible[position]) for position in positions)

        def batches_of(indices: Callable[[], Iterator[int]]):
            return batches(
                make_record,
                indices,
                self.recipe.image,
                images_per_step=images_per_step,
                feature_channels=channels,
                feature_dtype=feature_dtype,
                workers=self.options.workers,
            )

        step = TrainingStep(
            objective,
            optimizer,
            batch_signature(images_per_step, channels, feature_dtype),
            batches_per_step=batches_per_step,
            loss_scale=loss_scale,
            taken_last=variable_taken_last(model, trained_layers),
        )

        if schedule.iterations - first >= PROBED_ITERATIONS:
            number = images_per_step * batches_per_step
            largest = largest_units(self.units, eligible, self.recipe.image, number)
            names = [self.units[index].key for index in largest]
            check_memory(step, lambda found: batches_of(lambda: iter(found)), largest, names, stage)

        def save_checkpoint(done: int, window: dict) -> None:
            check_weights(variables, done, stage)
            checkpoints.save(done, optimizer, loss_scale, window)
            if done < schedule.iterations:
                self._draw_curves()

        title = stage_title(stage, self.config.mode)
        with self.display.stage(stage, title, schedule.iterations, first) as line:
            run_stage(
                step,
                batches_of(order),
                schedule,
                stage=stage,
                seed=self.config.seed,
                first_iteration=first,
                batches_per_step=batches_per_step,
                unit_name=lambda index: self.units[index].key,
                display=line,
                log=self._log,
                save_checkpoint=save_checkpoint,
                checkpoint_seconds=self.options.checkpoint_seconds,
                state=window,
            )
        self._draw_curves()
        if schedule.iterations > first:
            self.display.say(f"traces of the step: {step.traces} for all image sizes")

    def _draw_curves(self) -> None:
        if self.run.metrics_file.exists():
            save_curves(self.run.metrics_file, self.run.path / "curves.png", self.config.mode)

    def _log(self, record: dict) -> None:
        append_record(self.run.metrics_file, record)
        self.events.add(record)
