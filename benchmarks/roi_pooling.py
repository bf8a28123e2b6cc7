"""Times the rules of RoI pooling, forward and with the gradient towards the features.

Run from the project root: ``python -m benchmarks.roi_pooling --help``. The boxes have sides of 32
to 550 pixels, log-uniform, clipped to the image, as proposals of a 600x800 photo do.

Shapes and names
----------------
R  RoIs.  H, W  size of the feature map in cells of 16 pixels.  F  channels.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from keras_frcnn.network.roi_pooling import RULES, RoiPooling

STRIDE = 16


def random_rois(count: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    """(count, 4) float32 boxes in an image of height x width pixels."""
    generator = np.random.default_rng(seed)
    sides = np.exp(generator.uniform(np.log(32), np.log(550), (count, 2)))
    centres = generator.uniform(0, 1, (count, 2)) * [height, width]
    corners = np.concatenate([centres - sides / 2, centres + sides / 2], axis=1)
    return np.clip(corners, 0, [height, width] * 2).astype(np.float32)


def median_milliseconds(function: Callable[[], tf.Tensor], repeats: int) -> float:
    """Median wall time of a call, after two calls to trace and warm up."""
    seconds = []
    for repeat in range(repeats + 2):
        start = time.perf_counter()
        function().numpy()  # waits for the device
        if repeat >= 2:
            seconds.append(time.perf_counter() - start)
    return 1000 * float(np.median(seconds))


def time_pooling(
    kind: str, size: int, features: tf.Tensor, rois: np.ndarray, repeats: int
) -> tuple[float, float]:
    """Milliseconds of the forward pass and of forward and gradient."""
    layer = RoiPooling(kind, size, STRIDE)
    rois_input, roi_image = tf.constant(rois), tf.zeros([len(rois)], tf.int32)
    upstream = tf.random.stateless_normal([len(rois), size, size, features.shape[3]], seed=(0, 1))

    @tf.function
    def forward(features):
        return layer([features, rois_input, roi_image])

    @tf.function
    def gradient(features):
        with tf.GradientTape() as tape:
            tape.watch(features)
            pooled = layer([features, rois_input, roi_image])
        return tape.gradient(pooled, features, output_gradients=upstream)

    return (
        median_milliseconds(lambda: forward(features), repeats),
        median_milliseconds(lambda: gradient(features), repeats),
    )


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--kinds", nargs="+", choices=list(RULES), default=list(RULES))
    parser.add_argument("--rois", nargs="+", type=int, default=[128, 300], help="numbers of RoIs")
    parser.add_argument("--height", type=int, default=38, help="cells of the feature map")
    parser.add_argument("--width", type=int, default=50, help="cells of the feature map")
    parser.add_argument("--channels", type=int, default=512)
    parser.add_argument("--size", type=int, default=7, help="bins per side")
    parser.add_argument("--repeats", type=int, default=9, help="timed calls, the median is shown")
    parser.add_argument(
        "--deterministic",
        action="store_true",
        help="with op determinism, as the command lines have it on the CPU; without it crop and "
        "align have a gradient of their own there",
    )
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    if arguments.deterministic:
        tf.config.experimental.enable_op_determinism()
    shape = (1, arguments.height, arguments.width, arguments.channels)
    features = tf.random.stateless_normal(shape, seed=(0, 0))
    print(f"TensorFlow {tf.__version__}, map {shape[1]}x{shape[2]}x{shape[3]}, ms (median)")
    print(f"{'pooling':<8} {'RoIs':>6} {'forward':>9} {'with gradient':>14}")
    for kind in arguments.kinds:
        for count in arguments.rois:
            rois = random_rois(count, arguments.height * STRIDE, arguments.width * STRIDE)
            times = time_pooling(kind, arguments.size, features, rois, arguments.repeats)
            print(f"{kind:<8} {count:>6} {times[0]:>9.1f} {times[1]:>14.1f}", flush=True)


if __name__ == "__main__":
    main()
