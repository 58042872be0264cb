"""A stage's code hash moves with the code that the stage runs, and with nothing else."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest

from workbench.runs import fingerprints
from workbench.runs.fingerprints import (
    code_hash,
    named_paths,
    notebook_hash,
    path_fingerprint,
    reached_modules,
)

FILES = {
    "__init__.py": "from workbench.two import b\n",
    "base.py": '"""Essay."""\nX = 1\n',
    "rooms/__init__.py": "from workbench.rooms.a import make_a\nfrom workbench.rooms.b import make_b\n",
    "rooms/a.py": "from workbench.base import X\n\ndef make_a():\n    from workbench import late\n    return late, X\n",
    "rooms/b.py": "from .tool import helper\n\ndef make_b():\n    return helper()\n",
    "rooms/tool.py": "def helper():\n    return 2\n",
    "rooms/table.json": "{}",
    "late.py": "import os\n",
    "two.py": "b = 2\n",
}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A small package of the same name whose files the functions read."""
    root = tmp_path / "workbench"
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    monkeypatch.setattr(fingerprints, "PACKAGE", root)
    yield root
    shutil.rmtree(root)


def a_and_b() -> tuple[str, str]:
    return code_hash(["workbench.rooms:make_a"]), code_hash(["workbench.rooms:make_b"])


def test_names_are_followed_to_the_module_that_defines_them(package: Path) -> None:
    assert reached_modules("workbench.rooms", "make_a") == {
        "workbench.rooms.a",
        "workbench.base",
        "workbench.late",
    }
    assert reached_modules("workbench.rooms", "make_b") == {"workbench.rooms.b", "workbench.rooms.tool"}


@pytest.mark.parametrize(
    ("name", "text", "a_moves", "b_moves"),
    [
        ("rooms/a.py", FILES["rooms/a.py"] + "\nY = 1\n", True, False),
        ("base.py", "X = 2\n", True, False),
        ("late.py", "import sys\n", True, False),
        ("rooms/tool.py", "def helper():\n    return 3\n", False, True),
        ("rooms/table.json", "[]", True, True),
        ("two.py", "b = 3\n", False, False),
        ("base.py", '# a comment\n"""Another essay."""\n\nX   =   1\n', False, False),
    ],
)
def test_an_edit_moves_the_hash_of_those_that_run_it(
    package: Path, name: str, text: str, a_moves: bool, b_moves: bool
) -> None:
    before = a_and_b()
    (package / name).write_text(text)
    after = a_and_b()
    assert (before[0] != after[0], before[1] != after[1]) == (a_moves, b_moves)


def test_a_package_that_looks_names_up_counts_whole(package: Path) -> None:
    (package / "rooms/__init__.py").write_text("def __getattr__(name):\n    raise AttributeError(name)\n")
    everything = {f"workbench.rooms.{name}" for name in ("a", "b", "tool")}
    assert everything < reached_modules("workbench.rooms", "make_a")


def test_the_stages_of_the_real_package() -> None:
    reached = reached_modules("workbench.capture", "capture")
    rooms = {
        "workbench.capture.stage",
        "workbench.store.writer",
        "workbench.hooks.opening",
        "workbench.models",
    }
    assert rooms <= reached
    assert not [
        name
        for name in reached
        if name.startswith(("workbench.training", "workbench.circuits", "workbench.runs"))
    ]


def test_a_notebook_counts_by_its_cells_not_by_its_outputs(tmp_path: Path) -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("x = 1")])
    path = tmp_path / "n.ipynb"
    nbformat.write(notebook, path)
    before = notebook_hash(path)
    notebook.cells[0].outputs = [nbformat.v4.new_output("stream", text="1")]
    notebook.cells[0].execution_count = 3
    nbformat.write(notebook, path)
    assert notebook_hash(path) == before
    notebook.cells[0].source = "x = 2"
    nbformat.write(notebook, path)
    assert notebook_hash(path) != before


@pytest.mark.parametrize("whole", [2**20, 0])
def test_a_file_that_a_parameter_names_counts_by_its_content(
    tmp_path: Path, whole: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fingerprints, "HASHED_WHOLE_BYTES", whole)
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "a.txt").write_text("one")
    found = named_paths(["corpus", 3, ["nothing here"], None], tmp_path)
    assert found == {"corpus": path_fingerprint(folder)}
    matched = named_paths(["corpus/*.txt"], tmp_path)
    assert list(matched) == ["corpus/a.txt"]
    (folder / "a.txt").write_text("three")
    assert named_paths(["corpus"], tmp_path) != found
    assert named_paths(["corpus/*.txt"], tmp_path) != matched
