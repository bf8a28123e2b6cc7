"""Files that commands are pointed at: detections, proposals, weights, configurations, anchors.

Shapes and names
----------------
Each is read to the end or refused by a ``UserError`` that names the file.
"""

from __future__ import annotations

import functools
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from keras_frcnn.data.anchor_files import read_anchors, write_anchors
from keras_frcnn.errors import UserError
from keras_frcnn.evaluation.read_detections import read_detections, with_names
from keras_frcnn.network.weight_files import write_arrays
from keras_frcnn.proposals.files import read_proposals, write_proposals
from keras_frcnn.proposals.given import GivenProposals, ranked
from keras_frcnn.recipes import PAPER
from keras_frcnn.runs.folder import RunFolder, find_run
from tests.fuzz.harness import damaged, watched
from tests.read_weights import read_layers

BOX = (10, 20, 40, 60)
# Everything that JSON can say, and what Python's reader takes beyond it.
VALUES = (
    *(None, True, False, 0, -1, 1, 5, 1.5, -0.0, 1e308, 10**30, 2**63, float("nan"), float("inf")),
    *("", "dog", "cat", "000001", "../x", "\0", "\ud800", "x" * 10_000, "5", "NaN", "[bold]"),
    *([], [1], [1, 2, 3, 4], [0, 0, -5, 5], [1, 2, 3, "4"], [[1, 2, 3, 4]], [None] * 4, {}),
    *([float("nan")] * 1, {"a": 1}, [[]], [1e400, 0, 1, 1], ["x"] * 4),
)
DEEP = "[" * 200_000
TEXTS = ("", " ", "{", "[1", "nul", "[]]", DEEP, '{"a":' * 200_000, "1" * 5000, "\ufeff[]", "[1,]")


@pytest.fixture(scope="module")
def data(make_dataset):
    """Two images without objects."""
    return make_dataset([], [], class_names=("cat", "dog"), ids=("000001", "000002"))


def survive(path: Path, read: Callable):
    """What ``read`` gives, or ``None`` where it refuses the file by its name."""
    with watched(path.parent):
        try:
            return read()
        except UserError as error:
            assert path.name in str(error)
            assert len(str(error)) < 3000
            return None


RECORDS = [
    {
        "file_name": "000001.jpg",
        "image_id": "000001",
        "class_name": "cat",
        "category_id": 1,
        "bbox": [20, 10, 40, 30],
        "score": 0.5,
    },
    {"image_id": 2, "category_id": 2, "bbox": [0, 0, 5.5, 5], "score": 1},
]


def survive_detections(path: Path, text: str | bytes, data) -> None:
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    result = survive(path, lambda: read_detections(path, data))
    if result is not None:
        found = sum(len(detections) for detections in result[0].values())
        assert found == len(json.loads(path.read_text(encoding="utf-8-sig")))
        for detections in result[0].values():
            assert np.isfinite(detections.boxes_image).all()
            assert np.isfinite(detections.scores).all()


@pytest.mark.parametrize(
    "field", ["file_name", "image_id", "class_name", "category_id", "bbox", "score"]
)
def test_each_value_in_each_field_of_detections(tmp_path, data, field):
    for value in VALUES:
        records = [RECORDS[0], {**RECORDS[1], field: value}]
        survive_detections(tmp_path / "found.json", json.dumps(records), data)


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_texts_that_are_no_detections(tmp_path, data, text):
    survive_detections(tmp_path / "found.json", text, data)


@pytest.mark.parametrize("seed", range(60))
def test_damaged_detections(tmp_path, data, seed):
    text = damaged(json.dumps(RECORDS * 3).encode(), np.random.default_rng([8, seed]))
    survive_detections(tmp_path / "found.json", text, data)


@pytest.mark.parametrize("text", [*TEXTS, *map(json.dumps, VALUES)], ids=range(len(TEXTS + VALUES)))
def test_texts_that_are_no_annotations_of_coco(tmp_path, text):
    path = tmp_path / "annotations.json"
    path.write_text(text)
    survive(path, lambda: with_names([], path))


LINE = b"000001 0.5 21 11 60 40\n"


def archive(data: bytes, mode: str, name: str = "comp4_det_test_cat.txt", kind=tarfile.REGTYPE):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as file:
        info = tarfile.TarInfo(name)
        info.size, info.type, info.linkname = len(data), kind, "/etc/passwd"
        file.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
@pytest.mark.parametrize("seed", range(15))
def test_damaged_archives(tmp_path, data, mode, seed):
    path = tmp_path / "results.tar"
    path.write_bytes(damaged(archive(LINE * 500, mode), np.random.default_rng([10, seed]), most=1))
    survive(path, lambda: read_detections(path, data))


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_a_cut_archive_is_refused_by_name(tmp_path, data, mode):
    """Its errors are tarfile's own, EOFError and those of each compression."""
    path = tmp_path / "results.tar"
    whole = archive(np.random.default_rng(0).bytes(50_000), mode)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"results\.tar"):
        read_detections(path, data)


