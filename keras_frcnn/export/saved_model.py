"""A SavedModel that serves without this package.

Inputs, outputs and names follow the TensorFlow Object Detection API's exporter
(exporter_lib_v2.py): ``detection_boxes`` (N, 100, 4) (ymin, xmin, ymax, xmax) in [0, 1] of the
original size, ``detection_scores`` (N, 100), ``detection_classes`` (N, 100) 1-based and
``num_detections`` (N,), all float32, padded with zeros, best first.

Shapes and names
----------------
N  images. input_tensor  (N, H, W, 3) uint8 RGB, any H and W from 1.
encoded  (N,) strings: JPEG or PNG files of different sizes.
"""

from __future__ import annotations

import functools
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_frcnn.detection.detections import ImageDetections
from keras_frcnn.detection.exported_model import (
    AGAIN,
    ASSETS,
    DIGEST_FILE,
    OUTPUTS,
    check_path,
    digest_of_export,
    found_in_outputs,
)
from keras_frcnn.detection.network_detector import NetworkDetector
from keras_frcnn.errors import UserError, reading
from keras_frcnn.system.files import write_text

# As Pillow's, which the other commands read with: 20,000 x 20,000 pixels fit into 49 kB of PNG.
MOST_PIXELS = 2 * 89_478_485
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


class ExportedDetector(tf.Module):
    """The detector with the signatures of the TensorFlow Object Detection API.

    Args:
        detector: keeps at most 100 detections an image.
        assets: files that are stored with it.
    """

    def __init__(self, detector: NetworkDetector, assets: Sequence[Path]):
        super().__init__(name="exported_detector")
        # Not as an attribute, which would be saved with it: of the objects of Keras 3 TensorFlow
        # saves other handles than its functions read, and its C++ loader restores the handles.
        self.detect = functools.partial(normalised_detections, detector)
        self.files = [tf.saved_model.Asset(str(file)) for file in assets]
        self.weights = list(self.serve_encoded.get_concrete_function().variables)

    @tf.function(
        input_signature=[tf.TensorSpec((None, None, None, 3), tf.uint8, name="input_tensor")]
    )
    def serve(self, input_tensor: tf.Tensor) -> dict[str, tf.Tensor]:
        """Detections of images of one size, of which EXIF orientation is the caller's business.

        An empty batch gives empty outputs, an image without pixels an InvalidArgumentError.
        """
        shape = tf.shape(input_tensor)
        takes = "input_tensor takes [N, H, W, 3], H and W > 0"
        input_tensor = _checked(tf.debugging.assert_positive(shape[1:], takes), input_tensor)
        return tf.cond(
            shape[0] > 0,
            lambda: self.detect(input_tensor),
            # TensorFlow's convolutions and pooling do not take an empty batch.
            lambda: {name: tf.zeros((0, *sizes)) for name, sizes in OUTPUTS.items()},
        )

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, name="encoded")])
    def serve_encoded(self, encoded: tf.Tensor) -> dict[str, tf.Tensor]:
        """Detections of JPEG or PNG files of any sizes, one after the other.

        Decoding is TensorFlow's: EXIF orientation is **not** applied, boxes refer to the pixels as
        they are stored; send upright images, or decode them and call ``serving_default``. A string
        that is neither JPEG nor PNG, a damaged one and one of more than ``MOST_PIXELS`` is an
        InvalidArgumentError that names its index in the batch.
        """

        def one(inputs: tuple[tf.Tensor, tf.Tensor]) -> dict[str, tf.Tensor]:
            data, index = inputs
            is_image = tf.io.is_jpeg(data) | (tf.strings.substr(data, 0, 8) == PNG_SIGNATURE)
            message = "encoded takes JPEG or PNG files; this entry is neither (index in the batch):"
            data = _checked(tf.debugging.Assert(is_image, [message, index]), data)
            image = decode_if_whole(data)
            message = (
                f"encoded takes whole files of up to {MOST_PIXELS} pixels; this entry is damaged "
                "or larger (index in the batch):"
            )
            is_whole = tf.size(image) > 0
            image = _checked(tf.debugging.Assert(is_whole, [message, index]), image)
            return {name: value[0] for name, value in self.serve(image[None]).items()}

        return tf.map_fn(
            one,
            (encoded, tf.range(tf.size(encoded))),
            fn_output_signature={name: tf.TensorSpec(sizes) for name, sizes in OUTPUTS.items()},
        )


def _checked(check: tf.Operation, tensor: tf.Tensor) -> tf.Tensor:
    """The tensor, which is not there before the check was made."""
    with tf.control_dependencies([check]):
        return tf.identity(tensor)


def normalised_detections(detector: NetworkDetector, images: tf.Tensor) -> dict[str, tf.Tensor]:
    """The outputs of an export for (N, H, W, 3) uint8 images, N at least 1."""
    found = detector.predict(images)
    height, width = tf.shape(images)[1], tf.shape(images)[2]
    size = tf.cast(tf.stack((height, width, height, width)), tf.float32)
    return {
        "detection_boxes": found.boxes_image / size,
        "detection_scores": found.scores,
        "detection_classes": tf.cast(found.classes, tf.float32),
        "num_detections": tf.cast(found.count, tf.float32),
    }


