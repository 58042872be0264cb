"""A small feature store and a traced circuit, opened once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.reports.run_folder import make_run
from workbench.features import FeatureStore


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run folder; read only."""
    return make_run(tmp_path_factory.mktemp("panels") / "demo")


@pytest.fixture(scope="session")
def store(run: Path) -> FeatureStore:
    """Its feature store."""
    return FeatureStore.open(run / "features")
