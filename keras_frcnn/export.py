"""A SavedModel that serves without this package, and the reader of such models.

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

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_frcnn.errors import UserError, reason_of
from keras_frcnn.evaluation.detection_files import ImageDetections
from keras_frcnn.files import parse_json
from keras_frcnn.inference import Found, Predictor
from keras_frcnn.saved_model_check import check_operations

CLASS_NAMES_ASSET = "class_names.json"
SCORE_THRESHOLD_ASSET = "score_threshold.json"
DETECTIONS = 100
# As Pillow's, which the other commands read with: 20,000 x 20,000 pixels fit into 49 kB of PNG.
MOST_PIXELS = 2 * 89_478_485
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


class ExportedDetector(tf.Module):
    """The predictor with the signatures of the TensorFlow Object Detection API.

    Args:
        predictor: keeps at most 100 detections an image.
        assets: files that are stored with it, see :func:`write_assets`.
    """

    def __init__(self, predictor: Predictor, assets: Sequence[Path]):
        super().__init__(name="exported_detector")
        self.predictor = predictor
        self.files = [tf.saved_model.Asset(str(file)) for file in assets]

    @tf.function(
        input_signature=[tf.TensorSpec((None, None, None, 3), tf.uint8, name="input_tensor")]
    )
    def serve(self, input_tensor: tf.Tensor) -> dict[str, tf.Tensor]:
        """Detections of images of one size, of which EXIF orientation is the caller's business.

        An empty batch gives empty outputs, an image without pixels an InvalidArgumentError.
        """
        shape = tf.shape(input_tensor)
        with tf.control_dependencies(
            [
                tf.debugging.assert_positive(
                    shape[1:], "input_tensor takes [N, H, W, 3], H and W > 0"
                )
            ]
        ):
            input_tensor = tf.identity(input_tensor)
        return tf.cond(
            shape[0] > 0,
            lambda: normalised_detections(self.predictor, input_tensor),
            _no_detections,
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
            with tf.control_dependencies([tf.debugging.Assert(is_image, [message, index])]):
                image = decode_if_whole(tf.identity(data))
            message = (
                f"encoded takes whole files of up to {MOST_PIXELS} pixels; this entry is damaged "
                "or larger (index in the batch):"
            )
            is_whole = tf.size(image) > 0
            with tf.control_dependencies([tf.debugging.Assert(is_whole, [message, index])]):
                image = tf.identity(image)
            return {name: value[0] for name, value in self.serve(image[None]).items()}

        return tf.map_fn(
            one,
            (encoded, tf.range(tf.size(encoded))),
            fn_output_signature={
                "detection_boxes": tf.TensorSpec((DETECTIONS, 4), tf.float32),
                "detection_scores": tf.TensorSpec((DETECTIONS,), tf.float32),
                "detection_classes": tf.TensorSpec((DETECTIONS,), tf.float32),
                "num_detections": tf.TensorSpec((), tf.float32),
            },
        )


def normalised_detections(predictor: Predictor, images: tf.Tensor) -> dict[str, tf.Tensor]:
    """The outputs of an export for (N, H, W, 3) uint8 images, N at least 1."""
    found = predictor.predict(images)
    height, width = tf.shape(images)[1], tf.shape(images)[2]
    size = tf.cast(tf.stack((height, width, height, width)), tf.float32)
    return {
        "detection_boxes": found.boxes_image / size,
        "detection_scores": found.scores,
        "detection_classes": tf.cast(found.classes, tf.float32),
        "num_detections": tf.cast(found.count, tf.float32),
    }


def _no_detections() -> dict[str, tf.Tensor]:
    """What an empty batch gives: TensorFlow's convolutions and pooling do not take it."""
    return {
        "detection_boxes": tf.zeros((0, DETECTIONS, 4)),
        "detection_scores": tf.zeros((0, DETECTIONS)),
        "detection_classes": tf.zeros((0, DETECTIONS)),
        "num_detections": tf.zeros((0,)),
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
        with tf.control_dependencies([few]):
            return decode(tf.identity(data))

    decoded = tf.data.Dataset.from_tensors(data).map(within_bounds).ignore_errors()
    nothing = tf.data.Dataset.from_tensors(tf.zeros((0, 0, 3), tf.uint8))
    image = decoded.concatenate(nothing).take(1).get_single_element()
    image.set_shape((None, None, 3))
    return image


def export(predictor: Predictor, folder: Path) -> None:
    """Writes the SavedModel, weights inside.

    Raises:
        UserError: as :func:`check_unused`, or the disk is full.
    """
    check_unused(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        module = ExportedDetector(predictor, write_assets(predictor, Path(temporary)))
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


def write_assets(predictor: Predictor, folder: Path) -> list[Path]:
    """What a user of the export has to know beside its outputs, as JSON files.

    Returns:
        the list of the foreground classes, and the score below which nothing is returned.
    """
    contents = {
        CLASS_NAMES_ASSET: list(predictor.class_names),
        SCORE_THRESHOLD_ASSET: predictor.detection_filter.score_threshold,
    }
    for name, value in contents.items():
        (folder / name).write_text(json.dumps(value), encoding="utf-8")
    return [folder / name for name in contents]


def check_unused(folder: Path) -> None:
    """Makes sure that a SavedModel can be written to a folder.

    Raises:
        UserError: it is a file, or not empty.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; give a new folder as --out.")
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder} exists and is not empty; give another --out.")


def read_class_names(text: str, where: str) -> tuple[str, ...]:
    """The foreground classes that go with an exported model.

    Raises:
        UserError: the text is no JSON list of names.
    """
    try:
        names = parse_json(text)
    except ValueError as error:
        raise UserError(f"{where} is damaged ({error}); export the run again.") from error
    if not (isinstance(names, list) and names and all(isinstance(name, str) for name in names)):
        raise UserError(f"{where} is damaged: its class names are no list; export the run again.")
    return tuple(names)


def read_score_threshold(text: str | None, where: str) -> float | None:
    """The score below which an exported model returns nothing; None of an export without it.

    Raises:
        UserError: the text is no JSON number.
    """
    if text is None:
        return None
    try:
        return float(parse_json(text))
    except (TypeError, ValueError) as error:
        raise UserError(f"{where} is damaged ({error}); export the run again.") from error


class LoadedDetector:
    """An exported model, used as a predictor is.

    Args:
        folder: what :func:`export` wrote.

    Attributes:
        class_names: foreground classes in order.
        score_threshold: below which it returns nothing; None where it does not say so.

    Raises:
        ValueError, KeyError, OSError, tf.errors.OpError: it cannot be read.
    """

    def __init__(self, folder: Path):
        file = folder / "assets" / CLASS_NAMES_ASSET
        self.class_names = read_class_names(file.read_text(encoding="utf-8"), str(file))
        file = folder / "assets" / SCORE_THRESHOLD_ASSET
        text = file.read_text(encoding="utf-8") if file.is_file() else None
        self.score_threshold = read_score_threshold(text, str(file))
        self._model = tf.saved_model.load(str(folder))
        self._serve = self._model.signatures["serving_default"]

    def detect(self, image: np.ndarray) -> Found:
        """Detections of one (H, W, 3) uint8 image; see :meth:`detect_batch`."""
        return self.detect_batch(image[None])[0]

    def detect_batch(self, images: np.ndarray) -> list[Found]:
        """Detections of each of (N, H, W, 3) uint8 images; see :func:`found_in_outputs`."""
        outputs = self._serve(input_tensor=tf.constant(images))
        outputs = {name: tensor.numpy() for name, tensor in outputs.items()}
        return found_in_outputs(outputs, images.shape[1:3], len(self.class_names))


def found_in_outputs(
    outputs: Mapping[str, np.ndarray], size: tuple[int, int], number_of_classes: int
) -> list[Found]:
    """What the outputs of an export say of each image, in pixels.

    The export knows no scores below its threshold: the best score of a class without detection is
    0.

    Args:
        outputs: by name.
        size: height and width of the images.
        number_of_classes: without background.
    """
    sides = np.tile(np.array(size, np.float32), 2)
    found = []
    for index, count in enumerate(outputs["num_detections"].astype(int)):
        scores = outputs["detection_scores"][index, :count]
        classes = outputs["detection_classes"][index, :count].astype(np.int32)
        boxes = outputs["detection_boxes"][index, :count] * sides
        best = np.zeros(number_of_classes, np.float32)
        np.maximum.at(best, classes - 1, scores)
        found.append(Found(ImageDetections(boxes, scores, classes), best))
    return found


def load_exported(path: Path | str) -> LoadedDetector:
    """Reads an exported model.

    Raises:
        UserError: the folder is not one, was not written by this package, is damaged, or as
            :func:`check_operations`.
    """
    folder = Path(path)
    if not (folder / "saved_model.pb").is_file():
        raise UserError(f"{folder} is no SavedModel: it has no saved_model.pb.")
    if not (folder / "assets" / CLASS_NAMES_ASSET).is_file():
        raise UserError(
            f"{folder} was not exported by keras_frcnn: assets/{CLASS_NAMES_ASSET} is missing."
        )
    check_operations(folder)
    try:
        return LoadedDetector(folder)
    except UserError:
        raise
    except (ValueError, KeyError, OSError, tf.errors.OpError) as error:
        reason = reason_of(error)
        raise UserError(f"{folder} is damaged ({reason}); export the run again.") from error


def largest_difference(first: ImageDetections, second: ImageDetections) -> tuple[float, float]:
    """Largest differences of box corners in pixels and of scores; infinite if counts differ."""
    same = len(first.scores) == len(second.scores) and np.array_equal(first.classes, second.classes)
    if not same:
        return float("inf"), float("inf")
    if not len(first.scores):
        return 0.0, 0.0
    return (
        float(np.abs(first.boxes_image - second.boxes_image).max()),
        float(np.abs(first.scores - second.scores).max()),
    )
