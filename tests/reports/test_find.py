"""Where a notebook finds its run, and the table of claims that it shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from workbench.errors import UserError
from workbench.reports import claims_table, find_run


def test_a_run_is_found_from_the_notebooks_folder_and_from_where_lab_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "runs" / "demo").mkdir(parents=True)
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "elsewhere" / "deep").mkdir(parents=True)
    monkeypatch.delenv("PWD", raising=False)
    monkeypatch.chdir(tmp_path / "notebooks")
    assert find_run("runs/demo").samefile(tmp_path / "runs" / "demo")
    assert find_run(tmp_path / "runs" / "demo") == tmp_path / "runs" / "demo"
    monkeypatch.chdir(tmp_path / "elsewhere" / "deep")
    with pytest.raises(
        UserError, match=r"run 'runs/demo' does not exist here: make it with `workbench demo`"
    ):
        find_run("runs/demo")
    monkeypatch.setenv("PWD", str(tmp_path))
    assert find_run("runs/demo") == tmp_path / "runs" / "demo"


def test_the_table_of_claims_has_every_claim_with_its_control(whole_run: Path):
    table = claims_table(whole_run)
    assert len(table) == 17
    assert set(table["verdict"]) == {"beats its control", "does not beat its control"}
    assert table["control_name"].str.len().min() > 5
