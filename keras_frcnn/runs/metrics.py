"""``metrics.jsonl``: one JSON object a line, written by one training, read by anybody meanwhile.

A line is on the disk before the training goes on, and one that could not be written whole is taken
back. Only a power cut leaves half a line, at the end: readers pass over it, ``--resume`` drops it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from keras_frcnn.errors import UserError, reading
from keras_frcnn.system.files import naming, open_in_place, parse_json, read_bounded, write_text

MOST_BYTES = 2**30
MOST_ITERATIONS = 2**31


def append_record(path: Path, record: dict[str, Any]) -> None:
    """Adds one line.

    Raises:
        OSError: the disk is full, say; it names the file, which is as it was.
    """
    line = (json.dumps(record) + "\n").encode()
    with naming(path), open(path, "ab", buffering=0, opener=open_in_place) as stream:
        size = stream.seek(0, os.SEEK_END)
        try:
            # A disk that is nearly full takes a part of it; the next write tells why.
            written = 0
            while written < len(line):
                written += stream.write(line[written:])
            os.fsync(stream.fileno())
        except OSError:
            stream.truncate(size)
            raise


def read_records(path: Path) -> list[dict[str, Any]]:
    """All records of a file, in order; half a line at its end and other JSON is passed over.

    Raises:
        UserError: the file cannot be read, or a line is no JSON.
    """
    with reading(path, "metrics", "move it away"):
        lines = read_bounded(path, MOST_BYTES).split(b"\n")
    # What follows the last line end is nothing, or a line that is not whole.
    records = []
    for number, line in enumerate(lines[:-1], start=1):
        try:
            record = parse_json(line)
        except ValueError as error:
            raise UserError(
                f"Line {number} of {path} is not JSON: {error}. Delete this line."
            ) from error
        if _is_record(record):
            records.append(record)
    return records


def _is_record(value: Any) -> bool:
    return isinstance(value, dict) and all(
        type(value.get(name)) is int and 0 <= value[name] < most
        for name, most in (("stage", 5), ("iteration", MOST_ITERATIONS))
    )


def forget_after(path: Path, stage: int, iteration: int) -> int:
    """Drops the records of a stage beyond an iteration, those of later stages, and half a line.

    Returns:
        how many are left.
    """
    if not path.is_file():
        return 0
    kept = [
        record
        for record in read_records(path)
        if record["stage"] < stage
        or (record["stage"] == stage and record["iteration"] <= iteration)
    ]
    text = "".join(json.dumps(record) + "\n" for record in kept)
    if text.encode() != path.read_bytes():
        write_text(path, text)
    return len(kept)
