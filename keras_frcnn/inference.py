"""From images to detections in original pixels: one compiled function, used by test and export.

Shapes and names
----------------
N  images of a batch, D  detections kept.
images  (N, H, W, 3) uint8 RGB of one size, any H and W from 1.
inputs  (N, h, w, 3) float32, what the network reads, of images of one size or of several.
*_image  pixels of the original image, *_input  pixels of the rescaled network input.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from keras_frcnn.data.network_input import Frames, network_input
from keras_frcnn.errors import UserError
from keras_frcnn.evaluation.detection_files import ImageDetections
from keras_frcnn.multi_scale import Level, detect_at_nearest, pyramid
from keras_frcnn.network.detections import select_detections
from keras_frcnn.network.faster_rcnn import FasterRcnn
from keras_frcnn.network.proposals import select_proposals
from keras_frcnn.network.weights import load_layers
from keras_frcnn.provenance import check_weights
from keras_frcnn.recipes import DetectionFilter, ProposalConfig
from keras_frcnn.runs import FINAL, RunFolder


class PredictedBoxes(NamedTuple):
    """Detections of a batch, best first, zero-padded.

    Attributes:
        boxes_image: (N, D, 4) float32 (y1, x1, y2, x2) in original pixels.
        scores: (N, D) float32.
        classes: (N, D) int32, 1-based.
        count: (N,) int32.
        best_scores: (N, C - 1) float32, best score of each class before any filter.
    """

    boxes_image: tf.Tensor
    scores: tf.Tensor
    classes: tf.Tensor
    count: tf.Tensor
    best_scores: tf.Tensor


class Found(NamedTuple):
    """What was found in one image.

    Attributes:
        detections: in pixels of the image.
        best_scores: (C - 1,) best score of each class before any filter.
    """

    detections: ImageDetections
    best_scores: np.ndarray


class Predictor(tf.Module):
    """Runs proposals and detector on images of one size, or on inputs of one size.

    Args:
        model: the network; proposals come from its RPN, detections from its detector.
        detection_filter: which detections are kept.
        proposals: how many proposals are made; default: the recipe's for testing (300).
        detector_model: another network whose base and detector are used with the proposals of
            ``model``: the paper's unshared variant, as after stage 2.
        head_chunk: the most RoIs that go through the head at once; ``None``: all.
        short_sides: scales for the detector, see :mod:`keras_frcnn.multi_scale`; default: the
            recipe's own.
    """

    def __init__(
        self,
        model: FasterRcnn,
        detection_filter: DetectionFilter,
        *,
        proposals: ProposalConfig | None = None,
        detector_model: FasterRcnn | None = None,
        head_chunk: int | None = None,
        short_sides: Sequence[int] = (),
    ):
        super().__init__(name="predictor")
        self.model = model
        self.detector_model = model if detector_model is None else detector_model
        self.detection_filter = detection_filter
        self.proposals = model.recipe.test_proposals if proposals is None else proposals
        self.head_chunk = head_chunk
        self.short_sides = tuple(short_sides)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Foreground classes in order."""
        return self.model.class_names

    @property
    def traces(self) -> int:
        """How often :meth:`predict` was traced: once, whatever the shapes."""
        return self.predict.experimental_get_tracing_count()

    @tf.function(input_signature=[tf.TensorSpec((None, None, None, 3), tf.uint8)])
    def predict(self, images: tf.Tensor) -> PredictedBoxes:
        """Detections of (N, H, W, 3) uint8 images, traced once whatever their size."""
        inputs, frames = network_input(images, self.model.recipe.image)
        return self.detections(inputs, frames, images)

    def detections(
        self, inputs: tf.Tensor, frames: Frames, images: tf.Tensor | None = None
    ) -> PredictedBoxes:
        """Detections of (N, h, w, 3) float32 inputs.

        Args:
            frames: of the images that they were made of.
            images: these, (N, H, W, 3) uint8; needed where there are ``short_sides``.
        """
        features = self.model.base(inputs, training=False)
        shape = tf.shape(features)
        logits, deltas = self.model.rpn_head(features)
        proposals = select_proposals(
            logits,
            deltas,
            self.model.anchors(shape[1], shape[2]),
            frames.sizes_input,
            frames.scales,
            self.proposals,
        )
        if self.detector_model is not self.model:
            features = self.detector_model.base(inputs, training=False)
        return detect_rois(
            self.detector_model,
            features,
            proposals.boxes_input,
            proposals.count,
            frames,
            self.detection_filter,
            images=images,
            head_chunk=self.head_chunk,
            short_sides=self.short_sides,
        )

    def detect(self, image: np.ndarray) -> Found:
        """Detections of one (H, W, 3) uint8 image."""
        return found_in_each(self.predict(image[None]))[0]


