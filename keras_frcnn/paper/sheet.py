"""A table with the paper's numbers beside ours, as Markdown and JSON.

Shapes and names
----------------
cell  a text, a number, or ``None`` for what does not exist.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from keras_frcnn.files import write_text

Cell = str | float | int | None


@dataclass(frozen=True)
class Column:
    """A column of a sheet.

    Attributes:
        name: its heading, with the unit.
        digits: decimals of its numbers; ``None`` for texts.
    """

    name: str
    digits: int | None = None


@dataclass(frozen=True)
class Sheet:
    """One table or figure of the paper as it came out here.

    Attributes:
        name: as on the command line, ``table1`` say.
        title: one line.
        columns: see :class:`Column`.
        rows: as many cells each as there are columns.
        caption: budget and data, so that a small run is not taken for a reproduction.
        remarks: sentences below the table: what is absent, what is resolved and what is not.
        figures: file names of PNGs beside it.
    """

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    caption: str
    remarks: tuple[str, ...] = ()
    figures: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"{self.name}: {len(row)} cells in {len(self.columns)} columns")

    def markdown(self) -> str:
        """The table as GitHub shows it; numbers are aligned to the right."""
        lines = [f"# {self.title}", "", self.caption, ""]
        lines += [f"![{self.title}]({figure})\n" for figure in self.figures]
        if self.rows:
            lines.append(_line(column.name for column in self.columns))
            lines.append(
                _line("---" if column.digits is None else "---:" for column in self.columns)
            )
            for row in self.rows:
                cells = zip(row, self.columns, strict=True)
                lines.append(_line(_text(cell, column) for cell, column in cells))
        if self.remarks:
            lines += ["", *(f"- {remark}" for remark in self.remarks)]
        return "\n".join(lines) + "\n"

    def write(self, folder: Path) -> Path:
        """Writes ``NAME.md`` and ``NAME.json``; returns the first."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.name}.md"
        write_text(path, self.markdown())
        values = dataclasses.asdict(self)
        write_text(path.with_suffix(".json"), json.dumps(values, indent=2) + "\n")
        return path


def _line(cells) -> str:
    return "| " + " | ".join(cells) + " |"


def _text(cell: Cell, column: Column) -> str:
    if cell is None:
        return "-"
    if isinstance(cell, str):
        return cell.replace("|", "\\|")
    return f"{cell:,.{column.digits or 0}f}"
