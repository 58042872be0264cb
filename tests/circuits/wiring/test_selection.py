"""Choosing edges: by hand on a small model; what connecting drops changes no metric."""

from __future__ import annotations

import pytest
import torch

from tests.circuits.wiring.conftest import OpenWiring
from workbench.circuits.wiring.catalogue import Edge, Wiring
from workbench.circuits.wiring.edge_scores import EdgeScores
from workbench.circuits.wiring.executor import EdgeExecutor
from workbench.circuits.wiring.replacement import replacement_run
from workbench.circuits.wiring.selection import connected, greedy, threshold, top_n
from workbench.errors import UserError
from workbench.tasks import Batch


def scored(wiring: Wiring, given: dict[Edge, float]) -> EdgeScores:
    """Scores of zero but for these."""
    scores = torch.zeros(wiring.allowed.shape).masked_fill(~wiring.allowed, float("nan"))
    for (writer, reader), score in given.items():
        scores[wiring.row[writer], wiring.column[reader]] = score
    return EdgeScores(wiring, scores, "by hand")


GIVEN = {
    ("embed", "m0"): 5.0, ("m0", "a1.h0.v"): -4.0, ("a1.h0", "logit"): 1.0, ("m1", "logit"): 0.5,
    ("a2.h2", "logit"): -2.0,
}  # fmt: skip


def test_top_n_and_threshold(wiring_of: OpenWiring) -> None:
    wiring = wiring_of("gpt2")
    scores = scored(wiring, GIVEN)
    assert torch.equal(top_n(scores, 2), wiring.edge_mask([("embed", "m0"), ("m0", "a1.h0.v")]))
    assert torch.equal(top_n(scores, 2, signed=True), wiring.edge_mask([("embed", "m0"), ("a1.h0", "logit")]))
    assert torch.equal(top_n(scores, wiring.n_edges), wiring.allowed)
    assert torch.equal(threshold(scores, 2.0), wiring.edge_mask([e for e, s in GIVEN.items() if abs(s) >= 2]))
    assert torch.equal(
        threshold(scores, 0.9, signed=True), wiring.edge_mask([("embed", "m0"), ("a1.h0", "logit")])
    )


def test_unscored_edges_are_not_chosen(wiring_of: OpenWiring) -> None:
    wiring = wiring_of("gpt2")
    scores = scored(wiring, GIVEN)
    scores.scores[0] = float("nan")
    assert int(top_n(scores, int((~scores.of_edges().isnan()).sum()))[0].sum()) == 0
    assert int(threshold(scores, 0.0)[0].sum()) == 0


def test_greedy_grows_from_the_logits(wiring_of: OpenWiring) -> None:
    """The largest edge of all waits until its reader leads to the logits."""
    wiring = wiring_of("gpt2")
    scores = scored(wiring, GIVEN)
    assert torch.equal(greedy(scores, 2), wiring.edge_mask([("a2.h2", "logit"), ("a1.h0", "logit")]))
    chain = [("a2.h2", "logit"), ("a1.h0", "logit"), ("m0", "a1.h0.v"), ("embed", "m0")]
    assert torch.equal(greedy(scores, 4), wiring.edge_mask(chain))


def test_connected_keeps_whole_paths(wiring_of: OpenWiring) -> None:
    wiring = wiring_of("llama")
    path = [("embed", "m0"), ("m0", "a1.h1.k"), ("a1.h3", "logit")]
    mask = wiring.edge_mask(
        [*path, ("m1", "a2.h0.k"), ("a0.h0", "a1.h0.q"), ("a0.h1", "m2"), ("m2", "logit")]
    )
    assert torch.equal(connected(wiring, mask), wiring.edge_mask(path))
    upward = connected(
        wiring, wiring.edge_mask([("m1", "logit"), ("a0.h0", "m1"), ("m0", "a1.h0.q")]), from_embedding=False
    )
    assert torch.equal(upward, wiring.edge_mask([("m1", "logit"), ("a0.h0", "m1")]))


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "neox"])
def test_connecting_changes_no_metric(wiring_of: OpenWiring, pairs: Batch, architecture: str) -> None:
    wiring = wiring_of(architecture)
    generator = torch.Generator().manual_seed(2)
    masks = wiring.allowed & (torch.rand(6, *wiring.allowed.shape, generator=generator) < 0.15)
    pruned = torch.stack([connected(wiring, mask) for mask in masks])
    assert 0 < int(pruned.sum()) < int(masks.sum())
    executor = EdgeExecutor(wiring.anatomy, wiring)
    replacement = replacement_run(wiring.anatomy, pairs.counterfactual)
    before, after = (executor.metrics(pairs, replacement, m) for m in (masks, pruned))
    assert torch.allclose(before, after, rtol=1e-10)
    mean = replacement.map(lambda v: v.mean((0, 1), keepdim=True).expand(1, *v.shape[1:]))
    upward = torch.stack([connected(wiring, mask, from_embedding=False) for mask in masks])
    before, after = (executor.metrics(pairs, mean, m) for m in (masks, upward))
    assert torch.allclose(before, after, rtol=1e-10)


def test_bad_sizes_are_refused(wiring_of: OpenWiring) -> None:
    wiring = wiring_of("gpt2")
    for choose in (top_n, greedy):
        with pytest.raises(
            UserError, match=rf"n 9999 is no number of edges to keep: give 0 to {wiring.n_edges}"
        ):
            choose(scored(wiring, GIVEN), 9999)
