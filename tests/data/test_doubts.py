"""What many bad boxes of one kind are told to be, and which of them are mended.

Shapes and names
----------------
Images are 120 x 160 pixels (height x width) unless said; boxes (x1, y1, x2, y2) half-open.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keras_frcnn.data.bad_images import about_problems, check_share_of_bad
from keras_frcnn.data.images import read_image
from keras_frcnn.data.simple import load_simple
from keras_frcnn.data.voc import load_voc
from keras_frcnn.errors import UserError
from tests.data.devkits import Devkit, box_xml, kinds, object_xml

# Of four images; every one goes beyond 120 to the right or is wider than its x.
BOXES = [
    [(97, 53, 150, 101), (10, 5, 104, 88)],
    [(16, 32, 148, 64), (100, 26, 148, 74)],
    [(23, 10, 158, 37), (77, 4, 130, 41)],
    [(75, 69, 124, 108), (120, 33, 144, 57)],
]


def exif(orientation: int) -> Image.Exif:
    data = Image.Exif()
    data[0x0112] = orientation
    return data


def written_list(folder: Path, form, orientation: int = 1) -> Path:
    """A simple list of ``BOXES``, each as the text that ``form`` makes of it."""
    lines = []
    for number, boxes in enumerate(BOXES):
        Image.new("RGB", (160, 120)).save(folder / f"{number}.jpg", exif=exif(orientation))
        lines += [f"{number}.jpg,{form(*box)},disc\n" for box in boxes]
    (folder / "list.txt").write_text("".join(lines))
    return folder / "list.txt"


def corners(*numbers: object) -> str:
    return ",".join(map(str, numbers))


FORMS = {
    "x, y, width, height": lambda a, b, c, d: corners(a, b, c - a, d - b),
    "centre x": lambda a, b, c, d: corners((a + c) / 2, (b + d) / 2, c - a, d - b),
    "0 to 1": lambda a, b, c, d: corners(a / 160, b / 120, c / 160, d / 120),
    "swapped": lambda a, b, c, d: corners(b, a, d, c),
    "xmin, xmax": lambda a, b, c, d: corners(a, c, b, d),
    "xmax, ymax": lambda a, b, c, d: corners(c, d, a, b),
    "decimal comma": lambda *box: corners(*(f'"{side},0"' for side in box)),
    "resized": lambda *box: corners(*(3 * side for side in box)),
}


@pytest.mark.parametrize("cause", FORMS)
def test_objects_lost_in_masses_stop_with_the_likely_cause(tmp_path, cause):
    dataset = load_simple(written_list(tmp_path, FORMS[cause]))
    with pytest.raises(UserError, match=f"{cause}.*list.txt, line 1.*--allow_bad"):
        check_share_of_bad(dataset)


def test_sound_boxes_raise_no_doubt(tmp_path):
    dataset = load_simple(written_list(tmp_path, corners))
    assert dataset.problems == () and dataset.doubt == ""
    check_share_of_bad(dataset)


def test_up_to_a_tenth_of_the_objects_may_be_lost(tmp_path):
    path = written_list(tmp_path, corners)
    rest = "".join(f"0.jpg,{place},1,50,50,disc\n" for place in range(1, 11))
    bad = "1.jpg,9,9,9,9,disc\n"
    path.write_text(path.read_text() + rest + 2 * bad)
    check_share_of_bad(load_simple(path))
    path.write_text(path.read_text() + bad)
    with pytest.raises(UserError, match="3 of the 21 objects"):
        check_share_of_bad(load_simple(path))
    # Those of classes that a run does not know are no fault of the data.
    unknown = load_simple(written_list(tmp_path, corners), class_names=("cat",))
    assert unknown.number_of_objects == 0
    check_share_of_bad(unknown)


def test_boxes_of_a_list_on_photos_as_stored(tmp_path):
    dataset = load_simple(written_list(tmp_path, corners, orientation=6))
    with pytest.raises(UserError, match="EXIF"):
        check_share_of_bad(dataset)


def devkit_of(folder: Path, written: str, sizes, orientations=(1, 1, 1, 1), boxes=BOXES) -> Devkit:
    """VOC2007 of ``BOXES``, in annotations with the size element ``written``."""
    devkit = Devkit(folder)
    for number, of_image in enumerate(boxes):
        objects = [
            object_xml("disc", box_xml(x1 + 1, y1 + 1, x2, y2)) for x1, y1, x2, y2 in of_image
        ]
        devkit.add(str(number), written, *objects)
        picture = Image.fromarray(marked(of_image[0])).resize(sizes[number], Image.Resampling.BOX)
        picture.save(
            devkit.file(2007, "JPEGImages", f"{number}.jpg"),
            quality=95,
            exif=exif(orientations[number]),
        )
    devkit.list("trainval", "0", "1", "2", "3")
    return devkit


def marked(box: tuple[int, int, int, int]) -> np.ndarray:
    """(120, 160, 3) white where the object is."""
    pixels = np.zeros((120, 160, 3), np.uint8)
    pixels[box[1] : box[3], box[0] : box[2]] = 255
    return pixels


SIZE = "<size><width>160</width><height>120</height><depth>3</depth></size>"


def first_boxes_lie_on_their_objects(dataset) -> bool:
    for example in dataset.examples:
        y1, x1, y2, x2 = np.round(example.boxes_image[0]).astype(int)
        white = read_image(example.path)[..., 0] > 128
        inside = white[y1:y2, x1:x2].mean()
        if inside < 0.9 or white.sum() * 0.9 > (y2 - y1) * (x2 - x1):
            return False
    return True


@pytest.mark.parametrize("size", [(320, 240), (80, 60), (107, 80)])
def test_boxes_are_scaled_where_all_sizes_differ_by_one_factor(tmp_path, size):
    dataset = load_voc(devkit_of(tmp_path, SIZE, [size] * 4).root, None)
    check_share_of_bad(dataset)
    assert first_boxes_lie_on_their_objects(dataset)
    assert dataset.number_of_objects == 8
    assert kinds(dataset) == ["boxes mended"] * 4
    assert float(dataset.problems[0].action.split()[-1]) == pytest.approx(size[0] / 160, abs=0.01)
    assert any("scaled" in sentence for sentence in about_problems(dataset))


@pytest.mark.parametrize("orientation", range(5, 9))
def test_boxes_are_turned_with_the_photo(tmp_path, orientation):
    turned = (1, orientation, orientation, orientation)
    dataset = load_voc(devkit_of(tmp_path, SIZE, [(160, 120)] * 4, turned).root, None)
    check_share_of_bad(dataset)
    assert first_boxes_lie_on_their_objects(dataset)
    assert kinds(dataset) == ["boxes mended"] * 3


@pytest.mark.parametrize(
    "sizes",
    [
        [(320, 240)] * 3 + [(160, 120)],  # not all
        [(320, 240)] * 2 + [(80, 60)] * 2,  # not by one factor
        [(128, 128)] * 4,  # not by one factor in both axes
    ],
)
def test_sizes_that_differ_otherwise_stop(tmp_path, sizes):
    dataset = load_voc(devkit_of(tmp_path, SIZE, sizes).root, None)
    with pytest.raises(UserError, match="0.xml.*160 x 120.*resized"):
        check_share_of_bad(dataset)


def test_boxes_that_fit_the_image_stay_whatever_size_was_written(tmp_path):
    size = SIZE.replace("160", "60").replace("120", "45")
    dataset = load_voc(devkit_of(tmp_path, size, [(160, 120)] * 4).root, None)
    check_share_of_bad(dataset)
    assert kinds(dataset) == ["size differs"] * 4
    assert first_boxes_lie_on_their_objects(dataset)


def test_boxes_of_voc_between_0_and_1_and_in_other_elements_stop(tmp_path):
    shares = [[(a / 160, b / 120, c / 160, d / 120) for a, b, c, d in boxes] for boxes in BOXES]
    devkit = Devkit(tmp_path)
    for number, boxes in enumerate(shares):
        devkit.add(str(number), *(object_xml(box=box_xml(*box)) for box in boxes))
    devkit.add("4", *(object_xml(box="<bndbox><left>1</left></bndbox>"),) * 4)
    devkit.list("train", "0", "1", "2", "3")
    devkit.list("val", "4")
    for split, word in (("train", "0 to 1"), ("val", "found left")):
        with pytest.raises(UserError, match=word):
            check_share_of_bad(load_voc(devkit.root, f"2007:{split}"))
