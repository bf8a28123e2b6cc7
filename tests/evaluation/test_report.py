"""The report: worst images chosen by hand-worked cases, and a page that holds what it should."""

import dataclasses
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from keras_frcnn.data.dataset import Dataset
from keras_frcnn.evaluation.coco import METRICS, CocoEvaluation
from keras_frcnn.evaluation.matching import match_detections
from keras_frcnn.evaluation.report import (
    draw_image,
    explain_false_positive,
    worst_images,
    write_report,
)
from keras_frcnn.evaluation.voc import evaluate_voc

BOX, FAR, THIRD = (10, 10, 40, 40), (50, 50, 90, 90), (10, 60, 40, 90)
EVIL = '<script>alert("x")</script>'


def chosen(data, found, class_index=1, *, score=0.5, limit=3):
    matches = match_detections(data, found, iou_threshold=0.5)
    worst = worst_images(matches, class_index, score_threshold=score, limit=limit)
    return worst.missed, worst.false_positives


def test_images_with_the_most_missed_objects_come_first(make_dataset, make_detections):
    data = make_dataset(
        [(BOX, 1, False)],
        [(BOX, 1, False), (FAR, 1, False)],
        [(BOX, 1, True), (FAR, 2, False)],  # difficult, or of another class
        [(BOX, 1, False), (FAR, 1, False), (THIRD, 1, False)],
        [(BOX, 1, False)],
        class_names=("cat", "dog"),
    )
    # The last image's object is found, that of the first with too low a score.
    found = make_detections((4, BOX, 0.9), (0, BOX, 0.4), (3, FAR, 0.8))
    assert chosen(data, found)[0] == (1, 3, 0)
    assert chosen(data, found, limit=1)[0] == (1,)
    assert chosen(data, found, score=0.3)[0] == (1, 3)
    assert chosen(data, {}, class_index=2)[0] == (2,)


def test_images_with_the_most_confident_false_detections_come_first(make_dataset, make_detections):
    data = make_dataset([(BOX, 1, False)], [], [(BOX, 1, True)], [])
    found = make_detections(
        (0, BOX, 0.99),  # right
        (0, BOX, 0.6),  # a duplicate
        (1, FAR, 0.7),
        (1, THIRD, 0.65),
        (2, BOX, 0.95),  # ignored
        (2, FAR, 0.9),
        (3, FAR, 0.4),  # too low
    )
    assert chosen(data, found)[1] == (2, 1, 0)
    assert chosen(data, found, limit=2)[1] == (2, 1)
    assert chosen(data, found, score=0.3)[1] == (2, 1, 0)
    assert chosen(data, found, score=0.3, limit=4)[1] == (2, 1, 0, 3)


def test_a_score_equal_to_the_threshold_finds_its_object(make_dataset, make_detections):
    # As a float32, 0.9 lies below 0.9.
    data = make_dataset([(BOX, 1, False)])
    assert chosen(data, make_detections((0, BOX, 0.9)), score=0.9) == ((), ())


def test_why_a_detection_is_false(make_dataset):
    data = make_dataset([(BOX, 1, False), (FAR, 2, False)], class_names=("cat", "dog"))

    def why(box, class_index=1):
        evaluation = evaluate_voc(data, {}, iou_threshold=0.5)
        return explain_false_positive(
            evaluation, data.examples[0], np.array(box, np.float32), class_index
        )

    assert why(BOX) == "duplicate"
    assert why(FAR) == "is dog"
    assert why(BOX, 2) == "is cat"
    assert why((10, 10, 40, 22)) == "badly placed"  # IoU 0.4
    assert why((10, 10, 40, 12)) == "background"  # IoU 0.07
    assert why(THIRD) == "background"
    data = make_dataset([])
    assert why(BOX) == "background"


