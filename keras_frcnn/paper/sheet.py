"""A table with the paper's numbers beside ours, as Markdown and JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from keras_frcnn.evaluation.recall import ProposalRecall, RecallContrast
from keras_frcnn.system.files import parse_json, write_text

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


Heading = str | tuple[str, int]
# Of a recall with its interval, see :func:`recall_cells`.
RECALL_COLUMNS: tuple[Heading, ...] = (("recall at IoU 0.5, %", 1), "95 % interval")


def columns(*headings: Heading) -> tuple[Column, ...]:
    """Columns of texts by their names, columns of numbers with their decimals."""
    pairs = (heading if isinstance(heading, tuple) else (heading, None) for heading in headings)
    return tuple(Column(*pair) for pair in pairs)


@dataclass(frozen=True)
class Sheet:
    """One table or figure of the paper as it came out here.

    Attributes:
        name: as on the command line, ``table1`` say.
        title: one line.
        columns: of :func:`columns`.
        rows: as many cells each as there are columns.
        caption: budget and data, so that nobody takes a small run for a reproduction.
        remarks: sentences below the table: what is absent, what may be claimed.
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


def write_index(folder: Path, names: Iterable[str]) -> Path:
    """Writes ``README.md``: the sheets that the folder has, in the order of ``names``."""
    lines = ["# The tables and figures of the paper", ""]
    for name in names:
        file = folder / f"{name}.json"
        if file.is_file():
            title = parse_json(file.read_text(encoding="utf-8"))["title"]
            lines.append(f"- [{title}]({name}.md)")
    lines += ["", "Every caption says how much of the paper's work is behind it."]
    path = folder / "README.md"
    write_text(path, "\n".join(lines) + "\n")
    return path


def interval(low: float, high: float) -> str:
    """Two shares as a range in percent."""
    return f"{100 * low:.1f} to {100 * high:.1f}"


def recall_cells(found: ProposalRecall | None) -> tuple[Cell, ...]:
    """The cells of :data:`RECALL_COLUMNS`; the first threshold is 0.5."""
    if found is None:
        return None, "-"
    return 100 * float(found.recall[0]), interval(found.recall_low[0], found.recall_high[0])


def points(found: RecallContrast) -> str:
    """A difference of recalls in points with its interval, and a note if it is not resolved."""
    text = f"{100 * found.value:+.1f} points ({interval(found.low, found.high)})"
    return text if found.resolved else f"{text}, not resolved at this budget"


def _line(cells) -> str:
    return "| " + " | ".join(cells) + " |"


def _text(cell: Cell, column: Column) -> str:
    if cell is None:
        return "-"
    if isinstance(cell, str):
        return cell.replace("|", "\\|")
    return f"{cell:,.{column.digits or 0}f}"
