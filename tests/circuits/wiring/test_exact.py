"""Exact patching of single edges against the masked run in which only that edge is replaced; two stages."""

from __future__ import annotations

import pytest
import torch

from tests.circuits.wiring.conftest import ARCHITECTURES, OpenWiring, random_pairs
from tests.circuits.wiring.reference import slow_metrics
from workbench.circuits.wiring.along import bytes_of
from workbench.circuits.wiring.catalogue import Wiring
from workbench.circuits.wiring.exact import exact_edges
from workbench.circuits.wiring.executor import EdgeExecutor
from workbench.circuits.wiring.replacement import replacement_run
from workbench.circuits.wiring.two_stage import SCREENS, two_stage
from workbench.errors import UserError
from workbench.tasks import Batch


@pytest.mark.parametrize("architecture", [*ARCHITECTURES, "attention-only"])
def test_every_edge_is_the_masked_run_without_it(
    wiring_of: OpenWiring, pairs: Batch, architecture: str
) -> None:
    wiring = wiring_of(architecture)
    found = exact_edges(wiring, pairs, per_prompt=True)
    masks = wiring.allowed.repeat(wiring.n_edges + 1, 1, 1)
    masks[torch.arange(wiring.n_edges), wiring.pairs[:, 0], wiring.pairs[:, 1]] = False
    replacement = replacement_run(wiring.anatomy, pairs.counterfactual)
    metrics = EdgeExecutor(wiring.anatomy, wiring).metrics(pairs, replacement, masks)
    assert found.per_prompt is not None
    effects = found.per_prompt[:, wiring.pairs[:, 0], wiring.pairs[:, 1]].T
    assert float((effects - (metrics[-1] - metrics[:-1])).abs().max()) < 1e-9 * float(metrics.abs().max())
    some = masks[:: wiring.n_edges // 5]
    wanted = slow_metrics(wiring, pairs, replacement, some)
    assert torch.allclose(metrics[:: wiring.n_edges // 5], wanted, rtol=1e-9)


def test_some_edges_and_small_passes(wiring_of: OpenWiring, pairs: Batch) -> None:
    """Asked for a few edges it runs those alone, whatever the width of a pass."""
    wiring = wiring_of("llama")
    edges = [("embed", "a1.h1.k"), ("a1.h3", "m1"), ("m2", "logit")]
    every = exact_edges(wiring, pairs)
    few = exact_edges(wiring, [pairs, pairs], edges, max_tokens=1, max_bytes=bytes_of(wiring, 5))
    mask = wiring.edge_mask(edges)
    assert torch.equal(~few.scores.isnan(), mask)
    assert torch.allclose(few.scores[mask], every.scores[mask], rtol=1e-10)
    assert few.evaluations == 3 * few.n_prompts  # one prompt a chunk


def test_an_edge_without_difference_is_not_run(wiring_of: OpenWiring) -> None:
    """Prompts that are the same give effects of exactly zero and no runs."""
    wiring, pairs = wiring_of("gpt2"), random_pairs()
    same = Batch(pairs.clean, pairs.clean, pairs.answer, pairs.counterfactual_answer)
    found = exact_edges(wiring, same)
    assert found.evaluations == 0
    assert bool((found.of_edges() == 0).all())


@pytest.mark.parametrize("screen", SCREENS)
def test_two_stages_patch_the_largest_estimates(small: Wiring, pairs: Batch, screen: str) -> None:
    found = two_stage(small, pairs, top_frac=0.3, at_least=3, screen=screen)
    estimate, every = SCREENS[screen](small, pairs), exact_edges(small, pairs)
    n = round(0.3 * small.n_edges)
    mask = small.edge_mask([edge for edge, _ in estimate.top(n)])
    assert found.settings["n_exact"] == found.evaluations == n == int(mask.sum())
    assert torch.allclose(found.scores[mask], every.scores[mask])
    rest = small.allowed & ~mask
    assert torch.equal(found.scores[rest], estimate.scores[rest])
    graph = found.to_graph()
    assert int(graph.verified.sum()) == n
    assert torch.allclose(graph.weight.double(), estimate.of_edges(), atol=1e-5)
    assert two_stage(small, pairs, at_least=10**6, screen=screen).settings["n_exact"] == small.n_edges


def test_bad_input_is_refused(wiring_of: OpenWiring, pairs: Batch) -> None:
    wiring = wiring_of("gpt2")
    with pytest.raises(UserError, match=r"top_frac 5.0 is not a share"):
        two_stage(wiring, pairs, top_frac=5.0)
    with pytest.raises(UserError, match=r"screen 'eap' is not known"):
        two_stage(wiring, pairs, screen="eap")
    with pytest.raises(UserError, match=r"edge m2 -> m0 does not exist"):
        exact_edges(wiring, pairs, [("m2", "m0")])
