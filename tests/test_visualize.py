"""What the pictures show, checked pixel by pixel."""

import numpy as np
import pytest
from PIL import Image

from keras_frcnn import visualize
from keras_frcnn.visualize import (
    OUTCOMES,
    class_colour,
    contact_sheet,
    draw_detections,
    draw_outcomes,
    draw_samples,
)

RED = (255, 0, 0)


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
    texts.clear()
    draw_samples(grey(100, 200), boxes, kinds, {"foreground": "anchors:"})
    assert texts == ["anchors: 1"]
    texts.clear()
    draw_samples(grey(100, 200), boxes, kinds, totals={"background": 245, "foreground": 1})
    assert texts == ["ground truth 1", "foreground 1", "background 2 of 245"]
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


def test_outcomes_are_told_apart_by_line_and_label():
    image = np.full((200, 200, 3), 90, np.uint8)
    boxes = np.array([[20, 20, 90, 90], [110, 110, 190, 190]], np.float32)
    picture = np.asarray(draw_outcomes(image, boxes, ["found", "true positive"], ["", "0.93"]))
    green, blue = OUTCOMES["found"][0], OUTCOMES["true positive"][0]
    # The top line of ground truth is dashed: colour and dark edge in turns; a detection's is not.
    top = {tuple(pixel) for pixel in picture[20, 20:90].tolist()}
    assert top == {green, (0, 0, 0)}
    assert {tuple(pixel) for pixel in picture[189, 112:188].tolist()} == {blue}
    # The label is written above the detection only.
    assert (picture[95:109, 110:150] == blue).all(axis=-1).any()
    assert (picture[:18] == 90).all()
    with pytest.raises(ValueError, match="expected outcomes"):
        draw_outcomes(image, boxes[:1], ["lost"], [""])


def test_outcomes_of_nothing_and_of_tiny_boxes():
    image = np.full((30, 30, 3), 90, np.uint8)
    assert (np.asarray(draw_outcomes(image, np.zeros((0, 4)), [], [])) == 90).all()
    for outcome in OUTCOMES:
        draw_outcomes(image, np.array([[29, 29, 30, 30], [5, 5, 5, 5]]), [outcome] * 2, ["", "a"])
