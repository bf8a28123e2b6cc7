"""What the tests of readers share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.data.devkits import Devkit


@pytest.fixture
def devkit(tmp_path: Path) -> Devkit:
    """VOC2007 with images 1 and 2 in train, 3 in val, 4 in no list."""
    devkit = Devkit(tmp_path / "VOCdevkit")
    for image_id in ("1", "2", "3", "4"):
        devkit.add(image_id)
    devkit.list("train", "2", "1")
    devkit.list("val", "3")
    devkit.list("trainval", "1", "2", "3")
    return devkit
