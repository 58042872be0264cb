"""At the sizes of use, which only a GPU can do in a test's time: selection, losses and gradients at d_sae 65,536."""

from __future__ import annotations

import pytest
import torch

from workbench.kernels import decode_loss, topk_encode
from workbench.kernels.backend import using
from workbench.kernels.encode import reference, triton

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
N, D, F, K = 2048, 768, 65_536, 64


@pytest.fixture
def weights():
    generator = torch.Generator("cuda").manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, device="cuda", generator=generator)

    return normal(N, D), normal(F, D) / D**0.5, normal(F) / 10


@pytest.mark.parametrize("k", [1, 32, 64, 128])
def test_topk_selects_as_float64_does_wherever_float32_can_tell(k, weights):
    indices, values = triton.select_topk(*weights, k)
    for start in range(0, N, 256):
        part = slice(start, start + 256)
        exact = weights[0][part].double() @ weights[1].double().T + weights[2]
        best = exact.topk(k + 1, dim=1)
        clear = (best.values[:, :-1] - best.values[:, 1:]).amin(1) > 1e-5
        assert clear.float().mean() > 0.5
        assert torch.equal(indices[part][clear], best.indices[clear][:, :k])
        assert torch.allclose(values[part].double(), best.values[:, :k], atol=1e-5)


def test_nearly_every_row_is_proven(weights, monkeypatch):
    failed = []
    original = triton.triton_steps.repeat_failed
    monkeypatch.setattr(
        triton.triton_steps, "repeat_failed", lambda *given: (failed.append(given[2]), original(*given))[1]
    )
    triton.select_topk(*weights, K)
    assert failed[0].float().mean() < 0.05


def test_rows_that_are_not_proven_agree_with_those_that_are(weights, monkeypatch):
    usual = triton.select_topk(*weights, K)
    monkeypatch.setattr(triton, "LISTED_PER_CANDIDATE", 1)  # every list is too short
    repeated = triton.select_topk(*weights, K)
    assert (usual[0] == repeated[0]).float().mean() > 0.9999
    assert torch.allclose(usual[1], repeated[1], atol=1e-5)


@pytest.mark.parametrize("name", ["select_batch_topk", "select_above", "select_group_max"])
def test_the_other_rules_agree_with_the_definition(name, weights):
    x, rows, bias = weights[0][:512], weights[1], weights[2]
    more = {
        "select_batch_topk": 512 * K,
        "select_above": torch.full((F,), 2.8, device="cuda"),
        "select_group_max": K,
    }
    ours = getattr(triton, name)(x, rows, bias, more[name])
    exact = getattr(reference, name)(x, rows, bias, more[name])
    width = min(ours[0].shape[1], exact[0].shape[1])
    same = (ours[0][:, :width] == exact[0][:, :width]).float().mean()
    assert same > 0.99, "more than entries at the edge of float32 differ"


def test_step_gradients_agree_with_the_definition_and_repeat_bit_for_bit(weights):
    x, rows, bias = weights
    leaves = [
        t.requires_grad_() for t in (rows.T, bias, torch.zeros(D, device="cuda"), rows.detach().clone())
    ]

    def gradients():
        indices, values = topk_encode(x, *leaves[:3], k=K)
        losses, _ = decode_loss(indices, values, leaves[3], leaves[2], x, prefixes=(F // 4, F))
        return torch.autograd.grad(losses.sum(), leaves)

    ours, again = gradients(), gradients()
    assert all(torch.equal(a, b) for a, b in zip(ours, again, strict=True))
    with using("reference"):
        expected = gradients()
    for a, b in zip(ours, expected, strict=True):
        assert float((a - b).norm() / b.norm()) < 1e-3


def test_selection_and_sums_do_not_wait_for_the_host(weights):
    x, rows, bias = weights
    triton.select_topk(x, rows, bias, K)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        triton.select_topk(x, rows, bias, K)
    finally:
        torch.cuda.set_sync_debug_mode("default")
