"""What the pictures show, checked pixel by pixel or through the figure's own objects."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keras_frcnn import visualize
from keras_frcnn.data.dataset import Dataset, Example
from keras_frcnn.errors import UserError
from keras_frcnn.visualize import (
    class_colour,
    contact_sheet,
    draw_detections,
    draw_samples,
    save_curves,
    save_label_statistics,
)

RED = (255, 0, 0)


@pytest.fixture
def figures(monkeypatch):
    """The figures that the functions save, by file name."""
    kept = {}
    save = visualize._save_figure

    def keep(figure, png):
        kept[png.name] = figure
        save(figure, png)

    monkeypatch.setattr(visualize, "_save_figure", keep)
    return kept


def grey(height, width):
    return np.full((height, width, 3), 128, np.uint8)


def differs(picture, background=128):
    return (np.asarray(picture) != background).any(axis=-1)


def test_forty_classes_have_forty_bright_colours():
    colours = [class_colour(index) for index in range(1, 41)]
    assert len(set(colours)) == 40
    assert class_colour(3) == class_colour(3)
    twenty = np.array(colours[:20], float)
    distances = np.linalg.norm(twenty[:, None] - twenty, axis=-1) + 1e9 * np.eye(20)
    assert distances.min() > 40
    assert min(max(colour) for colour in colours) >= 140


def test_lines_lie_on_the_first_and_last_pixels_of_a_half_open_box():
    picture = np.asarray(
        draw_detections(grey(100, 200), np.array([[40, 50, 90, 120]]), [""], None, [RED])
    )
    is_red = (picture == RED).all(axis=-1)
    assert is_red[60, 50] and is_red[60, 119] and is_red[89, 80]
    assert not is_red[60, 49] and not is_red[60, 120] and not is_red[90, 80]
    # A dark edge on both sides keeps the line visible on a photo of its own colour.
    assert (picture[60, 120] == 0).all() and (picture[60, 52] == 0).all()
    assert (picture[65, 80] == 128).all()  # the inside stays as it was


def test_the_photo_given_is_not_drawn_on():
    image = grey(50, 50)
    draw_detections(image, np.array([[5, 5, 40, 40]]), ["cat"], [0.9], [RED])
    assert (image == 128).all()


@pytest.mark.parametrize(
    "box", [[0, 0, 30, 30], [0, 180, 20, 200], [90, 190, 100, 200], [-9, -9, 200, 300]]
)
@pytest.mark.parametrize("label", ["cat", "a rather long name of a class"])
def test_labels_stay_within_the_image(monkeypatch, box, label):
    plates = []
    draw_plate = visualize._draw_plate
    monkeypatch.setattr(
        visualize,
        "_draw_plate",
        lambda draw, plate, *rest: (
            plates.append(plate),
            draw_plate(draw, plate, *rest),
        ),
    )
    draw_detections(grey(100, 200), np.array([box]), [label], [0.5], [RED])
    [(x1, y1, x2, y2)] = plates
    assert 0 <= x1 < x2 <= 200 and 0 <= y1 < y2 <= 100


def test_labels_of_neighbours_do_not_cover_each_other(monkeypatch):
    plates = []
    monkeypatch.setattr(visualize, "_draw_plate", lambda draw, plate, *rest: plates.append(plate))
    boxes = np.array([[100, 100, 200, 220], [102, 103, 205, 222], [99, 98, 199, 221]])
    draw_detections(grey(375, 500), boxes, ["cat", "dog", "cow"], [0.9, 0.8, 0.7], [RED] * 3)
    for index, first in enumerate(plates):
        assert not any(visualize._overlap(first, second) for second in plates[index + 1 :])


def test_the_best_score_lies_on_top_and_is_written():
    boxes = np.array([[20, 20, 80, 80], [20, 20, 80, 80]])
    green = (0, 255, 0)
    for scores, top in (([0.9, 0.2], RED), ([0.2, 0.9], green)):
        picture = np.asarray(draw_detections(grey(100, 100), boxes, ["", ""], scores, [RED, green]))
        assert tuple(picture[60, 20]) == top


def test_lines_and_letters_grow_with_the_image():
    def line_width(scale):
        box = np.array([[40, 50, 90, 120]]) * scale
        picture = draw_detections(grey(150 * scale, 200 * scale), box, ["cat"], [0.9], [RED])
        row = np.asarray(picture)[70 * scale]
        return int((row == RED).all(axis=-1)[: 80 * scale].sum())

    assert line_width(1) == 2
    assert line_width(10) == 8


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (8, 8), (16, 2000)])
def test_any_image_size(size):
    box = np.array([[0, 0, *size], [0, 0, 0, 0], [-5, -5, 400, 400]])
    picture = draw_detections(grey(*size), box, ["cat", "dog", "cow"], [0.9, 0.8, 1], [RED] * 3)
    assert picture.size == size[::-1]


def test_no_detections_leave_the_photo_as_it_is():
    assert not differs(draw_detections(grey(20, 20), np.zeros((0, 4)), [], [], [])).any()


def test_black_letters_on_bright_plates_and_white_on_dark_ones():
    for colour, ink in (((255, 255, 0), 0), ((60, 0, 60), 255)):
        picture = draw_detections(
            grey(100, 200), np.array([[40, 50, 90, 120]]), ["MMM"], None, [colour]
        )
        plate = np.asarray(picture)[20:39, 50:100].reshape(-1, 3)
        assert (plate == ink).all(axis=-1).any()


def test_samples_are_coloured_by_kind_and_counted(monkeypatch):
    texts = []
    draw_plate = visualize._draw_plate
    monkeypatch.setattr(
        visualize,
        "_draw_plate",
        lambda *rest: (texts.append(rest[2]), draw_plate(*rest)),
    )
    boxes = np.array([[30, 10, 90, 60], [35, 80, 95, 140], [40, 150, 99, 190], [-20, -20, 130, 30]])
    kinds = ["foreground", "ground truth", "background", "background"]
    picture = np.asarray(draw_samples(grey(100, 200), boxes, kinds)).astype(int)
    assert tuple(picture[60, 10]) == visualize.SAMPLE_COLOURS["foreground"]
    assert tuple(picture[60, 80]) == visualize.SAMPLE_COLOURS["ground truth"]
    red, green, blue = picture[60, 150]  # pale, so that a hundred leave the photo visible
    assert 128 < red < 255 and green == blue < 128
    assert texts == ["ground truth 1", "foreground 1", "background 2"]
    with pytest.raises(ValueError, match="received \\['fg'\\]"):
        draw_samples(grey(100, 200), boxes[:1], ["fg"])


def test_contact_sheet():
    pictures = [Image.new("RGB", (100, 50), RED), Image.new("L", (50, 100), 0)]
    sheet = contact_sheet([*pictures, pictures[0]], columns=2, cell=100)
    assert sheet.size == (2 * 104 + 4, 104 + 54 + 4)
    assert sheet.getpixel((54, 54)) == RED  # first cell, centred in its row
    assert sheet.getpixel((54, 10)) == (255, 255, 255)
    assert sheet.getpixel((158, 54)) == (0, 0, 0)
    assert sheet.getpixel((54, 130)) == RED
    assert contact_sheet([Image.new("RGB", (1000, 500), RED)], columns=4, cell=100).size == (
        108,
        58,
    )
    with pytest.raises(ValueError):
        contact_sheet([], 3)


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
        "stage 1: RPN",
        "stage 2: detector",
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
        metrics("joint", 1, 1.0),
        metrics("joint", 2, float("nan")),
        metrics("joint", 3, 3.0),
    ]
    save_curves(write_metrics(tmp_path / "m.jsonl", records), tmp_path / "c.png")
    axis = figures["c.png"].axes[0]
    assert axis.lines[0].get_xdata().tolist() == [1, 3]
    assert axis.get_title() == "joint"


def test_metrics_that_cannot_be_read(tmp_path):
    path = write_metrics(tmp_path / "m.jsonl", [], '{"stage": 1\n{}\n')
    with pytest.raises(UserError, match="Line 1 of"):
        save_curves(path, tmp_path / "c.png")
    with pytest.raises(UserError, match="cannot be read"):
        save_curves(tmp_path / "none.jsonl", tmp_path / "c.png")


def test_moving_average_by_hand():
    # Window 2: weights 1, 2, 1 (halved) inside, those within reach at the ends.
    values = visualize._moving_average(np.array([0.0, 4.0, 0.0, 8.0]), 2)
    np.testing.assert_allclose(values, [4 / 3, 2.0, 3.0, 16 / 3])


def objects(image_id, boxes, classes):
    return Example(
        image_id=image_id,
        source="VOC2007",
        path=Path(f"{image_id}.jpg"),
        height=100,
        width=100,
        boxes_image=np.array(boxes, np.float32).reshape(-1, 4),
        classes=np.array(classes, np.int32),
        difficult=np.zeros(len(classes), bool),
    )


def test_label_statistics(tmp_path, figures):
    data = Dataset(
        ("cat", "dog", "owl"),
        (
            objects("1", [[0, 0, 10, 30], [0, 0, 50, 20]], [1, 3]),
            objects("2", [[0, 0, 40, 40]], [1]),
        ),
        ("2007:train",),
    )
    save_label_statistics(
        data,
        tmp_path / "labels.png",
        anchors_input=np.array([[-40, -84, 56, 100], [-56, -56, 72, 72]], np.float32),
        scale_of=lambda example: 2.0 if example.image_id == "1" else 3.0,
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


def test_label_statistics_without_objects_or_with_wrong_ious(tmp_path, figures):
    data = Dataset(("cat",), (objects("1", [], []),), ("2007:train",))
    anchors = np.array([[0, 0, 16, 16]], np.float32)
    arguments = {"anchors_input": anchors, "scale_of": lambda _: 1.0}
    save_label_statistics(data, tmp_path / "l.png", best_ious=np.zeros(0), **arguments)
    assert figures["l.png"].get_suptitle() == "no boxes"
    with pytest.raises(ValueError, match="expected 0 IoUs, received 2"):
        save_label_statistics(data, tmp_path / "l.png", best_ious=np.zeros(2), **arguments)


def test_pyplot_stays_out_of_it():
    code = "import sys, keras_frcnn.visualize; sys.exit('matplotlib.pyplot' in sys.modules)"
    root = Path(__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
