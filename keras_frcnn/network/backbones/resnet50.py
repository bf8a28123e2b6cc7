"""ResNet-50 "C4" as a Faster R-CNN backbone: conv1 to conv4 are the base, conv5 is the head.

Layer names are those of ``keras.applications.ResNet50``, so its weight files load by name. The
stride of a stage is on its first 1x1 convolution, as in the Caffe model and keras.applications.
All batch norms are frozen: a step sees one or two images, too few for statistics.
"""

from __future__ import annotations

import keras
import tensorflow as tf

from keras_frcnn.errors import UserError
from keras_frcnn.network.backbones.heads import IMAGE_POLICY, halved_four_times, he_normal

# stage: (filters of the bottleneck, blocks, stride)
STAGES = {"conv2": (64, 3, 1), "conv3": (128, 4, 2), "conv4": (256, 6, 2)}
CHANNELS = 1024
RPN_CHANNELS = 512
ROI_SIZE = 7
EPSILON = 1.001e-5  # of keras.applications
feature_size = halved_four_times
DROPOUT = 0.0


@keras.saving.register_keras_serializable(package="keras_frcnn")
class FrozenBatchNormalization(keras.layers.Layer):
    """Batch normalisation by stored statistics; none of its four weights is ever trained.

    Unlike ``keras.layers.BatchNormalization``, no ``trainable`` flag and no ``training`` argument
    can wake it up. Make it with ``dtype="float32"`` so that statistics are not rounded.
    """

    def __init__(self, epsilon: float = EPSILON, **kwargs):
        super().__init__(**kwargs)
        self.epsilon = epsilon

    def build(self, input_shape) -> None:
        def weight(name: str, start: str):
            shape = (input_shape[-1],)
            return self.add_weight(name=name, shape=shape, initializer=start, trainable=False)

        self.gamma = weight("gamma", "ones")
        self.beta = weight("beta", "zeros")
        self.moving_mean = weight("moving_mean", "zeros")
        self.moving_variance = weight("moving_variance", "ones")
        self.built = True

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Normalise x (N, H, W, F)."""
        scale = self.gamma * tf.math.rsqrt(self.moving_variance + self.epsilon)
        return x * scale + (self.beta - self.moving_mean * scale)

    def get_config(self) -> dict:
        return {**super().get_config(), "epsilon": self.epsilon}


class _Bottleneck:
    """Layers of one residual block; called as often as needed, always on the same weights."""

    def __init__(self, name, filters, stride, has_projection, policy, seed):
        def convolution(index, width, kernel_size, strides, gain=1.0):
            layer_name = f"{name}_{index}_conv"
            return keras.layers.Conv2D(
                width,
                kernel_size,
                strides=strides,
                padding="same",
                kernel_initializer=he_normal(seed, layer_name, gain),
                name=layer_name,
                dtype=policy,
            )

        def normalization(index):
            return FrozenBatchNormalization(name=f"{name}_{index}_bn", dtype="float32")

        def relu(suffix):
            return keras.layers.Activation("relu", name=f"{name}_{suffix}", dtype=policy)

        self._shortcut = []
        if has_projection:
            self._shortcut = [convolution(0, 4 * filters, 1, stride), normalization(0)]
        # Frozen batch norms of a network that starts at random normalise nothing; small residuals
        # keep sixteen blocks from doubling the variance sixteen times.
        self._residual = [
            convolution(1, filters, 1, stride),
            normalization(1),
            relu("1_relu"),
            convolution(2, filters, 3, 1),
            normalization(2),
            relu("2_relu"),
            convolution(3, 4 * filters, 1, 1, gain=1 / 16),
            normalization(3),
        ]
        self._add = keras.layers.Add(name=f"{name}_add", dtype=policy)
        self._relu = relu("out")
        self.weight_layers = [
            layer
            for layer in (*self._shortcut, *self._residual)
            if isinstance(layer, keras.layers.Conv2D | FrozenBatchNormalization)
        ]

    def __call__(self, x):
        shortcut, residual = x, x
        for layer in self._shortcut:
            shortcut = layer(shortcut)
        for layer in self._residual:
            residual = layer(residual)
        return self._relu(self._add([shortcut, residual]))


class Conv5Head:
    """conv5_block1 to conv5_block3 at stride 1, then the average over the RoI; no dropout."""

    def __init__(self, policy: str, seed: int | None):
        self._blocks = _stage("conv5", 512, 3, 1, policy, seed)
        # float32: an average over 49 cells in bfloat16 would lose most of its digits.
        self._average = keras.layers.GlobalAveragePooling2D(name="roi_average", dtype="float32")
        self.layers = [layer for block in self._blocks for layer in block.weight_layers]

    def __call__(self, pooled: tf.Tensor, dropout_seed: tf.Tensor | None = None) -> tf.Tensor:
        """Map pooled (R, 7, 7, 1024) to (R, 2048) float32."""
        x = pooled
        for block in self._blocks:
            x = block(x)
        return self._average(x)


def build_base(policy: str, seed: int | None) -> keras.Model:
    """Build conv1_conv to conv4_block6_out with random weights."""
    image = keras.Input((None, None, 3), name="image")
    x = keras.layers.ZeroPadding2D(3, name="conv1_pad", dtype=IMAGE_POLICY)(image)
    x = keras.layers.Conv2D(
        64,
        7,
        strides=2,
        # Pixels have a standard deviation of about 64; features start near unit size.
        kernel_initializer=he_normal(seed, "conv1_conv", 1 / 64**2),
        name="conv1_conv",
        dtype=IMAGE_POLICY,
    )(x)
    x = FrozenBatchNormalization(name="conv1_bn", dtype="float32")(x)
    x = keras.layers.Activation("relu", name="conv1_relu", dtype=policy)(x)
    x = keras.layers.ZeroPadding2D(1, name="pool1_pad", dtype=policy)(x)
    x = keras.layers.MaxPooling2D(3, strides=2, name="pool1_pool", dtype=policy)(x)
    for name, (filters, count, stride) in STAGES.items():
        for block in _stage(name, filters, count, stride, policy, seed):
            x = block(x)
    return keras.Model(image, x, name="resnet50")


def build_head(policy: str, seed: int | None, dropout: float) -> Conv5Head:
    """Build conv5 (He et al. 2016, appendix A: res5 on 7x7 RoIs) with random weights.

    Raises:
        UserError: ``dropout`` is not 0: there are no layers that it could follow.
    """
    if dropout:
        raise UserError(
            "`detector.dropout` has no place in resnet50, which has no fc layers; leave it out."
        )
    return Conv5Head(policy, seed)


def _stage(name, filters, count, stride, policy, seed) -> list[_Bottleneck]:
    """The first block of a stage changes width and stride and has a projection."""
    return [
        _Bottleneck(
            f"{name}_block{index}",
            filters,
            stride if index == 1 else 1,
            has_projection=index == 1,
            policy=policy,
            seed=seed,
        )
        for index in range(1, count + 1)
    ]


# conv1, conv2 and every batch norm of the base (those of the head cannot be trained).
FROZEN = (
    *("conv1_conv", "conv1_bn"),
    *(
        f"{stage}_block{block}_{index}_{kind}"
        for stage, (_, count, _) in STAGES.items()
        for block in range(1, count + 1)
        for index in range(0 if block == 1 else 1, 4)
        for kind in (("conv", "bn") if stage == "conv2" else ("bn",))
    ),
)
