"""Costs in forward passes: a set of nodes costs one, sizes of edge circuits stay within thirty a pair."""

from __future__ import annotations

import pytest
import torch

from tests.circuits.validation.beds import judge, true_edges, wiring
from workbench.circuits.scoring.areas import MIB_SIZES
from workbench.circuits.validation.cost import forward_equivalents
from workbench.circuits.validation.protocol import ZERO
from workbench.circuits.validation.ranking import Ranking


def test_sets_of_nodes_cost_a_forward_pass_each() -> None:
    one = judge("chain")
    masks = torch.ones(6, one.wiring.n_writers, dtype=torch.bool)
    costs = [forward_equivalents(one, masks[:n]) for n in (1, 3, 6)]
    assert costs[0] < 2.5
    assert costs[1] - 1 == pytest.approx(3 * (costs[0] - 1))
    assert costs[2] - 1 == pytest.approx(6 * (costs[0] - 1))
    assert forward_equivalents(judge("chain", ZERO), masks[:1]) == pytest.approx(costs[0] - 1)


def test_ten_sizes_of_edges_stay_within_thirty() -> None:
    ranking = Ranking(wiring("chain", 0.05), true_edges("chain", 0.05).double())
    masks = ranking.top(ranking.sizes_of(MIB_SIZES))
    assert 1 < forward_equivalents(judge("chain", leak=0.05), masks) <= 30
