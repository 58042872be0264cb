"""Minimality is positive exactly for the true nodes and edges; pruning finds them; backups show over subsets."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.circuits.validation.beds import EXACT, bed, judge, true_edges, true_nodes, wiring
from workbench.circuits.validation.curves import judge_circuit
from workbench.circuits.validation.judge import open_judge
from workbench.circuits.validation.minimality import minimality, parts_of, prune_to_minimal
from workbench.circuits.validation.protocol import RESAMPLE
from workbench.errors import UserError

OPTIONS = {"n_resamples": 200}


@pytest.mark.parametrize("name", EXACT)
def test_minimality_in_the_whole_model_is_positive_for_the_true_nodes_only(name: str) -> None:
    one = judge(name)
    found = minimality(one, one.all_nodes, **OPTIONS)
    assert {n for n, e in zip(found.names, found.effects, strict=True) if e.low > 0} == bed(name).nodes
    others = [e for n, e in zip(found.names, found.effects, strict=True) if n not in bed(name).nodes]
    assert max(abs(e.value) for e in others) < 1e-9
    assert not found.all_positive


@pytest.mark.parametrize("name", EXACT)
def test_every_true_edge_is_needed(name: str) -> None:
    found = minimality(judge(name), true_edges(name), units="edges", **OPTIONS)
    assert set(found.names) == {f"{w}->{r}" for w, r in bed(name).edges or ()}
    assert found.all_positive


def test_a_node_that_works_against_the_answer_is_negative() -> None:
    found = minimality(judge("suppression"), true_nodes("suppression"), **OPTIONS)
    table = found.table().set_index("name")["minimality_logits"]
    assert table["a1.h3"] < -0.1 < 0.1 < table["a0.h2"]
    assert not found.all_positive


@pytest.mark.parametrize("name", ["chain", "xor_and"])
def test_pruning_takes_the_passengers_out_and_nothing_else(name: str) -> None:
    model = wiring(name)
    drawn = torch.rand(model.allowed.shape, generator=torch.Generator().manual_seed(1)) < 0.2
    pruned = prune_to_minimal(
        judge(name), true_edges(name) | (drawn & model.allowed), held_out=judge(name, seed=5), **OPTIONS
    )
    assert set(pruned.minimality.names) == bed(name).nodes
    assert pruned.held_out is not None
    assert pruned.minimality.all_positive
    assert pruned.held_out.all_positive
    assert pruned.dropped
    assert not set(pruned.dropped) & set(bed(name).nodes or ())
    by_edges = prune_to_minimal(judge(name), pruned.mask, units="edges", **OPTIONS)
    assert torch.equal(by_edges.mask, true_edges(name))
    assert judge_circuit(judge(name), pruned.mask, **OPTIONS).faithfulness_frac.value == pytest.approx(
        1, abs=1e-9
    )


def test_a_backup_shows_only_where_the_other_is_taken_out_too() -> None:
    """Pairs of `or_gate` on which either head does the whole task by itself."""
    name, heads = "or_gate", ("a0.h0", "a0.h3")
    one = judge(name, n_pairs=200)
    masks = [one.all_nodes & ~head_mask(name, *gone) for gone in ((), heads[:1], heads[1:], heads)]
    whole, *alone, neither = one.metrics(torch.stack(masks))
    backed = torch.tensor((np.abs(alone - whole) < 0.01).all(0) & (whole - neither > 1))
    assert backed.sum() >= 8
    pairs = open_judge(wiring(name), RESAMPLE, [one.batches[0].take(backed)])
    plain = minimality(pairs, true_nodes(name), **OPTIONS).table().set_index("name")
    assert plain.loc[list(heads), "minimality_logits"].abs().max() < 0.01
    found = minimality(pairs, true_nodes(name), n_subsets=40, **OPTIONS).table().set_index("name")
    assert (found.loc[list(heads), "minimality_logits_low"] > 1).all()
    assert heads[1] in found.loc[heads[0], "removed"]
    assert heads[0] not in found.loc[heads[0], "removed"]


def head_mask(name: str, *heads: str) -> torch.Tensor:
    return torch.tensor([writer in heads for writer in wiring(name).writers])


def test_taking_a_node_out_of_a_circuit_of_edges_takes_its_edges() -> None:
    names, removals = parts_of(judge("chain"), true_edges("chain"), "nodes")
    for name, removal in zip(names, removals, strict=True):
        assert set(removal.nonzero()[:, 0].tolist()) == {wiring("chain").row[name]}
    assert not (true_edges("chain") & ~removals.any(0)).any()


def test_the_empty_circuit_needs_nothing_and_edges_of_nodes_are_refused() -> None:
    one = judge("chain")
    assert not minimality(one, torch.zeros_like(one.all_nodes)).all_positive
    assert prune_to_minimal(one, torch.zeros_like(one.wiring.allowed)).minimality.names == ()
    with pytest.raises(UserError, match="units 'edges' asks for the edges of a circuit of nodes"):
        minimality(one, one.all_nodes, units="edges")
    with pytest.raises(UserError, match="units 'heads' is not known"):
        minimality(one, one.all_nodes, units="heads")