def detect_rois(
    model: FasterRcnn,
    features: tf.Tensor,
    rois: tf.Tensor,
    count: tf.Tensor,
    frames: Frames,
    detection_filter: DetectionFilter,
    *,
    images: tf.Tensor | None = None,
    head_chunk: int | None = None,
    short_sides: Sequence[int] = (),
) -> PredictedBoxes:
    """Runs the detector on RoIs and filters, in original pixels.

    Args:
        model: its detector is used.
        features: of its base at the recipe's scale.
        rois: (N, R, 4) in pixels of the input at that scale, zero-padded, R at least 1.
        count: (N,) RoIs that are real.
        frames: of the images at that scale.
        images: (N, H, W, 3) uint8, for other scales.
        head_chunk: the most RoIs that go through the head at once; ``None``: all.
        short_sides: scales of :mod:`keras_frcnn.multi_scale`; none: the recipe's own.
    """
    head = functools.partial(run_head, model, head_chunk)
    batch, per_image = tf.shape(rois)[0], tf.shape(rois)[1]
    flat = tf.reshape(rois, (-1, 4))
    roi_image = tf.repeat(tf.range(batch), per_image)
    if short_sides:
        own = Level(features, frames.scales[0])  # one for all: the images are of one size
        levels = pyramid(images, model.base, model.recipe.image, short_sides, own)
        outputs = detect_at_nearest(levels, own.scale, flat, roi_image, head)
    else:
        outputs = head(features, flat, roi_image)
    class_logits, class_deltas = (
        tf.reshape(output, (batch, per_image, output.shape[-1])) for output in outputs
    )
    found = select_detections(
        class_logits, class_deltas, rois, count, frames.sizes_input, detection_filter
    )
    # Division may leave the border by a rounding error: 0 <= boxes <= size in original pixels.
    border = tf.tile(tf.cast(frames.sizes_image, tf.float32), (1, 2))[:, None]
    boxes_image = tf.minimum(found.boxes_input / tf.tile(frames.scales, (1, 2))[:, None], border)
    return PredictedBoxes(boxes_image, found.scores, found.classes, found.count, found.best_scores)


