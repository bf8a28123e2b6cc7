"""The report of an evaluation: figures, confusion matrix and one HTML page with all of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from keras_frcnn.data.dataset import Dataset
from keras_frcnn.detection.detections import ImageDetections
from keras_frcnn.evaluation import markup
from keras_frcnn.evaluation.coco import METRICS, CocoEvaluation
from keras_frcnn.evaluation.confusion import (
    ConfusionMatrix,
    confusion_matrix,
    save_confusion,
    write_confusion_csv,
)
from keras_frcnn.evaluation.curves import classes_shown, save_precision_recall
from keras_frcnn.evaluation.voc import VocEvaluation, decimal
from keras_frcnn.evaluation.worst_images import draw_image, worst_images
from keras_frcnn.system.files import write_text
from keras_frcnn.visualize import OUTCOMES

# Of each class and kind: three rows of two kinds are looked at, thirty are not.
WORST_OF_A_KIND = 3


def write_report(
    folder: Path | str,
    dataset: Dataset,
    detections: Mapping[str, ImageDetections],
    evaluation: VocEvaluation,
    *,
    subject: str,
    score_threshold: float,
    coco: CocoEvaluation | None = None,
) -> Path:
    """Writes ``report.html``, ``precision_recall.png``, ``confusion.png`` and ``confusion.csv``.

    Args:
        detections: those that ``evaluation`` is about.
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
        dataset, detections, score_threshold=score_threshold, iou_threshold=evaluation.iou_threshold
    )
    save_precision_recall(evaluation, curves_png)
    save_confusion(confusion, confusion_png)
    title = f"Evaluation of {subject}"
    body = [
        *_head(title, evaluation),
        *_class_table(evaluation),
        *_curves(curves_png),
        *_confusion(confusion, confusion_png),
        *(_coco(coco) if coco is not None else ()),
        *_worst(dataset, detections, evaluation, score_threshold),
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
    rows, shown = [], set(classes_shown(evaluation))
    for index, (name, result) in enumerate(evaluation.per_class.items(), start=1):
        best, text = result.best, markup.escape(name)
        point = (None,) * 4
        if best is not None:
            point = (best.f1, best.score_threshold, best.precision, best.recall)
        rows.append(
            [
                f'<a href="#class-{index}">{text}</a>' if name in shown else text,
                str(result.ground_truth),
                str(result.detections),
                *map(decimal, (result.ap_area, result.ap_11point, result.final_recall, *point)),
            ]
        )
    results = evaluation.per_class.values()
    rows.append(
        [
            "mean",
            str(sum(result.ground_truth for result in results)),
            str(sum(result.detections for result in results)),
            decimal(evaluation.map_area),
            decimal(evaluation.map_11point),
            *[""] * 5,
        ]
    )
    headings = (
        *("class", "objects", "detections", "AP area", "AP 11-point", "recall"),
        *("best F1", "at score", "precision there", "recall there"),
    )
    return [
        markup.element("h2", "Classes", id="classes"),
        markup.table(headings, rows, last_is_total=True),
        markup.note(
            "Objects are counted without difficult ones, which are neither found nor missed. "
            "Recall is that of all detections; best F1 is over all score thresholds, with "
            "precision and recall there. A class leads to its worst images."
        ),
    ]


def _curves(png: Path) -> list[str]:
    return [
        markup.element("h2", "Precision and recall"),
        markup.picture(png.read_bytes(), "png", "precision over recall of every class"),
        markup.note(
            "Line: precision among the best detections as their number grows. Shade: what the area "
            "AP sums, the best precision at that recall or a higher one. Dot: the best F1."
        ),
    ]


def _confusion(confusion: ConfusionMatrix, png: Path) -> list[str]:
    return [
        markup.element("h2", "Confusion"),
        markup.picture(png.read_bytes(), "png", "objects by class over detections by class"),
        markup.note(confusion.rule),
    ]


def _coco(coco: CocoEvaluation) -> list[str]:
    rows = [[markup.escape(words), decimal(coco.metrics[name])] for name, words in METRICS.items()]
    classes = [[markup.escape(name), decimal(value)] for name, value in coco.per_class.items()]
    return [
        markup.element("h2", "COCO"),
        markup.table(("figure", "value"), rows, last_is_total=False),
        markup.note(coco.difficult_rule),
        markup.table(("class", "AP, IoU 0.50 to 0.95"), classes, last_is_total=False),
    ]


def _worst(
    dataset: Dataset,
    detections: Mapping[str, ImageDetections],
    evaluation: VocEvaluation,
    score_threshold: float,
) -> list[str]:
    def figure(image: int, class_index: int) -> str:
        drawn, caption = draw_image(
            dataset,
            detections,
            evaluation.matches,
            image,
            class_index,
            score_threshold=score_threshold,
            iou_threshold=evaluation.iou_threshold,
        )
        description = f"{dataset.class_names[class_index - 1]}, {caption}"
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
        index = dataset.class_names.index(name) + 1
        heading = f'{markup.escape(name)} <a href="#classes">&uarr;</a>'
        parts.append(markup.wrap("h3", heading, id=f"class-{index}"))
        worst = worst_images(
            evaluation.matches, index, score_threshold=score_threshold, limit=WORST_OF_A_KIND
        )
        for images, title, nothing in (
            (worst.missed, "Most missed objects", "No object is missed."),
            (
                worst.false_positives,
                "Most confident false detections",
                "No detection with such a score is false.",
            ),
        ):
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
