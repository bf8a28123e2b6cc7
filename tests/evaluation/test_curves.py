"""What the precision-recall figure shows, checked through its own objects."""

import numpy as np
import pytest
from PIL import Image

from keras_frcnn.detection.detections import ImageDetections
from keras_frcnn.evaluation import confusion, curves
from keras_frcnn.evaluation.confusion import confusion_matrix, save_confusion
from keras_frcnn.evaluation.curves import classes_shown, save_precision_recall
from keras_frcnn.evaluation.voc import evaluate_voc

BOX, FAR = (10, 10, 20, 20), (50, 50, 60, 60)


@pytest.fixture
def figures(monkeypatch):
    """The figures that are saved, in order."""
    kept = []
    monkeypatch.setattr(curves, "save_figure", lambda figure, png: kept.append(figure))
    return kept


def test_a_panel_a_class(make_dataset, make_detections, figures, tmp_path):
    names = ("cat", "dog", "owl")
    data = make_dataset([(BOX, 1, False), (FAR, 1, False), (FAR, 2, False)], class_names=names)
    found = make_detections((0, BOX, 0.9, 1), (0, (30, 30, 40, 40), 0.8, 1), (0, FAR, 0.7, 1))
    save_precision_recall(evaluate_voc(data, found), tmp_path / "curves.png")
    cat, dog, owl = [axis for axis in figures[0].axes if axis.get_visible()]
    assert [axis.get_title() for axis in (cat, dog, owl)] == list(names)
    line, point = cat.get_lines()
    np.testing.assert_allclose(line.get_xydata(), [[0.5, 1], [0.5, 0.5], [1, 2 / 3]])
    np.testing.assert_allclose(point.get_xydata(), [[1, 2 / 3]])
    label, best = (text.get_text() for text in cat.get_legend().get_texts())
    assert "AP 0.833 area" in label
    assert "0.848 11-point" in label
    assert best == "F1 0.80 at 0.70"
    assert "AP 0.000" in dog.get_legend().get_texts()[0].get_text()
    assert owl.get_legend() is None
    assert owl.texts[0].get_text() == "no objects to find"
    assert figures[0].get_supxlabel() == "recall"
    assert figures[0].get_supylabel() == "precision"


def test_a_long_curve_keeps_its_envelope(make_dataset, figures, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    images = [[(BOX, 1, False)] for _ in range(3000)]
    data = make_dataset(*images)
    boxes = np.array([BOX, FAR], np.float32)
    found = {
        example.key: ImageDetections(boxes, rng.random(2, np.float32), np.ones(2, np.int32))
        for example in data.examples
    }
    evaluation = evaluate_voc(data, found)
    save_precision_recall(evaluation, tmp_path / "curves.png")
    recall, precision = figures[0].axes[0].get_lines()[0].get_data()
    assert len(recall) <= curves.MOST_POINTS
    cat = evaluation.per_class["cat"]
    ranks = {point: rank for rank, point in enumerate(zip(cat.recall, cat.precision, strict=True))}
    outline = set(map(tuple, figures[0].axes[0].collections[0].get_paths()[0].vertices))
    assert np.diff(recall).max() < 0.01
    # The shade holds the best precision of all detections from there on, drawn or not.
    for point in zip(recall, precision, strict=True):
        assert (point[0], cat.precision[ranks[point] :].max()) in outline
    assert (recall[-1], precision[-1]) == (cat.recall[-1], cat.precision[-1])


def test_the_file_of_many_classes(make_dataset, tmp_path):
    data = make_dataset([(BOX, 1, False)], class_names=tuple(f"class {k}" for k in range(23)))
    save_precision_recall(evaluate_voc(data, {}), tmp_path / "new" / "curves.png")
    with Image.open(tmp_path / "new" / "curves.png") as picture:
        assert picture.width < 2000


def test_hundreds_of_classes_are_the_worst_and_bounded(make_dataset, figures, monkeypatch):
    """Panels that share axes take minutes: their time grows with their square."""
    names = tuple(f"species {index:03d}" for index in range(300))
    objects = [((0, 0, 10, 10), index + 1, False) for index in range(300)]
    dataset = make_dataset(objects, class_names=names)
    found = ImageDetections(
        np.tile(np.float32([0, 0, 10, 10]), (290, 1)),
        np.full(290, 0.9, np.float32),
        np.arange(1, 291, dtype=np.int32),
    )
    evaluation = evaluate_voc(dataset, {dataset.examples[0].key: found})
    shown = classes_shown(evaluation)
    assert shown[-10:] == list(names[-10:])  # nothing is found of them
    assert len(shown) <= 100
    save_precision_recall(evaluation, "curves.png")
    monkeypatch.setattr(confusion, "save_figure", lambda figure, png: figures.append(figure))
    save_confusion(confusion_matrix(dataset, {}, score_threshold=0.5), "confusion.png")
    assert [axis.get_title() for axis in figures[0].axes if axis.get_visible()] == shown
    first = figures[0].axes[0]
    assert first.get_shared_x_axes().get_siblings(first) == [first]
    for figure in figures:
        assert max(figure.get_size_inches() * figure.dpi) < 4000
