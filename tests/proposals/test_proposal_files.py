"""The file of given proposals and the ``.mat`` files of Selective Search: what is read and refused.

Shapes and names
----------------
P  proposals of one image.
"""

from __future__ import annotations

import struct
import zlib

import h5py
import numpy as np
import pytest

from keras_frcnn.errors import UserError
from keras_frcnn.proposals import mat_files
from keras_frcnn.proposals.files import read_proposals, write_proposals
from keras_frcnn.proposals.given import GivenProposals, ScoredBoxes
from keras_frcnn.proposals.mat_files import read_variables
from keras_frcnn.system.files import digest_of

NAMES = ("VOC2007/000005", "list/größe.png", "VOC2007/000005 flipped")


@pytest.fixture
def proposals():
    rng = np.random.default_rng(0)
    entries = {}
    for name, count in zip(NAMES, (3, 0, 2), strict=True):
        corner = rng.uniform(0, 50, (count, 2))
        boxes = np.concatenate((corner, corner + rng.uniform(1, 9, (count, 2))), axis=1)
        scores = np.sort(rng.uniform(0, 1, count))[::-1]
        entries[name] = ScoredBoxes(boxes.astype(np.float32), scores.astype(np.float32))
    return GivenProposals(entries, "edge-boxes", {"alpha": 0.65, "most": None}, "boxes.h5")


@pytest.fixture
def file(proposals, tmp_path):
    write_proposals(tmp_path / "boxes.h5", proposals)
    return tmp_path / "boxes.h5"


def test_round_trip(proposals, file):
    again = read_proposals(file)
    assert tuple(again.entries) == NAMES
    for name in NAMES:
        for ours, theirs in zip(again.entries[name], proposals.entries[name], strict=True):
            np.testing.assert_array_equal(ours, theirs)
            assert ours.dtype == np.float32
    assert (again.method, again.settings) == (proposals.method, proposals.settings)
    assert [path.name for path in file.parent.iterdir()] == ["boxes.h5"]


def test_no_proposals_at_all(tmp_path):
    path = tmp_path / "boxes.h5"
    empty = ScoredBoxes(np.zeros((0, 4), np.float32), np.zeros(0, np.float32))
    for entries in ({}, {"a": empty}):
        write_proposals(path, GivenProposals(entries, "rpn", {}, "x"))
        assert list(read_proposals(path).entries) == list(entries)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("offsets", [0, 3, 3, 6]),
        ("offsets", [0, 3, 2, 5]),
        ("offsets", [1, 3, 3, 5]),
        ("boxes", np.ones((5, 5), "f")),
        ("scores", np.zeros(4, "f")),
        ("names", np.array([b"a", b"b", b"a"])),
    ],
)
def test_an_inconsistent_file_is_refused(file, name, values):
    with h5py.File(file, "r+") as content:
        del content[name]
        content[name] = values
    with pytest.raises(UserError, match="inconsistent"):
        read_proposals(file)


def test_other_files_are_refused(file, tmp_path):
    with h5py.File(file, "r+") as content:
        content.attrs["format"] = "keras_frcnn given proposals 99"
    with pytest.raises(UserError, match="99', this version .* update keras_frcnn"):
        read_proposals(file)
    (tmp_path / "text.h5").write_text("no HDF5")
    with pytest.raises(UserError, match=r"text\.h5 cannot be read"):
        read_proposals(tmp_path / "text.h5")
    with pytest.raises(UserError, match="is a folder"):
        read_proposals(tmp_path)


def test_sizes_are_checked_before_memory_is_asked_for(file):
    """A terabyte that a chunked array claims without holding it."""
    with h5py.File(file, "r+") as content:
        del content["boxes"]
        content.create_dataset("boxes", (2**36, 4), "f", chunks=(1024, 4))
    with pytest.raises(UserError, match="boxes claims 1099511627776 bytes"):
        read_proposals(file)


def test_links_to_other_files_are_not_followed(file):
    with h5py.File(file, "r+") as content:
        del content["boxes"]
        content["boxes"] = h5py.ExternalLink("/etc/other.h5", "boxes")
    with pytest.raises(UserError, match="does not hold the array boxes itself"):
        read_proposals(file)


@pytest.mark.parametrize("values", [np.zeros((5, 4), "i8"), np.zeros(5, "f")])
def test_arrays_of_another_kind_are_refused(file, values):
    with h5py.File(file, "r+") as content:
        del content["boxes"]
        content["boxes"] = values
    with pytest.raises(UserError, match="not what the format says"):
        read_proposals(file)


