"""Table 4: time of an image, split, on this machine; sizes of the parts (section 3.3, text)."""

from __future__ import annotations

import time
from collections.abc import Iterable

import keras
import numpy as np
import tensorflow as tf

from keras_frcnn.benchmark.image_parts import time_parts
from keras_frcnn.data.images import read_image
from keras_frcnn.detection.network_detector import NetworkDetector, load_run
from keras_frcnn.network.backbones import vgg16, zf
from keras_frcnn.paper import published
from keras_frcnn.paper.kept_proposals import search_method
from keras_frcnn.paper.sheet import Column, Sheet
from keras_frcnn.paper.trainings import compressed, four_steps
from keras_frcnn.paper.workshop import TEST_SETS, Absent, Workshop
from keras_frcnn.system.timing import Timing

REPETITIONS = 10
SEARCHED_IMAGES = 5  # Selective Search takes seconds an image
BOXES = 2000
NAMES = {"vgg16": "VGG-16", "zf": "ZF"}
BASES = {"vgg16": vgg16.build_base, "zf": zf.build_base}
PARTS = ("conv", "proposal", "region-wise")
SHARES = ("conv", "proposals", "region-wise")
SVD = "SS + Fast R-CNN with SVD, without proposals (text)"


def make(workshop: Workshop) -> Sheet:
    """Each system's parts with their spread, and the shares beside the paper's."""
    image = read_image(workshop.data(TEST_SETS["07"]).examples[0].path)
    rows, remarks = [], []
    measured: dict[str, dict[str, tuple[float, float]]] = {}
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
                    timings, rois = time_parts(predictor, image, repetitions=REPETITIONS)
                    measured[label] = _parts(timings)
                    remarks.extend(_about(predictor, own, rois))
                else:
                    measured[label] = _with_search(workshop, predictor, image, remarks)
        except Absent as reason:
            remarks.append(f"{label}: {reason}.")
        rows.append(_row(label, "ours", measured.get(label, {})))
    unknown = (None,) * (1 + len(SHARES))
    rows.append((SVD, "paper", "-", "-", "-", published.TABLE4_SVD_MILLISECONDS, *unknown))
    rows.append(_svd_row(workshop, image, remarks))
    return Sheet(
        name="table4",
        title="Table 4: time per image in milliseconds",
        columns=(
            Column("system"),
            Column("whose"),
            Column("conv"),
            Column("proposal"),
            Column("region-wise"),
            Column("total", 0),
            Column("images a second", 2),
            *(Column(f"share of {part}, %", 1) for part in SHARES),
        ),
        rows=tuple(rows),
        caption=f"{workshop.caption()} Ours: one image of {image.shape[1]} x "
        f"{image.shape[0]} pixels, warm, median of {REPETITIONS} runs +- half the distance of the "
        f"quartiles, {_device()}; the paper's: a K40 (Selective Search on a CPU).",
        remarks=(*remarks, *_fields()),
    )


Milliseconds = dict[str, tuple[float, float | None]]


def _row(label: str, whose: str, times: Milliseconds):
    """Medians and spreads of the parts, their sum, rate and shares where they are complete."""
    texts = [_text(*times[part]) if part in times else "-" for part in PARTS]
    total = sum(median for median, _ in times.values()) if times else None
    if set(times) != set(PARTS):
        return (label, whose, *texts, total, *(None,) * (1 + len(SHARES)))
    shares = [100 * times[part][0] / total for part in PARTS]
    return (label, whose, *texts, total, 1000 / total, *shares)


def _text(median: float, spread: float | None) -> str:
    return f"{median:.0f}" if spread is None else f"{median:.0f} +- {spread:.0f}"


def _parts(timings: dict[str, Timing]) -> Milliseconds:
    return {
        part: (1000 * timing.median_wall, 1000 * timing.spread) for part, timing in timings.items()
    }


def _with_search(
    workshop: Workshop, predictor: NetworkDetector, image: np.ndarray, remarks: list[str]
) -> Milliseconds:
    """Selective Search timed on a few images, the detector on the boxes of one."""
    search = search_method(workshop, "ss")
    seconds = []
    for example in workshop.data(TEST_SETS["07"]).examples[:SEARCHED_IMAGES]:
        pixels = read_image(example.path)
        start = time.perf_counter()
        search(pixels)
        seconds.append(time.perf_counter() - start)
    boxes = search(image).best(BOXES).boxes_image
    timings, _ = time_parts(predictor, image, given=boxes, repetitions=REPETITIONS)
    low, median, high = np.quantile(seconds, (0.25, 0.5, 0.75))
    remarks.append(
        f"Selective Search found {len(boxes)} boxes in this image (the paper: about 2000); its "
        f"time is the median of {len(seconds)} images."
    )
    return {**_parts(timings), "proposal": (1000 * median, 500 * (high - low))}


def _svd_row(workshop: Workshop, image: np.ndarray, remarks: list[str]):
    network = workshop.budget.network_or("vgg16")
    try:
        predictor = load_run(compressed(workshop, four_steps(workshop, network)).path)
        boxes = search_method(workshop, "ss")(image).best(BOXES).boxes_image
    except Absent as reason:
        remarks.append(f"{SVD}: {reason}.")
        return _row(SVD, "ours", {})
    timings, _ = time_parts(predictor, image, given=boxes, repetitions=REPETITIONS)
    return _row(SVD, "ours", _parts(timings))


def _about(predictor: NetworkDetector, network: str, rois: int):
    """Sizes of the parts, and of how many proposals the times are."""
    model = predictor.model
    parts = {"convolutions": "base", "RPN": "rpn", "detector's head": "head"}
    sizes = ", ".join(
        f"{name} {sum(layer.count_params() for layer in model.layers(part)) / 1e6:.1f} M"
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


def _fields():
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
