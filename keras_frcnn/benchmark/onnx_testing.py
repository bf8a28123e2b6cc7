"""Testing one image by onnxruntime, float32 and int8, to be timed in the same run."""

from __future__ import annotations

from keras_frcnn.benchmark.setting import Setting, random_model, random_photo
from keras_frcnn.benchmark.testing import Part
from keras_frcnn.detection.exported_model import OnnxDetector
from keras_frcnn.detection.network_detector import NetworkDetector
from keras_frcnn.export.onnx.convert import to_onnx
from keras_frcnn.export.onnx.quantise import needs_seven_bits, quantise


def onnx_parts(setting: Setting) -> dict[str, Part]:
    """Both files of a network with random weights, int8 calibrated on the image it is timed on."""
    photo = random_photo(setting.recipe.image)
    network = random_model(setting, "float32")
    model = to_onnx(NetworkDetector(network, network.recipe.test_filter))
    del network
    int8 = quantise(model, [photo], seven_bit_weights=needs_seven_bits())
    return {
        f"onnx {name}/whole": _part(form.SerializeToString(), photo)
        for name, form in (("float32", model), ("int8", int8))
    }


def _part(model: bytes, photo) -> Part:
    detector = OnnxDetector(model)
    return Part(lambda: detector.outputs(photo[None]))
