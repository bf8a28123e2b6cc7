"""Folders that a program may replace, because it made them itself.

A claimed folder holds ``made_by.json``, which names its maker. Without that file nothing in a
folder is ever removed.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from keras_frcnn.errors import UserError
from keras_frcnn.system.files import parse_json, write_text

MARKER = "made_by.json"


def claim_folder(folder: Path, made_by: str, contents: Sequence[str], **about: object) -> None:
    """Make a folder, or take out of it what the same maker wrote there before.

    Only ``contents`` are removed: a file that someone put beside them stays.

    Args:
        about: anything else to write into the marker, such as the seed.

    Raises:
        UserError: the folder is a file, or holds something and was made by somebody else.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"Expected a folder, but {folder} is a file; name another folder.")
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()) and _maker(folder) != made_by:
        raise UserError(
            f"The folder {folder} holds something that {made_by} did not make, and it is not "
            "overwritten; name a new or an empty folder."
        )
    for path in (folder / name for name in contents):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    write_text(folder / MARKER, json.dumps({"made_by": made_by, **about}) + "\n")


def _maker(folder: Path) -> str | None:
    """Who claimed the folder; None where nobody did."""
    try:
        marker = parse_json((folder / MARKER).read_text())
    except (OSError, ValueError):
        return None
    return marker.get("made_by") if isinstance(marker, dict) else None
