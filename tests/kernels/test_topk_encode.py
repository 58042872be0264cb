"""Encode-and-select: indices exactly, values and all four gradients against the definition in float64."""

from __future__ import annotations

import pytest
import torch

from workbench.kernels import topk_encode
from workbench.kernels.topk_encode import cpu, reference


def random_inputs(n_rows, d_in, d_sae):
    return torch.randn(n_rows, d_in), torch.randn(d_in, d_sae), torch.randn(d_sae), torch.randn(d_in)


def run(function, inputs, upstream, dtype, **options):
    leaves = [t.to(dtype).requires_grad_() for t in inputs]
    indices, values = function(*leaves, **options)
    return indices, (values.detach(), *torch.autograd.grad(values, leaves, upstream.to(dtype)))


@pytest.mark.parametrize(
    ("n_rows", "d_in", "d_sae", "k"), [(64, 16, 100, 8), (5, 7, 11, 11), (1, 1, 1, 1), (700, 24, 4096, 32)]
)
@pytest.mark.parametrize("chosen", [False, True])
def test_indices_values_and_gradients(n_rows, d_in, d_sae, k, chosen, assert_within_rounding):
    inputs, upstream = random_inputs(n_rows, d_in, d_sae), torch.randn(n_rows, k)
    among = torch.randperm(d_sae)[: max(k, d_sae // 2)].sort().values if chosen else None
    exact_indices, exact = run(reference.topk_encode, inputs, upstream, torch.float64, k=k, among=among)
    _, plain = run(reference.topk_encode, inputs, upstream, torch.float32, k=k, among=among)
    indices, ours = run(topk_encode, inputs, upstream, torch.float32, k=k, among=among)
    assert torch.equal(indices, exact_indices)
    for name, a, b, c in zip(("values", "x", "W_enc", "b_enc", "b_pre"), ours, plain, exact, strict=True):
        assert_within_rounding(a, b, c), name
    _, double = run(topk_encode, inputs, upstream, torch.float64, k=k, among=among)
    assert all(torch.allclose(a, b, rtol=1e-9, atol=1e-9) for a, b in zip(double, exact, strict=True))


def test_lower_index_wins_a_tie_inside_and_at_the_edge():
    pre = torch.tensor(
        [[1.0, 3.0, 3.0, 2.0, 2.0, 2.0], [0.0, 0.0, 0.0, 0.0, 0.0, 0.0], [6.0, 5.0, 4.0, 3.0, 2.0, 1.0]]
    )
    indices, values = cpu.select(pre, 4)
    assert indices.tolist() == [[1, 2, 3, 4], [0, 1, 2, 3], [0, 1, 2, 3]]
    assert values.tolist() == [[3.0, 3.0, 2.0, 2.0], [0.0] * 4, [6.0, 5.0, 4.0, 3.0]]


def test_ties_among_many_latents_follow_the_definition():
    x = torch.randint(-2, 3, (200, 3)).float()
    W_enc, zeros = torch.randint(-1, 2, (3, 300)).float(), (torch.zeros(300), torch.zeros(3))
    ours, definition = topk_encode(x, W_enc, *zeros, k=20), reference.topk_encode(x, W_enc, *zeros, k=20)
    assert torch.equal(ours[0], definition[0])
    assert torch.equal(ours[1], definition[1])
    assert not torch.equal(ours[0], (x @ W_enc).topk(20).indices), (
        "the example has no tie that torch breaks otherwise"
    )


def test_tiles_do_not_change_the_result(monkeypatch):
    inputs = random_inputs(130, 8, 64)
    whole = topk_encode(*inputs, k=5)
    monkeypatch.setattr(cpu, "TILE_ELEMENTS", 64 * 17)
    tiled = topk_encode(*inputs, k=5)
    assert torch.equal(whole[0], tiled[0])
    assert torch.allclose(whole[1], tiled[1], rtol=1e-5)


def test_negative_selected_entries_are_zero_and_pass_no_gradient():
    x, W_enc = torch.ones(1, 1), torch.tensor([[2.0, -1.0]], requires_grad=True)
    indices, values = topk_encode(x, W_enc, torch.zeros(2), torch.zeros(1), k=2)
    values.sum().backward()
    assert indices.tolist() == [[0, 1]]
    assert values.tolist() == [[2.0, 0.0]]
    assert W_enc.grad is not None
    assert W_enc.grad.tolist() == [[1.0, 0.0]]


@pytest.mark.parametrize("k", [0, 5])
def test_k_out_of_range_is_refused(k):
    with pytest.raises(ValueError, match=f"k {k} is not between 1 and the 4 latents"):
        topk_encode(*random_inputs(2, 3, 4), k=k)


def test_empty_batch():
    indices, values = topk_encode(*random_inputs(0, 3, 4), k=2)
    assert indices.shape == values.shape == (0, 2)
