"""Learned masks: the differentiable run is the masked run, training finds a planted edge, seeds repeat."""

from __future__ import annotations

import pytest
import torch

from tests.circuits.wiring.conftest import OpenWiring, random_pairs
from workbench.circuits.wiring.catalogue import Wiring
from workbench.circuits.wiring.executor import EdgeExecutor
from workbench.circuits.wiring.masks import learn_mask
from workbench.circuits.wiring.replacement import replacement_run
from workbench.circuits.wiring.soft_run import SoftRun
from workbench.errors import UserError
from workbench.tasks import Batch


@pytest.mark.parametrize("architecture", ["llama", "neox", "gemma2"])
def test_whole_weights_are_the_masked_run(wiring_of: OpenWiring, pairs: Batch, architecture: str) -> None:
    wiring = wiring_of(architecture)
    mask = wiring.allowed & (
        torch.rand(wiring.allowed.shape, generator=torch.Generator().manual_seed(0)) < 0.5
    )
    replacement = replacement_run(wiring.anatomy, pairs.counterfactual)
    weights = mask.double().requires_grad_()
    metric = SoftRun(wiring, pairs, replacement).metric(weights)
    wanted = EdgeExecutor(wiring.anatomy, wiring).metrics(pairs, replacement, mask[None])[0]
    assert torch.allclose(metric.detach(), wanted, rtol=1e-9)
    gradient = torch.autograd.grad(metric.sum(), weights)[0]
    step = 1e-5 * torch.randn(weights.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    run = SoftRun(wiring, pairs, replacement)
    with torch.no_grad():
        moved = (run.metric(weights + step) - run.metric(weights - step)).sum() / 2
    assert abs(float((gradient * step).sum() / moved) - 1) < 1e-4


@pytest.mark.parametrize(("gates", "n_steps"), [("edges", 60), ("nodes", 120)])
def test_training_keeps_the_metric_and_shuts_gates(small: Wiring, gates: str, n_steps: int) -> None:
    pairs = random_pairs(n_pairs=8)
    found = learn_mask(small, pairs, gates=gates, sparsity=3.0, n_steps=n_steps, seed=3)
    again = learn_mask(small, pairs, gates=gates, sparsity=3.0, n_steps=8, seed=3)
    assert torch.equal(found.losses[:8], again.losses)
    assert 0 < int(found.mask.sum()) < small.n_edges
    replacement = replacement_run(small.anatomy, pairs.counterfactual)
    masks = torch.stack([small.allowed, found.mask, torch.zeros_like(found.mask)])
    clean, kept, none = EdgeExecutor(small.anatomy, small).metrics(pairs, replacement, masks)
    assert float((kept - clean).square().mean()) < 0.5 * float((none - clean).square().mean())
    assert found.scores.unit == "log-odds"


def test_sparsity_shuts_more(small: Wiring) -> None:
    pairs = random_pairs(n_pairs=8)
    loose, tight = (learn_mask(small, pairs, sparsity=s, n_steps=40).mask.sum() for s in (0.01, 20.0))
    assert int(tight) < int(loose)


def test_bad_input_is_refused(small: Wiring, pairs: Batch) -> None:
    with pytest.raises(UserError, match=r"gates 'heads' is not known"):
        learn_mask(small, pairs, gates="heads")
    same = Batch(pairs.clean, pairs.clean, pairs.answer, pairs.counterfactual_answer)
    with pytest.raises(UserError, match="give the same metric on these pairs"):
        learn_mask(small, same, n_steps=1)
