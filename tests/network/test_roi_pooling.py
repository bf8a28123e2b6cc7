"""The three rules of RoI pooling against plain NumPy loops, forward and gradient.

Shapes and names
----------------
N images, R RoIs, P bins per side, (H, W) map size, F channels; boxes are half-open
(y1, x1, y2, x2) in input pixels. ``loop_*`` are the independent references: they return the pooled
(R, P, P, F) float64 and, for an upstream gradient, the gradient of the features (N, H, W, F).
"""

from __future__ import annotations

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_frcnn.errors import UserError
from keras_frcnn.network import roi_pooling
from keras_frcnn.network.roi_pooling import RoiPooling, repeatable_rule

KINDS = ("crop", "max", "align")
HAND_BOX = [0.0, 0.0, 64.0, 64.0]


def c_round(value: float) -> int:
    return int(math.copysign(math.floor(abs(value) + 0.5), value))


@pytest.fixture
def in_threads(monkeypatch):
    """As in a process without op determinism, which once enabled stays so."""
    monkeypatch.setattr(roi_pooling, "is_op_determinism_enabled", lambda: False)


@pytest.fixture(params=["in_threads", "repeatable"])
def any_determinism(request):
    """Without op determinism and with it: the package's gradient and TensorFlow's."""
    request.getfixturevalue(request.param)


