"""Planted rows: their code, their frequencies, the control, reproducibility, the store."""

from __future__ import annotations

import pytest
import torch

from workbench.errors import UserError
from workbench.testbeds.planted import Block, plant, planted_features
from workbench.testbeds.planted.features import zipf


def dense(block: Block, n_features: int) -> torch.Tensor:
    return torch.zeros(len(block.x), n_features).scatter_add(1, block.indices, block.values)


@pytest.mark.parametrize("support", ["independent", "exact", "variable"])
def test_rows_are_what_their_code_says(support):
    features = planted_features(n_features=50, d=16, mean_l0=3.0, support=support, offset_norm=2.0, seed=4)
    block = features.block(0, 3000)
    codes = dense(block, 50)
    assert torch.allclose(block.x, codes @ features.directions + features.offset, atol=1e-5)
    assert torch.allclose(features.directions.norm(dim=1), torch.ones(50))
    assert float(features.offset.norm()) == pytest.approx(2)
    counts = (codes > 0).sum(1)
    assert float(counts.float().mean()) == pytest.approx(3, rel=0.05)
    assert {"exact": {3}, "variable": {1, 2, 3, 4, 5}}.get(support, set(counts.tolist())) == set(
        counts.tolist()
    )
    fired = codes[codes > 0]
    assert 0.5 <= float(fired.min()) < 0.51 < 1.49 < float(fired.max()) <= 1.5


def test_frequencies_follow_zipf_under_their_cap():
    features = planted_features(n_features=200, d=8, mean_l0=6.0, exponent=1.0)
    frequency = features.frequency_frac
    assert float(frequency.sum()) == pytest.approx(6, rel=1e-4)
    assert float(frequency.max()) == 0.5
    ranks = torch.arange(1, 201)
    tail = frequency < 0.5
    assert torch.allclose(
        frequency[tail] * ranks[tail], (frequency * ranks)[-1].expand(int(tail.sum())), rtol=1e-4
    )
    measured = (dense(features.block(0, 20_000), 200) > 0).float().mean(0)
    assert torch.allclose(measured, frequency, atol=0.015)
    assert torch.allclose(zipf(10, 2.0, 0.0), torch.full((10,), 0.2), rtol=1e-5)


def test_blocks_are_reproducible_and_differ():
    make = lambda seed: planted_features(n_features=20, d=8, mean_l0=2.0, noise=0.1, seed=seed)  # noqa: E731
    features = make(3)
    later = features.block(7, 100)
    assert torch.equal(make(3).block(7, 100).x, later.x)
    assert not torch.equal(features.block(6, 100).x, later.x)
    assert not torch.equal(make(4).directions, features.directions)
    quiet = planted_features(n_features=20, d=8, mean_l0=2.0, seed=3).block(7, 100).x
    assert float((later.x - quiet).std()) == pytest.approx(0.1, rel=0.1)


def test_directions_are_not_those_that_a_trainee_of_the_same_seed_starts_with():
    """Else a test of recovery starts at the truth and cannot fail."""
    from workbench.dictionaries.initialise import unit_rows

    features = planted_features(n_features=64, d=32, mean_l0=3.0, seed=0)
    start = unit_rows(64, 32, torch.Generator().manual_seed(0))
    assert float((features.directions @ start.T).abs().amax(1).max()) < 0.9


def test_the_control_keeps_marginals_and_loses_the_directions():
    features = planted_features(n_features=20, d=8, mean_l0=2.0)
    plain, control = (features.block(0, 5000, shuffled=s).x for s in (False, True))
    assert torch.equal(plain.sort(dim=0).values, control.sort(dim=0).values)
    off_diagonal = [x.T.corrcoef() - torch.eye(8) for x in (plain, control)]
    assert float(off_diagonal[1].abs().max()) < 0.06 < 0.2 < float(off_diagonal[0].abs().max())


def test_a_store_holds_the_blocks(tmp_path):
    features = planted_features(n_features=20, d=8, mean_l0=2.0)
    store = plant(tmp_path, features, n_rows=9000)
    rows = next(store.reader(9000, seed=0))
    wanted = torch.cat([features.block(0, 8192).x, features.block(1, 8192).x[:808]])
    assert torch.equal(rows.sort(dim=0).values, wanted.sort(dim=0).values)
    assert (store.n_rows, store.d_model) == (9000, 8)
    assert not (tmp_path / ".planted.npy").exists()
    assert plant(tmp_path, features, n_rows=9000, name="again", shuffled=True).hash != store.hash


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"support": "exactly"}, "support 'exactly' is not known; the nearest: exact"),
        ({"mean_l0": 2.5, "support": "exact"}, "mean_l0 2.5 does not fit 20 features and support 'exact'"),
        ({"mean_l0": 11.0, "support": "independent"}, "give at most 10"),
        ({"mean_l0": 0.0}, "mean_l0 0.0 does not fit"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        planted_features(**{"n_features": 20, "d": 8, "mean_l0": 2.0, **options})


def test_a_store_without_rows_is_refused(tmp_path):
    with pytest.raises(UserError, match="n_rows 0 is not at least 1"):
        plant(tmp_path, planted_features(n_features=20, d=8, mean_l0=2.0), n_rows=0)
