"""Runs of node sets against hooked runs of the bridge, and against the edge executor under every protocol."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.causal.conftest import native_model, random_batch
from tests.models_on_disk import architecture_model
from workbench.anatomy import open_anatomy
from workbench.circuits.metric import logit_difference
from workbench.circuits.validation.judge import Judge, open_judge
from workbench.circuits.validation.node_runs import node_metrics
from workbench.circuits.validation.protocol import (
    DENOISE,
    MEAN,
    POSITION_MEAN,
    RESAMPLE,
    ZERO,
    Protocol,
    Reference,
)
from workbench.circuits.validation.replacements import replacement
from workbench.circuits.wiring.catalogue import Wiring
from workbench.errors import UserError

PROTOCOLS = (
    RESAMPLE, MEAN, POSITION_MEAN, ZERO, DENOISE,
    Protocol(kind="resample", positions=(-1, 2)),
    Protocol(kind="resample", reference=Reference(name="clean", seed=1)),
)  # fmt: skip


@pytest.fixture(scope="module")
def native() -> Wiring:
    return Wiring(open_anatomy(native_model()))


def masks_of(wiring: Wiring, n: int = 6) -> torch.Tensor:
    drawn = torch.rand(n, wiring.n_writers, generator=torch.Generator().manual_seed(2)) < 0.7
    return torch.cat([torch.ones(1, wiring.n_writers, dtype=torch.bool), drawn])


def test_a_replaced_head_and_mlp_equal_a_hooked_run(native: Wiring) -> None:
    """Two nodes replaced by TransformerLens' own hooks on the whole model."""
    batch, model = random_batch(), native.anatomy.model
    values = replacement(native.anatomy, RESAMPLE, batch)

    def head(z, hook):
        z = z.clone().unflatten(-1, (-1, 4)) if z.ndim == 3 else z.clone()
        z[:, :, 1] = values.z[0][:, :, 1]
        return z.flatten(-2) if hook.name.endswith("o.hook_in") else z

    def mlp(out, hook):
        return values.mlp[1]

    hooks = [("blocks.0.attn.hook_z", head), ("blocks.1.hook_mlp_out", mlp)]
    wanted = logit_difference(model.run_with_hooks(batch.clean, fwd_hooks=hooks)[:, -1], batch)
    kept = torch.tensor([[writer not in ("a0.h1", "m1") for writer in native.writers]])
    found = node_metrics(native, batch, values, kept)[0]
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-10)


def test_everything_kept_is_the_model_and_nothing_kept_is_the_counterfactual(native: Wiring) -> None:
    batch = random_batch()
    ends = torch.stack([torch.ones(native.n_writers), torch.zeros(native.n_writers)]).bool()
    for protocol in (RESAMPLE, DENOISE):
        found = open_judge(native, protocol, [batch]).metrics(ends)
        for row, ids in zip(found, (batch.clean, batch.counterfactual), strict=True):
            wanted = logit_difference(native.anatomy.model(ids, return_type="logits")[:, -1], batch)
            np.testing.assert_allclose(row, wanted.numpy(), rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    "protocol", PROTOCOLS, ids=lambda p: f"{p.kind}-{p.direction}-{p.source.name}-{p.positions}"
)
def test_nodes_are_all_the_edges_that_leave_them(native: Wiring, protocol: Protocol) -> None:
    judge = open_judge(native, protocol, [random_batch(), random_batch(n_pos=7, seed=3)])
    nodes = masks_of(native)
    edges = nodes[:, :, None] & native.allowed
    np.testing.assert_allclose(judge.metrics(nodes), judge.metrics(edges), rtol=0, atol=1e-9)


@pytest.mark.parametrize("architecture", ["neox", "qwen3", "gemma2"])
def test_the_two_agree_on_other_architectures(architecture: str, tmp_path: Path) -> None:
    wiring = Wiring(open_anatomy(architecture_model(tmp_path, architecture)))
    judge = open_judge(wiring, POSITION_MEAN, [random_batch(60)])
    nodes = masks_of(wiring, 3)
    found, wanted = judge.metrics(nodes), judge.metrics(nodes[:, :, None] & wiring.allowed)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-4 * np.abs(wanted).max())


def test_a_position_that_is_not_replaced_stays_live(native: Wiring) -> None:
    """Replacing at all positions but those where the prompts differ changes nothing."""
    batch = random_batch()
    batch.counterfactual[:] = batch.clean
    batch.counterfactual[:, 2] = (batch.clean[:, 2] + 1) % 13
    nothing = torch.zeros(1, native.n_writers, dtype=torch.bool)

    def lost(positions: tuple[int, ...]) -> float:
        judge: Judge = open_judge(native, Protocol(kind="resample", positions=positions), [batch])
        metrics = judge.metrics(torch.cat([nothing, ~nothing]))
        return float(np.abs(metrics[0] - metrics[1]).max())

    assert lost((0, 1)) < 1e-9 < 1e-4 < lost((2,))


def test_masks_of_another_model_are_refused(native: Wiring) -> None:
    judge = open_judge(native, RESAMPLE, [random_batch()])
    with pytest.raises(UserError, match=r"masks of shape \(1, 3\) are no circuits of this model"):
        judge.metrics(torch.ones(1, 3, dtype=torch.bool))
    with pytest.raises(UserError, match="batches is empty"):
        open_judge(native, RESAMPLE, [])
