"""Table 4: time of an image, split, on this machine; sizes of the parts (section 3.3, text)."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping

import keras
import numpy as np
import tensorflow as tf

from keras_frcnn.benchmark.testing import waiting
from keras_frcnn.detection.network_detector import NetworkDetector, load_run
from keras_frcnn.network.backbones import vgg16, zf
from keras_frcnn.network.network_input import network_input
from keras_frcnn.paper import published
from keras_frcnn.paper.kept import compressed, four_steps, search_method
from keras_frcnn.paper.sheet import Cell, Sheet, columns
from keras_frcnn.paper.workshop import TEST_SETS, Absent, Workshop
from keras_frcnn.system.timing import Timing, in_turns

REPETITIONS = 10
SEARCHED_IMAGES = 5  # Selective Search takes seconds an image
BOXES = 2000
NAMES = {"vgg16": "VGG-16", "zf": "ZF"}
BASES = {"vgg16": vgg16.build_base, "zf": zf.build_base}
PARTS = ("conv", "proposal", "region-wise")
SHARES = ("conv", "proposals", "region-wise")
SVD = "SS + Fast R-CNN with SVD, without proposals (text)"

# Median and spread of each part; the paper gives no spreads.
Milliseconds = Mapping[str, tuple[float, float | None]]


def make(workshop: Workshop, name: str) -> Sheet:
    """Each system's parts with their spread, and the shares beside the paper's."""
    image = workshop.data(TEST_SETS["07"]).examples[0].pixels()
    rows: list[tuple[Cell, ...]] = []
    remarks: list[str] = []
    measured: dict[str, Milliseconds] = {}
    for (network, method), paper in published.TABLE4.items():
        own = workshop.budget.network_or(network)
        system = "RPN + Fast R-CNN" if method == "rpn" else "SS + Fast R-CNN"
        times = {part: (value, None) for part, value in zip(PARTS, paper, strict=True)}
        rows.append(_row(f"{system}, {NAMES[network]}", "paper", times))
        label = f"{system}, {own}"
        try:
            if label not in measured:
                predictor = load_run(four_steps(workshop, own).path)
                if method == "rpn":
                    measured[label], rois = time_parts(predictor, image)
                    remarks.extend(_about(predictor, own, rois))
                else:
                    measured[label] = _with_search(workshop, predictor, image, remarks)
        except Absent as reason:
            remarks.append(f"{label}: {reason}.")
        rows.append(_row(label, "ours", measured.get(label, {})))
    unknown = (None,) * (1 + len(SHARES))
    rows.append((SVD, "paper", "-", "-", "-", published.TABLE4_SVD_MILLISECONDS, *unknown))
    rows.append(_row(SVD, "ours", _with_svd(workshop, image, remarks)))
    return Sheet(
        name=name,
        title="Table 4: time per image in milliseconds",
        columns=columns(
            "system",
            "whose",
            *PARTS,
            ("total", 0),
            ("images a second", 2),
            *((f"share of {part}, %", 1) for part in SHARES),
        ),
        rows=tuple(rows),
        caption=f"{workshop.caption()} Ours: one image of {image.shape[1]} x "
        f"{image.shape[0]} pixels, warm, median of {REPETITIONS} runs +- half the distance of the "
        f"quartiles, {_device()}; the paper's: a K40 (Selective Search on a CPU).",
        remarks=(*remarks, *_fields()),
    )


def _row(label: str, whose: str, times: Milliseconds) -> tuple[Cell, ...]:
    """Medians and spreads of the parts, their sum, rate and shares where they are complete."""
    texts = [_text(*times[part]) if part in times else "-" for part in PARTS]
    total = sum(median for median, _ in times.values())
    if set(times) != set(PARTS):
        return (label, whose, *texts, total if times else None, *(None,) * (1 + len(SHARES)))
    shares = [100 * times[part][0] / total for part in PARTS]
    return (label, whose, *texts, total, 1000 / total, *shares)


def _text(median: float, spread: float | None) -> str:
    return f"{median:.0f}" if spread is None else f"{median:.0f} +- {spread:.0f}"


def time_parts(
    predictor: NetworkDetector, image: np.ndarray, given: np.ndarray | None = None
) -> tuple[Milliseconds, int]:
    """Times the parts of one image, warm and each waited for.

    Args:
        predictor: RPN and detector share its base, unless proposals are given.
        image: (H, W, 3) uint8.
        given: (R, 4) proposals in image pixels, in place of the RPN's, which are not timed then.

    Returns:
        The times, and how many RoIs went through the detector.
    """
    model, detector = predictor.model, predictor.detector_model
    inputs, frames = network_input(tf.constant(image[None]), model.recipe.image)

    @tf.function
    def proposals(features):
        found = model.proposals(model.rpn(features), frames, predictor.proposals)
        return found.boxes_input[0, : found.count[0]]

    @tf.function
    def detections(features, rois):
        count = tf.shape(rois)[:1]
        chosen = predictor.detection_filter
        return detector.detections(features, rois[None], count, frames, chosen).scores

    base = tf.function(detector.features)
    features = base(inputs)
    calls = {"conv": waiting(base, (inputs,))}
    if given is None:
        rois = proposals(features)
        calls["proposal"] = waiting(proposals, (features,))
    else:
        rois = tf.constant(given * np.tile(frames.scales[0], 2), tf.float32)
    calls["region-wise"] = waiting(detections, (features, rois))
    return _milliseconds(in_turns(calls, repetitions=REPETITIONS)), int(rois.shape[0])


def _milliseconds(timings: Mapping[str, Timing]) -> Milliseconds:
    return {part: (1000 * each.median_wall, 1000 * each.spread) for part, each in timings.items()}


def _with_search(
    workshop: Workshop, predictor: NetworkDetector, image: np.ndarray, remarks: list[str]
) -> Milliseconds:
    """Selective Search timed on a few images, the detector on the boxes of one."""
    search = search_method(workshop, "ss")
    seconds = []
    for example in workshop.data(TEST_SETS["07"]).examples[:SEARCHED_IMAGES]:
        pixels = example.pixels()
        start = time.perf_counter()
        search(pixels)
        seconds.append(time.perf_counter() - start)
    boxes = search(image).best(BOXES).boxes_image
    times, _ = time_parts(predictor, image, boxes)
    low, median, high = np.quantile(seconds, (0.25, 0.5, 0.75)).tolist()
    remarks.append(
        f"Selective Search found {len(boxes)} boxes in this image (the paper: about 2000); its "
        f"time is the median of {len(seconds)} images."
    )
    return {**times, "proposal": (1000 * median, 500 * (high - low))}


def _with_svd(workshop: Workshop, image: np.ndarray, remarks: list[str]) -> Milliseconds:
    """The compressed detector on the boxes of Selective Search."""
    network = workshop.budget.network_or("vgg16")
    try:
        predictor = load_run(compressed(workshop, four_steps(workshop, network)).path)
        boxes = search_method(workshop, "ss")(image).best(BOXES).boxes_image
    except Absent as reason:
        remarks.append(f"{SVD}: {reason}.")
        return {}
    return time_parts(predictor, image, boxes)[0]


def _about(predictor: NetworkDetector, network: str, rois: int) -> Iterator[str]:
    """Sizes of the parts, and of how many proposals the times are."""
    parts = {"convolutions": "base", "RPN": "rpn", "detector's head": "head"}
    sizes = ", ".join(
        f"{name} {sum(layer.count_params() for layer in predictor.model.layers(part)) / 1e6:.1f} M"
        for name, part in parts.items()
    )
    paper = published.RPN_PARAMETERS.get(network)
    beside = f" (paper: RPN {paper / 1e6:.1f} M)" if paper else ""
    yield f"{network}: parameters: {sizes}{beside}."
    yield f"{network}: timed with {rois} proposals."


def receptive_field(layers: Iterable[keras.layers.Layer]) -> int:
    """Pixels along a side that one cell of the output depends on, for a chain of square layers.

    The RPN's 3x3 convolution over VGG-16's conv5_3 sees 228 pixels, over ZF's conv5 171.

    Raises:
        ValueError: the layers are no chain, or a kernel or stride is not square.
    """
    field, jump = 1, 1
    for layer in layers:
        if isinstance(layer, keras.layers.Add):
            raise ValueError(f"{layer.name} joins branches: this is no chain of layers")
        kernel = getattr(layer, "kernel_size", None) or getattr(layer, "pool_size", None)
        if kernel is None:
            continue
        strides = getattr(layer, "strides", (1, 1))
        if len(set(kernel)) != 1 or len(set(strides)) != 1:
            raise ValueError(f"{layer.name} is not square: kernel {kernel}, strides {strides}")
        field += (kernel[0] - 1) * jump
        jump *= strides[0]
    return field


def _fields() -> Iterator[str]:
    """The receptive fields of the paper's networks; they need neither weights nor times."""
    for network, build_base in BASES.items():
        window = keras.layers.Conv2D(512, 3)
        field = receptive_field([*build_base("float32", 0).layers, window])
        expected = published.RECEPTIVE_FIELDS[network]
        yield f"{network}: the RPN's window sees {field} pixels of the input (paper: {expected})."


def _device() -> str:
    gpus = tf.config.get_visible_devices("GPU")
    if not gpus:
        return "on this machine's processor"
    details = tf.config.experimental.get_device_details(gpus[0])
    return f"on {details.get('device_name', 'a GPU')}"
