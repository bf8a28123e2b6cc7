"""Markdown and JSON of a table.

Shapes and names
----------------
sheet  two columns, a number with one decimal.
"""

from __future__ import annotations

import json

import pytest

from keras_frcnn.evaluation.recall import RecallContrast
from keras_frcnn.paper.sheet import Column, Sheet, points, write_index

COLUMNS = (Column("system"), Column("mAP %", 1))


def sheet(*rows, **options):
    return Sheet(
        name="table9", title="Table 9", columns=COLUMNS, rows=rows, caption="A caption.", **options
    )


def test_markdown():
    text = sheet(
        ("ours | theirs", 12.345), ("absent", None), ("many", 12345), remarks=("A remark.",)
    ).markdown()
    assert text == (
        "# Table 9\n\nA caption.\n\n"
        "| system | mAP % |\n| --- | ---: |\n"
        "| ours \\| theirs | 12.3 |\n| absent | - |\n| many | 12,345.0 |\n"
        "\n- A remark.\n"
    )


def test_a_figure_stands_above_the_table():
    text = sheet(("a", 1), figures=("figure.png",)).markdown()
    assert text.index("![Table 9](figure.png)") < text.index("| system |")


def test_files(tmp_path):
    path = sheet(("a", 0.123456789)).write(tmp_path / "new")
    assert path.name == "table9.md"
    values = json.loads(path.with_suffix(".json").read_text())
    assert values["rows"] == [["a", 0.123456789]]
    assert values["columns"][1] == {"name": "mAP %", "digits": 1}


def test_rows_fit_the_columns():
    with pytest.raises(ValueError, match="3 cells in 2 columns"):
        sheet(("a", 1, 2))


def test_points_say_whether_they_are_resolved():
    assert points(RecallContrast(0.12, 0.05, 0.2)) == "+12.0 points (5.0 to 20.0)"
    assert points(RecallContrast(-0.01, -0.05, 0.02)) == (
        "-1.0 points (-5.0 to 2.0), not resolved at this budget"
    )


def test_the_index_names_what_is_there(tmp_path):
    for name in ("table5", "figure2"):
        columns = (Column("x"),)
        Sheet(name, f"Title of {name}", columns, (("1",),), "A caption.").write(tmp_path)
    text = write_index(tmp_path, ("figure2", "table1", "table5")).read_text()
    assert "- [Title of figure2](figure2.md)\n- [Title of table5](table5.md)\n" in text
    assert "table1" not in text
