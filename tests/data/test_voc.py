"""Reading a VOC devkit: XML, images, classes, and two real devkits.

Shapes and names
----------------
devkit  as in test_voc_layout.py, of images of 40 x 60 pixels; boxes_image  (G, 4) half-open.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from PIL import Image

from keras_frcnn.data.checks import report_text, summary
from keras_frcnn.data.voc import VOC_CLASSES, check_test_lists, load_voc, read_class_names
from keras_frcnn.errors import UserError
from tests.data.devkits import annotation, box_xml, ids, kinds, object_xml

SHARED = Path(__file__).parents[2] / ".." / "shared" / "data"
needs_shared = pytest.mark.skipif(
    not SHARED.is_dir(), reason="the real devkits of ../shared/data are absent"
)


def test_official_order():
    assert len(VOC_CLASSES) == 20 and list(VOC_CLASSES) == sorted(VOC_CLASSES)
    assert (VOC_CLASSES[0], VOC_CLASSES[14], VOC_CLASSES[19]) == (
        "aeroplane",
        "person",
        "tvmonitor",
    )


def test_only_direct_objects_count(devkit):
    part = f"<part><name>head</name>{box_xml(1, 1, 2, 2)}</part>"
    nested = f"<wrapper>{object_xml('cat')}</wrapper>"
    no_box = f"<object><name>dog</name>{part}</object>"
    devkit.add("1", object_xml("person", part + box_xml()), nested, no_box)
    dataset = load_voc(devkit.root, "2007:train", class_names=("person", "dog", "cat", "head"))
    example = dataset.examples[1]
    assert example.classes.tolist() == [1] and example.boxes_image.tolist() == [[2, 4, 9, 7]]
    (problem,) = dataset.problems
    assert (problem.kind, problem.where) == ("box unreadable", "object 2 (dog)")


def test_difficult_is_optional(devkit):
    flags = ("", "<difficult>1</difficult>", "<difficult>0</difficult>", "<difficult/>")
    odd = "<difficult>maybe</difficult>"
    devkit.add(
        "1",
        *(
            object_xml(more=flag, box=box_xml(xmin=place))
            for place, flag in enumerate((*flags, odd), start=1)
        ),
    )
    dataset = load_voc(devkit.root, "2007:train")
    assert dataset.examples[1].difficult.tolist() == [False, True, False, False, False]
    assert [(p.kind, p.where) for p in dataset.problems] == [("flag unreadable", "object 5 (dog)")]


@pytest.mark.parametrize(
    ("size", "problems"),
    [
        ("<size><width>60</width><height>40</height><depth>3</depth></size>", []),
        ("<size><width>0</width><height>0</height></size>", []),
        ("<size><width/><height>x</height></size>", []),
        ("<size><width>40</width><height>60</height></size>", ["size differs"]),
        ("<size><width>61.0</width><height>40</height></size>", ["size differs"]),
    ],
)
def test_written_size(devkit, size, problems):
    devkit.add("1", size, object_xml())
    dataset = load_voc(devkit.root, "2007:train")
    assert kinds(dataset) == problems
    assert (dataset.examples[1].height, dataset.examples[1].width) == (40, 60)


@pytest.mark.parametrize(
    ("xml", "kind"),
    [
        (
            '<!DOCTYPE a [<!ENTITY x "y">]><annotation>&x;</annotation>',
            "annotation unreadable",
        ),
        (
            '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation>&x;</annotation>',
            "annotation unreadable",
        ),
        ("<!DOCTYPE annotation><annotation/>", "annotation unreadable"),
        ("<annotation><object>", "annotation unreadable"),
        ("", "annotation unreadable"),
        ("<html/>", "annotation unreadable"),
        ('<?xml version="1.0" encoding="nonsense"?><annotation/>', "annotation unreadable"),
    ],
)
def test_annotations_that_are_not_read(devkit, xml, kind):
    path = devkit.file(2007, "Annotations", "1.xml")
    path.write_text(xml, encoding="utf-8")
    dataset = load_voc(devkit.root, "2007:train")
    assert ids(dataset) == ["2"]
    (problem,) = dataset.problems
    assert (problem.kind, problem.file, problem.action) == (kind, str(path), "image dropped")


def test_missing_annotation_and_image(devkit):
    devkit.list("some", "1", "2", "77", "3")
    devkit.file(2007, "JPEGImages", "1.jpg").unlink()
    dataset = load_voc(devkit.root, "2007:some")
    assert ids(dataset) == ["2", "3"]
    assert sorted(kinds(dataset)) == ["annotation missing", "image missing"]
    assert any("1.jpg" in problem.reason for problem in dataset.problems)


@pytest.mark.parametrize("suffix", [".heic", ".AVIF", ".jp2"])
def test_a_picture_of_a_kind_that_is_not_read_is_named(devkit, suffix):
    photo = devkit.file(2007, "JPEGImages", "1.jpg")
    photo.rename(photo.with_suffix(suffix))
    (problem,) = load_voc(devkit.root, "2007:train").problems
    assert (problem.kind, problem.where) == ("image missing", "1")
    assert f"1{suffix}" in problem.reason


@pytest.mark.parametrize("suffix", [".jfif", ".JPE"])
def test_jpeg_files_of_all_names_are_read(devkit, suffix):
    photo = devkit.file(2007, "JPEGImages", "1.jpg")
    photo.rename(photo.with_suffix(suffix))
    dataset = load_voc(devkit.root, "2007:train")
    assert ids(dataset) == ["2", "1"]
    assert dataset.problems == ()


def test_the_image_is_found_by_id_first(devkit):
    folder = devkit.root / "VOC2007/JPEGImages"
    for name in ("1.jpg", "2.jpg", "3.jpg"):
        (folder / name).unlink()
    devkit.image("1.PNG")
    devkit.image("2.png"), devkit.image("2.JPEG")
    devkit.image("other.bmp")
    devkit.add("1.v2")  # its stem must not be taken for the id 1
    for image_id in "123":
        text = annotation("<filename>C:\\photos\\..\\other.bmp</filename>", object_xml())
        devkit.file(2007, "Annotations", f"{image_id}.xml").write_text(text)
    dataset = load_voc(devkit.root, "2007:trainval")
    assert [example.path.name for example in dataset.examples] == ["1.PNG", "2.JPEG", "other.bmp"]
    assert dataset.problems == ()


def test_the_filename_never_leaves_the_folder(devkit):
    devkit.file(2007, "JPEGImages", "1.jpg").unlink()
    Image.new("RGB", (60, 40)).save(devkit.root / "secret.jpg")
    text = annotation("<filename>../../secret.jpg</filename>", object_xml())
    devkit.file(2007, "Annotations", "1.xml").write_text(text)
    assert kinds(load_voc(devkit.root, "2007:train")) == ["image missing"]


def test_class_lists(devkit):
    assert load_voc(devkit.root, "2007:train").class_names == VOC_CLASSES
    devkit.add("1", object_xml("zebra", more="<difficult>1</difficult>"), object_xml("ant"))
    dataset = load_voc(devkit.root, "2007:train")
    assert dataset.class_names == ("ant", "dog", "zebra")
    assert dataset.examples[1].classes.tolist() == [3, 1]
    devkit.add("5", year=2020)
    devkit.list("train", "5", year=2020)
    assert load_voc(devkit.root, "2020:train").class_names == ("dog",)
    assert load_voc(devkit.root, "2007:val+2020:train").class_names == ("dog",)


def test_a_devkit_s_classes_are_those_of_all_its_sets(devkit):
    devkit.add("1", object_xml("zebra"))
    devkit.add("3", object_xml("ant"))
    devkit.add("4", object_xml("unlisted"))
    assert read_class_names(devkit.root) == ("ant", "dog", "zebra")
    assert load_voc(devkit.root, "2007:val").class_names == ("ant",)


def test_given_classes_make_others_unknown(devkit):
    devkit.add("1", object_xml("zebra"), object_xml())
    dataset = load_voc(devkit.root, "2007:train", class_names=["cat", "dog"])
    assert dataset.class_names == ("cat", "dog")
    assert [e.classes.tolist() for e in dataset.examples] == [[2], [2]]
    assert [(p.kind, p.where) for p in dataset.problems] == [("class unknown", "object 1 (zebra)")]


def test_images_without_objects_are_kept(devkit):
    devkit.add("1", "<folder/>")
    dataset = load_voc(devkit.root, "2007:train")
    assert ids(dataset) == ["2", "1"] and dataset.examples[1].boxes_image.shape == (0, 4)


def test_a_custom_devkit_without_any_object_is_an_error(devkit):
    devkit.add("5", "<folder/>", year=2020)
    devkit.list("train", "5", year=2020)
    with pytest.raises(UserError, match="no class is known"):
        load_voc(devkit.root, "2020:train")
    assert len(load_voc(devkit.root, "2020:train", class_names=("dog",))) == 1


def test_strict(devkit):
    assert len(load_voc(devkit.root, "2007:train", strict=True)) == 2
    devkit.add("1", object_xml(box=box_xml(9, 9, 9, 9)))
    with pytest.raises(UserError, match=r"found 1 .*box degenerate"):
        load_voc(devkit.root, "2007:train", strict=True)


def test_progress(devkit):
    calls = []
    load_voc(devkit.root, "2007:trainval", progress=lambda *call: calls.append(call))
    assert calls == [(1, 3), (2, 3), (3, 3)]


def test_training_images_must_not_be_in_the_test_list(devkit):
    train = load_voc(devkit.root, "2007:train")
    check_test_lists(devkit.root, train)
    devkit.list("test", "2", "7")
    with pytest.raises(UserError, match=r"\(training\) and 2007:test, found 1: VOC2007/2; take"):
        check_test_lists(devkit.root, train)
    both = dataclasses.replace(train, sets=("2007:train", "2007:test"))
    check_test_lists(devkit.root, both)  # trained on the test set by name, as 07++12 is


def test_nothing_is_written_into_the_devkit(devkit):
    def contents() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in devkit.root.rglob("*")}

    before = contents()
    load_voc(devkit.root, None)
    assert contents() == before


TWO = [[2, 4, 9, 7], [0, 0, 20, 30]]


def test_each_bndbox_of_an_object_is_one(devkit):
    devkit.add("1", object_xml(box=box_xml() + box_xml(1, 1, 30, 20)), object_xml("cat"))
    example = load_voc(devkit.root, "2007:train", class_names=("cat", "dog")).examples[1]
    assert example.boxes_image.tolist() == [*TWO, TWO[0]]
    assert example.classes.tolist() == [2, 2, 1]


def test_an_object_that_is_there_twice_is_named_and_used_once(devkit):
    devkit.add("1", object_xml(), object_xml(), object_xml(box=box_xml(1, 1, 30, 20)))
    dataset = load_voc(devkit.root, "2007:train")
    assert dataset.examples[1].boxes_image.tolist() == TWO
    (problem,) = dataset.problems
    assert (problem.kind, problem.action) == ("object repeated", "used once")
    assert problem.file.endswith("1.xml") and problem.where.startswith("object 2")


@pytest.mark.parametrize(
    "parts",
    [
        object_xml(box=box_xml("1<b/>0", 3, 70, 9)),
        object_xml(box=box_xml("<b>1</b>", 3, 70, 9)),
        object_xml(box=box_xml("1</xmin><xmin>2", 3, 70, 9)),
        object_xml(box=box_xml("1_0", 3, 70, 9)),
        object_xml(box=box_xml("1e1", 3, 70, 9)),
        object_xml(name="dog</name><name>cat"),
        object_xml(name="do<b/>g"),
        object_xml(box="<polygon><x1>1</x1><y1>1</y1></polygon>"),
        object_xml(box="<robndbox><cx>9</cx><cy>9</cy><w>5</w><h>4</h></robndbox>"),
        object_xml(box="<bndbox><x>1</x><y>1</y><w>5</w><h>5</h></bndbox>"),
    ],
)
def test_objects_of_which_only_a_part_could_be_read_are_named(devkit, parts):
    devkit.add("1", object_xml("zebra"), parts)
    dataset = load_voc(devkit.root, "2007:train")
    assert set(dataset.class_names) <= {"dog", "zebra"}
    assert len(dataset.examples[1].classes) == 1
    (problem,) = dataset.problems
    assert (problem.action, problem.where[:8]) == ("object dropped", "object 2")


def test_corners_may_be_attributes(devkit):
    devkit.add("1", object_xml(box='<bndbox xmin="5" ymin="3" xmax="7" ymax="9"/>'))
    dataset = load_voc(devkit.root, "2007:train")
    assert dataset.examples[1].boxes_image.tolist() == TWO[:1] and dataset.problems == ()


@pytest.mark.parametrize(
    "points",
    [
        "<x1>5</x1><y1>4.5</y1><x2>7</x2><y2>9</y2><x3>6</x3><y3>3</y3>",
        "<pt><x>5</x><y>3</y></pt><pt><x>7</x><y>9</y></pt><pt><x>5</x><y>6</y></pt>",
    ],
)
def test_a_polygon_alone_is_read_as_its_bounding_box(devkit, points):
    outlined = object_xml(box=f"<polygon>{points}</polygon>")
    devkit.add("1", outlined, object_xml("cat", box=f"<polygon>{points}</polygon>"))
    devkit.add("2", outlined)
    dataset = load_voc(devkit.root, "2007:train", class_names=("cat", "dog"))
    first = dataset.examples[1]
    assert first.boxes_image.tolist() == [TWO[0]] * 2 and first.classes.tolist() == [2, 1]
    noted, others = dataset.problems
    assert (noted.kind, noted.action, noted.where) == (
        "polygon for a box",
        "noted",
        "object 1 (dog)",
    )
    assert others.number == 2


@pytest.mark.parametrize("third", ["", "<x3>6</x3>", "<x3>6</x3><y3>high</y3>"])
def test_a_polygon_that_cannot_be_read_is_no_box(devkit, third):
    points = f"<x1>5</x1><y1>4.5</y1><x2>7</x2><y2>9</y2>{third}"
    devkit.add("1", object_xml(box=f"<polygon>{points}</polygon>"))
    dataset = load_voc(devkit.root, "2007:train")
    assert len(dataset.examples[1].classes) == 0
    assert [(p.kind, p.action) for p in dataset.problems] == [("box unreadable", "object dropped")]


@pytest.mark.parametrize(
    ("more", "noted"),
    [
        ("<polygon><x1>1</x1></polygon>", "polygon"),
        ("<robndbox><angle>0</angle></robndbox>", "robndbox"),
        ("<rotation>0.5</rotation>", "rotation"),
        ("<rotation>0.0</rotation>", ""),
        (
            "<attributes><attribute><name>rotation</name><value>15.0</value></attribute></attributes>",
            "rotation",
        ),
    ],
)
def test_other_shapes_beside_a_box_are_noted(devkit, more, noted):
    devkit.add("1", object_xml(more=more))
    dataset = load_voc(devkit.root, "2007:train")
    assert dataset.examples[1].boxes_image.tolist() == TWO[:1]
    assert [noted in problem.reason for problem in dataset.problems] == [True] * bool(noted)


def test_annotations_with_a_million_elements_are_refused_and_many_problems_counted(devkit):
    devkit.add("1", "<object/>" * 300_000)
    dataset = load_voc(devkit.root, "2007:train")
    assert kinds(dataset) == ["annotation unreadable"]
    assert "1.xml" in dataset.problems[0].reason
    devkit.add("1", "<object><name>dog</name></object>" * 20_000)
    dataset = load_voc(devkit.root, "2007:train")
    assert len(dataset.problems) < 2_000 and len(report_text(dataset.problems)) < 500_000
    assert summary(dataset)["problems"] == {"box unreadable": 20_000}
    assert "and 19,000 more" in dataset.problems[-1].reason


@needs_shared
def test_real_voc():
    devkit = SHARED / "voc" / "VOCdevkit"
    train, test = (load_voc(devkit, f"2007:{split}") for split in ("trainval", "test"))
    check_test_lists(devkit, train)
    assert not {e.key for e in train.examples} & {e.key for e in test.examples}
    counts = [summary(dataset) for dataset in (train, test)]
    assert [count["images"] for count in counts] == [800, 200]
    assert train.class_names == test.class_names == VOC_CLASSES
    # 3111 <object> elements; their 342 <part> elements are none.
    assert sum(count["objects"] for count in counts) == 3111
    assert sum(count["difficult"] for count in counts) == 586
    assert train.problems == test.problems == ()
    (example,) = (e for d in (train, test) for e in d.examples if e.image_id == "002830")
    assert (example.height, example.width) == (331, 500)
    assert example.boxes_image[0].tolist() == [0, 189, 70, 287]
    assert example.classes.tolist() == [14, 14, 14, 14, 15]


@needs_shared
def test_real_bccd():
    dataset = load_voc(SHARED / "bccd" / "VOCdevkit" / "VOC2007", "2007:trainval+2007:test")
    assert dataset.class_names == ("Platelets", "RBC", "WBC")
    assert summary(dataset)["images"] == 364
    assert summary(dataset)["objects"] == 4888 - 2
    assert {(Path(p.file).stem, p.kind) for p in dataset.problems} == {
        ("BloodImage_00338", "box degenerate"),
        ("BloodImage_00343", "box degenerate"),
    }
    assert len(dataset.problems) == 2