@pytest.mark.parametrize("box", [(5, 5, 5, 9), (9, 0, 5, 5), (0, 0, np.nan, 5), (0, 0, np.inf, 5)])
def test_boxes_without_area_are_refused(proposals, tmp_path, box):
    entries = {"VOC2007/7": ScoredBoxes(np.array([box], np.float32), np.zeros(1, np.float32))}
    write_proposals(tmp_path / "b.h5", GivenProposals(entries, "rpn", {}, "x"))
    with pytest.raises(UserError, match="for VOC2007/7, which has no area"):
        read_proposals(tmp_path / "b.h5")


def test_the_digest_is_of_the_contents(file, tmp_path):
    copy = tmp_path / "copy.h5"
    copy.write_bytes(file.read_bytes())
    assert digest_of([file]) == digest_of([copy])
    copy.write_bytes(file.read_bytes() + b"x")
    assert digest_of([file]) != digest_of([copy])


# --- .mat --------------------------------------------------------------------------------------


def save_mat(path, images, boxes, **others):
    """As MATLAB stores two cell arrays: (n, 1) and (1, n)."""
    io = pytest.importorskip("scipy.io")
    cells = np.empty((len(images), 1), object)
    box_cells = np.empty((1, len(boxes)), object)
    for index, image in enumerate(images):
        cells[index, 0] = image
    for index, entry in enumerate(boxes):
        box_cells[0, index] = entry
    io.savemat(path, {"images": cells, "boxes": box_cells, **others})
    return path


def test_matlab_counts_from_one_and_includes_the_last_pixel(tmp_path):
    """The whole of a 100 x 60 image is 1, 1, 100, 60; its last pixel 100, 60, 100, 60."""
    path = save_mat(
        tmp_path / "voc.mat",
        ["000005", "2008_000002"],
        [np.array([[1.0, 1, 100, 60], [100, 60, 100, 60], [11, 21, 40, 35]]), np.zeros((0, 4))],
    )
    found = read_proposals(path)
    assert list(found.entries) == ["000005", "2008_000002"]
    boxes, scores = found.entries["000005"]
    np.testing.assert_array_equal(boxes, [[0, 0, 100, 60], [99, 59, 100, 60], [10, 20, 40, 35]])
    assert scores.tolist() == [0, -1, -2]
    assert found.entries["2008_000002"].boxes_image.shape == (0, 4)
    assert found.method == "mat"


def test_whole_numbers_of_matlab_are_read(tmp_path):
    boxes = np.array([[1, 1, 5, 5]], np.uint16)
    path = save_mat(tmp_path / "voc.mat", ["a"], [boxes])
    np.testing.assert_array_equal(read_proposals(path).entries["a"].boxes_image, [[0, 0, 5, 5]])


@pytest.mark.parametrize(
    ("images", "boxes", "words"),
    [
        (["a", "b"], [np.ones((1, 4))], "2 images but boxes of 1"),
        (["a", "a"], [np.array([[1.0, 1, 5, 5]])] * 2, "the image a twice"),
        (["a"], [np.ones((2, 5))], r"a in .* of shape \(2, 5\)"),
        ([np.ones((2, 2))], [np.ones((1, 4))], "one id in each cell"),
        (["a"], [np.array([[5.0, 5, 3, 9]])], "no area"),
    ],
)
def test_mat_files_of_something_else(tmp_path, images, boxes, words):
    with pytest.raises(UserError, match=words):
        read_proposals(save_mat(tmp_path / "voc.mat", images, boxes))


def test_mat_files_that_cannot_be_read(tmp_path):
    io = pytest.importorskip("scipy.io")
    path = tmp_path / "voc.mat"
    io.savemat(path, {"images": np.ones(3)})
    with pytest.raises(UserError, match=r"cell array images, found images \(double \(1, 3\)\)"):
        read_proposals(path)
    path.write_bytes(path.read_bytes()[:150])
    with pytest.raises(UserError, match=r"voc\.mat"):
        read_proposals(path)
    path.write_bytes(b"text")
    with pytest.raises(UserError, match=r"voc\.mat"):
        read_proposals(path)
    with pytest.raises(UserError, match=r"missing\.mat cannot be read"):
        read_proposals(tmp_path / "missing.mat")


def test_matlab_7_3_is_named(tmp_path):
    header = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM"
    (tmp_path / "new.mat").write_bytes(header + b"\x00" * 400)
    with pytest.raises(UserError, match=r"new\.mat .*MATLAB 7\.3.*-v7"):
        read_proposals(tmp_path / "new.mat")


