"""The slow way: TransformerLens hooks, one forward pass a cell, all positions and all logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from workbench.anatomy import Anatomy
from workbench.circuits.metric import logit_difference
from workbench.tasks import Batch

HOOKS = {
    "resid_pre": "hook_resid_pre",
    "resid_mid": "hook_attn_out",
    "resid_post": "hook_resid_post",
    "attn_out": "hook_attn_out",
    "mlp_out": "hook_mlp_out",
    "head": "attn.hook_z",
    "neuron": "mlp.hook_post",
}
Replace = Callable[[Tensor], Tensor]


@torch.no_grad()
def values_of(anatomy: Anatomy, ids: Tensor, names: list[str]) -> dict[str, Tensor]:
    """Values at TransformerLens names."""
    seen: dict[str, Tensor] = {}

    def keeper(name: str) -> Callable[..., None]:
        def keep(value: Tensor, hook: Any) -> None:
            seen[name] = value.clone()

        return keep

    with anatomy.model.hooks(fwd_hooks=[(name, keeper(name)) for name in names]):
        anatomy.model(ids)
    return seen


@torch.no_grad()
def metric_with(anatomy: Anatomy, ids: Tensor, batch: Batch, edits: dict[str, Replace]) -> Tensor:
    """m of the whole model with values replaced by hooks."""

    def hook_of(edit: Replace) -> Callable[..., Tensor]:
        return lambda value, hook: edit(value.clone())

    with anatomy.model.hooks(fwd_hooks=[(name, hook_of(edit)) for name, edit in edits.items()]):
        logits = anatomy.model(ids, return_type="logits")
    return logit_difference(logits[:, -1], batch)


class Slow:
    """The cells of one kind and layer, one patched forward pass of the whole model each."""

    def __init__(self, anatomy: Anatomy, batch: Batch, kind: str, layer: int, direction: str) -> None:
        self.anatomy, self.batch, self.kind = anatomy, batch, kind
        pair = (batch.clean, batch.counterfactual)
        self.ids, other_ids = pair if direction == "noising" else pair[::-1]
        self.sign = -1 if direction == "noising" else 1
        self.hook, before = f"blocks.{layer}.{HOOKS[kind]}", f"blocks.{layer}.hook_resid_pre"
        base, other = (values_of(anatomy, i, [self.hook, before]) for i in (self.ids, other_ids))
        self.new = other[self.hook]
        if kind == "resid_mid":  # what attention must add for the stream after it to be the other's
            self.new = other[before] + other[self.hook] - base[before]
        self.unpatched = metric_with(anatomy, self.ids, batch, {})

    def effect(self, unit: int, pos: int | slice) -> Tensor:
        """Effect of one cell, by prompt."""
        at = (slice(None), pos, unit) if self.kind in ("head", "neuron") else (slice(None), pos)

        def edit(value: Tensor) -> Tensor:
            value[at] = self.new.view_as(value)[at]
            return value

        patched = metric_with(self.anatomy, self.ids, self.batch, {self.hook: edit})
        return self.sign * (patched - self.unpatched)


def slow_gradient(
    anatomy: Anatomy, batch: Batch, ids: Tensor, hook: str, value: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """dm/d(value at a hook), by the whole model's own backward pass, at its own value or a given one; and m."""
    leaves: list[Tensor] = []

    def cut(live: Tensor, hook: Any) -> Tensor:
        leaves.append((live if value is None else value).detach().clone().requires_grad_())
        return leaves[0]

    with torch.enable_grad(), anatomy.model.hooks(fwd_hooks=[(hook, cut)]):
        metric = logit_difference(anatomy.model(ids, return_type="logits")[:, -1], batch)
        (gradient,) = torch.autograd.grad(metric.sum(), leaves)
    return gradient, metric.detach()