def test_a_member_of_an_archive_that_claims_a_terabyte(tmp_path, data):
    path = tmp_path / "results.tar"
    info = tarfile.TarInfo("comp4_det_test_cat.txt")
    info.size = 2**40
    path.write_bytes(info.tobuf() + LINE * 100)
    with watched(tmp_path), pytest.raises(UserError, match=r"results\.tar"):
        read_detections(path, data)


@pytest.mark.parametrize("name", ["../comp4_det_test_cat.txt", "/tmp/comp4_det_test_cat.txt"])
@pytest.mark.parametrize(
    "kind", [tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE]
)
def test_members_of_archives_are_read_in_place_and_never_unpacked(tmp_path, data, name, kind):
    path = tmp_path / "a" / "results.tar"
    path.parent.mkdir()
    path.write_bytes(archive(LINE if kind == tarfile.REGTYPE else b"", "w", name, kind))
    with watched(tmp_path):
        result = survive(path, lambda: read_detections(path, data))
    assert (result is not None) == (kind == tarfile.REGTYPE)


@pytest.mark.parametrize("seed", range(40))
def test_damaged_text_files_of_detections(tmp_path, data, seed):
    path = tmp_path / "results" / "comp4_det_test_cat.txt"
    path.parent.mkdir()
    path.write_bytes(damaged(LINE * 5, np.random.default_rng([11, seed])))
    survive(path.parent, lambda: read_detections(path.parent, data))


ARRAYS = {
    "integers": {"data": np.ones((3, 4), np.int64)},
    "text": {"data": b"text"},
    "another shape": {"data": np.ones((2, 2, 2), np.float32)},
    "empty": {"data": np.zeros((0, 4), np.float32)},
    "null": {"data": h5py.Empty("f")},
    "NaN": {"data": np.full((3, 4), np.nan)},
    "half": {"data": np.ones((3, 4), np.float16)},
    "complex": {"data": np.ones((3, 4), np.complex64)},
    "records": {"data": np.zeros(3, [("a", "f4"), ("b", "i4")])},
    "ragged": {"shape": (3,), "dtype": h5py.vlen_dtype(np.float32)},
    "names": {"data": np.array([b"a"] * 3)},
    "terabytes": {"shape": (10**12, 4), "dtype": "f4", "chunks": (1024, 4)},
    "compressed terabytes": {
        **{"shape": (10**12, 4), "dtype": "f4", "chunks": (1024, 4)},
        "compression": "gzip",
    },
    "elsewhere": {"shape": (3, 4), "dtype": "f4", "external": [("secret", 0, 48)]},
}
LINKS = {
    "soft": h5py.SoftLink("/boxes"),
    "loop": h5py.SoftLink("/loop"),
    "outside": h5py.ExternalLink("secret.h5", "boxes"),
    "far": h5py.ExternalLink("/etc/passwd", "/"),
    "itself": h5py.ExternalLink("file.h5", "boxes"),
}


def replace(path: Path, name: str, how: str) -> None:
    """Puts another array, a link, a group or nothing in the place of a member."""
    with h5py.File(path, "r+") as file:
        del file[name]
        if how in ARRAYS:
            file.create_dataset(name, **ARRAYS[how])
        elif how in LINKS:
            file["loop"] = h5py.SoftLink("/loop")
            file[name] = LINKS[how]
        elif how == "a group":
            file.create_group(name)
        elif how == "the root":
            file[name] = file["/"]


HOW = [*ARRAYS, *LINKS, "a group", "the root", "missing"]
MAY_BE_READ = {"half", "NaN"}


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("name", ["boxes", "scores", "offsets", "names"])
def test_hostile_proposals(tmp_path, name, how):
    path = tmp_path / "file.h5"
    write_proposals(path, GivenProposals({"a": ranked([BOX] * 3)}, "edge-boxes", {}, "here"))
    (tmp_path / "secret").write_bytes(bytes(48))
    write_arrays(tmp_path / "secret.h5", {"a": {"kernel": np.ones(3)}}, {})
    replace(path, name, how)
    result = survive(path, lambda: read_proposals(path))
    assert result is None or how in MAY_BE_READ or (name, how) in {("names", "names")}


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("name", ["fc6", "fc6/fc6", "fc6/fc6/kernel:0"])
def test_hostile_weights(tmp_path, name, how):
    path = tmp_path / "file.h5"
    write_arrays(path, {"fc6": {"kernel": np.ones((3, 4)), "bias": np.ones(4)}}, {})
    (tmp_path / "secret").write_bytes(bytes(48))
    write_arrays(tmp_path / "secret.h5", {"boxes": {"kernel": np.ones(3)}}, {})
    replace(path, name, how)
    result = survive(path, lambda: read_layers(path))
    readable = {*MAY_BE_READ, "another shape", "empty"}
    assert result is None or (name == "fc6/fc6/kernel:0" and how in readable)


