"""Decode and loss, with one and several prefixes, against the dense definition in float64."""

from __future__ import annotations

import pytest
import torch

from workbench.kernels import decode_loss, sparse_decode
from workbench.kernels.decode_loss import reference


def run(function, indices, leaves, target, upstream, dtype, prefixes):
    leaves = [t.to(dtype).requires_grad_() for t in leaves]
    losses, x_hat = function(indices, *leaves, target.to(dtype), prefixes)
    grads = torch.autograd.grad(losses, leaves, upstream.to(dtype))
    return (losses.detach(), x_hat.detach(), *grads)


def ours(indices, values, W_dec, b_dec, target, prefixes):
    return decode_loss(indices, values, W_dec, b_dec, target, prefixes=prefixes)


def definition(*arguments):
    return reference.decode_loss(*arguments)[:2]


def inputs(n_rows, width, d, d_sae, active=0.8):
    values = torch.randn(n_rows, width).where(torch.rand(n_rows, width) < active, 0)
    leaves = values, torch.randn(d_sae, d), torch.randn(d)
    return torch.randint(d_sae, (n_rows, width)), leaves, torch.randn(n_rows, d)


SIZES = [(64, 8, 16, 100), (5, 3, 7, 11), (1, 1, 1, 4), (300, 32, 48, 640), (20, 60, 9, 64)]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("n_prefixes", [1, 3])
def test_losses_reconstruction_and_gradients(size, n_prefixes, assert_within_rounding):
    indices, leaves, target = inputs(*size)
    d_sae = size[3]
    prefixes = [d_sae] if n_prefixes == 1 else [max(1, d_sae // 7), d_sae // 2, d_sae]
    given = indices, leaves, target, torch.randn(n_prefixes)
    exact = run(definition, *given, torch.float64, prefixes)
    plain = run(definition, *given, torch.float32, prefixes)
    found = run(ours, *given, torch.float32, prefixes)
    for a, b, c in zip(found, plain, exact, strict=True):
        assert_within_rounding(a, b, c)
    for a, c in zip(run(ours, *given, torch.float64, prefixes), exact, strict=True):
        assert torch.allclose(a, c, rtol=1e-11, atol=1e-11)


def test_losses_are_those_of_separate_decodes():
    indices, (values, W_dec, b_dec), target = inputs(40, 6, 10, 50)
    losses, x_hat = decode_loss(indices, values, W_dec, b_dec, target, prefixes=(20, 50))
    for loss, prefix in zip(losses, (20, 50), strict=True):
        part = sparse_decode(indices, values.where(indices < prefix, 0), W_dec) + b_dec
        assert torch.allclose(loss, (part - target).square().sum(), rtol=1e-5)
    assert torch.allclose(x_hat, part, rtol=1e-5, atol=1e-5)
    assert not x_hat.requires_grad


def test_gradients_only_where_asked():
    indices, (values, W_dec, b_dec), target = inputs(9, 3, 4, 20)
    for leaf in (values, W_dec, b_dec):
        leaf.requires_grad_()
        decode_loss(indices, values, W_dec, b_dec, target)[0].sum().backward()
        assert leaf.grad is not None
        leaf.requires_grad_(False)


def test_repeated_strided_and_threaded_runs_are_bit_equal(two_threads):
    indices, (values, W_dec, b_dec), target = inputs(700, 8, 32, 900)
    given = indices, (values, W_dec, b_dec), target, torch.randn(2)
    strided = (
        indices.T.contiguous().T,
        (values.T.contiguous().T, W_dec.T.contiguous().T, b_dec),
        target.T.contiguous().T,
        given[3],
    )
    first = run(ours, *given, torch.float32, [100, 900])
    with two_threads():
        threaded = run(ours, *given, torch.float32, [100, 900])
    for other in (threaded, run(ours, *strided, torch.float32, [100, 900])):
        assert all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_empty_batch():
    indices, (values, W_dec, b_dec), target = inputs(0, 3, 4, 6)
    W_dec.requires_grad_()
    losses, x_hat = decode_loss(indices, values, W_dec, b_dec, target, prefixes=(2, 6))
    losses.sum().backward()
    assert losses.tolist() == [0, 0]
    assert x_hat.shape == (0, 4)
    assert W_dec.grad is not None
    assert torch.equal(W_dec.grad, torch.zeros(6, 4))


@pytest.mark.parametrize("prefixes", [(), (3, 3, 6), (6, 3), (0, 6), (3, 5), (3, 7)])
def test_prefixes_that_do_not_ascend_to_d_sae_are_refused(prefixes):
    indices, leaves, target = inputs(2, 3, 4, 6)
    with pytest.raises(ValueError, match=r"prefixes \[.*\] are not ascending from at least 1 to d_sae 6"):
        decode_loss(indices, *leaves, target, prefixes=prefixes)
