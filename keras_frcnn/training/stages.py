"""The four alternating steps (section 3.2) and approximate joint training.

1. RPN from ImageNet; its proposals.  2. Fast R-CNN from ImageNet again, on those proposals.
3. A new RPN head on the detector's convolutions, which stay as they are; its proposals.
4. The detector's head on the same convolutions and the new proposals.

Every stage starts from files, so a run goes on after an interruption with the first stage whose
weights are missing.

Shapes and names
----------------
stage  1 to 4; 0 is joint training.
unit   one training image in one orientation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_frcnn.data.dataset import Dataset
from keras_frcnn.data.pipeline import batch_signature, batches, unit_record
from keras_frcnn.network.faster_rcnn import FasterRcnn
from keras_frcnn.network.weights import LoadReport, load_layers, write_layers
from keras_frcnn.recipes import StageSchedule
from keras_frcnn.runs import FINAL, RunConfig, RunFolder
from keras_frcnn.training import normalisation as normalise
from keras_frcnn.training import pictures
from keras_frcnn.training.checkpoint import Checkpoints
from keras_frcnn.training.display import TrainingDisplay
from keras_frcnn.training.feature_cache import FeatureCache, feature_shapes, plan_cache
from keras_frcnn.training.loop import run_stage
from keras_frcnn.training.optimizer import (
    LossScale,
    MomentumOptimizer,
    tensorflow_variable,
)
from keras_frcnn.training.passes import fill_feature_cache, make_proposals
from keras_frcnn.training.proposal_store import ProposalStore
from keras_frcnn.training.step import (
    DeltaNormalisation,
    TrainingStep,
    detector_objective,
    joint_objective,
    rpn_objective,
)
from keras_frcnn.training.units import training_units, unit_order
from keras_frcnn.visualize import save_curves

TITLES = {
    0: "joint training",
    1: "stage 1/4, RPN",
    2: "stage 2/4, Fast R-CNN",
    3: "stage 3/4, RPN on shared convolutions",
    4: "stage 4/4, Fast R-CNN on shared convolutions",
}


@dataclass(frozen=True)
class TrainingOptions:
    """How, not what, to train: nothing here changes a result.

    Attributes:
        initial_weights: the file that stages 1 and 2 start from; ``None``: random.
        feature_cache: ``auto``, ``memory``, ``disk`` or ``off``.
        cache_budget: GiB for it; ``None``: by what is free.
        checkpoint_seconds: time between checkpoints.
        workers: decoding threads.
    """

    initial_weights: Path | None
    feature_cache: str = "auto"
    cache_budget: float | None = None
    checkpoint_seconds: float = 600.0
    workers: int = 2


class Trainer:
    """Trains one run, stage by stage.

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
        self.cache: FeatureCache | None = None
        self.writer = tf.summary.create_file_writer(str(run.path / "tensorboard"))

    def train(self) -> None:
        """Runs every stage that was asked for and is not finished yet."""
        if self.config.mode == "joint":
            self._joint()
        else:
            for stage in self.config.stages:
                getattr(self, f"_stage{stage}")()
            if 4 in self.config.stages:
                self._write_final()
        if self.cache is not None:
            self.cache.close()
            self.cache = None

    def _stage1(self) -> None:
        """RPN, from the initial weights."""
        if not self.run.weights_file("stage1").exists():
            model = self.initial_model()
            pictures.save_sampled_anchors(self.run.path, model, self.units, self.config.seed)
            trained = [*model.trained_base_layers(), *model.rpn_layers]
            self._train_rpn(model, 1, trained, [*model.base_layers, *model.rpn_layers])
        if not self.run.proposals_file(1).exists():
            model = self._model_from("stage1", base=True, rpn=True)
            self._write_proposals(model, 1)

    def _stage2(self) -> None:
        """Fast R-CNN, from the initial weights again, on the proposals of stage 1."""
        if self.run.weights_file("stage2").exists():
            return
        model = self.initial_model()
        trained = [*model.trained_base_layers(), *model.head_layers]
        self._train_detector(model, 2, 1, trained, [*model.base_layers, *model.head_layers])

    def _stage3(self) -> None:
        """A new RPN head on the convolutions of stage 2."""
        if not self.run.weights_file("stage3").exists():
            model = self._model_from("stage2", base=True)
            self._compute_features(model)
            self._train_rpn(model, 3, model.rpn_layers, model.rpn_layers)
        if not self.run.proposals_file(3).exists():
            model = self._model_from("stage2", base=True)
            self._load(model.rpn_layers, "stage3")
            self._compute_features(model)
            self._write_proposals(model, 3)

    def _stage4(self) -> None:
        """The detector's head of stage 2, trained on, on the proposals of stage 3."""
        if self.run.weights_file("stage4").exists():
            return
        model = self._model_from("stage2", base=True, head=True)
        self._compute_features(model)
        self._train_detector(model, 4, 3, model.head_layers, model.head_layers)

    def _joint(self) -> None:
        """RPN and detector in one step, py-faster-rcnn's way."""
        if self.run.weights_file(FINAL).exists():
            return
        model = self.initial_model()
        pictures.save_sampled_anchors(self.run.path, model, self.units, self.config.seed)
        std = self.recipe.detector.fixed_delta_std or (
            0.1,
            0.1,
            0.2,
            0.2,
        )  # config.py:87-89
        normalisation = DeltaNormalisation.identity(model.number_of_classes)
        normalisation.detector_stds[:] = std
        trained = [*model.trained_base_layers(), *model.rpn_layers, *model.head_layers]
        bbox_pred = model.head_layers[-1]
        normalise.unfold(bbox_pred, normalisation.detector_means, normalisation.detector_stds)
        self._fit(
            model,
            0,
            self.recipe.joint,
            joint_objective(model, normalisation),
            trained,
            images_per_step=1,
            batches_per_step=self.recipe.joint_images_per_step,
            make_record=self._records(None),
            eligible=np.arange(len(self.units)),
        )
        normalise.fold(bbox_pred, normalisation.detector_means, normalisation.detector_stds)
        self._save(model.all_layers, FINAL)
        Checkpoints(self.run.checkpoints, 0).clear()

    def _write_final(self) -> None:
        if self.run.weights_file(FINAL).exists():
            return
        model = self._model_from("stage2", base=True)
        self._load(model.rpn_layers, "stage3")
        self._load(model.head_layers, "stage4")
        self._save(model.all_layers, FINAL)

    def new_model(self) -> FasterRcnn:
        """The network with random weights drawn from the run's seed."""
        return FasterRcnn(
            self.config.network,
            self.config.class_names,
            self.recipe,
            precision=self.config.precision,
            seed=self.config.seed,
        )

    def initial_model(self) -> FasterRcnn:
        """The network with the weights that stages 1 and 2 start from."""
        model = self.new_model()
        if self.options.initial_weights is not None:
            report = load_layers(model.all_layers, self.options.initial_weights)
            self.display.say(report.text())
        return model

    def _model_from(
        self, name: str, *, base: bool = False, rpn: bool = False, head: bool = False
    ) -> FasterRcnn:
        model = self.new_model()
        layers = [
            *(model.base_layers if base else ()),
            *(model.rpn_layers if rpn else ()),
            *(model.head_layers if head else ()),
        ]
        self._load(layers, name)
        return model

    def _load(self, layers: Sequence, name: str) -> LoadReport:
        names = [layer.name for layer in layers]
        return load_layers(layers, self.run.weights_file(name), reinitialise=(), required=names)

    def _save(self, layers: Sequence, name: str) -> None:
        write_layers(
            self.run.weights_file(name),
            layers,
            {
                "network": self.config.network,
                "class_names": list(self.config.class_names),
                "recipe": self.recipe.name,
                "stage": name,
            },
        )
        self.display.say(f"weights written to {self.run.weights_file(name)}")

    def _records(self, store: ProposalStore | None) -> Callable[[int], dict]:
        cache = self.cache

        def make_record(index: int) -> dict:
            return unit_record(
                index,
                self.units[index],
                self.recipe.image,
                proposals_image=None if store is None else store.boxes_of(index),
                features=None if cache is None else cache.get(index),
            )

        return make_record

    def _compute_features(self, model: FasterRcnn) -> None:
        """Fills the cache for stages 3 and 4, once, where there is room."""
        if self.cache is not None:
            return
        shapes = feature_shapes(model, self.units)
        size = int(np.prod(shapes, axis=1).sum()) * 2
        plan = plan_cache(
            size, self.run.path, self.options.feature_cache, self.options.cache_budget
        )
        self.display.say(f"feature cache: {plan.text()}")
        if plan.place == "off":
            return
        file = self.run.path / "features.bin" if plan.place == "disk" else None
        dtype = tf.bfloat16 if self.config.precision == "bfloat16" else tf.float16
        cache = FeatureCache(shapes, dtype, file)
        fill_feature_cache(model, self.units, self._records(None), cache, self.display.passes)
        self.cache = cache

    def _write_proposals(self, model: FasterRcnn, stage: int) -> None:
        store = make_proposals(
            model, self.units, self._records(None), self.cache, self.display.passes
        )
        store.save(self.run.proposals_file(stage))
        counts = np.diff(store.offsets)
        self.display.say(
            f"{len(store.scores)} proposals, {counts.mean():.0f} an image "
            f"({counts.min()} to {counts.max()}), written to {self.run.proposals_file(stage)}"
        )

    def _train_rpn(self, model: FasterRcnn, stage: int, trained, saved) -> None:
        normalisation = DeltaNormalisation.identity(model.number_of_classes)
        if self.recipe.rpn.normalise_targets:
            mean, std = normalise.rpn_statistics(model, self.units)
            normalisation.rpn_mean[:], normalisation.rpn_std[:] = mean, std
        bbox_pred = model.rpn_layers[-1]
        self._fit(
            model,
            stage,
            self.recipe.stages[stage - 1],
            rpn_objective(model, normalisation),
            trained,
            images_per_step=self.recipe.rpn.images_per_step,
            batches_per_step=1,
            make_record=self._records(None),
            eligible=np.arange(len(self.units)),
        )
        normalise.fold(bbox_pred, normalisation.rpn_mean, normalisation.rpn_std)
        self._save(saved, f"stage{stage}")
        Checkpoints(self.run.checkpoints, stage).clear()

    def _train_detector(
        self, model: FasterRcnn, stage: int, proposals_of: int, trained, saved
    ) -> None:
        store = ProposalStore.load(
            self.run.proposals_file(proposals_of), [unit.key for unit in self.units]
        )
        pictures.save_sampled_rois(self.run.path, model, self.units, store, self.config.seed, stage)
        normalisation = DeltaNormalisation.identity(model.number_of_classes)
        if self.recipe.detector.fixed_delta_std is not None:
            normalisation.detector_stds[:] = self.recipe.detector.fixed_delta_std
        else:
            means, stds = normalise.detector_statistics(model, self.units, store.boxes_of)
            normalisation.detector_means[:], normalisation.detector_stds[:] = (
                means,
                stds,
            )
        bbox_pred = model.head_layers[-1]
        normalise.unfold(bbox_pred, normalisation.detector_means, normalisation.detector_stds)
        images_per_step = self.recipe.detector.images_per_step
        self._fit(
            model,
            stage,
            self.recipe.stages[stage - 1],
            detector_objective(model, normalisation, images_per_step),
            trained,
            images_per_step=images_per_step,
            batches_per_step=1,
            make_record=self._records(store),
            eligible=self._eligible(stage),
        )
        normalise.fold(bbox_pred, normalisation.detector_means, normalisation.detector_stds)
        self._save(saved, f"stage{stage}")
        Checkpoints(self.run.checkpoints, stage).clear()

    def _eligible(self, stage: int) -> np.ndarray:
        """Units that can give RoIs: with a lower background IoU above 0, those with objects."""
        if self.recipe.detector.background_iou_low <= 0:
            return np.arange(len(self.units))
        has_objects = np.array([len(unit.example.classes) > 0 for unit in self.units])
        left_out = [
            unit.key for unit, kept in zip(self.units, has_objects, strict=True) if not kept
        ]
        if left_out:
            self.display.say(
                f"stage {stage}: {len(left_out)} images without objects give no RoI and are left "
                f"out: {', '.join(left_out[:5])}{' ...' if len(left_out) > 5 else ''}"
            )
        return np.flatnonzero(has_objects)

    def _fit(
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
        variables = [
            tensorflow_variable(weight)
            for layer in trained_layers
            for weight in layer.trainable_weights
        ]
        optimizer = MomentumOptimizer(variables, self.recipe.optimizer)
        loss_scale = LossScale(dynamic=self.config.precision == "float16")
        checkpoints = Checkpoints(self.run.checkpoints, stage)
        first, _, notes = checkpoints.restore(optimizer, loss_scale)
        for note in notes:
            self.display.say(note)
        if first:
            self.display.say(f"going on after iteration {first}")
        self.run.forget_metrics_after(stage, first)
        channels = None if self.cache is None else model.backbone.channels
        feature_dtype = None if self.cache is None else self.cache.dtype
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

        dataset = batches(
            make_record,
            order,
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
        )
        with self.display.stage(stage, TITLES[stage], schedule.iterations, first) as line:
            run_stage(
                step,
                dataset,
                schedule,
                stage=stage,
                seed=self.config.seed,
                first_iteration=first,
                batches_per_step=batches_per_step,
                unit_name=lambda index: self.units[index].key,
                display=line,
                log=self._log,
                save_checkpoint=lambda done: checkpoints.save(done, optimizer, loss_scale, {}),
                checkpoint_seconds=self.options.checkpoint_seconds,
            )
        if self.run.metrics_file.exists():
            save_curves(self.run.metrics_file, self.run.path / "curves.png")

    def _log(self, record: dict) -> None:
        self.run.append_metrics(record)
        with self.writer.as_default(step=record["iteration"]):
            for name, value in record.items():
                if name not in ("stage", "iteration"):
                    tf.summary.scalar(f"stage{record['stage']}/{name}", value)
