"""The stage notebooks keep to their form, and their parameters to the functions that they call."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import nbformat
import pytest

from workbench.assets import asset_folder
from workbench.runs.options import options
from workbench.runs.parameters import notebook_parameters
from workbench.runs.stages import STAGES

NAMES = sorted(path.name for path in asset_folder("notebooks").glob("*.ipynb"))
BY_STAGE = {stage.notebook: stage for stage in STAGES.values()}
LONGEST_CELL = 12


def cells(name: str) -> list[nbformat.NotebookNode]:
    return nbformat.read(asset_folder("notebooks") / name, as_version=4).cells


def parameters_cell(name: str) -> nbformat.NotebookNode:
    found = [c for c in cells(name) if "parameters" in c.metadata.get("tags", [])]
    assert len(found) == 1
    return found[0]


def test_every_stage_has_its_notebook() -> None:
    assert set(BY_STAGE) <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_no_outputs_are_committed(name: str) -> None:
    path = asset_folder("notebooks") / name
    nbformat.validate(json.loads(path.read_text()))
    for cell in cells(name):
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
    assert "widgets" not in json.loads(path.read_text())["metadata"]


@pytest.mark.parametrize("name", BY_STAGE)
def test_the_title_is_a_question_and_says_what_counts(name: str) -> None:
    first = cells(name)[0]
    assert first.cell_type == "markdown"
    assert first.source.splitlines()[0].startswith("# ")
    assert first.source.splitlines()[0].endswith("?")
    assert "**What counts as an answer:**" in first.source


@pytest.mark.parametrize("name", BY_STAGE)
def test_cells_are_short_and_parse(name: str) -> None:
    for cell in cells(name):
        if cell.cell_type == "code":
            ast.parse(cell.source)
            assert "parameters" in cell.metadata.get("tags", []) or cell.source.count("\n") < LONGEST_CELL


@pytest.mark.parametrize("name", BY_STAGE)
def test_each_claim_is_followed_by_its_assert(name: str) -> None:
    all_cells = cells(name)
    claims = [i for i, c in enumerate(all_cells) if c.cell_type == "markdown" and "**Claim.**" in c.source]
    assert claims
    for index in claims:
        assert all_cells[index + 1].cell_type == "code"
        assert "assert " in all_cells[index + 1].source


@pytest.mark.parametrize("name", BY_STAGE)
def test_every_parameter_has_a_comment_and_a_plain_value(name: str) -> None:
    source = parameters_cell(name).source
    for line in source.splitlines():
        assert line.partition("  # ")[2], line
    for node in ast.parse(source).body:
        assert isinstance(node, ast.Assign)
        ast.literal_eval(node.value)


@pytest.mark.parametrize("name", BY_STAGE)
def test_parameters_are_the_functions_options_with_their_defaults(name: str) -> None:
    stage = BY_STAGE[name]
    body = ast.parse(parameters_cell(name).source).body
    written = {n.targets[0].id: ast.literal_eval(n.value) for n in body if isinstance(n, ast.Assign)}  # type: ignore[attr-defined]
    assert written.pop("run") == "runs/demo"
    known = stage.options()
    assert list(written) == list(known)
    assert written.keys() == notebook_parameters(stage).keys()
    for option in known.values():
        if not option.required:
            assert option.convert(written[option.name]) == option.default, option.name


@pytest.mark.parametrize("name", BY_STAGE)
def test_every_parameter_reaches_the_function(name: str) -> None:
    stage = BY_STAGE[name]
    sources = [ast.parse(cell.source) for cell in cells(name) if cell.cell_type == "code"]
    nodes = [node for source in sources for node in ast.walk(source) if isinstance(node, ast.Call)]
    for function in stage.functions():
        calls = [node for node in nodes if ast.unparse(node.func).split(".")[-1] == function.__name__]
        assert len(calls) == 1
        passed = {k.arg: ast.unparse(k.value) for k in calls[0].keywords}
        assert passed == {option: option for option in options(function)}


def test_nothing_uses_the_renderer_that_papermill_cannot_store() -> None:
    for path in Path(asset_folder("notebooks")).glob("*.ipynb"):
        assert "mimetype" not in path.read_text()
