"""A data set in either layout by one function."""

from __future__ import annotations

import pytest

from keras_frcnn.data.load import load_data
from keras_frcnn.errors import UserError


def test_sets_of_a_list_are_refused(tmp_path):
    boxes = tmp_path / "boxes.txt"
    boxes.write_text("")
    for parser in (None, "simple"):
        with pytest.raises(UserError, match="Image sets belong to VOC devkits"):
            load_data(boxes, "2007:test", parser=parser)
