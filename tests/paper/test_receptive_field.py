"""Receptive fields of section 3 of the paper.

Shapes and names
----------------
base  convolutions up to the feature map; the RPN's 3x3 window comes on top.
"""

from __future__ import annotations

import keras
import pytest

from keras_frcnn.network.backbones import vgg16, zf
from keras_frcnn.paper.published import RECEPTIVE_FIELDS
from keras_frcnn.paper.table4 import receptive_field


@pytest.mark.parametrize(("module", "network"), [(vgg16, "vgg16"), (zf, "zf")])
def test_of_the_rpns_window(module, network):
    base = module.build_base("float32", 0)
    window = keras.layers.Conv2D(8, 3, padding="same")(base.output)
    head = keras.layers.Conv2D(2, 1)(window)
    model = keras.Model(base.input, head)
    assert receptive_field(model.layers) == RECEPTIVE_FIELDS[network]


def test_branches_are_refused():
    image = keras.Input((None, None, 3))
    model = keras.Model(image, keras.layers.Add()([image, image]))
    with pytest.raises(ValueError, match="no chain"):
        receptive_field(model.layers)


def test_a_kernel_that_is_not_square_is_refused():
    image = keras.Input((None, None, 3))
    model = keras.Model(image, keras.layers.Conv2D(2, (1, 3))(image))
    with pytest.raises(ValueError, match="not square"):
        receptive_field(model.layers)
