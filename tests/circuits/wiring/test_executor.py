"""The masked run against its definition, reader by reader; the two ends; what is not computed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.circuits.wiring.conftest import ARCHITECTURES, OpenWiring
from tests.circuits.wiring.reference import slow_metrics
from workbench.circuits.metric import logit_difference
from workbench.circuits.wiring import masked_run
from workbench.circuits.wiring.catalogue import Wiring
from workbench.circuits.wiring.executor import EdgeExecutor
from workbench.circuits.wiring.ledger import Bank
from workbench.circuits.wiring.replacement import Replacement, replacement_run
from workbench.errors import UserError
from workbench.tasks import Batch

# Hugging Face's RMS norms compute in float32 inside a float64 model; ours run in float64, so 1e-9 holds for all.
BOUNDS = {torch.float32: 1e-5, torch.float64: 1e-9}


def some_masks(wiring: Wiring) -> Tensor:
    """Both ends, a set of nodes, sparse and dense random sets, and single edges left out."""
    generator = torch.Generator().manual_seed(1)
    shares = torch.tensor([0.03, 0.06, 0.1, 0.3, 0.6, 0.95])
    drawn = wiring.allowed & (
        torch.rand(6, *wiring.allowed.shape, generator=generator) < shares[:, None, None]
    )
    ends = torch.stack(
        [wiring.allowed, torch.zeros_like(wiring.allowed), wiring.node_mask(wiring.writers[::2])]
    )
    without = wiring.allowed.clone()
    without[0, wiring.column["a1.h1.k"]] = False
    return torch.cat([ends, drawn, without[None]])


def protocols(wiring: Wiring, pairs: Batch) -> dict[str, Replacement]:
    """Values of a run, means shared by all prompts, and a run at some positions only."""
    run = replacement_run(wiring.anatomy, pairs.counterfactual)
    mean = run.map(lambda v: v.mean((0, 1), keepdim=True).expand(1, *v.shape[1:]))
    places = torch.tensor([False, True, False, True, True])
    return {"resample": run, "mean": mean, "places": replace(run, positions=places)}


def relative(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).abs().max() / wanted.abs().max().clamp_min(1.0))


@pytest.mark.parametrize(
    ("architecture", "dtype"),
    [(name, torch.float64) for name in (*ARCHITECTURES, "attention-only")]
    + [(name, torch.float32) for name in ("gemma2",)],
)
def test_masked_run_is_its_definition(
    wiring_of: OpenWiring, pairs: Batch, architecture: str, dtype: torch.dtype
) -> None:
    wiring = wiring_of(architecture, dtype)
    executor, masks = EdgeExecutor(wiring.anatomy, wiring), some_masks(wiring)
    for replacement in protocols(wiring, pairs).values():
        wanted = slow_metrics(wiring, pairs, replacement, masks)
        together = executor.metrics(pairs, replacement, masks)
        alone = torch.cat([executor.metrics(pairs, replacement, mask[None]) for mask in masks])
        assert relative(together, wanted) < BOUNDS[dtype]
        assert relative(alone, wanted) < BOUNDS[dtype]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_ends_are_the_two_runs(wiring_of: OpenWiring, pairs: Batch, architecture: str) -> None:
    wiring = wiring_of(architecture)
    anatomy = wiring.anatomy
    masks = torch.stack([wiring.allowed, torch.zeros_like(wiring.allowed)])
    found = EdgeExecutor(anatomy, wiring).logits(pairs, replacement_run(anatomy, pairs.counterfactual), masks)
    for row, ids in zip(found, (pairs.clean, pairs.counterfactual), strict=True):
        assert relative(row, anatomy.last_logits(anatomy.embed(ids), 0)) < 1e-9


def test_metrics_are_logit_differences(wiring_of: OpenWiring, pairs: Batch) -> None:
    """With two columns of the unembedding, soft cap included, as with all of them."""
    wiring = wiring_of("gemma2")
    executor, masks = EdgeExecutor(wiring.anatomy, wiring), some_masks(wiring)
    replacement = replacement_run(wiring.anatomy, pairs.counterfactual)
    logits = executor.logits(pairs, replacement, masks)
    assert wiring.anatomy.readout.soft_cap > 0
    assert relative(executor.metrics(pairs, replacement, masks), logit_difference(logits, pairs)) < 1e-12


def test_chunks_of_prompts_and_masks_change_nothing(wiring_of: OpenWiring, pairs: Batch) -> None:
    wiring = wiring_of("llama")
    whole = EdgeExecutor(wiring.anatomy, wiring)
    small = EdgeExecutor(wiring.anatomy, wiring, max_bytes=whole.bytes_of(5))
    masks, replacement = some_masks(wiring), protocols(wiring, pairs)["mean"]
    assert len(list(small.sessions(pairs, replacement))) == 3
    assert (
        relative(small.metrics(pairs, replacement, masks), whole.metrics(pairs, replacement, masks)) < 1e-12
    )


def test_order_of_masks_leaves_no_trace(wiring_of: OpenWiring, pairs: Batch) -> None:
    """A session keeps its ends between masks; running others before must not change them."""
    wiring = wiring_of("gemma2")
    session = next(EdgeExecutor(wiring.anatomy, wiring).sessions(pairs, protocols(wiring, pairs)["resample"]))
    masks = some_masks(wiring)
    first = torch.cat([session.metrics(mask[None]) for mask in masks])
    again = torch.cat([session.metrics(mask[None]) for mask in masks.flip(0)]).flip(0)
    assert torch.equal(first, again)


def test_dead_ends_are_not_computed(
    wiring_of: OpenWiring, pairs: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chain through one head computes that head, and edges that lead nowhere compute nothing."""
    wiring = wiring_of("gpt2")
    computed: list[list[int]] = []
    add_own = Bank.add_own
    monkeypatch.setattr(
        Bank, "add_own", lambda self, rows, *a: (computed.append(rows), add_own(self, rows, *a))
    )
    executor = EdgeExecutor(wiring.anatomy, wiring)
    replacement = replacement_run(wiring.anatomy, pairs.counterfactual)
    chain = wiring.edge_mask([("embed", "a1.h2.v"), ("a1.h2", "logit"), ("embed", "m0"), ("m1", "a2.h0.q")])
    metric = executor.metrics(pairs, replacement, chain[None])
    assert computed == [[wiring.row["a1.h2"]]]
    assert relative(metric, slow_metrics(wiring, pairs, replacement, chain[None])) < 1e-9


