"""End-to-end training: a dictionary is good when the model does with it what it did without.

    L = kl * KL(p || p_hat)  +  local * |y - y_hat|^2 / |y - mean y|^2
        + downstream * mean over later hooks h of |v_h - v_hat_h|^2 / |v_h - mean v_h|^2

p are the model's predictions, p_hat those with the reconstruction y_hat in place of y at every kept token, and
v_h the activations of later hook points; the architecture's penalties are added to it. The KL is that of each
kept token's prediction, in nats, averaged over kept tokens. Squared errors are shares of the batch's variance
(about FVU), so their weights do not depend on the layer's scale; published ones are means of plain squared
errors (kl 0.5 and downstream 2.5 in all for GPT-2).

Gradients pass through the frozen model and reach the dictionary alone.

Limit: KL fixes directions only up to what the model reads; give `local` a small weight where the directions
themselves matter.

Status: exact gradients of these losses. Reference: Braun et al. 2024, arXiv:2405.12241.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.dictionaries.architecture import Part
from workbench.errors import UserError, nearest


@dataclass(frozen=True, kw_only=True)
class EndToEnd:
    """What an end-to-end training minimises.

    Attributes:
        kl: Weight of the divergence of the predictions, per nat.
        local: Weight of the reconstruction error.
        downstream: Weight of the errors at later hook points, all together.
        downstream_hooks: Those hook points.
    """

    kl: float = 1.0
    local: float = 0.0
    downstream: float = 0.0
    downstream_hooks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("kl", "local", "downstream"):
            if not getattr(self, name) >= 0:
                raise UserError(
                    f"end_to_end {name} {getattr(self, name)} is negative: give a weight of at least 0"
                )
        if not self.kl and not self.downstream:
            raise UserError(
                "end_to_end has kl 0 and downstream 0: without either, train on the reconstruction"
            )
        if bool(self.downstream) != bool(self.downstream_hooks):
            raise UserError(
                f"end_to_end downstream {self.downstream} and downstream_hooks {list(self.downstream_hooks)} go "
                "together: give a weight and the hooks, or neither"
            )

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> EndToEnd:
        """From settings by name.

        Raises:
            UserError: a name is not known, or a weight is out of range.
        """
        known = [found.name for found in fields(cls)]
        for name in settings:
            if name not in known:
                raise UserError(f"end_to_end {name!r} is not a setting of it; {nearest(name, known)}")
        given = {name: float(settings[name]) for name in known[:3] if name in settings}
        return cls(**given, downstream_hooks=tuple(settings.get("downstream_hooks", ())))


@dataclass(frozen=True)
class Readout:
    """What the rest of a model makes of some tokens' activations.

    Attributes:
        logits: Of each token's prediction (row, vocab).
        values: Activations at later hook points (row, d).
    """

    logits: Float[Tensor, "row vocab"]
    values: Mapping[str, Float[Tensor, "row d"]] = field(default_factory=dict)


def kl_nats(clean: Float[Tensor, "row vocab"], spliced: Float[Tensor, "row vocab"]) -> Float[Tensor, ""]:
    """KL(softmax(clean) || softmax(spliced)), mean over rows; differentiable in `spliced`. Status: exact."""
    p, q = clean.log_softmax(1), spliced.log_softmax(1)
    return (p.exp() * (p - q)).sum() / max(len(clean), 1)


def unexplained(wanted: Float[Tensor, "row d"], got: Float[Tensor, "row d"]) -> Float[Tensor, ""]:
    """Squared error over the squared distance from the mean row; differentiable in `got`."""
    spread = (wanted - wanted.mean(0)).square().sum()
    return (wanted - got).square().sum() / spread.clamp_min(torch.finfo(spread.dtype).tiny)


def end_to_end_parts(
    y_hat: Float[Tensor, "row d"],
    *,
    y: Float[Tensor, "row d"],
    clean: Readout,
    run: Callable[[Tensor], Readout],
    weights: EndToEnd,
) -> dict[str, Part]:
    """The parts of the loss of one batch.

    Args:
        y_hat: Raw reconstruction, differentiable.
        y: What it reconstructs.
        clean: What the model makes of y.
        run: The rest of the model, differentiable: what it makes of a reconstruction.
        weights: Of the parts; a part of weight 0 is left out.
    """
    parts = {}
    found = run(y_hat)
    if weights.kl:
        parts["kl"] = Part(weights.kl, kl_nats(clean.logits, found.logits))
    if weights.local:
        parts["reconstruction"] = Part(weights.local, unexplained(y, y_hat))
    if weights.downstream:
        errors = [unexplained(clean.values[name], found.values[name]) for name in weights.downstream_hooks]
        parts["downstream"] = Part(weights.downstream, torch.stack(errors).mean())
    return parts
