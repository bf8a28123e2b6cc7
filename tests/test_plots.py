"""What the plots show, checked through the figures' own objects."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keras_frcnn import plots
from keras_frcnn.errors import UserError
from keras_frcnn.plots import save_anchor_clusters, save_curves, save_label_statistics
from keras_frcnn.runs.stage_table import stage_title


@pytest.fixture
def figures(monkeypatch):
    """The figures that the functions save, by file name."""
    kept = {}
    save = plots.save_figure

    def keep(figure, png):
        kept[png.name] = figure
        save(figure, png)

    monkeypatch.setattr(plots, "save_figure", keep)
    return kept


def metrics(stage, iteration, loss, rate=0.001):
    part = "rpn" if stage in (1, 3) else "detector"
    return {
        "stage": stage,
        "iteration": iteration,
        "loss": loss,
        f"{part}_class_loss": 0.75 * loss,
        f"{part}_box_loss": 0.25 * loss,
        "learning_rate": rate,
    }


def write_metrics(path, records, rest=""):
    path.write_text("".join(json.dumps(record) + "\n" for record in records) + rest)
    return path


def test_curves_have_one_panel_a_stage(tmp_path, figures):
    records = [metrics(1, i, 1 / i, 0.001 if i < 60 else 0.0001) for i in range(1, 101)]
    records += [metrics(2, i, 2.0) for i in range(1, 51)]
    path = write_metrics(tmp_path / "metrics.jsonl", records, '{"stage": 2, "itera')
    save_curves(path, tmp_path / "out" / "curves.png")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["curves.png"]
    first, second = figures["curves.png"].axes
    assert (first.get_title(), second.get_title()) == (
        "stage 1/4, RPN",
        "stage 2/4, Fast R-CNN",
    )
    assert first.get_xlabel() == "iteration" and first.get_ylabel() == "loss"
    labels = first.get_legend_handles_labels()[1]
    assert labels == ["total", "RPN class", "RPN box"]
    raw, smooth = first.lines[:2]
    np.testing.assert_allclose(raw.get_ydata(), 1 / np.arange(1, 101))
    assert raw.get_alpha() < 0.5 and smooth.get_alpha() is None
    assert list(first.lines[-1].get_xdata()) == [
        60,
        60,
    ]  # the drop of the learning rate
    assert first.texts[0].get_text() == "learning rate 0.0001"
    np.testing.assert_allclose(second.lines[1].get_ydata(), 2.0)  # the mean of equals, ends too
    assert len(second.texts) == 0


@pytest.mark.parametrize(("mode", "stage"), [("joint", 0), ("fast-rcnn", 2)])
def test_what_is_no_stage_of_four_has_no_number(tmp_path, figures, mode, stage):
    path = write_metrics(tmp_path / "metrics.jsonl", [metrics(stage, 12, 0.5)])
    save_curves(path, tmp_path / "curves.png", mode)
    (axis,) = figures["curves.png"].axes
    assert "stage" not in axis.get_title()
    assert axis.get_title() == stage_title(stage, mode)


def test_a_stage_of_one_record_has_points(tmp_path, figures):
    path = write_metrics(tmp_path / "metrics.jsonl", [metrics(1, 12, 0.5)])
    save_curves(path, tmp_path / "curves.png")
    (axis,) = figures["curves.png"].axes
    assert {line.get_marker() for line in axis.lines[1::2]} == {"o"}


def test_a_resumed_run_replaces_the_iterations_that_it_did_again(tmp_path, figures):
    records = [metrics(1, i, 9.0) for i in (1, 2, 3)] + [metrics(1, i, 1.0) for i in (2, 3, 4)]
    save_curves(write_metrics(tmp_path / "m.jsonl", records), tmp_path / "c.png")
    raw = figures["c.png"].axes[0].lines[0]
    assert raw.get_xdata().tolist() == [1, 2, 3, 4]
    assert raw.get_ydata().tolist() == [9, 1, 1, 1]


@pytest.mark.parametrize("text", ["", '{"stage": 1', '{"event": "stage ended"}\n'])
def test_curves_of_a_run_that_has_just_started(tmp_path, figures, text):
    save_curves(write_metrics(tmp_path / "m.jsonl", [], text), tmp_path / "c.png")
    assert figures["c.png"].axes[0].get_title() == "no iteration finished yet"


def test_losses_that_are_not_finite_are_left_out(tmp_path, figures):
    records = [
        metrics(0, 1, 1.0),
        metrics(0, 2, float("nan")),
        metrics(0, 3, 3.0),
    ]
    save_curves(write_metrics(tmp_path / "m.jsonl", records), tmp_path / "c.png")
    axis = figures["c.png"].axes[0]
    assert axis.lines[0].get_xdata().tolist() == [1, 3]
    assert "joint" in axis.get_title()


def test_metrics_that_cannot_be_read(tmp_path):
    path = write_metrics(tmp_path / "m.jsonl", [], '{"stage": 1\n{}\n')
    with pytest.raises(UserError, match="Line 1 of"):
        save_curves(path, tmp_path / "c.png")
    with pytest.raises(UserError, match="cannot be read"):
        save_curves(tmp_path / "none.jsonl", tmp_path / "c.png")


@pytest.mark.parametrize("value", [10**400, 1e308, -1e308, "text", None, [1], {}])
def test_numbers_that_no_axis_holds_are_left_out(tmp_path, figures, value):
    records = [metrics(1, 1, 1.0), metrics(1, 2, 1.0) | {"loss": value, "learning_rate": value}]
    save_curves(write_metrics(tmp_path / "m.jsonl", records), tmp_path / "c.png")
    assert figures["c.png"].axes[0].lines[0].get_xdata().tolist() == [1]


def test_moving_average_by_hand():
    # Window 2: weights 1, 2, 1 (halved) inside, those within reach at the ends.
    values = plots._moving_average(np.array([0.0, 4.0, 0.0, 8.0]), 2)
    np.testing.assert_allclose(values, [4 / 3, 2.0, 3.0, 16 / 3])


def test_label_statistics(make_dataset, tmp_path, figures):
    box = (0, 0, 10, 10)
    data = make_dataset(
        [(box, 1, False), (box, 3, False)], [(box, 1, False)], class_names=("cat", "dog", "owl")
    )
    save_label_statistics(
        data,
        tmp_path / "labels.png",
        anchors_input=np.array([[-40, -84, 56, 100], [-56, -56, 72, 72]], np.float32),
        shapes=np.array([[20.0, 60.0], [100.0, 40.0], [120.0, 120.0]]),
        best_ious=np.array([0.49, 0.5, 0.7]),
    )
    figure = figures["labels.png"]
    # One of three lies below 0.5, two below 0.7.
    assert figure.get_suptitle() == "boxes without an anchor: 33.3% at IoU 0.5, 66.7% at IoU 0.7"
    left, right = figure.axes
    assert [bar.get_width() for bar in left.patches] == [2, 0, 1]
    assert [tick.get_text() for tick in left.get_yticklabels()] == ["cat", "dog", "owl"]
    points = [np.asarray(c.get_offsets()).tolist() for c in right.collections]
    good, _, middle, _, bad, _, anchors = points
    assert (good, middle, bad) == ([[120.0, 120.0]], [[40.0, 100.0]], [[60.0, 20.0]])
    assert anchors == [[184.0, 96.0], [128.0, 128.0]]
    assert [text.get_text() for text in right.texts] == ["184 x 96", "128 x 128"]
    assert "width" in right.get_xlabel() and "height" in right.get_ylabel()
    with Image.open(tmp_path / "labels.png") as picture:
        assert picture.width > 800


def test_label_statistics_of_a_network_without_anchors(make_dataset, tmp_path, figures):
    data = make_dataset([((0, 0, 10, 10), 1, False)], class_names=("cat",))
    save_label_statistics(
        data,
        tmp_path / "labels.png",
        anchors_input=np.zeros((0, 4), np.float32),
        shapes=np.array([[20.0, 60.0]]),
        best_ious=np.array([0.6]),
        covering="proposal",
    )
    figure = figures["labels.png"]
    assert figure.get_suptitle() == "boxes without a proposal: 0.0% at IoU 0.5, 100.0% at IoU 0.7"
    right = figure.axes[1]
    assert right.get_title() == "sizes of the objects"
    labels = [text.get_text() for text in right.get_legend().get_texts()]
    assert labels == ["best IoU at least 0.7 (0)", "0.5 to 0.7 (1)", "below 0.5 (0)"]


def test_dollars_in_the_name_of_a_class_are_dollars(make_dataset, tmp_path, figures):
    data = make_dataset([((0, 0, 10, 10), 1, False)], class_names=("$5_$10", "a$b"))
    save_label_statistics(
        data,
        tmp_path / "labels.png",
        anchors_input=np.zeros((0, 4), np.float32),
        shapes=np.array([[20.0, 60.0]]),
        best_ious=np.array([0.9]),
    )
    labels = figures["labels.png"].axes[0].get_yticklabels()
    assert [tick.get_text() for tick in labels] == [r"\$5_\$10", r"a\$b"]
    assert (tmp_path / "labels.png").stat().st_size > 1000


def test_label_statistics_without_objects_or_with_wrong_ious(make_dataset, tmp_path, figures):
    data = make_dataset([])
    anchors = np.array([[0, 0, 16, 16]], np.float32)
    arguments = {"anchors_input": anchors, "shapes": np.zeros((0, 2))}
    save_label_statistics(data, tmp_path / "l.png", best_ious=np.zeros(0), **arguments)
    assert figures["l.png"].get_suptitle() == "no boxes"
    with pytest.raises(ValueError, match="expected 0 IoUs, received 2"):
        save_label_statistics(data, tmp_path / "l.png", best_ious=np.zeros(2), **arguments)


def test_anchor_clusters(tmp_path, figures):
    save_anchor_clusters(
        tmp_path / "anchors.png",
        mean_ious={1: 0.5, 2: 0.7, 3: 0.75},
        published_mean_iou=0.3,
        shapes=np.array([[20.0, 30.0], [50.0, 40.0], [60.0, 60.0]]),
        best_ious=np.array([0.49, 0.6, 0.8]),
        anchors_input=np.array([[-2, -7, 18, 23], [-17, -12, 33, 28]], np.float32),
    )
    figure = figures["anchors.png"]
    assert figure.get_suptitle().endswith(
        "placed as in training: 66.7% at IoU 0.5, 33.3% at IoU 0.7"
    )
    left, right = figure.axes
    assert left.lines[0].get_xydata().tolist() == [[1, 0.5], [2, 0.7], [3, 0.75]]
    chosen, published = (np.asarray(c.get_offsets()).tolist() for c in left.collections)
    assert (chosen, published) == ([[2, 0.7]], [[9, 0.3]])
    points = [np.asarray(c.get_offsets()).tolist() for c in right.collections]
    assert (points[0], points[2], points[4]) == ([[60, 60]], [[40, 50]], [[30, 20]])
    assert points[-1] == [[30, 20], [40, 50]]


def test_pyplot_stays_out_of_it():
    code = "import sys, keras_frcnn.plots; sys.exit('matplotlib.pyplot' in sys.modules)"
    root = Path(__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
