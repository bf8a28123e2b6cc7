"""JSON files of anchor shapes: what ``python -m keras_frcnn anchors`` writes and training reads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from keras_frcnn.errors import UserError, reading
from keras_frcnn.recipes import AnchorShapes, ImageConfig
from keras_frcnn.system.files import parse_json, read_text_bounded, write_text
from keras_frcnn.system.settings import checked

FORMAT_VERSION = 1
_MOST_BYTES = 2**24
_FORM = '{"shapes": [[HEIGHT, WIDTH], ...]}, in pixels of the network input'


def write_anchors(
    path: Path | str, shapes: Sequence[Sequence[float]], image: ImageConfig, about: dict[str, Any]
) -> None:
    """Writes shapes, the input size that they are meant for, and where they come from."""
    lines = [f"    {json.dumps([float(side) for side in shape])}" for shape in shapes]
    rest = {
        "format": FORMAT_VERSION,
        "short_side": image.short_side,
        "long_side": image.long_side,
        "about": about,
    }
    head = '{\n  "shapes": [\n' + ",\n".join(lines) + "\n  ],\n"
    write_text(path, head + json.dumps(rest, indent=2).removeprefix("{\n") + "\n")


def read_anchors(path: Path | str, image: ImageConfig) -> tuple[tuple[float, float], ...]:
    """The shapes of a file, for a network input of a given size.

    Args:
        path: a JSON object with ``shapes``; if it names ``short_side`` and ``long_side``, these
            must be those of ``image``.
        image: the input size of the training.

    Raises:
        UserError: the file is missing, is no such JSON, holds anything but sides above 0, or was
            made for another input size.
    """
    with reading(f"--anchors {path}", "a file of anchor shapes", f"it should hold {_FORM}"):
        values = parse_json(read_text_bounded(path, _MOST_BYTES))
    if not isinstance(values, dict) or not isinstance(values.get("shapes"), list):
        raise UserError(f"--anchors {path} has no list of shapes; it should hold {_FORM}.")
    if values.get("format", FORMAT_VERSION) != FORMAT_VERSION:
        raise UserError(
            f"--anchors {path} has the format {values['format']!r:.80}, this version of "
            f"keras_frcnn reads {FORMAT_VERSION}; update keras_frcnn or make the anchors again."
        )
    shapes = checked(values["shapes"], AnchorShapes, f"--anchors {path}: shapes")
    for name, side in (("short_side", image.short_side), ("long_side", image.long_side)):
        if values.get(name, side) != side:
            raise UserError(
                f"--anchors {path} was made for --{name} {values[name]}, and this command has "
                f"--{name} {side}: give the same, or make the anchors again for this size."
            )
    return shapes