def test_a_set_of_nodes_needs_no_streams_of_its_own(
    wiring_of: OpenWiring, pairs: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All readers of a layer see the same, so heads are never projected one by one."""
    wiring = wiring_of("gpt2")
    nodes = torch.stack([wiring.node_mask(wiring.writers[i::3]) for i in range(3)])
    replacement = replacement_run(wiring.anatomy, pairs.counterfactual)
    wanted = slow_metrics(wiring, pairs, replacement, nodes)
    monkeypatch.delattr(masked_run, "project_each")
    assert relative(EdgeExecutor(wiring.anatomy, wiring).metrics(pairs, replacement, nodes), wanted) < 1e-9


def test_a_broken_mask_is_seen(wiring_of: OpenWiring, pairs: Batch) -> None:
    """The comparison above fails when one edge is dropped from the executor's mask."""
    wiring = wiring_of("llama")
    replacement = replacement_run(wiring.anatomy, pairs.counterfactual)
    mask = some_masks(wiring)[4]
    wanted = slow_metrics(wiring, pairs, replacement, mask[None])
    broken = mask.clone()
    broken[0, wiring.logit] = ~broken[0, wiring.logit]
    assert (
        relative(EdgeExecutor(wiring.anatomy, wiring).metrics(pairs, replacement, broken[None]), wanted)
        > 1e-3
    )


def test_bad_input_is_refused(wiring_of: OpenWiring, pairs: Batch) -> None:
    wiring = wiring_of("gpt2")
    replacement = replacement_run(wiring.anatomy, pairs.counterfactual)
    executor = EdgeExecutor(wiring.anatomy, wiring)
    with pytest.raises(UserError, match=r"do not fit 16 writers"):
        executor.metrics(pairs, replacement, torch.ones(1, 3, 4, dtype=torch.bool))
    stray = torch.zeros_like(wiring.allowed)
    stray[wiring.row["m2"], wiring.column["m0"]] = True
    with pytest.raises(UserError, match=r"m2 -> m0 does not exist"):
        executor.metrics(pairs, replacement, stray[None])
    with pytest.raises(UserError, match=r"replacement.z has 2 layers, the model 3"):
        executor.metrics(pairs, replace(replacement, z=replacement.z[:2]), stray[None])
    with pytest.raises(UserError, match=r"replacement.embed of layer 0 has shape \(2, 5, 32\)"):
        executor.metrics(pairs, replace(replacement, embed=replacement.embed[:2]), stray[None])
    with pytest.raises(UserError, match=r"max_bytes 10 is less than the \d+ bytes"):
        EdgeExecutor(wiring.anatomy, wiring, max_bytes=10).metrics(pairs, replacement, wiring.allowed[None])
