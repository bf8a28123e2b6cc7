"""Detection in batches of images whose sizes as inputs of the network are equal.

Images of several cameras differ in size and are often one size once they are rescaled: nothing has
to be padded, and padding would change what the convolutions give near it.

Shapes and names
----------------
N  images of a batch.
image  (H, W, 3) uint8 RGB, each of its own size.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from keras_frcnn.inference import Found, PredictedBoxes, Predictor, found_in_each
from keras_frcnn.network.network_input import frames_of, input_size, network_input


class BatchPredictor:
    """Runs a predictor on several images at once; in each it finds what it finds in it alone.

    Not part of the predictor: an export would save these functions too.

    Args:
        predictor: at the recipe's scale or at several; there, images of a batch are of one size,
            as one size of the input does not make the other scales equal.
    """

    def __init__(self, predictor: Predictor):
        self.predictor = predictor

    @property
    def traces(self) -> int:
        """How often the network was traced: once, whatever the shapes."""
        return self.predict.experimental_get_tracing_count() + self.predictor.traces

    def key(self, height: int, width: int) -> tuple[int, int]:
        """Images with equal keys can be one batch.

        At one scale the key is the size of the input, at several the image's own size.

        Args:
            height, width: of the image.
        """
        if self.predictor.short_sides:
            return height, width
        config = self.predictor.model.recipe.image
        return input_size(height, width, config.short_side, config.long_side)

    def detect(self, images: Sequence[np.ndarray]) -> list[Found]:
        """Detections of each of some images with the same :meth:`key`."""
        if self.predictor.short_sides:
            return found_in_each(self.predictor.predict(np.stack(images)))
        inputs = tf.stack([self._input_of(image) for image in images])
        sizes_image = np.array([image.shape[:2] for image in images], np.int32)
        return found_in_each(self.predict(inputs, sizes_image))

    @tf.function(
        input_signature=[
            tf.TensorSpec((None, None, None, 3), tf.float32),
            tf.TensorSpec((None, 2), tf.int32),
        ]
    )
    def predict(self, inputs: tf.Tensor, sizes_image: tf.Tensor) -> PredictedBoxes:
        """Detections of (N, h, w, 3) inputs of images whose (N, 2) sizes are given."""
        return self.predictor.detections(inputs, frames_of(inputs, sizes_image))

    @tf.function(input_signature=[tf.TensorSpec((None, None, 3), tf.uint8)])
    def _input_of(self, image: tf.Tensor) -> tf.Tensor:
        return network_input(image[None], self.predictor.model.recipe.image)[0][0]