@pytest.mark.parametrize("compressed", [False, True])
def test_scipy_reads_the_same(tmp_path, compressed):
    """Every type that MATLAB narrows values to, and names with other letters."""
    io = pytest.importorskip("scipy.io")
    kinds = ("u1", "i1", "u2", "i2", "u4", "i4", "f4", "f8")
    images, boxes = np.empty((len(kinds), 1), object), np.empty((1, len(kinds)), object)
    for index, kind in enumerate(kinds):
        images[index, 0] = f"größe{index}"
        boxes[0, index] = np.array([[1, 2, 30, 40 + index], [5, 6, 7, 8]], kind)
    path = tmp_path / "voc.mat"
    io.savemat(path, {"images": images, "boxes": boxes}, do_compression=compressed)
    expected = io.loadmat(path)
    found = read_variables(path.read_bytes())
    assert found["boxes"].shape == (1, 8)
    for index in range(len(kinds)):
        assert found["images"].cells[index] == expected["images"][index, 0][0]
        np.testing.assert_array_equal(found["boxes"].cells[index], expected["boxes"][0, index])


def element(kind: int, data: bytes) -> bytes:
    return struct.pack("<II", kind, len(data)) + data + bytes(-len(data) % 8)


def opaque(name: str) -> bytes:
    """A table as MATLAB writes it: flags and its name, then its class; it has no dimensions."""
    number = b"".join(
        (
            element(6, struct.pack("<II", 13, 0)),
            element(5, struct.pack("<ii", 1, 1)),
            element(1, b""),
            element(6, struct.pack("<I", 0xDD000000)),
        )
    )
    texts = (element(1, text.encode()) for text in (name, "MCOS", "table"))
    return element(
        14, b"".join((element(6, struct.pack("<II", 17, 0)), *texts, element(14, number)))
    )


@pytest.mark.parametrize("compressed", [False, True])
def test_a_table_beside_the_proposals_is_passed_over(tmp_path, compressed):
    path = save_mat(tmp_path / "voc.mat", ["a"], [np.array([[1.0, 1, 5, 5]])])
    table = opaque("notes")
    if compressed:
        packed = zlib.compress(table)
        table = struct.pack("<II", 15, len(packed)) + packed
    content = path.read_bytes()
    path.write_bytes(content[:128] + table + content[128:])
    found = read_variables(path.read_bytes())
    assert list(found) == ["notes", "images", "boxes"]
    assert found["notes"] == mat_files.Variable("unknown", ())
    np.testing.assert_array_equal(read_proposals(path).entries["a"].boxes_image, [[0, 0, 5, 5]])
    io = pytest.importorskip("scipy.io")
    assert io.loadmat(path, variable_names=["images"])["images"][0, 0] == ["a"]


def test_a_string_in_the_place_of_proposals_is_named(tmp_path):
    path = save_mat(tmp_path / "voc.mat", ["a"], [np.array([[1.0, 1, 5, 5]])])
    header = path.read_bytes()[:128]
    path.write_bytes(header + opaque("images"))
    with pytest.raises(UserError, match=r"cell array images, found images \(unknown \(\)\)"):
        read_proposals(path)
    cells = b"".join(
        (
            element(6, struct.pack("<II", 1, 0)),
            element(5, struct.pack("<ii", 1, 1)),
            element(1, b"images"),
            opaque(""),
        )
    )
    path.write_bytes(
        header + element(14, cells) + element(14, cells.replace(b"images", b"boxes\0"))
    )
    assert read_variables(path.read_bytes())["images"].cells == (None,)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ([element(14, b"")], "lacks its flags"),
        ([element(6, bytes(4))], "lacks its flags"),
        ([element(6, struct.pack("<II", 1, 0))], "lacks its dimensions"),
        ([element(6, struct.pack("<II", 1, 0)), element(5, bytes(8))], "or name"),
    ],
)
def test_a_variable_without_a_head_is_damage(tmp_path, parts, words):
    path = save_mat(tmp_path / "voc.mat", ["a"], [np.array([[1.0, 1, 5, 5]])])
    path.write_bytes(path.read_bytes()[:128] + element(14, b"".join(parts)))
    with pytest.raises(UserError, match=words):
        read_proposals(path)


def test_a_compressed_variable_that_never_ends(tmp_path, monkeypatch):
    path = save_mat(tmp_path / "voc.mat", ["a"], [np.ones((500, 4))])
    io = pytest.importorskip("scipy.io")
    content = io.loadmat(path, variable_names=("images", "boxes"))
    io.savemat(path, {n: content[n] for n in ("images", "boxes")}, do_compression=True)
    monkeypatch.setattr(mat_files, "MOST_BYTES", 1000)
    with pytest.raises(UserError, match="larger than 1000 bytes"):
        read_proposals(path)