def loop_max(features, rois, roi_image, size, upstream):
    """Caffe's Forward_cpu and Backward_cpu, one bin after the other."""
    _, height, width, channels = features.shape
    pooled = np.zeros((len(rois), size, size, channels))
    gradient = np.zeros(features.shape)
    for r, (y1, x1, y2, x2) in enumerate(rois):
        top, left = c_round(y1 / 16), c_round(x1 / 16)
        rows = max(c_round((y2 - 1) / 16) - top + 1, 1)
        columns = max(c_round((x2 - 1) / 16) - left + 1, 1)
        for i in range(size):
            for j in range(size):
                row_range = range(top + i * rows // size, top - (-(i + 1) * rows // size))
                column_range = range(
                    left + j * columns // size, left - (-(j + 1) * columns // size)
                )
                for c in range(channels):
                    best, cell = -np.inf, None
                    for y in row_range:
                        for x in column_range:
                            inside = 0 <= y < height and 0 <= x < width
                            if inside and features[roi_image[r], y, x, c] > best:
                                best, cell = features[roi_image[r], y, x, c], (y, x)
                    if cell is not None:
                        pooled[r, i, j, c] = best
                        gradient[(roi_image[r], *cell, c)] += upstream[r, i, j, c]
    return pooled, gradient


def bilinear_weights(position: float, extent: int) -> list[tuple[int, float]]:
    """(cell, weight) of a sample along one axis; none farther than a cell from the map."""
    if not -1 <= position <= extent:
        return []
    position = min(max(position, 0.0), extent - 1.0)
    low = min(int(position), max(extent - 2, 0))
    return [(low, 1 - (position - low)), (min(low + 1, extent - 1), position - low)]


def loop_samples(features, rois, roi_image, size, upstream, reduce):
    """Bins of 2 x 2 bilinear values; ``reduce`` is "max" or "mean"."""
    _, height, width, channels = features.shape
    pooled = np.zeros((len(rois), size, size, channels))
    gradient = np.zeros(features.shape)
    for r, (y1, x1, y2, x2) in enumerate(rois):
        image = roi_image[r]
        for i, j in np.ndindex(size, size):
            values, weights = [], []
            for a, b in np.ndindex(2, 2):
                y = y1 / 16 + (i + (a + 0.5) / 2) * (y2 - y1) / 16 / size - 0.5
                x = x1 / 16 + (j + (b + 0.5) / 2) * (x2 - x1) / 16 / size - 0.5
                weight = np.zeros((height, width))
                for row, row_weight in bilinear_weights(y, height):
                    for column, column_weight in bilinear_weights(x, width):
                        weight[row, column] += row_weight * column_weight
                weights.append(weight)
                values.append(np.einsum("yx,yxc->c", weight, features[image]))
            values, weights = np.array(values), np.array(weights)
            if reduce == "mean":
                pooled[r, i, j] = values.mean(0)
                gradient[image] += weights.mean(0)[..., None] * upstream[r, i, j]
            else:
                pooled[r, i, j] = values.max(0)
                gradient[image] += np.moveaxis(weights[values.argmax(0)], 0, -1) * upstream[r, i, j]
    return pooled, gradient


def reference(kind, features, rois, roi_image, size, upstream):
    if kind == "max":
        return loop_max(features, rois, roi_image, size, upstream)
    reduce = "max" if kind == "crop" else "mean"
    return loop_samples(features, rois, roi_image, size, upstream, reduce)


def pool_with_gradient(layer, features, rois, roi_image, upstream):
    features = tf.constant(features)
    with tf.GradientTape() as tape:
        tape.watch(features)
        pooled = layer([features, tf.constant(rois), tf.constant(roi_image)])
    gradient = tape.gradient(pooled, features, output_gradients=tf.constant(upstream))
    return pooled.numpy(), gradient.numpy()


def random_case(seed, shape, rois, size):
    """Features without ties, RoIs as given plus their images, and an upstream gradient."""
    generator = np.random.default_rng(seed)
    features = generator.permutation(np.prod(shape)).reshape(shape).astype(np.float32) / 100 - 3
    rois = np.asarray(rois, np.float32)
    roi_image = generator.integers(0, shape[0], len(rois)).astype(np.int32)
    upstream = generator.normal(size=(len(rois), size, size, shape[3])).astype(np.float32)
    return features, rois, roi_image, upstream


def random_boxes(seed, count, height, width):
    """Boxes inside an image of height x width pixels, of all sizes, half on whole pixels."""
    generator = np.random.default_rng(seed)
    corners = np.sort(generator.uniform(0, 1, (count, 2, 2)), axis=1) * [height, width]
    corners[::2] = np.round(corners[::2])
    return corners.reshape(count, 4)


DEGENERATE = [
    [50.0, 60.0, 50.0, 60.0],  # no area
    [90.0, 70.0, 40.0, 30.0],  # corners swapped
    [33.0, 47.0, 34.0, 48.0],  # one pixel
    [0.0, 0.0, 1.0, 1.0],
]
OVERHANGING = [
    [
        -40.0,
        -56.0,
        60.0,
        72.0,
    ],  # -56 / 16 = -3.5 and -40 / 16 = -2.5: halves below zero
    [100.0, 90.0, 400.0, 500.0],
    [-80.0, -80.0, 900.0, 900.0],
    [-300.0, 10.0, -200.0, 60.0],  # all outside
    [1000.0, 1000.0, 1100.0, 1200.0],
]
HALVES = [[8.0, 24.0, 57.0, 105.0], [40.0, 8.0, 89.0, 73.0]]  # start and end - 1 on .5


@pytest.mark.parametrize("size", [7, 6])
def test_max_equals_a_plain_loop_with_integer_bins(size):
    rois = [*random_boxes(0, 40, 13 * 16, 18 * 16), *DEGENERATE, *OVERHANGING, *HALVES]
    features, rois, roi_image, upstream = random_case(1, (2, 13, 18, 3), rois, size)
    features = np.round(features / 10)  # many ties: the first cell of a bin gets the gradient
    case = features, rois, roi_image
    pooled, gradient = pool_with_gradient(RoiPooling("max", size), *case, upstream)
    expected_pooled, expected_gradient = loop_max(*case, size, upstream)
    np.testing.assert_array_equal(pooled, expected_pooled)
    np.testing.assert_allclose(gradient, expected_gradient, atol=2e-5)
    assert (pooled[-4:-2] == 0).all()  # the two boxes outside: empty bins are 0, not -inf


def test_max_bins_of_every_length_up_to_a_large_map():
    """Ranges of 1 to 70 cells: each power of two and its neighbours (57 cells is Caffe's trap)."""
    rois = [[0.0, 0.0, 16.0 * n, 16.0 * (71 - n)] for n in range(1, 71)]
    features, rois, roi_image, upstream = random_case(2, (1, 70, 70, 1), rois, 7)
    case = features, rois, roi_image
    pooled, _ = pool_with_gradient(RoiPooling("max", 7), *case, upstream)
    np.testing.assert_array_equal(pooled, loop_max(*case, 7, upstream)[0])


def test_max_by_hand():
    """(0, 0, 64, 64) covers cells 0 to round(63 / 16) = 4; 2 bins of 5 cells share the third."""
    features = np.arange(36, dtype=np.float32).reshape(1, 6, 6, 1)
    pooled, gradient = pool_with_gradient(
        RoiPooling("max", 2),
        features,
        np.array([HAND_BOX], np.float32),
        np.array([0], np.int32),
        np.array([1.0, 2.0, 3.0, 4.0], np.float32).reshape(1, 2, 2, 1),
    )
    assert pooled[0, ..., 0].tolist() == [[14.0, 16.0], [26.0, 28.0]]
    assert {int(cell): gradient.flat[cell] for cell in np.flatnonzero(gradient)} == {
        14: 1.0,
        16: 2.0,
        26: 3.0,
        28: 4.0,
    }


@pytest.mark.parametrize("kind", KINDS)
def test_bilinear_and_max_by_hand_on_a_ramp(kind):
    """On a map that holds its own column, the four bins of a 4-cell box at the origin."""
    features = np.tile(np.arange(6, dtype=np.float32), (1, 6, 1))[..., None]
    rois, roi_image = np.array([HAND_BOX], np.float32), np.array([0], np.int32)
    pooled = RoiPooling(kind, 2)([features, rois, roi_image]).numpy()
    # Samples lie at columns 0, 1, 2, 3: two per bin.
    expected = {"crop": [1.0, 3.0], "align": [0.5, 2.5], "max": [2.0, 4.0]}[kind]
    np.testing.assert_allclose(pooled[0, :, :, 0], [expected, expected], atol=1e-5)


@pytest.mark.parametrize("size", [7, 6])
@pytest.mark.parametrize("kind", ["crop", "align"])
def test_samples_are_bilinear_at_the_bin_positions(kind, size, any_determinism):
    height, width = 11 * 16, 15 * 16
    borders = [
        [0.0, 0.0, 40.0, 30.0],
        [0.0, 0.0, height, width],
        [height - 20.0, width - 9.0, height, width],
        [0.0, width - 40.0, 6.0, width],
    ]
    # Moved by 0.3: at exactly one cell outside, rounding decides between the border and 0.
    overhanging = np.array(OVERHANGING) + 0.3
    rois = [*random_boxes(3, 12, height, width), *borders, *DEGENERATE, *overhanging]
    case = random_case(4, (2, 11, 15, 3), rois, size)
    pooled, gradient = pool_with_gradient(RoiPooling(kind, size), *case)
    expected_pooled, expected_gradient = reference(kind, *case[:3], size, case[3])
    np.testing.assert_allclose(pooled, expected_pooled, atol=1e-4)
    np.testing.assert_allclose(gradient, expected_gradient, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(1, 1, 9, 2), (2, 8, 1, 2), (1, 1, 1, 2)])
