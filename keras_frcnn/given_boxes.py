"""The detector of a network on boxes that are given: Fast R-CNN, and Faster R-CNN's on any boxes.

Shapes and names
----------------
R  boxes of an image, C  classes incl. background.
*_image  pixels of the original image.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from keras_frcnn.errors import UserError
from keras_frcnn.evaluation.detection_files import ImageDetections
from keras_frcnn.inference import Predictor, load_model, result_stage
from keras_frcnn.network.faster_rcnn import FasterRcnn
from keras_frcnn.recipes import DetectionFilter
from keras_frcnn.runs import FINAL, RunFolder

# Selective Search's boxes at test, section 4.1.
NUMBER_OF_BOXES = 2000


class BoxClassifier:
    """Classifies and refines given boxes of an image.

    The boxes are used as they are: no smallest side, no suppression among them, as Fast R-CNN uses
    those of Selective Search (test.py:116-180 without the merging of equal RoIs, which only saves
    time).

    Args:
        model: its base and detector are used; its RPN may be untrained.
        detection_filter: which detections are kept.
        head_chunk: the most boxes that go through the head at once; ``None``: all.

    Attributes:
        predict: :meth:`keras_frcnn.inference.Predictor.predict_on`, for batches.
    """

    def __init__(
        self,
        model: FasterRcnn,
        detection_filter: DetectionFilter,
        *,
        head_chunk: int | None = None,
    ):
        self.model = model
        self.detection_filter = detection_filter
        self._predictor = Predictor(model, detection_filter, head_chunk=head_chunk)
        self.predict = self._predictor.predict_on

    @property
    def class_names(self) -> tuple[str, ...]:
        """Foreground classes in order."""
        return self.model.class_names

    def detect(
        self, image: np.ndarray, boxes_image: np.ndarray
    ) -> tuple[ImageDetections, np.ndarray]:
        """Detections of one (H, W, 3) uint8 image, and the best score of each class (C - 1,).

        Args:
            boxes_image: (R, 4) in pixels of the image; R may be 0.
        """
        return self._predictor.detect_on(image, boxes_image)


def load_classifier(
    run_path: Path | str,
    detection_filter: DetectionFilter | None = None,
    *,
    stage: int | None = None,
    head_chunk: int | None = None,
) -> BoxClassifier:
    """The detector of a run, for given boxes.

    Args:
        run_path: the run folder; trained on given proposals or not.
        detection_filter: default: the recipe's for testing.
        stage: 2 or 4; default: the result of the run.
        head_chunk: see :class:`BoxClassifier`.

    Raises:
        UserError: no run lies here, it has no detector, or not of this stage yet.
    """
    run = RunFolder(run_path)
    config = run.read_config()
    if stage is None:
        stage = result_stage(run)
    elif (config.mode, stage) in (("joint", 2), ("fast-rcnn", 4)):
        raise UserError(f"{run.path} was trained in the mode {config.mode}: no stage {stage}.")
    model = load_model(run, "stage2" if stage == 2 else FINAL)
    if detection_filter is None:
        detection_filter = model.recipe.test_filter
    return BoxClassifier(model, detection_filter, head_chunk=head_chunk)
