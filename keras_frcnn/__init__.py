"""Faster R-CNN (Ren, He, Girshick and Sun, NIPS 2015) for Keras and TensorFlow.

    import keras_frcnn as frcnn

    data = frcnn.load_data("VOCdevkit", "2007:trainval")
    run = frcnn.train(data, "runs/mine")
    detector = frcnn.load("runs/mine")
    found = detector.detect("photo.jpg")

``dir(keras_frcnn)`` lists everything public. What is asked for is imported then, and TensorFlow
with it: ``import keras_frcnn`` alone takes no time.
"""

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

# Its networks are TensorFlow's. Where Keras is there with another backend, the network says so.
if "keras" not in sys.modules:
    os.environ["KERAS_BACKEND"] = "tensorflow"

if TYPE_CHECKING:
    from keras_frcnn.data.dataset import Dataset, Example
    from keras_frcnn.data.load import load_data
    from keras_frcnn.detection.detections import Detections
    from keras_frcnn.detection.detector import Detector
    from keras_frcnn.detection.load import load
    from keras_frcnn.detection.network_detector import NetworkDetector
    from keras_frcnn.detection.tiles import TiledDetector
    from keras_frcnn.errors import UserError
    from keras_frcnn.evaluation.evaluate import Evaluation, evaluate
    from keras_frcnn.geometry.anchors import anchor_grid, base_anchors
    from keras_frcnn.geometry.boxes import decode, encode, iou
    from keras_frcnn.network.detector import detector_targets, select_detections
    from keras_frcnn.network.faster_rcnn import FasterRcnn
    from keras_frcnn.network.network_input import Frames, network_input
    from keras_frcnn.network.roi_pooling import RoiPooling
    from keras_frcnn.network.rpn import rpn_targets, select_proposals
    from keras_frcnn.recipes import RECIPES, DetectionFilter, Recipe
    from keras_frcnn.runs.folder import RunFolder
    from keras_frcnn.training.options import TrainingOptions
    from keras_frcnn.training.session import train

__version__ = "0.1.0"

# Public names by the module that holds them.
_PUBLIC = {
    "data.dataset": ("Dataset", "Example"),
    "data.load": ("load_data",),
    "detection.detections": ("Detections",),
    "detection.detector": ("Detector",),
    "detection.network_detector": ("NetworkDetector",),
    "detection.tiles": ("TiledDetector",),
    "errors": ("UserError",),
    "evaluation.evaluate": ("Evaluation", "evaluate"),
    "geometry.anchors": ("anchor_grid", "base_anchors"),
    "geometry.boxes": ("decode", "encode", "iou"),
    "detection.load": ("load",),
    "network.detector": ("detector_targets", "select_detections"),
    "network.faster_rcnn": ("FasterRcnn",),
    "network.network_input": ("Frames", "network_input"),
    "network.roi_pooling": ("RoiPooling",),
    "network.rpn": ("rpn_targets", "select_proposals"),
    "recipes": ("RECIPES", "DetectionFilter", "Recipe"),
    "runs.folder": ("RunFolder",),
    "training.options": ("TrainingOptions",),
    "training.session": ("train",),
}
_MODULE_OF = {name: module for module, names in _PUBLIC.items() for name in names}

__all__ = ["__version__", *sorted(_MODULE_OF)]


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first asked for."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
