"""The packages that only ONNX files need."""

from __future__ import annotations

from importlib.util import find_spec

from keras_frcnn.errors import UserError, how_to_install

TO_RUN = ("onnxruntime",)
TO_MAKE = ("onnx", "onnxruntime", "tf2onnx")


def check_available(names: tuple[str, ...] = TO_MAKE) -> None:
    """Makes sure that packages are there.

    Args:
        names: :data:`TO_RUN` or :data:`TO_MAKE`.

    Raises:
        UserError: naming those that are missing.
    """
    # Found, not imported: tf2onnx would start TensorFlow.
    missing = [name for name in names if find_spec(name) is None]
    if missing:
        raise UserError(
            f"ONNX files need {', '.join(names)}; not installed here: {', '.join(missing)}. "
            f"{how_to_install('onnx')}."
        )