def decode(data: tf.Tensor) -> tf.Tensor:
    """(H, W, 3) uint8 of a JPEG or PNG; with the exact inverse DCT the pixels are Pillow's."""
    is_jpeg = tf.io.is_jpeg(data)
    image = tf.cond(
        is_jpeg,
        lambda: tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE"),
        lambda: tf.io.decode_png(data, channels=3),
    )
    image.set_shape((None, None, 3))
    return image


def claimed_pixels(data: tf.Tensor) -> tf.Tensor:
    """Height times width by the header of a JPEG or PNG, a float32 scalar."""
    size = tf.cond(
        tf.io.is_jpeg(data),
        lambda: tf.cast(tf.image.extract_jpeg_shape(data)[:2], tf.float32),
        # Width and height, 32 bits each, of the chunk that comes first.
        lambda: tf.linalg.matvec(
            tf.reshape(
                tf.cast(tf.io.decode_raw(tf.strings.substr(data, 16, 8), tf.uint8), tf.float32),
                (2, 4),
            ),
            tf.constant([2.0**24, 2.0**16, 2.0**8, 1.0]),
        ),
    )
    return tf.reduce_prod(size)


def decode_if_whole(data: tf.Tensor) -> tf.Tensor:
    """As :func:`decode`; (0, 0, 3) for a file that is damaged or claims too many pixels.

    TensorFlow's decoders do not say which string of a batch they failed on, and a graph has no
    other way to go on after an error than a data set that passes over it.
    """

    def within_bounds(data: tf.Tensor) -> tf.Tensor:
        few = tf.debugging.assert_less_equal(claimed_pixels(data), float(MOST_PIXELS))
        return decode(_checked(few, data))

    decoded = tf.data.Dataset.from_tensors(data).map(within_bounds).ignore_errors()
    nothing = tf.data.Dataset.from_tensors(tf.zeros((0, 0, 3), tf.uint8))
    image = decoded.concatenate(nothing).take(1).get_single_element()
    image.set_shape((None, None, 3))
    return image


def export(detector: NetworkDetector, folder: Path) -> None:
    """Writes the SavedModel, weights inside.

    Raises:
        UserError: as :func:`check_unused`, or the disk is full.
    """
    check_unused(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # The foreground classes, and the score below which nothing is returned.
    contents = (list(detector.class_names), detector.score_threshold)
    with tempfile.TemporaryDirectory() as temporary:
        files = [Path(temporary, name) for name in ASSETS]
        for file, value in zip(files, contents, strict=True):
            file.write_text(json.dumps(value), encoding="utf-8")
        module = ExportedDetector(detector, files)
        try:
            tf.saved_model.save(
                module,
                str(folder),
                signatures={"serving_default": module.serve, "encoded": module.serve_encoded},
            )
        except tf.errors.ResourceExhaustedError as error:
            raise UserError(
                f"{folder} could not be written ({error.message}): make room on its disk, delete "
                "the folder and export again."
            ) from error
    write_text(folder / DIGEST_FILE, digest_of_export(folder))


def check_unused(folder: Path) -> None:
    """Makes sure that a SavedModel can be written to a folder.

    Raises:
        UserError: it is a file, or not empty, or as :func:`check_path`.
    """
    check_path(folder)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; give a new folder as `out`.")
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder} exists and is not empty; give another `out`.")


def detect_as_served(
    folder: Path, image: np.ndarray, number_of_classes: int
) -> dict[str, ImageDetections]:
    """What each signature of an export finds in an (H, W, 3) uint8 image, by its name.

    It is loaded as TensorFlow Serving and the interfaces of C, Java and Go do, by the nodes of its
    saver, where :func:`load_exported` goes by its objects; only for what was written here.

    Raises:
        UserError: it cannot be loaded so, or fails.
    """
    inputs = {"serving_default": image[None], "encoded": [tf.io.encode_png(image).numpy()]}
    # Sessions do not ask for the devices that this process was told to use.
    gpus = [device.name.rpartition(":")[2] for device in tf.config.get_visible_devices("GPU")]
    config = tf.compat.v1.ConfigProto(device_count={"GPU": len(gpus)})
    config.gpu_options.allow_growth = True
    config.gpu_options.visible_device_list = ",".join(gpus)
    found = {}
    session = tf.compat.v1.Session(graph=tf.Graph(), config=config)
    with reading(folder, "what TensorFlow Serving loads", AGAIN), session:
        loaded = tf.compat.v1.saved_model.load(session, ["serve"], str(folder))
        for name, value in inputs.items():
            signature = loaded.signature_def[name]
            (taken,) = signature.inputs.values()
            wanted = {key: given.name for key, given in signature.outputs.items()}
            outputs = session.run(wanted, {taken.name: value})
            (found[name],) = found_in_outputs(outputs, (1, *image.shape), number_of_classes)
    return found


def largest_difference(first: ImageDetections, second: ImageDetections) -> tuple[float, float]:
    """Largest differences of box corners in pixels and of scores; infinite if counts differ."""
    if not np.array_equal(first.classes, second.classes):
        return float("inf"), float("inf")
    corners = np.abs(first.boxes_image - second.boxes_image)
    scores = np.abs(first.scores - second.scores)
    return float(corners.max(initial=0)), float(scores.max(initial=0))
