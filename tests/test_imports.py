"""Imports point downward: no room uses a room above it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "workbench"

# Lowest first. A room may import the rooms of earlier lines only (and itself).
LAYERS = [
    {"errors", "progress", "artifacts", "interrupt"},
    {"intervals"},
    {"store", "kernels"},
    {"assets"},
    {"models", "hooks", "text"},
    {"anatomy"},
    {"capture"},
    {"dictionaries"},
    {"training"},
    {"evaluation"},
    {"features"},
    {"tasks"},
    {"testbeds"},
    {"circuits"},
    {"interventions"},
    {"analyses"},
    {"panels"},
    {"reports"},
    {"runs"},
    {"doctor"},
    {"cli"},
    {"__init__", "__main__"},
]
RANK = {room: rank for rank, rooms in enumerate(LAYERS) for room in rooms}


def imported_rooms(source: str) -> set[str]:
    """Rooms of the workbench that a module's code imports, in functions too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "workbench":
            names |= {f"workbench.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return {name.split(".")[1] for name in names if name.startswith("workbench.")}


def upward_imports(path: Path, source: str) -> list[str]:
    """The imports of one file that point upward."""
    relative = path.relative_to(PACKAGE).parts
    room = relative[0].removesuffix(".py")
    own = RANK[room]
    used = {used for used in imported_rooms(source) if used != room}
    return [
        f"{'/'.join(relative)} imports {other}" for other in sorted(used) if RANK[other] >= own and own > 0
    ]


FILES = sorted(PACKAGE.rglob("*.py"))


def test_every_room_has_a_layer() -> None:
    rooms = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in FILES}
    assert rooms <= RANK.keys()


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_downward(path: Path) -> None:
    assert upward_imports(path, path.read_text()) == []


def test_an_upward_import_is_found() -> None:
    """The check sees the defect that it is for."""
    path = PACKAGE / "models.py"
    broken = path.read_text() + "\ndef late():\n    from workbench.circuits import trace\n"
    assert upward_imports(path, broken) == ["models.py imports circuits"]
