"""VOC 2012's test images without annotations and the archive for its server.

Shapes and names
----------------
devkit  a generated one, copied to VOC2012 without its annotations.
"""

from __future__ import annotations

import codecs
import shutil
import tarfile

import numpy as np
import pytest

from keras_frcnn.demo.devkit import write_demo_devkit
from keras_frcnn.detection.detections import ImageDetections
from keras_frcnn.paper.voc_server import has_annotations, load_unannotated, write_server_files


@pytest.fixture(scope="module")
def devkit(tmp_path_factory):
    path = tmp_path_factory.mktemp("server") / "VOCdevkit"
    write_demo_devkit(path, seed=2, train_images=1, test_images=2, size=(200, 260))
    shutil.copytree(path / "VOC2007", path / "VOC2012")
    shutil.rmtree(path / "VOC2012" / "Annotations")
    return path


def test_which_set_has_annotations(devkit):
    assert has_annotations(devkit, "2007:test")
    assert not has_annotations(devkit, "2012:test")


def test_one_annotation_that_is_missing_is_not_all(devkit, tmp_path):
    shutil.copytree(devkit / "VOC2007", tmp_path / "VOC2007")
    first = (tmp_path / "VOC2007/ImageSets/Main/test.txt").read_text().split()[0]
    (tmp_path / "VOC2007/Annotations" / f"{first}.xml").unlink()
    assert has_annotations(tmp_path, "2007:test")


def test_lists_are_read_as_everywhere(devkit, tmp_path):
    shutil.copytree(devkit / "VOC2012", tmp_path / "VOC2012")
    file = tmp_path / "VOC2012/ImageSets/Main/test.txt"
    ids = file.read_text().split()
    file.write_bytes(codecs.BOM_UTF8 + "".join(f"{name}  -1\r\n" for name in ids).encode())
    dataset = load_unannotated(tmp_path, "2012:test", ("disc",))
    assert [example.image_id for example in dataset.examples] == ids


def test_images_without_annotations(devkit):
    dataset = load_unannotated(devkit, "2012:test", ("disc", "star"))
    listed = (devkit / "VOC2012/ImageSets/Main/test.txt").read_text().split()
    assert [example.image_id for example in dataset.examples] == listed
    example = dataset.examples[0]
    assert (example.height, example.width) == (200, 260)
    assert example.key == f"VOC2012/{listed[0]}"
    assert example.boxes_image.shape == (0, 4)
    assert dataset.class_names == ("disc", "star")


def test_the_archive_has_the_servers_layout(devkit, tmp_path):
    dataset = load_unannotated(devkit, "2012:test", ("disc", "star"))
    first, second = dataset.examples
    boxes = np.array([[10.0, 20.0, 30.5, 40.0]], np.float32)
    found = ImageDetections(boxes, np.array([0.123456789], np.float32), np.array([2], np.int32))
    nothing = ImageDetections(
        np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int32)
    )
    detections = {first.key: found, second.key: nothing}
    archive = write_server_files(tmp_path / "new", "system", dataset, detections)
    with tarfile.open(archive) as tar:
        texts = {name: tar.extractfile(name).read().decode() for name in tar.getnames()}
    main = "results/VOC2012/Main/comp4_det_test"
    # 1-based inclusive corners: 20 + 1, 10 + 1, 40, 30.5.
    assert texts == {
        f"{main}_disc.txt": "",
        f"{main}_star.txt": f"{first.image_id} 0.123457 21.000 11.000 40.000 30.500\n",
    }
