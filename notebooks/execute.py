"""Run a notebook from top to bottom and keep its outputs.

    python notebooks/execute.py notebooks/first_detector.ipynb
    python notebooks/execute.py notebooks/first_detector.ipynb --set SMALL=1 --out copy.ipynb

The notebook runs in the project's root folder. What goes to stderr is not kept. Where a cell fails,
its error is printed and nothing is written.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError

ROOT = Path(__file__).resolve().parent.parent


def build_parser() -> argparse.ArgumentParser:
    """The parser."""
    parser = argparse.ArgumentParser(description="Run a notebook and keep its outputs.")
    parser.add_argument("notebook", type=Path)
    parser.add_argument("--out", type=Path, help="where the result goes (default: in place)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="settings",
        metavar="NAME=VALUE",
        help="environment variable of the notebook; may be given several times",
    )
    parser.add_argument(
        "--timeout", type=int, default=1800, help="seconds for one cell (default: 1800)"
    )
    return parser


def parse_settings(settings: Sequence[str]) -> dict[str, str]:
    """``["A=1"]`` to ``{"A": "1"}``.

    Raises:
        ValueError: an entry without a name or without ``=``.
    """
    pairs = [setting.partition("=") for setting in settings]
    for name, equals, _ in pairs:
        if not (name and equals):
            raise ValueError(f"--set takes NAME=VALUE, not {name + equals!r}")
    return {name: value for name, _, value in pairs}


def execute(source: Path, target: Path, settings: dict[str, str], timeout: int) -> None:
    """Runs ``source`` and writes it with its outputs to ``target``.

    Raises:
        CellExecutionError, CellTimeoutError: a cell failed or took too long.
    """
    notebook = nbformat.read(source, as_version=4)
    environment = {**os.environ, **settings}
    # The kernel starts in the root folder; this makes the package importable without installing.
    search = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, search))
    client = NotebookClient(
        notebook,
        timeout=timeout,
        kernel_name="python3",
        resources={"metadata": {"path": str(ROOT)}},
        record_timing=False,  # times of day would change the file at every run
    )
    client.execute(env=environment)
    for cell in notebook.cells:  # TensorFlow's notes there are about this machine
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    target.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, target)


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    parser = build_parser()
    arguments = parser.parse_args(argv)
    if not arguments.notebook.is_file():
        parser.error(f"there is no notebook {arguments.notebook}")
    try:
        settings = parse_settings(arguments.settings)
    except ValueError as error:
        parser.error(str(error))
    target = arguments.out or arguments.notebook
    try:
        execute(arguments.notebook, target, settings, arguments.timeout)
    except (CellExecutionError, CellTimeoutError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"written to {target}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