ATTRIBUTES = (
    0,
    1.5,
    "",
    "text",
    b"bytes",
    [1, 2],
    [b"a"],
    ["fc6", "fc6"],
    "{",
    DEEP[:60_000],
    "[]",
)


@pytest.mark.parametrize("value", ATTRIBUTES, ids=range(len(ATTRIBUTES)))
@pytest.mark.parametrize("name", ["keras_frcnn", "layer_names", "weight_names"])
def test_hostile_attributes_of_weights(tmp_path, name, value):
    path = tmp_path / "file.h5"
    write_arrays(path, {"fc6": {"kernel": np.ones((3, 4))}}, {})
    with h5py.File(path, "r+") as file:
        (file["fc6"] if name == "weight_names" else file).attrs[name] = value
    survive(path, lambda: read_layers(path))


@pytest.mark.parametrize("value", ATTRIBUTES, ids=range(len(ATTRIBUTES)))
@pytest.mark.parametrize("name", ["format", "settings", "method"])
def test_hostile_attributes_of_proposals(tmp_path, name, value):
    path = tmp_path / "file.h5"
    write_proposals(path, GivenProposals({"a": ranked([BOX])}, "edge-boxes", {}, "here"))
    with h5py.File(path, "r+") as file:
        file.attrs[name] = value
    survive(path, lambda: read_proposals(path))


def paths_of(value, path=()):
    """Every place in a JSON value."""
    yield path
    if isinstance(value, dict):
        entries = list(value.items())
    else:
        entries = list(enumerate(value)) if isinstance(value, list) else []
    for key, entry in entries:
        yield from paths_of(entry, (*path, key))


def put(value, path, new):
    """The JSON value with another value at a place."""
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = put(copy[path[0]], path[1:], new)
    return copy


@pytest.fixture(scope="module")
def config_text(tmp_path_factory, run_config):
    folder = tmp_path_factory.mktemp("config") / "run"
    RunFolder(folder).create(run_config(), ["train_frcnn.py"])
    return (folder / "config.json").read_text()


@pytest.mark.parametrize("seed", range(60))
def test_other_values_in_a_configuration(tmp_path, config_text, seed):
    """Ten places each get one of the values: refused by name, or of the right type."""
    rng = np.random.default_rng([12, seed])
    values = json.loads(config_text)
    places = list(paths_of(values))
    for _ in range(10):
        place = places[rng.integers(len(places))]
        new = put(values, place, VALUES[rng.integers(len(VALUES))])
        path = tmp_path / "config.json"
        path.write_text(json.dumps(new))
        survive(path, lambda: RunFolder(tmp_path).read_config())
        survive(path, functools.partial(find_run, path))


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_texts_that_are_no_configuration(tmp_path, text):
    path = tmp_path / "config.json"
    path.write_text(text)
    for read in (RunFolder(tmp_path).read_config, lambda: find_run(path)):
        assert survive(path, read) is None


@pytest.mark.parametrize("seed", range(40))
def test_damaged_configurations(tmp_path, config_text, seed):
    path = tmp_path / "config.json"
    path.write_bytes(damaged(config_text.encode(), np.random.default_rng([13, seed])))
    survive(path, lambda: RunFolder(tmp_path).read_config())


@pytest.mark.parametrize("text", [*TEXTS, *map(json.dumps, VALUES)], ids=range(len(TEXTS + VALUES)))
def test_texts_that_are_no_anchors(tmp_path, text):
    path = tmp_path / "anchors.json"
    for written in (text, f'{{"shapes": {text}}}', f'{{"shapes": [[1, {text}]]}}'):
        path.write_text(written)
        survive(path, lambda: read_anchors(path, PAPER.image))


@pytest.mark.parametrize("seed", range(20))
def test_damaged_anchors(tmp_path, seed):
    path = tmp_path / "anchors.json"
    write_anchors(path, [(10, 20), (30, 40)], PAPER.image, {})
    path.write_bytes(damaged(path.read_bytes(), np.random.default_rng([14, seed])))
    survive(path, lambda: read_anchors(path, PAPER.image))


def mat_file(path: Path, compressed: bool) -> bytes:
    io = pytest.importorskip("scipy.io")
    images, boxes = np.empty((2, 1), object), np.empty((1, 2), object)
    images[:, 0] = ["000001", "000002"]
    boxes[0, 0], boxes[0, 1] = np.array([[1.0, 1, 20, 30]] * 20), np.array([[1.0, 2, 20, 30]])
    io.savemat(path, {"images": images, "boxes": boxes}, do_compression=compressed)
    return path.read_bytes()


@pytest.mark.parametrize("compressed", [False, True])
def test_damaged_files_of_matlab(tmp_path, compressed):
    """400 cases; SciPy's reader, which was used before, ended the process on one of them."""
    path = tmp_path / "boxes.mat"
    whole = mat_file(path, compressed)
    read = 0
    for seed in range(200):
        path.write_bytes(damaged(whole, np.random.default_rng([9, seed])))
        read += survive(path, lambda: read_proposals(path)) is not None
    assert read < 100
