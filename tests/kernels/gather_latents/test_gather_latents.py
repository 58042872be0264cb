"""Per-entry copies of a per-latent parameter, and the deterministic sum behind them."""

from __future__ import annotations

import torch

from workbench.kernels import gather_latents
from workbench.kernels.gather_latents import reference


def gradient(function, parameter, indices, upstream):
    leaf = parameter.clone().requires_grad_()
    out = function(leaf, indices)
    return out.detach(), torch.autograd.grad(out, leaf, upstream)[0]


def test_values_and_gradient(assert_within_rounding):
    parameter, indices, upstream = torch.randn(40), torch.randint(40, (30, 7)), torch.randn(30, 7)
    ours = gradient(gather_latents, parameter, indices, upstream)
    plain = gradient(reference.gather_latents, parameter, indices, upstream)
    exact = gradient(reference.gather_latents, parameter.double(), indices, upstream.double())
    assert torch.equal(ours[0], plain[0])
    assert_within_rounding(ours[1], plain[1], exact[1])


def test_latents_without_entries_get_zero():
    _, grad = gradient(gather_latents, torch.randn(3), torch.tensor([[1, 1]]), torch.tensor([[2.0, 3.0]]))
    assert grad.tolist() == [0.0, 5.0, 0.0]