def run_head(
    model: FasterRcnn,
    head_chunk: int | None,
    features: tf.Tensor,
    rois: tf.Tensor,
    roi_image: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Logits (R, C) and deltas (R, 4 * C) of (R, 4) RoIs; R is at least 1.

    Args:
        head_chunk: the most RoIs at once; ``None``: all.
    """
    if head_chunk is None:
        return tuple(model.detector([features, rois, roi_image]))
    classes = model.number_of_classes
    chunks = -(-tf.shape(rois)[0] // head_chunk)
    logits = tf.TensorArray(tf.float32, chunks, element_shape=(None, classes), infer_shape=False)
    deltas = tf.TensorArray(
        tf.float32, chunks, element_shape=(None, 4 * classes), infer_shape=False
    )
    for index in tf.range(chunks):
        part = slice(index * head_chunk, (index + 1) * head_chunk)
        outputs = model.detector([features, rois[part], roi_image[part]])
        logits = logits.write(index, outputs[0])
        deltas = deltas.write(index, outputs[1])
    return logits.concat(), deltas.concat()


def found_in_each(batch: PredictedBoxes) -> list[Found]:
    """What was found in each image of a batch, without the padding."""
    arrays = PredictedBoxes(*(tensor.numpy() for tensor in batch))
    return [
        Found(ImageDetections(boxes[:count], scores[:count], classes[:count]), best)
        for boxes, scores, classes, count, best in zip(*arrays, strict=True)
    ]


def load_model(
    run: RunFolder,
    weights: str = FINAL,
    *,
    precision: str | None = None,
    half_weights: bool = False,
    stage_flag: str | None = None,
) -> FasterRcnn:
    """The network of a run with the weights of one of its files.

    Args:
        run: an existing run folder.
        weights: ``"final"``, or a stage such as ``"stage2"``, of which only the layers that it
            trained (and the base) are meaningful.
        precision: default: the run's.
        half_weights: see :class:`FasterRcnn`.
        stage_flag: the user's flag for the stage, if there is one: errors then name it.

    Raises:
        UserError: the run is not finished that far, or its files do not fit.
    """
    config = run.read_config()
    file = run.weights_file(weights)
    if not file.exists():
        finished = sorted(path.name.split(".")[0] for path in file.parent.glob("*.weights.h5"))
        unshared = weights == FINAL and {"stage1", "stage2"} <= set(finished)
        advice = f", or give {stage_flag} 2" if unshared and stage_flag else ""
        raise UserError(
            f"{run.path} has no {weights} weights yet"
            + (f" (finished: {', '.join(finished)})" if finished else "")
            + (
                f"; finish the training with --resume{advice}."
                if config.compression is None
                else "; a compressed run has its result only."
            )
        )
    model = FasterRcnn(
        config.network,
        config.class_names,
        config.recipe,
        precision=config.precision if precision is None else precision,
        seed=None,
        # Compression is of the detector: stage 1, the RPN of the unshared variant, has none.
        compression=None if weights == "stage1" else config.compression,
        half_weights=half_weights,
    )
    trained = {
        FINAL: model.all_layers,
        "stage1": [*model.base_layers, *model.rpn_layers],
        "stage2": [*model.base_layers, *model.head_layers],
    }
    required = [layer.name for layer in trained.get(weights, ())]
    check_weights(run, config, weights, sources=False)
    load_layers(model.all_layers, file, reinitialise=(), required=required)
    return model


def result_stage(run: RunFolder) -> int:
    """The stage whose weights are the result of a run: 4, or 2 where it stopped before (unshared).

    Raises:
        UserError: no run lies here, or it was to train the RPN only.
    """
    config = run.read_config()
    if config.mode == "joint" or 4 in config.stages:
        return 4
    if 2 in config.stages:
        return 2
    raise UserError(f"{run.path} holds no detector: it was trained with --stages 1.")


def load_predictor(
    run_path: Path | str,
    detection_filter: DetectionFilter | None = None,
    *,
    stage: int | None = None,
    number_of_proposals: int | None = None,
    head_chunk: int | None = None,
    short_sides: Sequence[int] = (),
    precision: str | None = None,
    stage_flag: str | None = None,
) -> Predictor:
    """A predictor from a run folder.

    Args:
        run_path: the run folder.
        detection_filter: default: the recipe's for testing.
        stage: ``2`` gives the unshared variant (RPN of stage 1, detector of stage 2), ``4`` the
            final network; default: :func:`result_stage`.
        number_of_proposals: default: the recipe's 300.
        head_chunk, short_sides: see :class:`Predictor`.
        precision: default: the run's.
        stage_flag: see :func:`load_model`.

    Raises:
        UserError: as :func:`load_model` and :func:`result_stage`, or stage 2 of joint training.
    """
    run = RunFolder(run_path)
    run.check_makes_proposals()
    if stage is None:
        stage = result_stage(run)
    elif stage == 2 and run.read_config().mode == "joint":
        raise UserError(f"{run.path} was trained with --mode joint, which has no stage 2.")
    load = functools.partial(
        load_model, run, precision=precision, half_weights=True, stage_flag=stage_flag
    )
    if stage == 2:
        model, detector_model = load("stage1"), load("stage2")
    else:
        model, detector_model = load(FINAL), None
    proposals = model.recipe.test_proposals
    if number_of_proposals is not None:
        before = proposals.before_nms
        if before is not None:
            before = max(before, number_of_proposals)
        proposals = dataclasses.replace(proposals, before_nms=before, after_nms=number_of_proposals)
    return Predictor(
        model,
        model.recipe.test_filter if detection_filter is None else detection_filter,
        proposals=proposals,
        detector_model=detector_model,
        head_chunk=head_chunk,
        short_sides=short_sides,
    )
