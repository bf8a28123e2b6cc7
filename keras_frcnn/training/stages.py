"""One training, stage by stage, as :data:`keras_frcnn.runs.stage_table.STAGES` says.

Every stage starts from files, so a run goes on after an interruption with the first stage whose
weights are missing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import keras
import numpy as np

from keras_frcnn.data.dataset import Dataset
from keras_frcnn.errors import UserError
from keras_frcnn.network.faster_rcnn import FasterRcnn
from keras_frcnn.network.normalisation import Normalisation
from keras_frcnn.network.weights import load_layers, write_layers
from keras_frcnn.runs.config import RunConfig
from keras_frcnn.runs.folder import RunFolder
from keras_frcnn.runs.metrics import forget_after
from keras_frcnn.runs.networks import check_unchanged, load_initial_weights
from keras_frcnn.runs.provenance import (
    check_parts,
    check_record,
    file_of,
    record_of,
    weights_metadata,
)
from keras_frcnn.runs.stage_table import (
    FINAL,
    FINAL_SOURCES,
    INITIAL,
    NEW,
    Stage,
    reader_of,
    stage_name,
)
from keras_frcnn.system.signals import TrainingStopped, signal_of
from keras_frcnn.training import pictures
from keras_frcnn.training.callbacks import StageCallbacks
from keras_frcnn.training.checkpoint import Checkpoints
from keras_frcnn.training.display import StageDisplay, TrainingDisplay
from keras_frcnn.training.feeding import Sources, make_proposals
from keras_frcnn.training.log import LOG_EVERY, Log, check_state
from keras_frcnn.training.loop import BETWEEN, run_iterations
from keras_frcnn.training.objectives import metric_names
from keras_frcnn.training.options import TrainingOptions
from keras_frcnn.training.output import EventFile, StageOutput
from keras_frcnn.training.preflight import (
    PROBED_ITERATIONS,
    check_memory,
    check_memory_ahead,
    check_room,
    largest_units,
)
from keras_frcnn.training.proposal_store import ProposalStore
from keras_frcnn.training.statistics import detector_statistics, rpn_statistics
from keras_frcnn.training.step import images_and_batches, step_of
from keras_frcnn.training.units import give_rois, training_units, unit_order


class Trainer:
    """Trains one run, in a folder that is there."""

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
        self.sources = Sources(config, self.units, run, options, display)
        self.events = EventFile(run.path / "tensorboard", display)

    def train(self) -> None:
        """Runs every stage that was asked for and is not finished yet.

        Raises:
            TrainingStopped: after a signal; all that was finished is written.
        """
        try:
            check_parts(self.run, self.config)
            for stage in self.config.plan:
                # They lie there where a kill came after the weights.
                if self.run.weights_file(stage.weights).exists():
                    Checkpoints(self.run.checkpoints, stage.number).clear()
            for stage in self.config.plan:
                self._run_stage(stage)
            if 4 in self.config.stages and not self.run.weights_file(FINAL).exists():
                model, _ = self._model_of(FINAL_SOURCES)
                self._save(model.layers(), FINAL)
        except KeyboardInterrupt as stop:  # outside of the iterations, which answer themselves
            raise TrainingStopped(signal_of(stop), BETWEEN) from stop
        finally:
            # A run that stops half-way must not leave gigabytes of features behind.
            self.events.close()
            self.sources.close()

    def _run_stage(self, stage: Stage) -> None:
        """Writes the weights of a stage, and its proposals where a later stage is to read them."""
        reader = reader_of(stage, self.config.plan)
        if not self.run.weights_file(stage.weights).exists():
            self._train_stage(stage, reader)
        if (
            stage.makes
            and reader is not None
            and not self.run.weights_file(reader.weights).exists()
            and not file_of(self.run, stage.makes).exists()
        ):
            model, _ = self._model_of(stage.result)
            self._prepare(model, reader)
            file = file_of(self.run, stage.makes)
            store = make_proposals(model, self.sources.feed(), self.display)
            store.save(file, record_of(self.run, self.config, stage.makes))
            counts = store.counts
            self.display.say(
                f"{counts.sum()} proposals, {counts.mean():.0f} an image "
                f"({counts.min()} to {counts.max()}), written to {file}"
            )

    def _train_stage(self, stage: Stage, reader: Stage | None) -> None:
        model, loaded = self._model_of(stage.starts)
        self._prepare(model, stage)
        if stage.starts.get("rpn") == INITIAL:
            pictures.save_sampled_anchors(self.run.path, model, self.units, self.config.seed)
        if reader is not None and not reader.is_shared:
            check_memory_ahead(reader, model, self.sources)
        store = self._proposals_of(stage)
        if store is not None:
            pictures.save_sampled_rois(
                self.run.path, model, self.units, store, self.config.seed, stage.number
            )
        normalisation = self._normalisation(model, stage, store)
        deltas = model.bbox_pred if "head" in stage.trains else model.rpn_bbox_pred
        if deltas.name in loaded:
            normalisation.make_normalised(deltas)
        self._fit(model, stage, normalisation, store)
        normalisation.make_plain(deltas)
        self._save(model.layers(*stage.trains), stage.weights)
        Checkpoints(self.run.checkpoints, stage.number).clear()

    def _prepare(self, model: FasterRcnn, stage: Stage) -> None:
        """Makes sure that the rest fits on the disk, and keeps features that do not change."""
        units = len(self.units)
        self.sources.kept_free = check_room(self.run, self.config, model, stage.number, units)
        if stage.is_shared:
            self.sources.compute_features(model)

    def _proposals_of(self, stage: Stage) -> ProposalStore | None:
        """The proposals that a stage is trained on, checked; ``None``: it makes its own."""
        if stage.reads is None:
            return None
        file = file_of(self.run, stage.reads)
        store = ProposalStore.load(file, [unit.key for unit in self.units])
        check_record(store.record, self.run, self.config, stage.reads)
        store.check_boxes(file, self.units)
        return store

    def _normalisation(
        self, model: FasterRcnn, stage: Stage, store: ProposalStore | None
    ) -> Normalisation:
        """Of the deltas that a stage learns (section 3.2, recipe 4.5, 4.7)."""
        units = self.display.passes(self.units, "box targets of all training images")
        if store is not None:
            return detector_statistics(model, units, store)
        if "head" in stage.trains:
            normalisation = Normalisation.identity(model.number_of_classes, 4)
            normalisation.std[:] = self.recipe.joint_delta_std
            return normalisation
        if self.recipe.rpn.normalise_targets:
            return rpn_statistics(model, units)
        return Normalisation.identity(4)

    def eligible(self, stage: Stage) -> np.ndarray:
        """Indices of the units that a stage sees, saying which give it no RoI.

        Raises:
            UserError: there is none.
        """
        if "rpn" in stage.trains:
            return np.arange(len(self.units))
        gives_rois = give_rois(self.units, self.recipe.detector)
        # Once, not in each orientation.
        keys = (self.units[index].example.key for index in np.flatnonzero(~gives_rois))
        left_out = list(dict.fromkeys(keys))
        if left_out:
            more = f" and {len(left_out) - 5} more" if len(left_out) > 5 else ""
            self.display.say(
                f"{stage_name(stage.number)}: images without objects give no RoI and are left out, "
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

    def _fit(
        self,
        model: FasterRcnn,
        stage: Stage,
        normalisation: Normalisation,
        store: ProposalStore | None,
    ) -> None:
        """Trains the layers of a stage, from its newest checkpoint on.

        Raises:
            TrainingDiverged: a loss or a weight is not finite, or a loss has exploded. What is
                kept is sound.
        """
        schedule = self.config.schedules[stage.number]
        images, batches_per_step = images_and_batches(self.recipe, stage.trains)
        eligible = self.eligible(stage)
        feed = self.sources.feed(store, images)
        step = step_of(model, stage.trains, normalisation, feed.signature, batches_per_step)
        identity = record_of(self.run, self.config, stage.weights)
        checkpoints = Checkpoints(
            self.run.checkpoints, stage.number, json.dumps(identity, sort_keys=True)
        )
        metrics = metric_names(stage.trains)
        first, state, notes = checkpoints.restore(
            step.optimizer,
            step.loss_scale,
            lambda done, state: check_state(state, metrics, done, schedule.iterations),
        )
        for note in notes:
            self.display.say(note)
        if first:
            self.display.say(f"going on after iteration {first}")
        records = forget_after(self.run.metrics_file, stage.number, first)
        images_per_step = images * batches_per_step
        if schedule.iterations - first >= PROBED_ITERATIONS:
            largest = largest_units(self.units, eligible, self.recipe.image, images_per_step)
            check_memory(step, feed, largest, stage.number)
        order = unit_order(
            [self.units[index] for index in eligible],
            images_per_step,
            seed=self.config.seed,
            stage=stage.number,
            first_iteration=first,
            iterations=schedule.iterations,
        )
        callbacks = StageCallbacks(
            self.options.callbacks,
            model,
            stage,
            schedule,
            first_epoch=records,
            epochs=sum(-(-each.iterations // LOG_EVERY) for each in self.config.schedules.values()),
        )
        with StageDisplay(
            self.display, stage.number, stage.title, schedule.iterations, first
        ) as line:
            output = StageOutput(
                self.run,
                self.config.mode,
                checkpoints,
                self.options.checkpoint_seconds,
                step,
                callbacks,
                self.events,
                line,
            )
            done = run_iterations(
                step,
                feed.batches(int(eligible[position]) for position in order),
                schedule,
                Log(stage.number, self.units, state),
                output,
                seed=self.config.seed,
                first=first,
            )
        if done < schedule.iterations:
            self.display.say(
                f"{stage_name(stage.number)} ends after iteration {done} of {schedule.iterations}: "
                "a callback asked to stop"
            )
        if schedule.iterations > first:
            self.display.say(f"traces of the step: {step.traces} for all image sizes")

    def new_model(self) -> FasterRcnn:
        """The network with random weights drawn from the run's seed."""
        return FasterRcnn(
            self.config.network,
            self.config.class_names,
            self.recipe,
            precision=self.config.precision,
            seed=self.config.seed,
        )

    def _model_of(self, sources: Mapping[str, str]) -> tuple[FasterRcnn, set[str]]:
        """The network with its parts from these sources, and the layers that came from a file.

        Raises:
            UserError: the initial weights do not fit, or are not what the run began with.
        """
        model = self.new_model()
        loaded: set[str] = set()
        if INITIAL in sources.values():
            check_unchanged(self.config, self.options.initial_weights)
            if self.options.initial_weights is not None:
                report = load_initial_weights(model, self.options.initial_weights)
                for line in report.lines():
                    self.display.say(line)
                loaded.update(report.loaded)
        for part, source in sources.items():
            if source not in (INITIAL, NEW):
                layers = model.layers(part)
                names = [layer.name for layer in layers]
                file = self.run.weights_file(source)
                load_layers(layers, file, reinitialise=(), required=names)
                loaded.update(names)
        return model, loaded

    def _save(self, layers: Sequence[keras.layers.Layer], name: str) -> None:
        metadata = weights_metadata(self.run, self.config, name)
        write_layers(self.run.weights_file(name), layers, metadata)
        self.display.say(f"weights written to {self.run.weights_file(name)}")
