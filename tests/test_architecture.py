"""The house: a room imports only what stands below it, and no circles."""

from __future__ import annotations

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "keras_frcnn"

# From the roof down. Rooms that share a line know nothing of each other.
FLOORS = (
    {"__main__"},
    {"cli"},
    {"paper"},
    {"benchmark", "demo"},
    {"export"},
    {"evaluation"},
    {"detection"},
    {"training"},
    {"proposals"},
    {"plots", "visualize"},
    {"runs"},
    {"data"},
    {"network"},
    {"geometry"},
    {"recipes"},
    {"system"},
    {"errors", "__init__"},
)
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}


def modules() -> dict[str, Path]:
    names = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        names[".".join(parts).removesuffix(".__init__")] = path
    return names


def imported(path: Path, known: dict[str, Path]) -> set[str]:
    """Modules of the package that a file imports, anywhere in it but for type checkers only."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and getattr(node.test, "id", None) == "TYPE_CHECKING":
            node.body = []
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "keras_frcnn":
            found |= {alias.name for alias in node.names if alias.name in known} or {"__init__"}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("keras_frcnn."):
            module = node.module.removeprefix("keras_frcnn.")
            names = {f"{module}.{alias.name}" for alias in node.names}
            found |= (names & set(known)) or {module}
    return found


def test_every_room_stands_on_a_floor_and_few_modules_are_loose():
    entries = [path for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()]
    rooms = {path.stem for path in entries if path.stem not in ("__pycache__", "py")}
    assert rooms == set(FLOOR_OF)
    assert len(list(PACKAGE.glob("*.py"))) <= 6


def test_rooms_import_only_what_stands_below():
    known = modules()
    upward = [
        f"{module} imports {other}"
        for module, path in known.items()
        if module != "__init__"
        for other in sorted(imported(path, known))
        if (room := module.partition(".")[0]) != (below := other.partition(".")[0])
        and FLOOR_OF[room] >= FLOOR_OF[below]
    ]
    assert upward == []


def test_no_circles():
    known = modules()
    graph = {
        module: imported(path, known) for module, path in known.items() if module != "__init__"
    }
    waiting = dict(graph)
    while free := [module for module, needs in waiting.items() if not needs & set(waiting)]:
        for module in free:
            del waiting[module]
    assert sorted(waiting) == []
