"""Files are whole or as they were, whatever happens while writing."""

import errno
import os
from pathlib import Path

import pytest

from keras_frcnn.errors import UserError
from keras_frcnn.system import files
from keras_frcnn.system.files import (
    check_inside,
    open_in_place,
    parse_json,
    read_bounded,
    reserve,
    user_path,
    write_text,
    written_whole,
)
from tests.limits import file_size_limit


def test_a_text_file_with_its_folders(tmp_path):
    write_text(tmp_path / "new" / "file.txt", "one\r\ntwo\n")
    assert (tmp_path / "new" / "file.txt").read_bytes() == b"one\r\ntwo\n"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["file.txt"]


def test_a_name_that_is_not_utf8_keeps_its_bytes(tmp_path):
    write_text(tmp_path / "names", b"caf\xe9".decode("utf-8", "surrogateescape"))
    assert (tmp_path / "names").read_bytes() == b"caf\xe9"


def test_a_failure_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "file"
    write_text(path, "old")
    with pytest.raises(ZeroDivisionError), written_whole(path) as partial:
        partial.write_text("half of the n")
        raise ZeroDivisionError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_is_at_the_path_before_it_is_whole(tmp_path):
    path = tmp_path / "file"
    with written_whole(path) as partial:
        partial.write_text("new")
        assert partial.parent == tmp_path
        assert not path.exists()
    assert path.read_text() == "new"


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):
        write_text(tmp_path / "file" / "below", "text")


def test_an_error_names_the_file_that_was_asked_for(tmp_path, monkeypatch):
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError) as error:
        write_text(tmp_path / "folder", "text")
    assert (error.value.filename, error.value.filename2) == (str(tmp_path / "folder"), None)

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("keras_frcnn.system.files.os.fsync", full)
    with pytest.raises(OSError, match="No space left") as error:
        write_text(tmp_path / "file", "text")
    assert error.value.filename == str(tmp_path / "file")
    # An error about a file that is read meanwhile keeps its name.
    with pytest.raises(FileNotFoundError) as error, written_whole(tmp_path / "file"):
        (tmp_path / "source").read_text()
    assert error.value.filename == str(tmp_path / "source")


def test_a_full_disk_while_renaming_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_text(path, "größe")

    def fail(*arguments):
        raise OSError("no room")

    monkeypatch.setattr("keras_frcnn.system.files.os.replace", fail)
    with pytest.raises(OSError, match="no room"):
        write_text(path, "new")
    assert path.read_text(encoding="utf-8") == "größe"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("size", [0, 1, files.BLOCK_BYTES, 2 * files.BLOCK_BYTES + 5])
def test_room_is_taken_where_the_system_has_no_call_for_it(tmp_path, monkeypatch, size):
    """As on macOS: a file that was only made longer has no blocks behind it."""
    monkeypatch.delattr("keras_frcnn.system.files.os.posix_fallocate", raising=False)
    path = tmp_path / "new" / "room"
    reserve(path, size)
    with open(path, "r+b") as stream:
        os.fsync(stream.fileno())
    assert path.stat().st_size == max(size, 1)
    assert path.stat().st_blocks * 512 >= size


def test_a_full_disk_without_that_call_names_the_file(tmp_path, monkeypatch):
    monkeypatch.delattr("keras_frcnn.system.files.os.posix_fallocate", raising=False)
    path = tmp_path / "room"
    with file_size_limit(50), pytest.raises(OSError) as error:
        reserve(path, 100)
    assert error.value.filename == str(path)
    assert list(tmp_path.iterdir()) == []


def test_what_has_no_end_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zeros").symlink_to("/dev/zero")
    for name in ("pipe", "zeros"):
        with pytest.raises(ValueError, match="no regular file"):
            read_bounded(tmp_path / name, 100)
    (tmp_path / "large").write_bytes(bytes(101))
    with pytest.raises(ValueError, match="has 101 bytes, 100 at most"):
        read_bounded(tmp_path / "large", 100)
    assert read_bounded(tmp_path / "large", 101) == bytes(101)


def test_json_that_is_nested_too_deeply_is_no_traceback():
    assert parse_json('{"a": [1]}') == {"a": [1]}
    with pytest.raises(ValueError, match="nested too deeply"):
        parse_json("[" * 100_000)


@pytest.mark.parametrize("text", ["~nobody-of-this-name/x", "a\0b", "\ud800"])
def test_a_path_that_cannot_be_is_one_sentence(text):
    with pytest.raises(UserError):
        user_path(text)


def test_homes_and_names_that_are_not_utf8_are_paths(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_path("~/x") == tmp_path / "x"
    assert user_path("a~b") == Path("a~b")
    latin = os.fsdecode(b"caf\xe9")
    assert user_path(latin) == Path(latin)


def test_links_lead_no_writing_out_of_a_folder(tmp_path):
    folder, other = tmp_path / "through" / "folder", tmp_path / "other"
    real = tmp_path / "real"
    for made in (real / "folder" / "sub", other):
        made.mkdir(parents=True)
    (tmp_path / "through").symlink_to(real)  # a folder reached by a link is a folder
    links = {
        "out": other,
        "gone": other / "not there",
        "up": folder.parent,
        "loop": folder / "loop",
    }
    links["pipe"] = Path("/dev/zero")
    for name, target in links.items():
        (folder / name).symlink_to(target)
    (folder / "near").symlink_to("sub")
    for name in ("", "sub", "new", "new/file", "near", "near/file"):
        check_inside(folder / name, folder)
    os.mkfifo(folder / "fifo")
    for name in ("out", "out/file", "gone", "up", "pipe", "fifo", "../x"):
        with pytest.raises(UserError, match=name):
            check_inside(folder / name, folder)
    check_inside(folder / "loop", folder)  # leads nowhere; opening it fails


@pytest.mark.parametrize("kind", ["link", "fifo"])
def test_what_is_written_in_place_is_a_file_of_its_own(tmp_path, kind):
    path, victim = tmp_path / "file", tmp_path / "victim"
    victim.write_text("precious")
    path.symlink_to(victim) if kind == "link" else os.mkfifo(path)
    with pytest.raises(OSError):
        os.close(open_in_place(path, os.O_WRONLY | os.O_TRUNC))
    assert victim.read_text() == "precious"


def test_a_half_written_file_is_no_link_that_lay_there(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / f".file.{os.getpid()}.partial").symlink_to(victim)
    write_text(tmp_path / "file", "new")
    assert (victim.read_text(), (tmp_path / "file").read_text()) == ("precious", "new")
