"""Rankings give the k best in a fixed order; edges that can do nothing are found and change no metric."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.circuits.validation.beds import judge, true_edges, wiring
from workbench.circuits.validation.protocol import DENOISE, MEAN, RESAMPLE, Protocol
from workbench.circuits.validation.ranking import Ranking, nodes_in
from workbench.circuits.wiring.selection import connected
from workbench.errors import UserError


def test_signed_and_absolute_order() -> None:
    model = wiring("two_hop")
    scores = torch.zeros(model.n_writers)
    scores[:4] = torch.tensor([1.0, -3.0, 2.0, 0.5])
    assert Ranking(model, scores, "signed").best_first()[:3].tolist() == [2, 0, 3]
    assert Ranking(model, scores, "signed").best_first()[-1] == 1
    assert Ranking(model, scores, "absolute").best_first()[:3].tolist() == [1, 2, 0]
    masks = Ranking(model, scores, "absolute").top([0, 2])
    assert masks.sum(1).tolist() == [0, 2]
    assert masks[1, [1, 2]].all()


def test_ties_go_by_the_order_of_computation_and_pairs_that_are_no_edges_are_never_kept() -> None:
    model = wiring("two_hop")
    scores = torch.full(model.allowed.shape, float("nan")).masked_fill(model.allowed, 1.0)
    ranking = Ranking(model, scores, "signed")
    assert torch.equal(ranking.top([ranking.n_total])[0], model.allowed)
    assert ranking.best_first().tolist() == sorted(ranking.best_first().tolist())
    assert ranking.sizes_of([0.0001, 0.01, 0.011, 1.0]) == [1, ranking.n_total]


def test_scores_that_rank_nothing_are_refused() -> None:
    model = wiring("two_hop")
    with pytest.raises(UserError, match="order 'best' is not known"):
        Ranking(model, torch.zeros(model.n_writers), "best")
    with pytest.raises(UserError, match=r"scores of shape \(3,\) are neither of nodes"):
        Ranking(model, torch.zeros(3))
    with pytest.raises(UserError, match="1 scores are not finite"):
        Ranking(model, torch.zeros(model.n_writers).index_fill(0, torch.tensor([2]), float("inf")))


def with_passengers(seed: int) -> torch.Tensor:
    """The true circuit and random edges."""
    model = wiring("chain", 0.05)
    drawn = torch.rand(model.allowed.shape, generator=torch.Generator().manual_seed(seed)) < 0.04
    return true_edges("chain", 0.05) | (drawn & model.allowed)


@pytest.mark.parametrize("protocol", [RESAMPLE, MEAN, DENOISE, Protocol(kind="resample", positions=(1, 2))])
def test_dead_edges_change_nothing(protocol: Protocol) -> None:
    noisy, fewer = judge("chain", protocol, leak=0.05), 0
    for seed in range(4):
        mask = with_passengers(seed)
        alive = noisy.alive(mask)
        assert not (alive & ~mask).any()
        metrics = noisy.metrics(torch.stack([mask, alive]))
        np.testing.assert_allclose(metrics[0], metrics[1], rtol=0, atol=1e-9)
        fewer += int(mask.sum()) - int(alive.sum())
    assert (fewer > 0) == (protocol in (RESAMPLE, MEAN))


@pytest.mark.parametrize("protocol", [DENOISE, Protocol(kind="resample", positions=(1, 2))])
def test_they_are_not_dead_under_denoising_or_at_some_positions(protocol: Protocol) -> None:
    noisy = judge("chain", protocol, leak=0.05)
    lost = [
        np.abs(np.diff(noisy.metrics(torch.stack([m, connected(noisy.wiring, m)])), axis=0)).max()
        for m in map(with_passengers, range(4))
    ]
    assert max(lost) > 1e-6


def test_unfed_writers_matter_where_their_values_are_not_those_that_replace_them() -> None:
    """Under means a writer that is fed by nothing differs from its mean: taking it away is not exact there."""
    noisy = judge("chain", MEAN, leak=0.05)
    lost = [
        np.abs(np.diff(noisy.metrics(torch.stack([m, connected(noisy.wiring, m)])), axis=0)).max()
        for m in map(with_passengers, range(4))
    ]
    assert max(lost) > 1e-6


def test_nodes_of_a_circuit() -> None:
    assert nodes_in(true_edges("chain"), wiring("chain")) == ["embed", "a0.h3", "a1.h0", "a2.h1"]
