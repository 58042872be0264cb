"""Sparse decode and both its gradients against the dense definition in float64."""

from __future__ import annotations

import pytest
import torch

from workbench.kernels import dense, sparse_decode
from workbench.kernels.sparse_decode import cpu, reference


def run(function, indices, values, W_dec, upstream, dtype):
    values, W_dec = (t.to(dtype).requires_grad_() for t in (values, W_dec))
    out = function(indices, values, W_dec)
    return (out.detach(), *torch.autograd.grad(out, (values, W_dec), upstream.to(dtype)))


@pytest.mark.parametrize(
    ("n_rows", "k", "d", "d_sae"), [(64, 8, 16, 100), (5, 3, 7, 11), (1, 1, 1, 1), (300, 32, 48, 64)]
)
def test_value_and_gradients(n_rows, k, d, d_sae, assert_within_rounding):
    indices = torch.stack([torch.randperm(d_sae)[:k] for _ in range(n_rows)])
    inputs = indices, torch.randn(n_rows, k), torch.randn(d_sae, d), torch.randn(n_rows, d)
    exact = run(reference.sparse_decode, *inputs, torch.float64)
    plain = run(reference.sparse_decode, *inputs, torch.float32)
    for ours, a, b in zip(run(sparse_decode, *inputs, torch.float32), plain, exact, strict=True):
        assert_within_rounding(ours, a, b)
    for ours, b in zip(run(sparse_decode, *inputs, torch.float64), exact, strict=True):
        assert torch.allclose(ours, b, rtol=1e-12, atol=1e-12)


def test_repeated_latent_adds_its_values():
    out = sparse_decode(torch.tensor([[1, 1]]), torch.tensor([[2.0, 3.0]]), torch.eye(2))
    assert torch.equal(out, torch.tensor([[0.0, 5.0]]))


def test_gradient_only_where_asked():
    indices, values = torch.tensor([[0, 1]]), torch.tensor([[1.0, 2.0]], requires_grad=True)
    W_dec = torch.randn(3, 4)
    sparse_decode(indices, values, W_dec).sum().backward()
    assert values.grad is not None
    assert torch.allclose(values.grad, W_dec[:2].sum(1)[None])


@pytest.mark.parametrize("active", [0.0, 0.05, 0.5, 1.0])
def test_sparse_and_dense_codes_with_zeros_and_repeats(active, assert_within_rounding):
    """Below and above the share at which a matrix product takes over."""
    indices, values = torch.randint(40, (30, 24)), torch.randn(30, 24)
    values = values.where(torch.rand(30, 24) < active, 0)
    inputs = indices, values, torch.randn(40, 13), torch.randn(30, 13)
    exact = run(reference.sparse_decode, *inputs, torch.float64)
    plain = run(reference.sparse_decode, *inputs, torch.float32)
    for ours, a, b in zip(run(sparse_decode, *inputs, torch.float32), plain, exact, strict=True):
        assert_within_rounding(ours, a, b)


def test_a_dense_code_takes_the_matrix_product(monkeypatch):
    calls = []
    for name in ("decode", "value_gradients", "latent_sum"):
        function = getattr(dense, name)
        monkeypatch.setattr(dense, name, lambda *a, f=function, n=name: (calls.append(n), f(*a))[1])
    W_dec = torch.randn(16, 3).requires_grad_()
    for width, expected in ((1, []), (12, ["decode", "value_gradients", "latent_sum"])):
        values = torch.ones(5, width).requires_grad_()
        sparse_decode(torch.arange(width).expand(5, width), values, W_dec).sum().backward()
        assert calls == expected


def test_zero_values_get_no_gradient_even_with_infinite_rows():
    values = torch.tensor([[0.0, 2.0]], requires_grad=True)
    W_dec = torch.cat([torch.tensor([[torch.inf, torch.nan], [1.0, 2.0]]), torch.zeros(18, 2)])
    out = sparse_decode(torch.tensor([[0, 1]]), values, W_dec)
    out.sum().backward()
    assert out.tolist() == [[2.0, 4.0]]
    assert values.grad is not None
    assert values.grad.tolist() == [[0.0, 3.0]]


def test_value_gradients_of_the_two_backends_agree():
    indices, grad, W_dec = torch.randint(9, (6, 2)), torch.randn(6, 5).double(), torch.randn(19, 5).double()
    ours = cpu.value_gradients(indices, grad, W_dec)
    assert torch.allclose(ours, reference.value_gradients(indices, grad, W_dec), rtol=1e-12)


def test_repeated_strided_and_threaded_runs_are_bit_equal(two_threads):
    indices, values = torch.randint(900, (8, 700)).T, torch.randn(8, 700).T
    W_dec, upstream = torch.randn(32, 900).T, torch.randn(700, 32)
    strided = run(sparse_decode, indices, values, W_dec, upstream, torch.float32)
    plain = indices.contiguous(), values.contiguous(), W_dec.contiguous(), upstream
    with two_threads():
        threaded = run(sparse_decode, *plain, torch.float32)
    for other in (threaded, run(sparse_decode, *plain, torch.float32)):
        assert all(torch.equal(a, b) for a, b in zip(strided, other, strict=True))


def test_empty_batch():
    values, W_dec = torch.empty(0, 3, requires_grad=True), torch.randn(5, 4, requires_grad=True)
    out = sparse_decode(torch.empty(0, 3, dtype=torch.int64), values, W_dec)
    out.sum().backward()
    assert out.shape == (0, 4)
    assert W_dec.grad is not None
    assert torch.equal(W_dec.grad, torch.zeros(5, 4))


@pytest.mark.parametrize("wrong", [-1, 3])
def test_an_index_that_is_no_latent_is_refused(wrong):
    with pytest.raises(ValueError, match=r"indices run from .*, latents from 0 to 2"):
        sparse_decode(torch.tensor([[0, wrong]]), torch.ones(1, 2), torch.randn(3, 4))
