"""Operations of every layout, values and gradients, against dense float64 matrices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.dictionaries.layouts.conftest import D_SAE, LAYOUTS, rows_for, sample
from workbench.dictionaries import Trainee
from workbench.dictionaries.layouts import CrossLayer, Layout
from workbench.kernels import batch_topk_encode, group_max_encode, threshold_encode, topk_encode

RELATIVE = 1e-5
PREFIXES = (6, 12, D_SAE)
KERNELS: dict[str, tuple[Any, dict[str, Any]]] = {
    "topk": (topk_encode, {"k": 4}),
    "batch_topk": (batch_topk_encode, {"k": 2.5}),
    "group_max": (group_max_encode, {"k": 4}),
    "threshold": (threshold_encode, {}),
    "among": (topk_encode, {"k": 4, "among": torch.tensor([1, 2, 5, 11, 13, 20, 23])}),
}


def matrices(layout: Layout, p: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Dense encoder and decoder: with a layout of layers, blocks of zeros where nothing is read or written."""
    if not isinstance(layout, CrossLayer):
        return p["W_enc"], p["W_dec"]
    encoders = [p[f"W_enc.{layer}"] for layer in range(layout.n_layers)]
    rows = [
        torch.nn.functional.pad(p[f"W_dec.{layer}"], (first, 0))
        for layer, first in zip(range(layout.n_layers), layout.first_columns(layout.sites_out), strict=False)
    ]
    return torch.block_diag(*encoders), torch.cat(rows)


def pre_activations(layout: Layout, p: dict[str, Tensor], x: Tensor) -> Tensor:
    W_enc, _ = matrices(layout, p)
    return (x - p["b_dec"] if layout.centred else x) @ W_enc + p["b_enc"]


def kept(layout: Layout, name: str, a: Tensor, options: dict[str, Any]) -> Tensor:
    """Which entries the rule keeps, by its definition."""
    n_groups = layout.n_layers if isinstance(layout, CrossLayer) else 1
    mask = torch.zeros_like(a, dtype=torch.bool)
    if name == "threshold":
        return a > options["per_latent"]["threshold"]
    if name == "batch_topk":
        n = round(len(a) * options["k"])
        mask.view(-1)[a.flatten().topk(n).indices] = True
        return mask & (a > 0)
    if name == "group_max":
        grouped = a.unflatten(1, (options["k"], -1))
        return (grouped == grouped.amax(2, keepdim=True)).flatten(1) & (a > 0)
    allowed = torch.full_like(a, -torch.inf)
    columns = options.get("among", torch.arange(a.shape[1]))
    allowed[:, columns] = a[:, columns]
    for part, chosen in zip(allowed.chunk(n_groups, 1), mask.chunk(n_groups, 1), strict=True):
        n = min(-(-options["k"] // n_groups), int(part[0].isfinite().sum()))
        chosen.scatter_(1, part.topk(n).indices, True)
    return mask & (a > 0)


def first_latents(layout: Layout, prefix: int) -> Tensor:
    """The latents of a prefix: the same share of every layer's."""
    n = layout.n_layers if isinstance(layout, CrossLayer) else 1
    return (torch.arange(D_SAE // n) < prefix // n).repeat(n)


def dense(indices: Tensor, values: Tensor) -> Tensor:
    """A code as a matrix."""
    return torch.zeros(len(indices), D_SAE, dtype=values.dtype).scatter_add_(1, indices, values)


def relative(got: Tensor | None, wanted: Tensor) -> float:
    found = torch.zeros_like(wanted) if got is None else got.double()
    return float((found - wanted).norm() / wanted.norm().clamp_min(1e-12))


def leaves(trainee: Trainee) -> dict[str, Tensor]:
    return {name: t.detach().double().requires_grad_() for name, t in trainee.parameters.items()}


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_codes_errors_of_prefixes_and_gradients(make: Callable[..., Trainee], layout: str, name: str) -> None:
    trainee, (x, y) = make(layout), sample(50, seed=4)
    x, y = rows_for(layout, x, y)
    x = trainee.inputs.apply(x)
    y = x if y is None else trainee.outputs.apply(y)
    kernel: Any
    options: Any
    kernel, options = KERNELS[name]
    if name == "threshold":
        options = {"per_latent": {"threshold": torch.linspace(-0.2, 0.8, D_SAE)}}
    p, made = trainee.parameters, trainee.layout
    code = made.encode(kernel, p, x, **options)
    errors, y_hat = made.squared_errors(p, code, x, y, PREFIXES)
    upstream = torch.tensor([0.3, -1.7, 0.9])
    own = torch.linspace(-1, 2, D_SAE)
    loss = (upstream * errors).sum() + (code[1] * own[code[0]]).sum() + (made.latent_norms(p) * own).sum()

    q = leaves(trainee)
    exact = dense_loss(made, q, x.double(), y.double(), name, options, upstream, own)
    assert relative(dense(*code).detach(), exact[1]) < RELATIVE
    assert relative(y_hat, exact[2]) < RELATIVE
    got = torch.autograd.grad(loss, list(p.values()), allow_unused=True)
    wanted = torch.autograd.grad(exact[0], list(q.values()))
    differences = {n: relative(g, w) for n, g, w in zip(q, got, wanted, strict=True)}
    assert max(differences.values()) < RELATIVE, differences


def dense_loss(
    layout: Layout,
    q: dict[str, Tensor],
    x: Tensor,
    y: Tensor,
    name: str,
    options: Any,
    upstream: Tensor,
    own: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """The same loss with matrices; with it the code and the reconstruction."""
    a = pre_activations(layout, q, x)
    z = a * kept(layout, name, a.detach(), options)
    W_dec, total = matrices(layout, q)[1], x.new_zeros(())
    offset = q["b_dec"] + (x @ q["W_skip"].T if "W_skip" in q else 0)
    y_hat = y
    for weight, prefix in zip(upstream.double(), PREFIXES, strict=True):
        y_hat = (z * first_latents(layout, prefix)) @ W_dec + offset
        total = total + weight * (y - y_hat).square().sum()
    norms = layout.latent_norms(q)
    return total + (z * own).sum() + (norms * own).sum(), z.detach(), y_hat.detach()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_unit_rows_and_tangent_gradients(make: Callable[..., Trainee], layout: str) -> None:
    trainee = make(layout)
    for name in trainee.layout.decoders:
        rows = trainee.parameters[name]
        assert torch.allclose(rows.detach().norm(dim=1), torch.ones(len(rows)), atol=1e-6)
        rows.grad = torch.randn_like(rows)
        assert float((rows.grad * rows.detach()).sum(1).abs().max()) > 0.1
    trainee.constrain_gradients()
    for name in trainee.layout.decoders:
        rows = trainee.parameters[name]
        assert rows.grad is not None
        assert float((rows.grad * rows.detach()).sum(1).abs().max()) < 1e-6