def test_maps_one_cell_high_or_wide(kind, shape, any_determinism):
    rois = [*random_boxes(7, 6, shape[1] * 16, shape[2] * 16), [0.0, 0.0, 16.0, 16.0]]
    case = random_case(8, shape, rois, 7)
    pooled, gradient = pool_with_gradient(RoiPooling(kind, 7), *case)
    expected_pooled, expected_gradient = reference(kind, *case[:3], 7, case[3])
    np.testing.assert_allclose(pooled, expected_pooled, atol=1e-4)
    np.testing.assert_allclose(gradient, expected_gradient, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_each_roi_reads_its_own_image(kind):
    features = np.stack([np.full((6, 6, 1), value, np.float32) for value in (1.0, 2.0, 3.0)])
    rois = np.array([[10.0, 10.0, 70.0, 80.0]] * 4, np.float32)
    roi_image = np.array([2, 0, 1, 2], np.int32)
    pooled = RoiPooling(kind, 7)([features, rois, roi_image]).numpy()
    np.testing.assert_allclose(pooled[:, :, :, 0].min((1, 2)), [3, 1, 2, 3], rtol=1e-6)
    np.testing.assert_allclose(pooled[:, :, :, 0].max((1, 2)), [3, 1, 2, 3], rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [tf.bfloat16, tf.float16])
def test_half_precision_features_are_pooled_in_float32(kind, dtype, any_determinism):
    """803.5 px is no bfloat16 number: the RoIs must stay float32; the gradient is half again."""
    rois = np.array([[3.3, 701.3, 90.7, 803.5], [17.1, 515.1, 64.9, 803.5]], np.float32)
    features, rois, roi_image, _ = random_case(9, (1, 8, 52, 2), rois, 7)
    half = tf.cast(features, dtype)
    layer = RoiPooling(kind, 7)
    with tf.GradientTape() as tape:
        tape.watch(half)
        pooled = layer([half, rois, roi_image])
    assert tape.gradient(pooled, half).dtype == dtype
    assert pooled.dtype == tf.float32
    exact = layer([tf.cast(half, tf.float32), rois, roi_image])
    np.testing.assert_array_equal(pooled, exact)


@pytest.mark.parametrize("kind", KINDS)
def test_no_autocast_under_a_half_precision_policy(kind):
    features, rois, roi_image, _ = random_case(10, (1, 8, 52, 2), [[3.3, 701.3, 90.7, 803.5]], 7)
    expected = RoiPooling(kind, 7)([features, rois, roi_image]).numpy()
    before = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        layer = RoiPooling(kind, 7)
        pooled = layer([features, rois, roi_image])
    finally:
        keras.mixed_precision.set_global_policy(before)
    assert pooled.dtype == tf.float32
    np.testing.assert_array_equal(pooled, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_functional_model_with_any_sizes_and_no_rois(kind, any_determinism):
    """One trace serves all sizes, R = 0 included, with gradients."""
    inputs = [
        keras.Input(shape=(None, None, 4)),
        keras.Input(shape=(4,)),
        keras.Input(shape=(), dtype="int32"),
    ]
    pooled = RoiPooling(kind, 7)(inputs)
    assert tuple(pooled.shape) == (None, 7, 7, 4)
    model = keras.Model(inputs, pooled)
    traces = []

    @tf.function(
        input_signature=[
            tf.TensorSpec((None, None, None, 4)),
            tf.TensorSpec((None, 4)),
            tf.TensorSpec((None,), tf.int32),
        ]
    )
    def step(features, rois, roi_image):
        traces.append(1)
        with tf.GradientTape() as tape:
            tape.watch(features)
            pooled = model([features, rois, roi_image])
            total = tf.reduce_sum(pooled**2)
        return pooled, tape.gradient(total, features)

    for images, height, width, rois in (
        (1, 6, 9, 5),
        (2, 3, 4, 1),
        (1, 20, 1, 0),
        (3, 5, 5, 7),
    ):
        boxes = random_boxes(11, rois, height * 16, width * 16)
        case = random_case(12, (images, height, width, 4), boxes.reshape(-1, 4), 7)
        output, gradient = step(*case[:3])
        expected = reference(kind, *case[:3], 7, 2 * output.numpy())
        np.testing.assert_allclose(output, expected[0], atol=1e-4)
        np.testing.assert_allclose(gradient, expected[1], rtol=1e-4, atol=1e-3)
    assert len(traces) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_rois_are_constants(kind):
    features, rois, roi_image, _ = random_case(13, (1, 8, 8, 2), random_boxes(13, 3, 128, 128), 7)
    rois = tf.constant(rois)
    with tf.GradientTape() as tape:
        tape.watch(rois)
        pooled = RoiPooling(kind, 7)([features, rois, roi_image])
    assert tape.gradient(pooled, rois) is None


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_is_the_same_every_time(kind, in_threads):
    """Many boxes over the same cells: threads that add without a lock lose some of it."""
    boxes = random_boxes(14, 128, 600, 800)
    case = random_case(14, (1, 38, 50, 64), boxes, 7)
    first, *others = (pool_with_gradient(RoiPooling(kind, 7), *case)[1] for _ in range(10))
    for other in others:
        np.testing.assert_array_equal(first, other)


@pytest.mark.parametrize("kind", KINDS)
def test_config_round_trip(kind):
    layer = RoiPooling(kind, 6, 8)
    again = RoiPooling.from_config(layer.get_config())
    assert (again.kind, again.size, again.stride, again.name) == (kind, 6, 8, layer.name)
    assert again.get_config() == layer.get_config()


@pytest.mark.parametrize("kind", KINDS)
def test_stride_scales_the_boxes(kind):
    features, rois, roi_image, _ = random_case(15, (1, 9, 9, 2), [[3.0, 5.0, 61.0, 70.0]], 7)
    at_8 = RoiPooling(kind, 7, 8)([features, rois, roi_image])
    if kind == "max":  # round(3 / 8) = 0, round(60 / 8) = 8; round(5 / 8) = 1, round(69 / 8) = 9
        rois = np.array([[0.0, 16.0, 8 * 16 + 1, 9 * 16 + 1]], np.float32)
    else:
        rois = rois * 2
    np.testing.assert_allclose(at_8, RoiPooling(kind, 7)([features, rois, roi_image]), 1e-5)


@pytest.mark.parametrize("gpus", [0, 1])
@pytest.mark.parametrize("kind", [None, *KINDS])
def test_what_is_repeatable_on_a_gpu(kind, gpus, monkeypatch):
    visible = ["GPU:0"] * gpus
    monkeypatch.setattr("tensorflow.config.get_visible_devices", lambda kind: visible)
    if gpus == 0:
        assert repeatable_rule(kind) == kind
    elif kind in (None, "max"):
        assert repeatable_rule(kind) == "max"
    else:
        with pytest.raises(UserError, match=f"`deterministic` cannot .*pooling` {kind} on a GPU"):
            repeatable_rule(kind)


def test_mistakes_are_named():
    with pytest.raises(
        UserError, match="`roi_pooling` should be one of crop, max, align, not 'avg'"
    ):
        RoiPooling("avg", 7)
    with pytest.raises(UserError, match="size should be at least 1 .* not 0"):
        RoiPooling("max", 0)
    with pytest.raises(UserError, match="stride should be of type int, not 1.5"):
        RoiPooling("max", 7, 1.5)
