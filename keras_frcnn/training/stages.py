"""The four alternating steps (section 3.2), approximate joint training, and Fast R-CNN alone.

1. RPN from ImageNet; its proposals.  2. Fast R-CNN from ImageNet again, on those proposals.
3. A new RPN head on the detector's convolutions, which stay as they are; its proposals.
4. The detector's head on the same convolutions and the new proposals.

Fast R-CNN alone is stage 2 on proposals that were given. Every stage starts from files, so a run
goes on after an interruption with the first stage whose weights are missing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from keras_frcnn.network.faster_rcnn import FasterRcnn
from keras_frcnn.network.normalisation import Normalisation
from keras_frcnn.network.weights import load_layers, write_layers
from keras_frcnn.provenance import (
    check_parts,
    check_record,
    file_of,
    record_of,
    weights_metadata,
)
from keras_frcnn.runs import FINAL
from keras_frcnn.stopping import TrainingStopped, signal_of
from keras_frcnn.training import pictures
from keras_frcnn.training.checkpoint import Checkpoints
from keras_frcnn.training.fitting import Fitting
from keras_frcnn.training.initial_weights import check_unchanged, load_initial_weights
from keras_frcnn.training.loop import BETWEEN
from keras_frcnn.training.objectives import (
    detector_objective,
    joint_objective,
    rpn_objective,
)
from keras_frcnn.training.passes import make_proposals
from keras_frcnn.training.probe import probe_stage2
from keras_frcnn.training.proposal_store import ProposalStore
from keras_frcnn.training.statistics import detector_statistics, rpn_statistics
from keras_frcnn.training.units import TrainingUnit


class Trainer:
    """Trains one run, stage by stage.

    Args:
        fitting: the run's images, options and folder, and how layers are fitted to them.
    """

    def __init__(self, fitting: Fitting):
        self.fitting = fitting
        self.config = fitting.config
        self.recipe = fitting.recipe
        self.run = fitting.run
        self.options = fitting.options
        self.display = fitting.display
        self.units = fitting.units

    def train(self) -> None:
        """Runs every stage that was asked for and is not finished yet.

        Raises:
            TrainingStopped: after a signal; all that was finished is written.
        """
        try:
            check_parts(self.run, self.config)
            self._clear_finished()
            if self.config.mode == "joint":
                self._joint()
            elif self.config.mode == "fast-rcnn":
                self._fast_rcnn("given")
            else:
                for stage in self.config.stages:
                    getattr(self, f"_stage{stage}")()
                if 4 in self.config.stages:
                    self._write_final()
        except KeyboardInterrupt as stop:  # outside of the iterations, which answer themselves
            raise TrainingStopped(signal_of(stop), BETWEEN) from stop
        finally:
            # A run that stops half-way must not leave gigabytes of features behind.
            self.fitting.close()

    def _clear_finished(self) -> None:
        """Removes the checkpoints that lie there where a kill came after the weights."""
        for stage in self.config.schedules:
            if self.run.weights_file(f"stage{stage}" if stage else FINAL).exists():
                Checkpoints(self.run.checkpoints, stage).clear()

    def _stage1(self) -> None:
        """RPN, from the initial weights; its proposals where stage 2 is to read them."""
        if not self.run.weights_file("stage1").exists():
            model, loaded = self.initial_model()
            self.fitting.records.check_room(model, 1)
            pictures.save_sampled_anchors(self.run.path, model, self.units, self.config.seed)
            trained = model.layers("base", "rpn", trained=True)
            saved = model.layers("base", "rpn")
            if 2 in self.config.stages:
                probe_stage2(self.fitting, model)
            self._train_rpn(model, 1, trained, saved, loaded)
        if 2 in self.config.stages and self._lacks_proposals(1):
            model = self._model_from("stage1", base=True, rpn=True)
            self.fitting.records.check_room(model, 2)
            self._write_proposals(model, 1)

    def _lacks_proposals(self, stage: int) -> bool:
        """Whether the next stage, which reads them, is still to be trained and they are missing."""
        is_read = not self.run.weights_file(f"stage{stage + 1}").exists()
        return is_read and not self.run.proposals_file(stage).exists()

    def _stage2(self) -> None:
        """Fast R-CNN, from the initial weights again, on the proposals of stage 1."""
        self._fast_rcnn("proposals1")

    def _fast_rcnn(self, proposals: str) -> None:
        """Fast R-CNN, from the initial weights, on proposals that are a part of the run."""
        if self.run.weights_file("stage2").exists():
            return
        model, loaded = self.initial_model()
        self.fitting.records.check_room(model, 2)
        trained = model.layers("base", "head", trained=True)
        saved = model.layers("base", "head")
        self._train_detector(model, 2, proposals, trained, saved, loaded)

    def _stage3(self) -> None:
        """A new RPN head on the convolutions of stage 2."""
        if not self.run.weights_file("stage3").exists():
            model = self._model_from("stage2", base=True)
            self.fitting.records.check_room(model, 3)
            self.fitting.records.compute_features(model)
            self._train_rpn(model, 3, model.layers("rpn"), model.layers("rpn"), frozenset())
        if 4 in self.config.stages and self._lacks_proposals(3):
            model = self._model_from("stage2", base=True)
            self._load(model.layers("rpn"), "stage3")
            self.fitting.records.check_room(model, 4)
            self.fitting.records.compute_features(model)
            self._write_proposals(model, 3)

    def _stage4(self) -> None:
        """The detector's head of stage 2, trained on, on the proposals of stage 3."""
        if self.run.weights_file("stage4").exists():
            return
        model = self._model_from("stage2", base=True, head=True)
        self.fitting.records.check_room(model, 4)
        self.fitting.records.compute_features(model)
        loaded = frozenset(layer.name for layer in model.layers("head"))
        layers = model.layers("head")
        self._train_detector(model, 4, "proposals3", layers, layers, loaded)

    def _joint(self) -> None:
        """RPN and detector in one step, py-faster-rcnn's way."""
        if self.run.weights_file(FINAL).exists():
            return
        model, loaded = self.initial_model()
        self.fitting.records.check_room(model, 0)
        pictures.save_sampled_anchors(self.run.path, model, self.units, self.config.seed)
        normalisation = Normalisation.identity(model.number_of_classes, 4)
        normalisation.std[:] = self.recipe.joint_delta_std
        trained = model.layers(trained=True)
        if model.bbox_pred.name in loaded:
            normalisation.make_normalised(model.bbox_pred)
        self.fitting.fit(
            model,
            0,
            self.recipe.joint,
            joint_objective(model, normalisation),
            trained,
            images_per_step=1,
            batches_per_step=self.recipe.joint_images_per_step,
            make_record=self.fitting.records.of(None),
            eligible=np.arange(len(self.units)),
        )
        normalisation.make_plain(model.bbox_pred)
        self._save(model.layers(), FINAL)
        Checkpoints(self.run.checkpoints, 0).clear()

    def _write_final(self) -> None:
        if self.run.weights_file(FINAL).exists():
            return
        model = self._model_from("stage2", base=True)
        self._load(model.layers("rpn"), "stage3")
        self._load(model.layers("head"), "stage4")
        self._save(model.layers(), FINAL)

    def new_model(self) -> FasterRcnn:
        """The network with random weights drawn from the run's seed."""
        return FasterRcnn(
            self.config.network,
            self.config.class_names,
            self.recipe,
            precision=self.config.precision,
            seed=self.config.seed,
        )

    def initial_model(self) -> tuple[FasterRcnn, frozenset[str]]:
        """The network that stages 1 and 2 start from, and the layers that came from a file.

        Raises:
            UserError: the file does not fit, or is not what the run began with.
        """
        model = self.new_model()
        check_unchanged(self.config, self.options.initial_weights)
        if self.options.initial_weights is None:
            return model, frozenset()
        report = load_initial_weights(model, self.options.initial_weights)
        self.display.say(report.text())
        return model, frozenset(report.loaded)

    def _model_from(
        self, name: str, *, base: bool = False, rpn: bool = False, head: bool = False
    ) -> FasterRcnn:
        model = self.new_model()
        layers = [
            *(model.layers("base") if base else ()),
            *(model.layers("rpn") if rpn else ()),
            *(model.layers("head") if head else ()),
        ]
        self._load(layers, name)
        return model

    def _load(self, layers: Sequence, name: str) -> None:
        names = [layer.name for layer in layers]
        load_layers(layers, self.run.weights_file(name), reinitialise=(), required=names)

    def _save(self, layers: Sequence, name: str) -> None:
        metadata = weights_metadata(self.run, self.config, name)
        write_layers(self.run.weights_file(name), layers, metadata)
        self.display.say(f"weights written to {self.run.weights_file(name)}")

    def _write_proposals(self, model: FasterRcnn, stage: int) -> None:
        records = self.fitting.records
        store = make_proposals(
            model, self.units, records.of(None), records.features, self.display.passes
        )
        record = record_of(self.run, self.config, f"proposals{stage}")
        store.save(self.run.proposals_file(stage), record)
        counts = np.diff(store.offsets)
        self.display.say(
            f"{len(store.scores)} proposals, {counts.mean():.0f} an image "
            f"({counts.min()} to {counts.max()}), written to {self.run.proposals_file(stage)}"
        )

    def _units_with_progress(self) -> Iterator[TrainingUnit]:
        return self.display.passes(self.units, "box targets of all training images")

    def _train_rpn(
        self, model: FasterRcnn, stage: int, trained, saved, loaded: frozenset[str]
    ) -> None:
        normalisation = Normalisation.identity(4)
        if self.recipe.rpn.normalise_targets:
            normalisation = rpn_statistics(model, self._units_with_progress())
        if model.rpn_bbox_pred.name in loaded:
            normalisation.make_normalised(model.rpn_bbox_pred)
        self.fitting.fit(
            model,
            stage,
            self.recipe.stages[stage - 1],
            rpn_objective(model, normalisation),
            trained,
            images_per_step=self.recipe.rpn.images_per_step,
            batches_per_step=1,
            make_record=self.fitting.records.of(None),
            eligible=np.arange(len(self.units)),
        )
        normalisation.make_plain(model.rpn_bbox_pred)
        self._save(saved, f"stage{stage}")
        Checkpoints(self.run.checkpoints, stage).clear()

    def _train_detector(
        self,
        model: FasterRcnn,
        stage: int,
        proposals: str,
        trained,
        saved,
        loaded: frozenset[str],
    ) -> None:
        file = file_of(self.run, proposals)
        store = ProposalStore.load(file, [unit.key for unit in self.units])
        check_record(store.record, self.run, self.config, proposals)
        store.check_boxes(file, self.units)
        pictures.save_sampled_rois(self.run.path, model, self.units, store, self.config.seed, stage)
        normalisation = detector_statistics(model, self._units_with_progress(), store.boxes_of)
        if model.bbox_pred.name in loaded:
            normalisation.make_normalised(model.bbox_pred)
        images_per_step = self.recipe.detector.images_per_step
        self.fitting.fit(
            model,
            stage,
            self.recipe.stages[stage - 1],
            detector_objective(model, normalisation, images_per_step),
            trained,
            images_per_step=images_per_step,
            batches_per_step=1,
            make_record=self.fitting.records.of(store),
            eligible=self.fitting.eligible(stage),
        )
        normalisation.make_plain(model.bbox_pred)
        self._save(saved, f"stage{stage}")
        Checkpoints(self.run.checkpoints, stage).clear()
