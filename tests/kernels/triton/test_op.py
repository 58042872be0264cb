"""The public operations on the Triton backend: outputs and every gradient against the definition in float64."""

from __future__ import annotations

import pytest
import torch

from workbench.kernels import (
    batch_topk_encode,
    decode_loss,
    gather_latents,
    group_max_encode,
    sparse_decode,
    threshold_encode,
    topk_encode,
    triton_dense,
)
from workbench.kernels.backend import using
from workbench.kernels.decode_loss import reference as loss_reference
from workbench.kernels.encode import reference as encode_reference
from workbench.kernels.sparse_decode import reference as decode_reference

N, D, F = 8, 10, 36
ENCODERS = {
    "topk": (topk_encode, encode_reference.topk_encode, {"k": 5}),
    "topk among some": (topk_encode, encode_reference.topk_encode, {"k": 5, "among": torch.arange(0, F, 3)}),
    "batch topk": (batch_topk_encode, encode_reference.batch_topk_encode, {"k": 3.5}),
    "threshold": (
        threshold_encode,
        encode_reference.threshold_encode,
        {"threshold": torch.linspace(0, 4, F)},
    ),
    "group max": (group_max_encode, encode_reference.group_max_encode, {"k": 2}),
}


@pytest.fixture(autouse=True)
def never_full(monkeypatch):
    """Codes of a few latents are full by any share: keep them with the kernels."""
    monkeypatch.setattr(triton_dense, "WIDE_FRAC", 1.0)


def gradients(function, given, dtype, **options):
    """The result (indices or None, then the differentiable output) and the gradients of a random projection."""
    options = {
        n: v.to(dtype) if torch.is_tensor(v) and v.is_floating_point() else v for n, v in options.items()
    }
    leaves = [t.detach().to(dtype).requires_grad_() for t in given]
    result = function(*leaves, **options)
    indices, out = result if isinstance(result, tuple) else (None, result)
    upstream = torch.randn(out.shape, generator=torch.Generator().manual_seed(3)).to(out)
    return indices, (out.detach(), *torch.autograd.grad(out, leaves, upstream))


def check(assert_within_rounding, ours, definition, given, **options):
    exact_indices, exact = gradients(definition, given, torch.float64, **options)
    _, plain = gradients(definition, given, torch.float32, **options)
    indices, results = gradients(ours, given, torch.float32, **options)
    assert exact_indices is None or torch.equal(indices, exact_indices)
    for a, b, c in zip(results, plain, exact, strict=True):
        assert_within_rounding(a, b, c)


@pytest.mark.parametrize("name", ENCODERS)
def test_encoders(name, normal, device, assert_within_rounding):
    ours, definition, options = ENCODERS[name]
    options = {n: v.to(device) if torch.is_tensor(v) else v for n, v in options.items()}
    given = normal(N, D), normal(D, F), normal(F), normal(D)
    check(assert_within_rounding, ours, definition, given, **options)


def test_sparse_decode(normal, latents, assert_within_rounding):
    indices, given = latents(N, 4, F), (normal(N, 4), normal(F, D))
    ours, definition = (
        (lambda *g, f=f: f(indices, *g)) for f in (sparse_decode, decode_reference.sparse_decode)
    )
    check(assert_within_rounding, ours, definition, given)


@pytest.mark.parametrize("prefixes", [(F,), (4, 20, F)])
def test_decode_loss(prefixes, normal, latents, assert_within_rounding):
    indices, target, given = latents(N, 4, F), normal(N, D), (normal(N, 4), normal(F, D), normal(D))

    def ours(*leaves):
        return decode_loss(indices, *leaves, target.to(leaves[0]), prefixes=prefixes)[0]

    def definition(*leaves):
        return loss_reference.decode_loss(indices, *leaves, target.to(leaves[0]), prefixes)[0]

    check(assert_within_rounding, ours, definition, given)


def test_gather_latents(normal, latents, assert_within_rounding):
    indices, given = latents(N, 4, F), (normal(F),)
    check(assert_within_rounding, lambda p: gather_latents(p, indices), lambda p: p[indices], given)


def test_the_forced_backend_is_the_one_that_ran(normal, monkeypatch):
    from workbench.kernels.encode import triton

    calls = []
    monkeypatch.setattr(
        triton, "select_topk", lambda *given: calls.append(given) or encode_reference.select_topk(*given)
    )
    given = normal(2, D), normal(D, F), normal(F), normal(D)
    topk_encode(*given, k=2)
    with using("reference"):
        topk_encode(*given, k=2)
    assert len(calls) == 1
