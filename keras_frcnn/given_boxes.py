"""The detector of a network on boxes that are given: Fast R-CNN, and Faster R-CNN's on any boxes.

Shapes and names
----------------
N  images of one size, R  boxes of each (zero-padded), D  detections kept.
*_image  pixels of the original image, *_input  pixels of the rescaled network input.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_frcnn.errors import UserError
from keras_frcnn.inference import (
    Found,
    PredictedBoxes,
    detect_rois,
    found_in_each,
    load_model,
    result_stage,
)
from keras_frcnn.network.faster_rcnn import FasterRcnn
from keras_frcnn.network.network_input import network_input
from keras_frcnn.recipes import DetectionFilter
from keras_frcnn.runs import FINAL, RunFolder

# Selective Search's boxes at test, section 4.1.
NUMBER_OF_BOXES = 2000


class BoxClassifier(tf.Module):
    """Classifies and refines given boxes of images of one size.

    The boxes are used as they are: no smallest side, no suppression among them, as Fast R-CNN uses
    those of Selective Search (test.py:116-180 without the merging of equal RoIs, which only saves
    time).

    Args:
        model: its base and detector are used.
        detection_filter: which detections are kept.
        head_chunk: the most boxes that go through the head at once; ``None``: all.
        short_sides: scales of :mod:`keras_frcnn.network.multi_scale`; none: the recipe's own.
    """

    def __init__(
        self,
        model: FasterRcnn,
        detection_filter: DetectionFilter,
        *,
        head_chunk: int | None = None,
        short_sides: Sequence[int] = (),
    ):
        super().__init__(name="box_classifier")
        self.model = model
        self.detection_filter = detection_filter
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

    @tf.function(
        input_signature=[
            tf.TensorSpec((None, None, None, 3), tf.uint8),
            tf.TensorSpec((None, None, 4), tf.float32),
            tf.TensorSpec((None,), tf.int32),
        ]
    )
    def predict(
        self, images: tf.Tensor, boxes_image: tf.Tensor, count: tf.Tensor
    ) -> PredictedBoxes:
        """Detections of (N, H, W, 3) uint8 images.

        Args:
            boxes_image: (N, R, 4), R at least 1, zero-padded.
            count: (N,) boxes that are real.
        """
        inputs, frames = network_input(images, self.model.recipe.image)
        return detect_rois(
            self.model,
            self.model.features(inputs),
            frames.to_input(boxes_image),
            count,
            frames,
            self.detection_filter,
            images=images,
            head_chunk=self.head_chunk,
            short_sides=self.short_sides,
        )

    def detect(self, image: np.ndarray, boxes_image: np.ndarray) -> Found:
        """Detections of one (H, W, 3) uint8 image.

        Args:
            boxes_image: (R, 4); R may be 0.
        """
        boxes = np.asarray(boxes_image, np.float32).reshape(1, -1, 4)
        count = boxes.shape[1]
        if count == 0:  # RoI pooling has no empty batch
            boxes = np.array([[[0, 0, 1, 1]]], np.float32)
        return found_in_each(self.predict(image[None], boxes, np.array([count], np.int32)))[0]


def load_classifier(
    run_path: Path | str,
    detection_filter: DetectionFilter | None = None,
    *,
    stage: int | None = None,
    head_chunk: int | None = None,
    short_sides: Sequence[int] = (),
    precision: str | None = None,
    stage_flag: str | None = None,
) -> BoxClassifier:
    """The detector of a run, for given boxes.

    Args:
        run_path: the run folder; trained on given proposals or not.
        detection_filter: default: the recipe's for testing.
        stage: 2 or 4; default: the result of the run.
        head_chunk, short_sides: see :class:`BoxClassifier`.
        precision: default: the run's.
        stage_flag: see :func:`keras_frcnn.inference.load_model`.

    Raises:
        UserError: no run lies here, it has no detector, or not of this stage yet.
    """
    run = RunFolder(run_path)
    config = run.read_config()
    if stage is None:
        stage = result_stage(run)
    elif (config.mode, stage) in (("joint", 2), ("fast-rcnn", 4)):
        raise UserError(f"{run.path} was trained in the mode {config.mode}: no stage {stage}.")
    model = load_model(
        run,
        "stage2" if stage == 2 else FINAL,
        precision=precision,
        half_weights=True,
        stage_flag=stage_flag,
    )
    if detection_filter is None:
        detection_filter = model.recipe.test_filter
    return BoxClassifier(model, detection_filter, head_chunk=head_chunk, short_sides=short_sides)
