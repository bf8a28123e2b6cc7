"""Which precision this machine computes fastest in, measured.

A precision is ``float32``, ``bfloat16`` or ``float16``, that of convolutions and fc layers;
boxes, softmax, losses, optimizer and decoding are float32 in all of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from keras_frcnn.errors import UserError, reason_of
from keras_frcnn.system.timing import Call, in_turns

# A conv4 layer of VGG-16 at 600 x 800 pixels.
FEATURES = (1, 75, 100, 256)
KERNEL = (3, 3, 256, 512)
REPETITIONS = 5
# Half precision has to be faster by this much: it is not chosen for a tie.
LEAST_GAIN = 1.15


def candidates() -> tuple[str, ...]:
    """Precisions to try: float16 only on GPUs, CPUs emulate it."""
    if tf.config.list_logical_devices("GPU"):
        return "float32", "bfloat16", "float16"
    return "float32", "bfloat16"


def fastest_precision(tried: Sequence[str] | None = None) -> tuple[str, str]:
    """The precision to use, and the sentence that says why.

    float32 where nothing is faster by :data:`LEAST_GAIN`; bfloat16 before float16, which needs its
    loss scaled, unless float16 is faster by as much again. What this machine cannot compute in is
    left out, and the sentence says so.

    Args:
        tried: ``float32`` first; default: :func:`candidates`.
    """
    tried = candidates() if tried is None else tried
    calls = {name: _convolution(name) for name in tried}
    failures = {name: failure for name in tried[1:] if (failure := _failure(calls[name]))}
    timings = in_turns(
        {name: call for name, call in calls.items() if name not in failures},
        repetitions=REPETITIONS,
    )
    seconds = {name: timing.median_wall for name, timing in timings.items()}
    chosen = "float32"
    for name, value in seconds.items():
        if value * LEAST_GAIN < seconds[chosen]:
            chosen = name
    measured = ", ".join(f"{name} {1000 * value:.0f} ms" for name, value in seconds.items())
    failed = "".join(f"; {name} fails here: {failure}" for name, failure in failures.items())
    return (
        chosen,
        f"--precision auto chose {chosen}: a convolution of VGG-16 takes {measured}{failed}",
    )


def check_computes(precision: str) -> None:
    """Makes sure that this machine has a convolution in a half precision that was asked for.

    Raises:
        UserError: it fails; the message has TensorFlow's reason.
    """
    if precision == "float32":
        return
    failure = _failure(_convolution(precision, (1, 8, 8, 16), (3, 3, 16, 16)))
    if failure:
        raise UserError(
            f"A convolution in {precision} fails on this machine: {failure}. Give --precision "
            "float32, or auto: what is measured fastest."
        )


def _failure(call: Call) -> str:
    """Why a call fails, in one line; empty where it does not."""
    try:
        call()
    except tf.errors.OpError as error:  # Aborted by oneDNN, Unimplemented or NotFound on GPUs
        return reason_of(error).rstrip(".")
    return ""


def _convolution(
    precision: str,
    features_shape: tuple[int, ...] = FEATURES,
    kernel_shape: tuple[int, ...] = KERNEL,
) -> Call:
    generator = np.random.default_rng(0)
    features, kernel = (
        tf.cast(generator.standard_normal(shape, np.float32), precision)
        for shape in (features_shape, kernel_shape)
    )
    convolve = tf.function(lambda: tf.nn.conv2d(features, kernel, 1, "SAME"))
    return lambda: convolve()[0, 0, 0, :1].numpy()
