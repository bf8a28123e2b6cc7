"""Names of any script: shown where a font has them, else readable, never as squares or warnings."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from matplotlib.figure import Figure

from keras_frcnn.evaluation.confusion import confusion_matrix, save_confusion
from keras_frcnn.evaluation.curves import save_precision_recall
from keras_frcnn.evaluation.voc import evaluate_voc
from keras_frcnn.plots import drawable, named_ticks, save_figure, save_label_statistics
from keras_frcnn.system import fonts
from keras_frcnn.system.fonts import Font, font_for
from keras_frcnn.visualize import draw_detections

HAN = "\u7ea2\u7eff"


@pytest.fixture(autouse=True)
def no_cache():
    font_for.cache_clear()
    yield
    font_for.cache_clear()


@pytest.fixture
def no_wide_fonts(monkeypatch):
    monkeypatch.setattr(fonts, "_wide_fonts", lambda: ())


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("Überg\u2013Жук", "Überg\u2013Жук"),
        ("سيارة", "سيارة"),
        (HAN, r"\u7ea2\u7eff"),
        ("a\U0001f680\U000e0067", r"a\U0001f680"),
        ("a\nb\x1b[31m", r"a\nb\x1b[31m"),
        ("\ud800", r"\ud800"),
        ("", ""),
    ],
)
def test_what_no_font_has_is_readable(no_wide_fonts, name, shown):
    assert font_for(name).readable(name) == shown


def test_a_wide_font_of_the_system_is_taken_where_it_shows_more(monkeypatch):
    own = font_for("a")
    wide = Font(own.file, frozenset(map(ord, "abcÜ" + HAN)))
    monkeypatch.setattr(fonts, "_wide_fonts", lambda: (Font(own.file, frozenset()), wide))
    assert font_for("Übc" + HAN) is wide
    assert font_for("Ü").file == own.file
    assert len(font_for("Ü").characters) > 1000  # not asked of the system


def test_the_fonts_of_this_system_can_be_looked_at():
    fonts._wide_fonts.cache_clear()
    for font in fonts._wide_fonts():
        assert font.file.is_file()
        assert font.characters


@pytest.mark.parametrize(
    "name", ["Ü", "Жук", HAN, "سيارة", "\U0001f680", "$a$", "\ud800", "e\u0301"]
)
def test_no_picture_and_no_plot_warns(tmp_path, name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = np.zeros((80, 200, 3), np.uint8)
        draw_detections(image, np.array([[10, 10, 50, 60]]), [name], [0.9], [(255, 255, 0)])
        figure = Figure()
        axis = figure.subplots()
        places, names, style = named_ticks([name, "cat"], 3)
        axis.set_yticks(places, names, **style)
        (title, _), font = drawable([name, "cat"])
        axis.set_title(title, **font)
        save_figure(figure, tmp_path / "a.png")


def test_no_plot_of_a_data_set_warns_of_its_names(make_dataset, make_detections, tmp_path):
    names = ("Übergang", "Жук", "a\u2013b", HAN)
    box = (10, 10, 50, 60)
    data = make_dataset([(box, index, False) for index in range(1, 5)], class_names=names)
    found = make_detections((0, box, 0.9, 4))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_label_statistics(
            data,
            tmp_path / "labels.png",
            anchors_input=np.zeros((0, 4), np.float32),
            shapes=np.full((4, 2), 40.0),
            best_ious=np.full(4, 0.9),
        )
        save_precision_recall(evaluate_voc(data, found), tmp_path / "curves.png")
        save_confusion(confusion_matrix(data, found, score_threshold=0.5), tmp_path / "c.png")
    assert len(list(tmp_path.iterdir())) == 3


def test_letters_of_another_script_are_drawn_and_not_squares():
    """Two letters that a font lacks would look alike."""
    image = np.zeros((80, 200, 3), np.uint8)
    box, colours = np.array([[30, 10, 60, 90]]), [(255, 255, 0)]
    drawn = [np.asarray(draw_detections(image, box, [name], None, colours)) for name in "ЖЯ"]
    assert np.any(drawn[0] != drawn[1])


@pytest.mark.parametrize("number", [1, 20, 500])
def test_names_of_many_classes_stay_readable(number):
    places, names, style = named_ticks([f"class {index}" for index in range(number)], 20)
    assert len(places) == len(names) <= 20 * 72 / 6
    assert 6 <= style["fontsize"] <= 10
    assert (len(names) == number) == (number < 500)
