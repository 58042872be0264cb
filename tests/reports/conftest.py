"""A run folder with everything in it, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.reports.run_folder import make_run


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read only; `run_copy` is for tests that break something."""
    return make_run(tmp_path_factory.mktemp("whole") / "demo")


@pytest.fixture
def run_copy(tmp_path: Path) -> Path:
    """A run folder of one's own."""
    return make_run(tmp_path / "demo")
