"""The detector of a run: a network that finds objects itself, or classifies given boxes.

Shapes and names
----------------
N  images of a batch, R  boxes of each (zero-padded), D  detections kept.
images  (N, H, W, 3) uint8 RGB of one size, any H and W from 1.
inputs  (N, h, w, 3) float32, what the network reads, of images of one size or of several.
*_image  pixels of the original image, *_input  pixels of the rescaled network input.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from keras_frcnn.data.dataset import Dataset
from keras_frcnn.detection.detections import ImageDetections
from keras_frcnn.detection.detector import Detector, Key
from keras_frcnn.errors import UserError
from keras_frcnn.network.faster_rcnn import FasterRcnn
from keras_frcnn.network.multi_scale import Head, Level, detect_at_nearest, pyramid
from keras_frcnn.network.network_input import Frames, frames_of, input_size, network_input
from keras_frcnn.recipes import DetectionFilter, ProposalConfig
from keras_frcnn.runs.folder import RunFolder
from keras_frcnn.runs.networks import load_model, result_stage
from keras_frcnn.runs.stage_table import FINAL
from keras_frcnn.runs.training_images import check_not_trained_on


class Found(NamedTuple):
    """Detections of a batch, best first, zero-padded.

    Attributes:
        boxes_image: (N, D, 4) float32 (y1, x1, y2, x2) in original pixels.
        scores: (N, D) float32.
        classes: (N, D) int32, 1-based.
        count: (N,) int32.
    """

    boxes_image: tf.Tensor
    scores: tf.Tensor
    classes: tf.Tensor
    count: tf.Tensor


class Origin(NamedTuple):
    """Where a network was loaded from."""

    run: RunFolder
    stage: int


class NetworkDetector(Detector):
    """Runs a network on images.

    Images of one input size go together. Nothing is padded: padding would change the features near
    it. Given boxes are used as they are, without a smallest side or suppression among them, as
    Fast R-CNN uses those of Selective Search (test.py:116-180 without the merging of equal RoIs,
    which only saves time).

    Args:
        model: the network; proposals come from its RPN, detections from its detector.
        detection_filter: which detections are kept; default: the recipe's for testing.
        proposals: how many proposals are made; default: the recipe's for testing.
        makes_proposals: False for a network without a trained RPN, which always needs boxes.
        detector_model: another network whose base and detector classify the proposals of ``model``:
            the paper's unshared variant, as after stage 2.
        head_chunk: the most RoIs that go through the head at once; ``None``: all.
        short_sides: scales for the detector, see :mod:`keras_frcnn.network.multi_scale`; default:
            the recipe's own. Images of a batch then need one size: one input size does not make the
            other scales equal.
        origin: where it was loaded from, if anywhere.
    """

    def __init__(
        self,
        model: FasterRcnn,
        detection_filter: DetectionFilter | None = None,
        *,
        proposals: ProposalConfig | None = None,
        makes_proposals: bool = True,
        detector_model: FasterRcnn | None = None,
        head_chunk: int | None = None,
        short_sides: Sequence[int] = (),
        origin: Origin | None = None,
    ):
        recipe = model.recipe
        self.model = model
        self.detector_model = model if detector_model is None else detector_model
        self._filter_given = detection_filter is not None
        self._keep(detection_filter or recipe.test_filter)
        self.proposals = proposals or recipe.test_proposals
        self.makes_proposals = makes_proposals
        self.head_chunk = head_chunk
        self.short_sides = tuple(short_sides)
        self.class_names = model.class_names
        self.strictly_greater = recipe.evaluation_strictly_greater
        self._origin = origin
        self.bits = 0 if origin is None else origin.run.read_config().data.bits
        self.source = "the network" if origin is None else str(origin.run.path)

    def _keep(self, detection_filter: DetectionFilter) -> None:
        self.detection_filter = detection_filter
        self.score_threshold = detection_filter.score_threshold
        self.mean_per_class = detection_filter.mean_per_class

    def about(self) -> dict[str, Any]:
        recipe = self.model.recipe
        return {
            "run": self.source,
            "stage": self._origin and self._origin.stage,
            "proposals": self.proposals.after_nms,
            "scales": list(self.short_sides or (recipe.image.short_side,)),
            "network": self.model.network,
            "precision": self.model.precision,
            "recipe": recipe.name,
        }

    def prepared(self, data: Dataset) -> Dataset:
        if self._origin is not None:
            check_not_trained_on(self._origin.run.training_images_file, data)
        return data.with_bits(self.bits)

    def for_evaluation(self) -> NetworkDetector:
        """With the recipe's filter for evaluation, unless another one was asked for."""
        if self._filter_given:
            return self
        detector = copy.copy(self)  # whose functions are traced anew
        detector._keep(self.model.recipe.evaluation_filter)
        return detector

    def key(self, height: int, width: int) -> Key:
        """The size of the input; at several scales the image's own size."""
        if self.short_sides:
            return height, width
        config = self.model.recipe.image
        return input_size(height, width, config.short_side, config.long_side)

    def find(
        self, images: Sequence[np.ndarray], boxes: Sequence[np.ndarray] | None = None
    ) -> list[ImageDetections]:
        if boxes is not None:
            return [self._classify(*pair) for pair in zip(images, boxes, strict=True)]
        if not self.makes_proposals:
            raise UserError(
                f"{self.source} was trained on given proposals and makes none itself; give boxes."
            )
        if self.short_sides:
            return found_in_each(self.predict(np.stack(images)))
        inputs = tf.stack([self._input_of(image) for image in images])
        sizes_image = np.array([image.shape[:2] for image in images], np.int32)
        return found_in_each(self._predict_inputs(inputs, sizes_image))

    def _classify(self, image: np.ndarray, boxes_image: np.ndarray) -> ImageDetections:
        boxes = np.asarray(boxes_image, np.float32).reshape(1, -1, 4)
        count = boxes.shape[1]
        if count == 0:  # RoI pooling has no empty batch
            boxes = np.array([[[0, 0, 1, 1]]], np.float32)
        return found_in_each(self.classify(image[None], boxes, np.array([count], np.int32)))[0]

    @tf.function(input_signature=[tf.TensorSpec((None, None, None, 3), tf.uint8)])
    def predict(self, images: tf.Tensor) -> Found:
        """Detections of (N, H, W, 3) uint8 images, traced once whatever their size."""
        inputs, frames = network_input(images, self.model.recipe.image)
        return self._with_own_proposals(inputs, frames, images)

    @tf.function(
        input_signature=[
            tf.TensorSpec((None, None, None, 3), tf.float32),
            tf.TensorSpec((None, 2), tf.int32),
        ]
    )
    def _predict_inputs(self, inputs: tf.Tensor, sizes_image: tf.Tensor) -> Found:
        return self._with_own_proposals(inputs, frames_of(inputs, sizes_image), None)

    @tf.function(
        input_signature=[
            tf.TensorSpec((None, None, None, 3), tf.uint8),
            tf.TensorSpec((None, None, 4), tf.float32),
            tf.TensorSpec((None,), tf.int32),
        ]
    )
    def classify(self, images: tf.Tensor, boxes_image: tf.Tensor, count: tf.Tensor) -> Found:
        """Classifies given boxes: (N, R, 4), R at least 1, the first ``count`` of each real."""
        inputs, frames = network_input(images, self.model.recipe.image)
        features = self.detector_model.features(inputs)
        return self._detections(features, frames.to_input(boxes_image), count, frames, images)

    @tf.function(input_signature=[tf.TensorSpec((None, None, 3), tf.uint8)])
    def _input_of(self, image: tf.Tensor) -> tf.Tensor:
        return network_input(image[None], self.model.recipe.image)[0][0]

    def _with_own_proposals(
        self, inputs: tf.Tensor, frames: Frames, images: tf.Tensor | None
    ) -> Found:
        features = self.model.features(inputs)
        found = self.model.proposals(self.model.rpn(features), frames, self.proposals)
        if self.detector_model is not self.model:
            features = self.detector_model.features(inputs)
        return self._detections(features, found.boxes_input, found.count, frames, images)

    def _detections(
        self,
        features: tf.Tensor,
        rois: tf.Tensor,
        count: tf.Tensor,
        frames: Frames,
        images: tf.Tensor | None,
    ) -> Found:
        """Detections of (N, R, 4) RoIs in pixels of the input; ``images`` are for other scales."""
        head = self._head(features, frames, images)
        found = self.detector_model.detections(
            features, rois, count, frames, self.detection_filter, head
        )
        return Found(frames.to_image(found.boxes_input), found.scores, found.classes, found.count)

    def _head(self, features: tf.Tensor, frames: Frames, images: tf.Tensor | None) -> Head | None:
        """What classifies the RoIs: at once or in chunks, each at the scale that fits it."""
        model = self.detector_model
        head: Head = functools.partial(classify_in_chunks, model, self.head_chunk)
        if not self.short_sides:
            return head
        own = Level(features, frames.scales[0])  # one for all: the images are of one size
        levels = pyramid(images, model.base, model.recipe.image, self.short_sides, own)
        return lambda _, rois, roi_image: detect_at_nearest(
            levels, own.scale, rois, roi_image, head
        )


