"""Mean and deviation of the box targets of all training images (section 3.2, recipe 4.5, 4.7).

Shapes and names
----------------
C  classes incl. background.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import tensorflow as tf

from keras_frcnn.data.pipeline import image_scale
from keras_frcnn.network.detector import detector_foreground_deltas
from keras_frcnn.network.faster_rcnn import FasterRcnn
from keras_frcnn.network.normalisation import Normalisation, mean_and_std
from keras_frcnn.network.rpn import rpn_positive_deltas
from keras_frcnn.training.proposal_store import ProposalStore
from keras_frcnn.training.units import TrainingUnit

# A deviation below it is the rounding of the float32 sums, not a spread to divide by.
_EPSILON = 1e-3


def rpn_statistics(model: FasterRcnn, units: Iterable[TrainingUnit]) -> Normalisation:
    """Mean and deviation (4,) of the deltas of all positive anchors of all training images."""
    config = model.recipe

    @tf.function(
        input_signature=[
            tf.TensorSpec((2,), tf.int32),
            tf.TensorSpec((2,), tf.int32),
            tf.TensorSpec((None, 4), tf.float32),
        ]
    )
    def positive_deltas(feature_size, size, gt_boxes):
        anchors = model.anchors(feature_size[0], feature_size[1])
        return rpn_positive_deltas(anchors, size, gt_boxes, config.rpn)

    def sums():
        for unit in units:
            if len(unit.boxes_image):
                size, scale = image_scale(unit.example.height, unit.example.width, config.image)
                feature_size = [model.backbone.feature_size(int(side)) for side in size]
                gt_boxes = unit.boxes_image * np.tile(scale, 2)
                yield positive_deltas(feature_size, size, gt_boxes.astype(np.float32))

    return _normalisation(sums(), (4,))


def detector_statistics(
    model: FasterRcnn, units: Iterable[TrainingUnit], store: ProposalStore
) -> Normalisation:
    """Per-class mean and deviation (C, 4) over all foreground RoIs of the data set.

    Deltas do not depend on the frame, but for the rounding of the input size: they are taken in
    input pixels, as the network sees them.
    """
    classes = model.number_of_classes

    @tf.function(
        input_signature=[
            tf.TensorSpec((None, 4), tf.float32),
            tf.TensorSpec((None, 4), tf.float32),
            tf.TensorSpec((None,), tf.int32),
        ]
    )
    def foreground_deltas(proposals, gt_boxes, gt_classes):
        return detector_foreground_deltas(
            proposals,
            gt_boxes,
            gt_classes,
            foreground_iou=model.recipe.detector.foreground_iou,
            number_of_classes=classes,
        )

    def sums():
        for index, unit in enumerate(units):
            if len(unit.boxes_image):
                _, scale = image_scale(unit.example.height, unit.example.width, model.recipe.image)
                factor = np.tile(scale, 2)
                yield foreground_deltas(
                    (store.boxes_of(index) * factor).astype(np.float32),
                    (unit.boxes_image * factor).astype(np.float32),
                    unit.example.classes.astype(np.int32),
                )

    return _normalisation(sums(), (classes, 4))


def _normalisation(sums: Iterable[Sequence[tf.Tensor]], shape: tuple[int, ...]) -> Normalisation:
    """Of each image's (number, sum, sum of squares) of deltas; the sums have this shape."""
    totals = [np.zeros(shape[:-1]), np.zeros(shape), np.zeros(shape)]
    for parts in sums:
        totals = [total + part.numpy() for total, part in zip(totals, parts, strict=True)]
    mean, std = mean_and_std(*totals, epsilon=_EPSILON)
    return Normalisation(mean.astype(np.float32), std.astype(np.float32))
