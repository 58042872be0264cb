"""Norms read from modules: the right kind is found, and the hand-written Jacobians are those of autograd."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from workbench.anatomy.norm import Norm, read_norm
from workbench.errors import UserError

D = 12


class Shifted(nn.RMSNorm):
    """Gemma's norm: the stored weight is one less than the factor."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rms = (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()
        return x / rms * (1 + self.weight)


def random_norm(seed: int, *, centred: bool) -> Norm:
    generator = torch.Generator().manual_seed(seed)
    weight, bias = (torch.randn(D, generator=generator, dtype=torch.float64) for _ in range(2))
    return Norm(centred, weight, bias if centred else None, eps=1e-3)


def filled(module: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(1)
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    return module


@pytest.mark.parametrize(
    ("module", "centred"),
    [
        (nn.LayerNorm(D), True),
        (nn.LayerNorm(D, bias=False), True),
        (nn.LayerNorm(D, elementwise_affine=False), True),
        (nn.RMSNorm(D, eps=1e-6), False),
        (Shifted(D, eps=1e-6), False),
    ],
)
def test_the_kind_of_a_norm_is_found(module: nn.Module, centred: bool) -> None:
    found = read_norm(filled(module), D, "ln1")
    assert found.centred == centred
    x = 3 * torch.randn(4, 5, D) + 1
    torch.testing.assert_close(found(x), module(x), rtol=1e-5, atol=1e-5)


def test_no_norm_is_the_identity() -> None:
    x = torch.randn(2, D)
    found = read_norm(nn.Identity(), D, "ln1")
    assert found.identity
    assert torch.equal(found(x), x)
    assert torch.equal(found.pull_live(x, x), x)


def test_another_function_is_refused() -> None:
    with pytest.raises(
        UserError, match="ln1 of block 0 is a Softmax that is neither a layer norm nor an RMS"
    ):
        read_norm(nn.Softmax(-1), D, "ln1 of block 0")


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999), centred=st.booleans())
def test_jacobians_are_those_of_autograd(seed: int, centred: bool) -> None:
    norm = random_norm(seed, centred=centred)
    generator = torch.Generator().manual_seed(seed + 1)
    x, v, g = (torch.randn(3, D, generator=generator, dtype=torch.float64) for _ in range(3))
    frozen = norm.scale(x)
    for function, pull, push in (
        (norm, norm.pull_live(g, x), norm.push_live(v, x)),
        (lambda y: norm(y, frozen), norm.pull(g, frozen), norm.push(v, frozen)),
    ):
        _, wanted_push = torch.autograd.functional.jvp(function, x, v)
        _, wanted_pull = torch.autograd.functional.vjp(function, x, g)
        torch.testing.assert_close(push, wanted_push, rtol=0, atol=1e-10)
        torch.testing.assert_close(pull, wanted_pull, rtol=0, atol=1e-10)


def test_a_frozen_scale_is_used() -> None:
    norm, x = random_norm(0, centred=False), torch.randn(3, D, dtype=torch.float64)
    torch.testing.assert_close(norm(2 * x, norm.scale(x)), 2 * norm(x), rtol=0, atol=1e-12)
    assert not torch.allclose(norm(2 * x), 2 * norm(x))
