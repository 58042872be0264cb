"""Norms as data: centred or not, weight, bias, epsilon; live, or linear with a frozen scale.

    LayerNorm   y = (x - mean x) / sqrt(var x + eps) * weight + bias
    RMSNorm     y = x / sqrt(mean x^2 + eps) * weight            (Gemma's weight is 1 + the stored one)
    none        y = x

`read_norm` finds which one a bridge's module computes by trying the candidates on a probe, and refuses what
none of them gives. With the scale s = sqrt(.) held frozen a norm is affine in x; `pull` is the transpose of
its linear part. Status: exact, as far as the probe has confirmed it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.errors import UserError

_EPSILONS = ("eps", "variance_epsilon", "layer_norm_epsilon")
_PROBE_TOLERANCE = 1e-5


@dataclass(frozen=True)
class Norm:
    """One norm over the last axis.

    Attributes:
        centred: Whether the mean is subtracted.
        weight: (d), None where there is none.
        bias: (d), None where there is none.
        eps: Added to the mean square.
        identity: True for no norm at all.
    """

    centred: bool = False
    weight: Float[Tensor, " d"] | None = None
    bias: Float[Tensor, " d"] | None = None
    eps: float = 0.0
    identity: bool = False

    def scale(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch 1"]:
        """What the (centred) input is divided by; 1 for no norm."""
        if self.identity:
            return torch.ones_like(x[..., :1])
        return (self._centre(_wide(x)).square().mean(-1, keepdim=True) + self.eps).sqrt().to(x.dtype)

    def __call__(
        self, x: Float[Tensor, "*batch d"], scale: Float[Tensor, "*any 1"] | None = None
    ) -> Float[Tensor, "*batch d"]:
        """The normalised input; with `scale` given, that scale is used (frozen) instead of the input's own."""
        if self.identity:
            return x
        if scale is None:
            return self._live(x)
        y = self._centre(x) / scale
        y = y if self.weight is None else y * self.weight
        return y if self.bias is None else y + self.bias

    def pull(
        self, gradient: Float[Tensor, "*batch d"], scale: Float[Tensor, "*any 1"]
    ) -> Float[Tensor, "*batch d"]:
        """Gradient at the input from one at the output, the scale frozen. Status: exact under that freeze."""
        if self.identity:
            return gradient
        gradient = gradient if self.weight is None else gradient * self.weight
        return self._centre(gradient / scale)

    def push(
        self, change: Float[Tensor, "*batch d"], scale: Float[Tensor, "*any 1"]
    ) -> Float[Tensor, "*batch d"]:
        """Change of the output from one of the input, the scale frozen. Status: exact under that freeze."""
        if self.identity:
            return change
        change = self._centre(change) / scale
        return change if self.weight is None else change * self.weight

    def pull_live(
        self, gradient: Float[Tensor, "*batch d"], x: Float[Tensor, "*batch d"]
    ) -> Float[Tensor, "*batch d"]:
        """Gradient at the input `x` from one at the output, the scale varying with x. Status: exact."""
        if self.identity:
            return gradient
        scale = self.scale(x)
        gradient = gradient if self.weight is None else gradient * self.weight
        unit = self._centre(x) / scale
        along = (gradient * unit).mean(-1, keepdim=True)
        return self._centre(gradient - unit * along) / scale

    def push_live(
        self, change: Float[Tensor, "*batch d"], x: Float[Tensor, "*any d"]
    ) -> Float[Tensor, "*batch d"]:
        """First-order change of the output from one of the input at `x`. Status: first-order."""
        if self.identity:
            return change
        scale = self.scale(x)
        change, unit = self._centre(change), self._centre(x) / scale
        change = (change - unit * (change * unit).mean(-1, keepdim=True)) / scale
        return change if self.weight is None else change * self.weight

    def _centre(self, x: Tensor) -> Tensor:
        return x - x.mean(-1, keepdim=True) if self.centred else x

    def _live(self, x: Tensor) -> Tensor:
        wide = _wide(x)
        if self.centred:
            wide_of = [None if p is None else p.to(wide.dtype) for p in (self.weight, self.bias)]
            return torch.nn.functional.layer_norm(wide, x.shape[-1:], *wide_of, eps=self.eps).to(x.dtype)
        y = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        y = y if self.weight is None else y * self.weight
        return (y if self.bias is None else y + self.bias).to(x.dtype)


NONE = Norm(identity=True)


def _wide(x: Tensor) -> Tensor:
    """At least float32."""
    return x if x.dtype == torch.float64 else x.float()


def read_norm(module: Any, d: int, name: str) -> Norm:
    """The norm that a bridge's module computes over vectors of `d`.

    Raises:
        UserError: neither LayerNorm, RMSNorm (plain or with weight + 1) nor the identity gives its outputs.
    """
    inner = getattr(module, "original_component", module)
    if inner is None or isinstance(inner, torch.nn.Identity):
        return NONE
    weight, bias = (_parameter(inner, key) for key in ("weight", "bias"))
    eps = next((float(getattr(inner, key)) for key in _EPSILONS if hasattr(inner, key)), 1e-5)
    probe = _probe(inner, d, weight)
    with torch.no_grad():
        wanted = inner(probe)
    plain = Norm(weight=weight, bias=bias, eps=eps)
    shifted = [replace(plain, weight=weight + 1)] if weight is not None else []
    centred = [replace(c, centred=True) for c in (plain, *shifted)]
    for candidate in (*centred, plain, *shifted, NONE):
        if bool(torch.allclose(candidate(probe), wanted, rtol=_tolerance(probe), atol=_tolerance(probe))):
            return candidate
    raise UserError(
        f"{name} is a {type(inner).__name__} that is neither a layer norm nor an RMS norm: circuits of this "
        "architecture cannot be computed"
    )


def _parameter(inner: Any, key: str) -> Tensor | None:
    value = getattr(inner, key, None)
    return value.detach() if isinstance(value, Tensor) else None


def _probe(inner: Any, d: int, weight: Tensor | None) -> Tensor:
    """Random rows of three sizes with an offset, so that centring, scale and epsilon all show."""
    like = next(iter(inner.parameters()), torch.zeros(1)) if weight is None else weight
    rows = torch.randn(6, d, generator=torch.Generator().manual_seed(0)) + 0.5
    rows = rows * torch.tensor([1e-2, 1e-2, 1.0, 1.0, 30.0, 30.0])[:, None]
    return rows.to(like)


def _tolerance(probe: Tensor) -> float:
    return _PROBE_TOLERANCE if probe.dtype in (torch.float32, torch.float64) else 3e-2
