"""VGG-16 as a Faster R-CNN backbone: thirteen convolutions without pool5, and fc6 and fc7.

Layer names are those of ``keras.applications.VGG16``, so its weight files load by name (its fc1
and fc2 are fc6 and fc7 here, as in the paper).
"""

from __future__ import annotations

import keras

from keras_frcnn.network.backbones.heads import (
    IMAGE_POLICY,
    caffe_head,
    halved_four_times,
    he_normal,
)

BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
CHANNELS = 512
RPN_CHANNELS = 512
ROI_SIZE = 7
# The paper trains conv3_1 and up (stage1_rpn_train.pt:20-115: lr_mult 0 and decay_mult 0 below).
FROZEN = ("block1_conv1", "block1_conv2", "block2_conv1", "block2_conv2")
feature_size = halved_four_times
build_head = caffe_head
DROPOUT = 0.5  # stage1_fast_rcnn_train.pt:379-413


def build_base(policy: str, seed: int | None) -> keras.Model:
    """Build block1_conv1 to block5_conv3 with random weights."""
    image = keras.Input((None, None, 3), name="image")
    x = image
    for block, widths in enumerate(BLOCKS, start=1):
        for index, filters in enumerate(widths, start=1):
            name = f"block{block}_conv{index}"
            # Pixels have a standard deviation of about 64; only the first layer sees them, and
            # with its gain a network that starts at random has features of about unit size.
            first = name == "block1_conv1"
            x = keras.layers.Conv2D(
                filters,
                3,
                padding="same",
                activation="relu",
                kernel_initializer=he_normal(seed, name, 1 / 64**2 if first else 1.0),
                name=name,
                dtype=IMAGE_POLICY if first else policy,
            )(x)
        if block < len(BLOCKS):
            # Caffe rounds the size of a pooled map up, keras.applications down ("valid"):
            # 600 pixels give 38 rows there and here, 37 in keras.applications.
            x = keras.layers.MaxPooling2D(
                2, strides=2, padding="same", name=f"block{block}_pool", dtype=policy
            )(x)
    return keras.Model(image, x, name="vgg16")
