"""Table 4: time of an image, split, on this machine; sizes of the parts (section 3.3, text).

Shapes and names
----------------
parts  conv, proposal, region-wise, in milliseconds.
"""

from __future__ import annotations

import time

import numpy as np

from keras_frcnn.data.images import read_image
from keras_frcnn.evaluation.timing import PARTS, PartTimes, time_parts
from keras_frcnn.inference import Predictor, load_predictor
from keras_frcnn.paper import published
from keras_frcnn.paper.receptive_field import receptive_field
from keras_frcnn.paper.sheet import Column, Sheet
from keras_frcnn.paper.workshop import TEST_SETS, Absent, Workshop

REPETITIONS = 10
SEARCHED_IMAGES = 5  # Selective Search takes seconds an image
BOXES = 2000


def make(workshop: Workshop) -> Sheet:
    """Each system's parts with their spread, and the shares beside the paper's."""
    image = read_image(workshop.data(TEST_SETS["07"]).examples[0].path)
    rows, remarks = [], []
    for (network, method), paper in published.TABLE4.items():
        own = workshop.budget.network_or(network)
        label = f"RPN + Fast R-CNN, {own}" if method == "rpn" else f"SS + Fast R-CNN, {own}"
        try:
            predictor = load_predictor(workshop.four_steps(own).path)
            if method == "rpn":
                found = time_parts(predictor, image, repetitions=REPETITIONS)
                milliseconds = {part: (found.median(part), found.spread(part)) for part in PARTS}
                remarks.extend(_about(predictor, own, found))
            else:
                milliseconds = _with_search(workshop, predictor, image)
        except Absent as reason:
            remarks.append(f"{label}: {reason}.")
            rows += _rows(label, paper, None)
            continue
        rows += _rows(label, paper, milliseconds)
    rows.append(
        (
            "SS + Fast R-CNN with SVD, without proposals (text)",
            "paper",
            None,
            None,
            None,
            published.TABLE4_SVD_MILLISECONDS,
            None,
        )
    )
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
            Column("share of proposals, %", 1),
        ),
        rows=tuple(rows),
        caption=f"{workshop.caption()} Ours: one image of {image.shape[1]} x "
        f"{image.shape[0]} pixels, warm, median of {REPETITIONS} runs +- half the distance of the "
        "quartiles, on this machine's processor; the paper's: a K40 (Selective Search on a CPU).",
        remarks=tuple(dict.fromkeys(remarks)),
    )


def _rows(label: str, paper: tuple[int, int, int], ours: dict | None):
    total = sum(paper)
    yield (label, "paper", *(f"{value}" for value in paper), total, 100 * paper[1] / total)
    if ours is None:
        yield (label, "ours", "-", "-", "-", None, None)
        return
    medians = [ours[part][0] for part in PARTS]
    texts = (f"{ours[part][0]:.0f} +- {ours[part][1]:.0f}" for part in PARTS)
    yield (label, "ours", *texts, sum(medians), 100 * medians[1] / sum(medians))


def _with_search(workshop: Workshop, predictor: Predictor, image: np.ndarray) -> dict:
    """Selective Search timed on a few images, the detector on 2000 boxes of one."""
    search = workshop.method("ss")
    seconds = []
    for example in workshop.data(TEST_SETS["07"]).examples[:SEARCHED_IMAGES]:
        pixels = read_image(example.path)
        start = time.perf_counter()
        search(pixels)
        seconds.append(time.perf_counter() - start)
    boxes = search(image).best(BOXES).boxes_image
    found = time_parts(predictor, image, given=boxes, repetitions=REPETITIONS)
    result = {part: (found.median(part), found.spread(part)) for part in ("conv", "region-wise")}
    low, median, high = np.quantile(seconds, (0.25, 0.5, 0.75))
    result["proposal"] = (1000 * median, 500 * (high - low))
    return result


def _svd_row(workshop: Workshop, image: np.ndarray, remarks: list[str]):
    label = "SS + Fast R-CNN with SVD, without proposals (text)"
    network = workshop.budget.network_or("vgg16")
    try:
        predictor = load_predictor(workshop.compressed(workshop.four_steps(network)).path)
        boxes = workshop.method("ss")(image).best(BOXES).boxes_image
    except Absent as reason:
        remarks.append(f"{label}: {reason}.")
        return (label, "ours", "-", "-", "-", None, None)
    found = time_parts(predictor, image, given=boxes, repetitions=REPETITIONS)
    parts = {part: found.median(part) for part in ("conv", "region-wise")}
    texts = [f"{parts[part]:.0f} +- {found.spread(part):.0f}" for part in parts]
    return (label, "ours", texts[0], "-", texts[1], sum(parts.values()), None)


def _about(predictor: Predictor, network: str, found: PartTimes):
    """Sizes of the parts, the receptive field, the rate."""
    model = predictor.model
    count = {
        "convolutions": sum(layer.count_params() for layer in model.base_layers),
        "RPN": sum(layer.count_params() for layer in model.rpn_layers),
        "detector's head": sum(layer.count_params() for layer in model.head_layers),
    }
    sizes = ", ".join(f"{name} {value / 1e6:.1f} M" for name, value in count.items())
    paper = published.RPN_PARAMETERS.get(network)
    beside = f" (paper: RPN {paper / 1e6:.1f} M)" if paper else ""
    yield f"{network}: parameters: {sizes}{beside}."
    if network != "resnet50":  # its branches make no chain
        field = receptive_field([*model.base.layers, *model.rpn_head.layers])
        expected = published.RECEPTIVE_FIELDS.get(network)
        beside = f" (paper: {expected})" if expected else ""
        yield f"{network}: the RPN's window sees {field} pixels of the input{beside}."
    total = sum(found.median(part) for part in PARTS)
    yield f"{network}: {1000 / total:.2f} images a second with {found.rois} proposals."
