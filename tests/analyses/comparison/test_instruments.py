"""What is measured once beside the learners: written once, read back as measured, and not measured again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from workbench.analyses.comparison import instruments
from workbench.analyses.comparison.data import SiteData
from workbench.analyses.comparison.sites import SITES
from workbench.analyses.comparison.sizes import find_size
from workbench.evaluation.effective_rank import LayerRank
from workbench.testbeds.planted import plant, planted_features

VARIATIONAL = pd.DataFrame({"name": ["topk"], "kl": [float("nan")], "seed": [0], "fvu": [0.1]})
RANKS = [LayerRank("trained", "residual", layer, 16, 4.5 + layer, 5 + layer, 100) for layer in range(2)]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> SiteData:
    """Planted rows in the place of the model's."""
    features = planted_features(n_features=24, d=16, mean_l0=2.0, support="exact")
    run = tmp_path_factory.mktemp("site")
    plant(run, features, n_rows=4096, name=SITES[instruments.SITE].hook)
    return SiteData(SITES[instruments.SITE], run, features.block(9, 1024).x, 192, 8)


def test_all_are_measured_once_and_read_back(tmp_path: Path, data: SiteData, monkeypatch) -> None:
    monkeypatch.setattr(instruments, "layer_ranks", lambda run, **options: RANKS)
    empty = instruments.read_instruments(tmp_path)
    assert (empty.law, empty.ranks, empty.norms, empty.leftover, empty.variational) == (
        None,
        (),
        {},
        None,
        None,
    )
    assert instruments.lacks_instruments(tmp_path)
    monkeypatch.setattr(instruments, "variational_table", lambda **options: VARIATIONAL)
    instruments.measure_instruments(tmp_path, data, find_size("smoke"))
    assert not instruments.lacks_instruments(tmp_path)

    found = instruments.read_instruments(tmp_path)
    assert found.law is not None
    assert sorted(zip(found.law.points["n"], found.law.points["k"], strict=True)) == [
        (n, k) for n in (48, 96, 192) for k in (2, 4, 8)
    ]
    assert found.ranks == tuple(RANKS)
    assert set(found.norms) == {"trained", "random"}
    own = found.norms["trained"]
    np.testing.assert_allclose(own.activation_norms, data.rows.norm(dim=1).numpy(), rtol=1e-5)
    assert bool(np.nanmax(own.epsilon_reconstruction - own.bound) <= 1e-6)

    assert found.leftover is not None
    assert list(found.leftover.splits) == [48, 96, 192]
    pd.testing.assert_frame_equal(found.variational, VARIATIONAL)

    monkeypatch.setattr(instruments, "sweep", lambda *given, **options: pytest.fail("measured again"))
    monkeypatch.setattr(instruments, "layer_ranks", lambda *given, **options: pytest.fail("measured again"))
    instruments.measure_instruments(tmp_path, data, find_size("smoke"))


def test_the_losses_are_those_of_the_dictionaries(tmp_path: Path, data: SiteData, monkeypatch) -> None:
    monkeypatch.setattr(instruments, "layer_ranks", lambda run, **options: RANKS)
    monkeypatch.setattr(instruments, "variational_table", lambda **options: VARIATIONAL)
    instruments.measure_instruments(tmp_path, data, find_size("smoke"))
    law = pd.read_parquet(tmp_path / "instruments" / "law.parquet").set_index(["n", "k"])["loss"]
    made = instruments._grid(data, find_size("smoke"))
    dictionary, x = made["law-n96-k4"], data.rows.double()
    error = (data.rows - dictionary.reconstruct(data.rows)).double().square().sum()
    assert law[96, 4] == pytest.approx(float(error / (x - x.mean(0)).square().sum()), rel=1e-5)
    assert torch.isfinite(error)
