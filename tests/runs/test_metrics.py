"""``metrics.jsonl``: whole lines, whatever happens while they are written.

Shapes and names
----------------
record  one line.
"""

from __future__ import annotations

import errno
import json
import os

import pytest

from keras_frcnn.errors import UserError
from keras_frcnn.runs import metrics
from keras_frcnn.runs.metrics import append_record, forget_after, read_records


@pytest.fixture
def path(tmp_path):
    return tmp_path / "metrics.jsonl"


def record(stage, iteration, loss=1.5):
    return {"stage": stage, "iteration": iteration, "loss": loss}


def numbers(path):
    return [(entry["stage"], entry["iteration"]) for entry in read_records(path)]


def test_metrics_after_a_checkpoint_are_forgotten(path):
    forget_after(path, 1, 0)
    assert not path.exists()
    for stage in (1, 2, 3):
        for iteration in (20, 40):
            append_record(path, record(stage, iteration))
    with open(path, "a") as stream:
        stream.write('{"stage": 3, "iter')  # a power cut
    forget_after(path, 2, 20)
    assert numbers(path) == [(1, 20), (1, 40), (2, 20)]
    append_record(path, record(2, 40, 1 / 3))
    before = path.stat().st_mtime_ns
    forget_after(path, 2, 40)
    assert numbers(path) == [(1, 20), (1, 40), (2, 20), (2, 40)]
    assert read_records(path)[-1]["loss"] == 1 / 3
    assert path.stat().st_mtime_ns == before  # there was nothing to forget


def test_a_file_cut_at_every_byte_is_read_and_mended(path):
    records = [record(1, 20, 0.1), record(1, 40, 0.2), record(2, 20, float("inf"))]
    for entry in records:
        append_record(path, entry)
    whole = path.read_bytes()
    ends = [index + 1 for index, byte in enumerate(whole) if byte == ord("\n")]
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        expected = records[: sum(end <= cut for end in ends)]
        assert read_records(path) == expected
        forget_after(path, 9, 9)
        assert [json.loads(line) for line in path.read_text().splitlines()] == expected


@pytest.mark.parametrize("taken", [0, 5])
def test_a_full_disk_leaves_no_half_line(path, monkeypatch, taken):
    append_record(path, record(1, 20))
    before = path.read_bytes()

    class Full:
        """A file that takes a few bytes and no more."""

        def __init__(self, stream):
            self.stream = stream

        def __enter__(self):
            return self

        def __exit__(self, *exception):
            self.stream.close()

        def write(self, line):
            if not taken or self.stream.tell() > len(before):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return self.stream.write(line[:taken])

        def __getattr__(self, name):
            return getattr(self.stream, name)

    def opened(*how, **more):
        return Full(open(*how, **more))  # noqa: SIM115

    monkeypatch.setattr(metrics, "open", opened, raising=False)
    with pytest.raises(OSError, match="No space left") as error:
        append_record(path, record(1, 40))
    assert error.value.filename == str(path)
    assert path.read_bytes() == before


def test_a_reader_meanwhile_sees_whole_lines(path):
    """What lies in the file between two writes of a slow disk."""
    path.write_bytes(b'{"stage": 1, "iteration": 20}\n{"stage": 1, "iteration": 40}')
    assert numbers(path) == [(1, 20)]


def test_what_is_no_record(path):
    path.write_text('{"event": "stage ended"}\n{"stage": 1, "iteration": 20}\n')
    assert numbers(path) == [(1, 20)]
    path.write_text('{"stage": 1\n{}\n')
    with pytest.raises(UserError, match="Line 1 of .* is not JSON"):
        read_records(path)


@pytest.mark.parametrize(
    "line",
    [
        *('{"stage": "x", "iteration": 1}', "null", "[1]", "1", '"text"', "{}", "NaN"),
        *('{"stage": 1, "iteration": "20"}', '{"stage": 1, "iteration": null}'),
        *('{"stage": 1, "iteration": 1' + 400 * "0" + "}", '{"stage": 1, "iteration": 1.5}'),
        *('{"stage": 1, "iteration": -1}', '{"stage": 99, "iteration": 1}'),
        '{"stage": true, "iteration": 1}',
    ],
)
def test_other_json_is_no_record(path, line):
    path.write_text(f'{{"stage": 1, "iteration": 20}}\n{line}\n{{"stage": 2, "iteration": 20}}\n')
    assert numbers(path) == [(1, 20), (2, 20)]
    forget_after(path, 1, 20)
    assert numbers(path) == [(1, 20)]


@pytest.mark.parametrize("content", [b"\xff\xfe\n", b"[" * 100_000 + b"\n", b"1" * 5000 + b"\n"])
def test_a_line_that_is_no_json_is_named(path, content):
    path.write_bytes(b"{}\n" + content)
    with pytest.raises(UserError, match="Line 2 of .*metrics.jsonl"):
        read_records(path)


def test_what_has_no_end_is_neither_read_nor_written(path):
    os.mkfifo(path)
    with pytest.raises(UserError, match="metrics.jsonl"):
        read_records(path)
    with pytest.raises(OSError) as error:
        append_record(path, record(1, 20))
    assert error.value.filename == str(path)


def test_a_link_is_not_written_through(path, tmp_path):
    path.symlink_to(tmp_path / "other")
    with pytest.raises(OSError):
        append_record(path, record(1, 20))
    assert not (tmp_path / "other").exists()
