"""From images to detections in original pixels: one compiled function, used by test and export.

Shapes and names
----------------
N  images of one size, D  detections kept.
images  (N, H, W, 3) uint8 RGB, any H and W from 1.
*_image  pixels of the original image, *_input  pixels of the rescaled network input.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from keras_frcnn.data.images import prepare_image
from keras_frcnn.errors import UserError
from keras_frcnn.evaluation.detection_files import ImageDetections
from keras_frcnn.network.detections import select_detections
from keras_frcnn.network.faster_rcnn import FasterRcnn
from keras_frcnn.network.proposals import select_proposals
from keras_frcnn.network.weights import load_layers
from keras_frcnn.recipes import DetectionFilter, ImageConfig, ProposalConfig
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


class Predictor(tf.Module):
    """Runs proposals and detector on images of one size.

    Args:
        model: the network; proposals come from its RPN, detections from its detector.
        detection_filter: which detections are kept.
        proposals: how many proposals are made; default: the recipe's for testing (300).
        detector_model: another network whose base and detector are used with the proposals of
            ``model``: the paper's unshared variant, as after stage 2.
        head_chunk: the most RoIs that go through the head at once; ``None``: all.
    """

    def __init__(
        self,
        model: FasterRcnn,
        detection_filter: DetectionFilter,
        *,
        proposals: ProposalConfig | None = None,
        detector_model: FasterRcnn | None = None,
        head_chunk: int | None = None,
    ):
        super().__init__(name="predictor")
        self.model = model
        self.detector_model = model if detector_model is None else detector_model
        self.detection_filter = detection_filter
        self.proposals = model.recipe.test_proposals if proposals is None else proposals
        self.head_chunk = head_chunk

    @property
    def class_names(self) -> tuple[str, ...]:
        """Foreground classes in order."""
        return self.model.class_names

    @tf.function(input_signature=[tf.TensorSpec((None, None, None, 3), tf.uint8)])
    def predict(self, images: tf.Tensor) -> PredictedBoxes:
        """Detections of (N, H, W, 3) uint8 images, traced once whatever their size."""
        inputs, sizes, scale = network_input(images, self.model.recipe.image)
        scales = tf.tile(scale[None], (tf.shape(images)[0], 1))
        features = self.model.base(inputs, training=False)
        shape = tf.shape(features)
        logits, deltas = self.model.rpn_head(features)
        proposals = select_proposals(
            logits,
            deltas,
            self.model.anchors(shape[1], shape[2]),
            sizes,
            scales,
            self.proposals,
        )
        if self.detector_model is not self.model:
            features = self.detector_model.base(inputs, training=False)
        class_logits, class_deltas = self._detect(features, proposals.boxes_input)
        outputs = class_logits, class_deltas
        return self._select(outputs, proposals.boxes_input, proposals.count, images, sizes, scale)

    @tf.function(
        input_signature=[
            tf.TensorSpec((None, None, None, 3), tf.uint8),
            tf.TensorSpec((None, None, 4), tf.float32),
            tf.TensorSpec((None,), tf.int32),
        ]
    )
    def predict_on(
        self, images: tf.Tensor, boxes_image: tf.Tensor, count: tf.Tensor
    ) -> PredictedBoxes:
        """Detections of (N, H, W, 3) uint8 images on boxes that are given, without the RPN.

        The boxes are used as they are: no smallest side, no suppression among them.

        Args:
            boxes_image: (N, R, 4) in original pixels, zero-padded, R at least 1.
            count: (N,) boxes that are real.
        """
        inputs, sizes, scale = network_input(images, self.model.recipe.image)
        features = self.detector_model.base(inputs, training=False)
        rois = boxes_image * tf.tile(scale, [2])
        outputs = self._detect(features, rois)
        return self._select(outputs, rois, count, images, sizes, scale)

    def _select(self, outputs, rois, count, images, sizes, scale) -> PredictedBoxes:
        """Detections in original pixels from the head's outputs for (N, R, 4) RoIs."""
        found = select_detections(*outputs, rois, count, sizes, self.detection_filter)
        # Division may leave the border by a rounding error: 0 <= boxes <= size in original pixels.
        height, width = tf.shape(images)[1], tf.shape(images)[2]
        border = tf.cast(tf.stack((height, width, height, width)), tf.float32)
        boxes_image = tf.minimum(found.boxes_input / tf.tile(scale, [2]), border)
        return PredictedBoxes(
            boxes_image, found.scores, found.classes, found.count, found.best_scores
        )

    def _detect(self, features: tf.Tensor, rois: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Head outputs (N, R, C) and (N, R, 4 * C) of (N, R, 4) RoIs."""
        images, per_image = tf.shape(rois)[0], tf.shape(rois)[1]
        flat = tf.reshape(rois, (-1, 4))
        roi_image = tf.repeat(tf.range(images), per_image)
        if self.head_chunk is None:
            outputs = self.detector_model.detector([features, flat, roi_image])
        else:
            outputs = self._detect_in_chunks(features, flat, roi_image)
        return tuple(
            tf.reshape(output, (images, per_image, output.shape[-1])) for output in outputs
        )

    def _detect_in_chunks(self, features, rois, roi_image):
        classes = self.detector_model.number_of_classes
        total = tf.shape(rois)[0]
        chunks = -(-total // self.head_chunk)
        logits = tf.TensorArray(
            tf.float32, chunks, element_shape=(None, classes), infer_shape=False
        )
        deltas = tf.TensorArray(
            tf.float32, chunks, element_shape=(None, 4 * classes), infer_shape=False
        )
        for index in tf.range(chunks):
            part = slice(index * self.head_chunk, (index + 1) * self.head_chunk)
            outputs = self.detector_model.detector([features, rois[part], roi_image[part]])
            logits = logits.write(index, outputs[0])
            deltas = deltas.write(index, outputs[1])
        return logits.concat(), deltas.concat()

    def detect(self, image: np.ndarray) -> tuple[ImageDetections, np.ndarray]:
        """Detections of one (H, W, 3) uint8 image, and the best score of each class (C - 1,)."""
        return _first(self.predict(image[None]))

    def detect_on(
        self, image: np.ndarray, boxes_image: np.ndarray
    ) -> tuple[ImageDetections, np.ndarray]:
        """As :meth:`detect`, on the (R, 4) boxes that are given; R may be 0."""
        boxes = np.asarray(boxes_image, np.float32).reshape(1, -1, 4)
        count = boxes.shape[1]
        if count == 0:  # RoI pooling has no empty batch
            boxes = np.array([[[0, 0, 1, 1]]], np.float32)
        return _first(self.predict_on(image[None], boxes, np.array([count], np.int32)))


def network_input(images: tf.Tensor, config: ImageConfig) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Inputs (N, h, w, 3) of (N, H, W, 3) uint8 images, their sizes (N, 2) and the scale (2,)."""
    inputs, scale = prepare_image(
        images,
        short_side=config.short_side,
        long_side=config.long_side,
        pixel_means_rgb=config.pixel_means_rgb,
    )
    sizes = tf.tile(tf.shape(inputs)[None, 1:3], (tf.shape(images)[0], 1))
    return inputs, sizes, scale


def _first(found: PredictedBoxes) -> tuple[ImageDetections, np.ndarray]:
    """Detections of the first image of a batch, and the best score of each class (C - 1,)."""
    count = int(found.count[0])
    detections = ImageDetections(
        found.boxes_image[0, :count].numpy(),
        found.scores[0, :count].numpy(),
        found.classes[0, :count].numpy(),
    )
    return detections, found.best_scores[0].numpy()


def load_model(run: RunFolder, weights: str = FINAL) -> FasterRcnn:
    """The network of a run with the weights of one of its files.

    Args:
        run: an existing run folder.
        weights: ``"final"``, or a stage such as ``"stage2"``, of which only the layers that it
            trained (and the base) are meaningful.

    Raises:
        UserError: the run is not finished that far, or its files do not fit.
    """
    config = run.read_config()
    file = run.weights_file(weights)
    if not file.exists():
        finished = sorted(path.name.split(".")[0] for path in file.parent.glob("*.weights.h5"))
        raise UserError(
            f"{run.path} has no {weights} weights yet"
            + (f" (finished: {', '.join(finished)})" if finished else "")
            + "; finish the training with --resume."
        )
    model = FasterRcnn(
        config.network,
        config.class_names,
        config.recipe,
        precision=config.precision,
        seed=config.seed,
    )
    required = [layer.name for layer in model.all_layers] if weights == FINAL else []
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
) -> Predictor:
    """A predictor from a run folder.

    Args:
        run_path: the run folder.
        detection_filter: default: the recipe's for testing.
        stage: ``2`` gives the unshared variant (RPN of stage 1, detector of stage 2), ``4`` the
            final network; default: :func:`result_stage`.
        number_of_proposals: default: the recipe's 300.
        head_chunk: see :class:`Predictor`.

    Raises:
        UserError: as :func:`load_model` and :func:`result_stage`, or stage 2 of joint training.
    """
    run = RunFolder(run_path)
    run.check_makes_proposals()
    if stage is None:
        stage = result_stage(run)
    elif stage == 2 and run.read_config().mode == "joint":
        raise UserError(f"{run.path} was trained with --mode joint, which has no stage 2.")
    if stage == 2:
        model, detector_model = load_model(run, "stage1"), load_model(run, "stage2")
    else:
        model, detector_model = load_model(run), None
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
    )
