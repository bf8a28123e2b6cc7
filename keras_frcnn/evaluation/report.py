"""The report of an evaluation: curves, confusion matrix, worst images, and one page with all."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from keras_frcnn.data.dataset import Example
from keras_frcnn.detection.detections import NO_DETECTIONS
from keras_frcnn.evaluation import markup
from keras_frcnn.evaluation.coco import METRICS, CocoEvaluation
from keras_frcnn.evaluation.confusion import (
    confusion_matrix,
    save_confusion,
    write_confusion_csv,
)
from keras_frcnn.evaluation.curves import classes_shown, save_precision_recall
from keras_frcnn.evaluation.matching import (
    FALSE_POSITIVE,
    IGNORED,
    TRUE_POSITIVE,
    Matches,
    box_overlaps,
)
from keras_frcnn.evaluation.voc import VocEvaluation, class_rows, decimal
from keras_frcnn.system.files import write_text
from keras_frcnn.visualize import OUTCOMES, draw_outcomes, shrunk

# Of each class and kind: three rows of two kinds are looked at, thirty are not.
WORST_OF_A_KIND = 3
# Below this overlap with an object of its class a false detection is not a badly placed one
# (Hoiem, Chodpathumwan and Dai 2012).
LEAST_LOCALISATION = 0.1


def write_report(
    folder: Path | str,
    evaluation: VocEvaluation,
    *,
    subject: str,
    score_threshold: float,
    coco: CocoEvaluation | None = None,
) -> Path:
    """Writes ``report.html``, ``precision_recall.png``, ``confusion.png`` and ``confusion.csv``.

    Args:
        subject: what was evaluated, for the page's head.
        score_threshold: which detections the confusion matrix and the pictures show.

    Returns:
        The page.

    Raises:
        UserError: an image of the data set cannot be read.
    """
    folder = Path(folder)
    curves_png, confusion_png = folder / "precision_recall.png", folder / "confusion.png"
    confusion = confusion_matrix(
        evaluation.dataset,
        evaluation.detections,
        score_threshold=score_threshold,
        iou_threshold=evaluation.iou_threshold,
    )
    save_precision_recall(evaluation, curves_png)
    save_confusion(confusion, confusion_png)
    title = f"Evaluation of {subject}"
    body = [
        *_head(title, evaluation),
        *_class_table(evaluation),
        *_figure(
            curves_png,
            "Precision and recall",
            "precision over recall of every class",
            "Line: precision among the best detections as their number grows. Shade: what the area "
            "AP sums, the best precision at that recall or a higher one. Dot: the best F1.",
        ),
        *_figure(
            confusion_png,
            "Confusion",
            "objects by class over detections by class",
            confusion.rule,
        ),
        *(_coco(coco) if coco is not None else ()),
        *_worst(evaluation, score_threshold),
    ]
    target = folder / "report.html"
    write_confusion_csv(folder / "confusion.csv", confusion)
    write_text(target, markup.page(title, body))
    return target


def _head(title: str, evaluation: VocEvaluation) -> list[str]:
    rule = "more than" if evaluation.strictly_greater else "at least"
    return [
        markup.element("h1", title),
        markup.element(
            "p",
            f"{len(evaluation.dataset)} images of {' + '.join(evaluation.dataset.sets)}. Mean "
            f"average precision {decimal(evaluation.map_area)} (area under the curve, VOC since "
            f"2010), {decimal(evaluation.map_11point)} (11-point, VOC 2007), at an IoU of {rule} "
            f"{evaluation.iou_threshold:g}.",
        ),
    ]


def _class_table(evaluation: VocEvaluation) -> list[str]:
    headings = (
        *("class", "objects", "detections", "AP area", "AP 11-point", "recall"),
        *("best F1", "at score", "precision there", "recall there"),
    )
    shown = set(classes_shown(evaluation))
    rows = []
    for index, cells in enumerate(class_rows(evaluation), start=1):
        row = [markup.escape(cells.get(heading, "")) for heading in headings]
        is_class = index <= len(evaluation.per_class)
        if is_class and cells["class"] in shown:
            row[0] = f'<a href="#class-{index}">{row[0]}</a>'
        rows.append(row)
    return [
        markup.element("h2", "Classes", id="classes"),
        markup.table(headings, rows, last_is_total=True),
        markup.note(
            "Objects are counted without difficult ones, which are neither found nor missed. "
            "Recall is that of all detections; best F1 is over all score thresholds, with "
            "precision and recall there. A class leads to its worst images."
        ),
    ]


def _figure(png: Path, title: str, description: str, note: str) -> list[str]:
    picture = markup.picture(png.read_bytes(), "png", description)
    return [markup.element("h2", title), picture, markup.note(note)]


def _coco(coco: CocoEvaluation) -> list[str]:
    rows = [[markup.escape(words), decimal(coco.metrics[name])] for name, words in METRICS.items()]
    classes = [[markup.escape(name), decimal(value)] for name, value in coco.per_class.items()]
    return [
        markup.element("h2", "COCO"),
        markup.table(("figure", "value"), rows, last_is_total=False),
        markup.note(coco.difficult_rule),
        markup.table(("class", "AP, IoU 0.50 to 0.95"), classes, last_is_total=False),
    ]


def _worst(evaluation: VocEvaluation, score_threshold: float) -> list[str]:
    class_names = evaluation.dataset.class_names

    def figure(image: int, class_index: int) -> str:
        drawn, caption = draw_image(evaluation, image, class_index, score_threshold=score_threshold)
        description = f"{class_names[class_index - 1]}, {caption}"
        embedded = markup.picture(markup.jpeg(drawn), "jpeg", description)
        return markup.wrap("figure", embedded + markup.element("figcaption", caption))

    parts = [
        markup.element("h2", "Worst images"),
        markup.element(
            "p",
            f"Of one class at a time: objects (dashed), and detections with a score of at least "
            f"{score_threshold:g} (solid, with their score). For a false detection it says why: "
            "duplicate of a better detection, an object of another class, badly placed on an "
            "object of its class, or background. Of many classes those with the lowest area AP.",
        ),
        _legend(),
    ]
    for name in classes_shown(evaluation):
        index = class_names.index(name) + 1
        heading = f'{markup.escape(name)} <a href="#classes">&uarr;</a>'
        parts.append(markup.wrap("h3", heading, id=f"class-{index}"))
        worst = worst_images(
            evaluation.matches, index, score_threshold=score_threshold, limit=WORST_OF_A_KIND
        )
        kinds = {
            "Most missed objects": ("No object is missed.", worst.missed),
            "Most confident false detections": (
                "No detection with such a score is false.",
                worst.false_positives,
            ),
        }
        for title, (nothing, images) in kinds.items():
            parts.append(markup.element("p", title if images else nothing))
            figures = "\n".join(figure(image, index) for image in images)
            parts.append(markup.wrap("div", figures, class_="pictures"))
    return parts


def _legend() -> str:
    entries = []
    for outcome, (colour, dashed) in OUTCOMES.items():
        border = f"border: 3px {'dashed' if dashed else 'solid'} rgb{colour}"
        what = "object" if dashed else "detection"
        entries.append(markup.element("span", "", class_="key", style=border))
        entries.append(
            markup.escape(outcome if outcome.startswith(("true", "false")) else f"{outcome} {what}")
        )
    return markup.wrap("p", "".join(entries))


@dataclass(frozen=True)
class WorstImages:
    """Positions in ``dataset.examples``, the worst first.

    Attributes:
        missed: images with the most missed objects; of equal numbers the earlier image.
        false_positives: images with the most confident false detections.
    """

    missed: tuple[int, ...]
    false_positives: tuple[int, ...]


def worst_images(
    matches: Matches, class_index: int, *, score_threshold: float, limit: int
) -> WorstImages:
    """Chooses up to ``limit`` images of each kind, of one class, at a score threshold.

    Args:
        class_index: 1-based.
        score_threshold: an object that is only found with a lower score is missed; a false
            detection with a lower score does not count.
    """
    missed = (
        (matches.object_classes == class_index)
        & ~matches.object_difficult
        & (matches.object_scores < score_threshold)
    )
    images, counts = np.unique(matches.object_images[missed], return_counts=True)
    most_missed = images[np.argsort(-counts, kind="stable")][:limit]
    order = matches.order
    false = (
        (matches.classes[order] == class_index)
        & (matches.outcomes[order] == FALSE_POSITIVE)
        & (matches.scores[order] >= score_threshold)
    )
    confident = dict.fromkeys(matches.images[order[false]].tolist())
    return WorstImages(tuple(most_missed.tolist()), tuple(confident)[:limit])


def draw_image(
    evaluation: VocEvaluation,
    image: int,
    class_index: int,
    *,
    score_threshold: float,
    side: int = 480,
) -> tuple[Image.Image, str]:
    """Draws an image with the objects of a class and the detections above the threshold.

    Args:
        image: position in the data set.
        side: the longer side of the picture; smaller images stay as they are.

    Returns:
        The picture and a caption.

    Raises:
        UserError: the image cannot be read.
    """
    matches, example = evaluation.matches, evaluation.dataset.examples[image]
    picture = Image.fromarray(example.pixels())
    small = shrunk(picture, side)
    of_class = example.classes == class_index
    scores_of_objects = matches.object_scores[matches.object_images == image][of_class]
    difficult = example.difficult[of_class]
    is_missed = ~difficult & (scores_of_objects < score_threshold)
    outcomes = np.select([difficult, is_missed], ["difficult", "missed"], "found").tolist()
    labels = ["missed" if missed else "" for missed in is_missed]
    shown = np.flatnonzero(
        (matches.images == image)
        & (matches.classes == class_index)
        & (matches.scores >= score_threshold)
    )
    words = {TRUE_POSITIVE: "true positive", FALSE_POSITIVE: "false positive", IGNORED: "ignored"}
    found = evaluation.detections.get(example.key, NO_DETECTIONS).boxes_image[matches.rows[shown]]
    for box, score, outcome in zip(
        found, matches.scores[shown], matches.outcomes[shown], strict=True
    ):
        label = f"{score:.2f}"
        if outcome == FALSE_POSITIVE:
            label = f"{label} {explain_false_positive(evaluation, example, box, class_index)}"
        outcomes.append(words[outcome])
        labels.append(label)
    boxes = np.concatenate([example.boxes_image[of_class], found])
    scaled = boxes * np.tile(np.divide(small.size, picture.size)[::-1], 2)
    false = int((matches.outcomes[shown] == FALSE_POSITIVE).sum())
    counted = int((~difficult).sum())
    objects = f"{int(is_missed.sum())} of {counted} objects missed" if counted else "no object"
    caption = f"{example.key}: {objects}, {false} false detection{'s' * (false != 1)}"
    return draw_outcomes(np.asarray(small), scaled, outcomes, labels), caption


def explain_false_positive(
    evaluation: VocEvaluation, example: Example, box: np.ndarray, class_index: int
) -> str:
    """Why a detection is false: ``duplicate``, ``is CLASS``, ``badly placed`` or ``background``.

    Args:
        box: (4,) in the frame of ``example.boxes_image``.
        class_index: that of the detection.
    """
    overlaps = box_overlaps(box[None], example.boxes_image)[0]
    same = example.classes == class_index
    best_same = overlaps[same].max(initial=-1.0)
    if best_same >= evaluation.iou_threshold:
        return "duplicate"
    if overlaps[~same].max(initial=-1.0) >= evaluation.iou_threshold:
        best = np.where(same, -1.0, overlaps).argmax()
        return f"is {evaluation.dataset.class_names[example.classes[best] - 1]}"
    return "badly placed" if best_same >= LEAST_LOCALISATION else "background"