def classify_in_chunks(
    model: FasterRcnn,
    head_chunk: int | None,
    features: tf.Tensor,
    rois: tf.Tensor,
    roi_image: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor]:
    """As :meth:`FasterRcnn.classify`, at most ``head_chunk`` RoIs at once; ``None``: all."""
    if head_chunk is None:
        return model.classify(features, rois, roi_image)
    classes = model.number_of_classes
    chunks = -(-tf.shape(rois)[0] // head_chunk)
    logits = tf.TensorArray(tf.float32, chunks, element_shape=(None, classes), infer_shape=False)
    deltas = tf.TensorArray(
        tf.float32, chunks, element_shape=(None, 4 * classes), infer_shape=False
    )
    for index in tf.range(chunks):
        part = slice(index * head_chunk, (index + 1) * head_chunk)
        outputs = model.classify(features, rois[part], roi_image[part])
        logits = logits.write(index, outputs[0])
        deltas = deltas.write(index, outputs[1])
    return logits.concat(), deltas.concat()


def found_in_each(batch: Found) -> list[ImageDetections]:
    """What was found in each image of a batch, without the padding."""
    arrays = Found(*(tensor.numpy() for tensor in batch))
    return [
        ImageDetections(boxes[:count], scores[:count], classes[:count])
        for boxes, scores, classes, count in zip(*arrays, strict=True)
    ]


def load_run(
    run_path: Path | str,
    detection_filter: DetectionFilter | None = None,
    *,
    stage: int | None = None,
    number_of_proposals: int | None = None,
    head_chunk: int | None = None,
    short_sides: Sequence[int] = (),
    precision: str | None = None,
    boxes_given: bool = False,
) -> NetworkDetector:
    """The detector of a run folder; arguments as for :func:`keras_frcnn.detection.load.load`.

    Stage 2 is the RPN of stage 1 with the detector of stage 2.

    Raises:
        UserError: the run is not finished that far, or has no RPN where one is needed.
    """
    run = RunFolder(run_path)
    config = run.read_config()
    if not boxes_given:
        run.check_makes_proposals()
    if stage is None:
        stage = result_stage(run)
    elif (config.mode, stage) in (("joint", 2), ("fast-rcnn", 4)):
        raise UserError(f"{run.path} was trained in the mode {config.mode}: no `stage` {stage}.")
    load = functools.partial(load_model, run, precision=precision, half_weights=True)
    detector_model = load("stage2" if stage == 2 else FINAL)
    model = load("stage1") if stage == 2 and not boxes_given else detector_model
    proposals = model.recipe.test_proposals
    if number_of_proposals is not None:
        before = proposals.before_nms
        before = None if before is None else max(before, number_of_proposals)
        proposals = dataclasses.replace(proposals, before_nms=before, after_nms=number_of_proposals)
    return NetworkDetector(
        model,
        detection_filter,
        proposals=proposals,
        makes_proposals=not boxes_given,
        detector_model=detector_model,
        head_chunk=head_chunk,
        short_sides=short_sides,
        origin=Origin(run, stage),
    )
