"""One random model of each architecture, with dictionaries everywhere."""

from __future__ import annotations

import pytest

from tests.circuits.feature_circuits.beds import random_sites
from workbench.circuits.feature_circuits import FeatureSites

ARCHITECTURES = ("gpt2", "gemma2", "llama", "neox", "native")


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, FeatureSites]:
    """Sites by architecture."""
    return {name: random_sites(tmp_path_factory.mktemp(name), name) for name in ARCHITECTURES}


@pytest.fixture(params=ARCHITECTURES)
def sites(request: pytest.FixtureRequest, models: dict[str, FeatureSites]) -> FeatureSites:
    """Each of them in turn."""
    return models[request.param]


@pytest.fixture
def gpt2(models: dict[str, FeatureSites]) -> FeatureSites:
    """The first."""
    return models["gpt2"]
