"""Only what a program wrote itself is ever removed."""

from __future__ import annotations

import pytest

from keras_frcnn.demo.owned_folder import MARKER, claim_folder
from keras_frcnn.errors import UserError


def test_makes_a_folder_and_takes_an_empty_one(tmp_path):
    (tmp_path / "empty").mkdir()
    for name in ("empty", "new/below"):
        claim_folder(tmp_path / name, "me", ["result"], seed=3)
        assert (tmp_path / name / MARKER).read_text() == '{"made_by": "me", "seed": 3}\n'


def test_removes_its_own_contents_only(tmp_path):
    folder, elsewhere = tmp_path / "folder", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").write_text("")
    claim_folder(folder, "me", [])
    (folder / "result").mkdir()
    (folder / "result" / "old").write_text("")
    (folder / "table.json").write_text("")
    (folder / "notes.txt").write_text("")
    (folder / "link").symlink_to(elsewhere)
    claim_folder(folder, "me", ["result", "table.json", "link", "missing"])
    assert sorted(path.name for path in folder.iterdir()) == [MARKER, "notes.txt"]
    assert (elsewhere / "precious").exists()


@pytest.mark.parametrize("marker", [None, '{"made_by": "somebody"}', "[]", "no json"])
def test_refuses_what_somebody_else_made(tmp_path, marker):
    (tmp_path / "result").write_text("")
    if marker is not None:
        (tmp_path / MARKER).write_text(marker)
    with pytest.raises(UserError, match="me did not make"):
        claim_folder(tmp_path, "me", ["result"])
    assert (tmp_path / "result").exists()


def test_refuses_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        claim_folder(tmp_path / "file", "me", [])
