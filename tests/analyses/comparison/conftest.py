"""A comparison of smoke size, made once in a process without run-time type checks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.analyses.comparison.smoke import make
from workbench.analyses.comparison.reading import Compared, read_comparison


@pytest.fixture(scope="session")
def made_run(tmp_path_factory: pytest.TempPathFactory, apart: Callable[..., Any]) -> Path:
    """Its run folder; nobody writes to it."""
    run = tmp_path_factory.mktemp("compare") / "run"
    apart(make, run)
    return run


@pytest.fixture(scope="session")
def made(made_run: Path) -> Compared:
    """Its results."""
    return read_comparison(made_run)
