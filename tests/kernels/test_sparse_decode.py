"""Sparse decode and both its gradients against the dense definition in float64."""

from __future__ import annotations

import pytest
import torch

from workbench.kernels import sparse_decode
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


def test_value_gradients_of_the_two_backends_agree():
    indices, grad, W_dec = torch.randint(9, (6, 4)), torch.randn(6, 5).double(), torch.randn(9, 5).double()
    ours = cpu.value_gradients(indices, grad, W_dec)
    assert torch.allclose(ours, reference.value_gradients(indices, grad, W_dec), rtol=1e-12)


def test_non_contiguous_inputs_are_bit_equal_to_contiguous_ones():
    indices, values, W_dec = torch.randint(9, (4, 6)).T, torch.randn(4, 6).T, torch.randn(5, 9).T
    strided = sparse_decode(indices, values, W_dec)
    assert torch.equal(strided, sparse_decode(indices.contiguous(), values.contiguous(), W_dec.contiguous()))
