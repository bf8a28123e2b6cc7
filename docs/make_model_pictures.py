"""Draws the three models of VGG-16 for docs/architecture.md, as Keras draws models.

It needs ``pip install pydot`` and ``apt-get install graphviz``.
"""

from __future__ import annotations

from pathlib import Path

import keras
from PIL import Image

import keras_frcnn as frcnn

PICTURES = Path(__file__).parent / "pictures"


def main() -> None:
    classes = [f"class {index}" for index in range(1, 21)]
    model = frcnn.FasterRcnn("vgg16", classes, frcnn.RECIPES["paper"], seed=None)
    PICTURES.mkdir(exist_ok=True)
    for name in ("base", "rpn_head", "detector"):
        png = PICTURES / f"{name}.png"
        keras.utils.plot_model(
            getattr(model, name), png, show_shapes=True, show_layer_names=True, dpi=72
        )
        Image.open(png).quantize(16).save(png, optimize=True)  # grey: a third of the bytes


if __name__ == "__main__":
    main()