@pytest.fixture
def photographed(make_dataset, tmp_path):
    """Two grey pictures on the disk; an odd class name, a class without objects."""
    data = make_dataset(
        [(BOX, 1, False), (FAR, 1, False)],
        [(BOX, 1, True), (THIRD, 2, False)],
        class_names=("cat", EVIL, "owl"),
    )
    examples = []
    for example in data.examples:
        path = tmp_path / "photos" / f"{example.image_id}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (100, 100), (100, 100, 100)).save(path)
        examples.append(dataclasses.replace(example, path=path))
    return Dataset(data.class_names, tuple(examples), data.sets)


def test_a_picture_and_its_caption(photographed, make_detections):
    found = make_detections((0, BOX, 0.9), (0, THIRD, 0.8), (0, FAR, 0.3), (1, BOX, 0.9, 1))
    evaluation = evaluate_voc(photographed, found, iou_threshold=0.5)
    picture, caption = draw_image(evaluation, 0, 1, score_threshold=0.5)
    assert caption == "VOC2007/0: 1 of 2 objects missed, 1 false detection"
    assert picture.size == (100, 100)
    pixels = np.asarray(picture).reshape(-1, 3).tolist()
    for colour in ((255, 225, 25), (255, 70, 70), (60, 150, 255)):  # missed, false, true
        assert list(colour) in pixels
    picture, caption = draw_image(evaluation, 1, 1, score_threshold=0.5, side=50)
    assert caption == "VOC2007/1: no object, 0 false detections"
    assert picture.size == (50, 50)
    assert [190, 190, 190] in np.asarray(picture).reshape(-1, 3).tolist()


class Page(HTMLParser):
    """Ids, links and sources of a page; its tags must match."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.sources, self.tags, self.open = set(), set(), [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append(tag)
        if tag not in ("meta", "img"):
            self.open.append(tag)
        self.ids |= {attrs["id"]} if "id" in attrs else set()
        self.links |= {attrs["href"]} if "href" in attrs else set()
        self.sources += [attrs["src"]] if "src" in attrs else []

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_files_and_the_page(photographed, make_detections, tmp_path):
    found = make_detections((0, BOX, 0.9), (0, THIRD, 0.8), (1, BOX, 0.7, 2))
    evaluation = evaluate_voc(photographed, found)
    coco = CocoEvaluation(dict.fromkeys(METRICS, 0.123), {"cat": 0.456, EVIL: None, "owl": None}, 1)
    page = write_report(
        tmp_path / "report",
        evaluation,
        subject="run & <b>",
        score_threshold=0.25,
        coco=coco,
    )
    files = {path.name for path in (tmp_path / "report").iterdir()}
    assert files == {"report.html", "precision_recall.png", "confusion.png", "confusion.csv"}
    text = page.read_text(encoding="utf-8")
    parsed = Page(text)
    assert "script" not in parsed.tags and "link" not in parsed.tags
    assert "<b>" not in text
    # Every class leads to a place in the page, and nothing leads out of it.
    assert parsed.links == {"#class-1", "#class-2", "#class-3", "#classes"}
    assert {link[1:] for link in parsed.links} <= parsed.ids
    assert all(source.startswith("data:image/") for source in parsed.sources)
    assert not re.search(r"https?://|url\(", text)
    kinds = [source.split(";")[0] for source in parsed.sources]
    # Two figures; cat: one image of each kind; the second class: the same image twice.
    assert kinds == ["data:image/png"] * 2 + ["data:image/jpeg"] * 4
    for words in (
        f"{evaluation.map_area:.3f}",
        "a score of at least 0.25",
        "1 of 2 objects missed, 1 false detection",
        "COCO",
        "0.123",
        "0.456",
        "1 difficult objects.",
        "No object is missed.",
    ):
        assert words in text, words


def test_without_coco_and_without_detections(photographed, tmp_path):
    evaluation = evaluate_voc(photographed, {})
    page = write_report(tmp_path, evaluation, subject="nothing", score_threshold=0.5)
    text = page.read_text()
    Page(text)
    assert "COCO" not in text
    assert "2 of 2 objects missed, 0 false detections" in text
