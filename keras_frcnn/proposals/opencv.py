"""OpenCV with its extra modules, which only the methods from outside need."""

from __future__ import annotations

from types import ModuleType

from keras_frcnn.errors import UserError, how_to_install


def load_opencv() -> ModuleType:
    """``cv2``, on one thread: the images are what runs in parallel.

    Raises:
        UserError: it is not installed, or without its extra modules.
    """
    try:
        import cv2
    except ImportError as error:
        raise UserError(
            f"Selective Search and EdgeBoxes need OpenCV: {how_to_install('paper')}."
        ) from error
    if not hasattr(cv2, "ximgproc"):
        raise UserError(
            f"The installed OpenCV {cv2.__version__} lacks its extra modules, which Selective "
            "Search and EdgeBoxes are part of: pip uninstall opencv-python, then "
            f"{how_to_install('paper')}."
        )
    cv2.setNumThreads(1)
    return cv2
