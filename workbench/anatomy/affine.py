"""Affine maps and MLPs of a bridge as plain weights, each compared with the module it was read from.

    affine   y = x W + b
    MLP      pre = x W_in + b_in,  post = act(pre)  or  act(x W_gate + b_gate) * pre,  out = post W_out + b_out

An MLP of another form (a mixture of experts, a norm in the middle) stays a function that is called whole:
everything works but its neurons, which are refused by name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.errors import UserError

_ACTIVATIONS = ("act", "act_fn", "activation_fn", "activation")


@dataclass(frozen=True)
class Affine:
    """y = x W + b with W (d_in, d_out)."""

    W: Float[Tensor, "d_in d_out"]
    b: Float[Tensor, " d_out"] | None = None

    def __call__(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_out"]:
        """The mapped input."""
        return torch.nn.functional.linear(x, self.W.T, self.b)


def read_affine(module: Any, name: str) -> Affine:
    """The affine map of a bridge's linear module.

    Raises:
        UserError: it has no floating point weight matrix (quantised or offloaded weights, another module).
    """
    inner = getattr(module, "original_component", None) or module
    weight, bias = getattr(inner, "weight", None), getattr(inner, "bias", None)
    if not isinstance(weight, Tensor) or weight.ndim != 2 or not weight.is_floating_point() or weight.is_meta:
        what = f"{weight.dtype} on {weight.device}" if isinstance(weight, Tensor) else type(inner).__name__
        raise UserError(
            f"{name} has no readable weight matrix ({what}): circuits need gradients, so load the model without "
            "quantisation and without offloading"
        )
    transposed = isinstance(inner, torch.nn.Linear)
    return Affine((weight.T if transposed else weight).detach(), None if bias is None else bias.detach())


class Mlp:
    """What one MLP computes from its normalised input.

    Attributes:
        name: Of the module, for messages.
        readable: Whether its neurons can be reached.
    """

    def __init__(self, module: Any, d_model: int, name: str) -> None:
        self._module, self.name = module, name
        probe, wanted = _probed(module, d_model, name)
        self._parts = _read_parts(module, probe, wanted)

    @property
    def readable(self) -> bool:
        """Whether pre- and post-activations of single neurons are at hand."""
        return self._parts is not None

    def __call__(self, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
        """The output, without what a post-norm makes of it."""
        if self._parts is not None:
            return self._parts.out(self._parts.post(x))
        flat = x.reshape(-1, *x.shape[-2:]) if x.ndim > 3 else x
        out = self._module(flat)
        return (out[0] if isinstance(out, tuple) else out).view(x.shape)

    def post(self, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_mlp"]:
        """Activations of the neurons.

        Raises:
            UserError: the MLP has another form.
        """
        return self._known().post(x)

    def out(self, post: Float[Tensor, "*batch d_mlp"]) -> Float[Tensor, "*batch d_model"]:
        """The output for given neurons.

        Raises:
            UserError: the MLP has another form.
        """
        return self._known().out(post)

    @property
    def W_out(self) -> Float[Tensor, "d_mlp d_model"]:  # noqa: N802
        """What one unit of each neuron writes, before a post-norm.

        Raises:
            UserError: the MLP has another form.
        """
        return self._known().out.W

    def _known(self) -> _Parts:
        if self._parts is None:
            raise UserError(
                f"{self.name} is a {type(self._module).__name__} whose neurons cannot be reached: work with the "
                "whole MLP instead"
            )
        return self._parts


@dataclass(frozen=True)
class _Parts:
    into: Affine
    gate: Affine | None
    out: Affine
    act: Callable[[Tensor], Tensor]

    def post(self, x: Tensor) -> Tensor:
        if self.gate is None:
            return self.act(self.into(x))
        return self.act(self.gate(x)) * self.into(x)


@torch.no_grad()
def _probed(module: Any, d_model: int, name: str) -> tuple[Tensor, Tensor]:
    """A random input and what the module makes of it."""
    generator, like = torch.Generator().manual_seed(0), next(module.parameters())
    probe = torch.randn(1, 4, d_model, generator=generator).to(like)
    try:
        wanted = module(probe)
    except RuntimeError as error:
        raise UserError(
            f"{name} cannot be run on its own ({str(error).splitlines()[0]}): circuits of this architecture cannot "
            "be computed"
        ) from error
    return probe, wanted[0] if isinstance(wanted, tuple) else wanted


@torch.no_grad()
def _read_parts(module: Any, probe: Tensor, wanted: Tensor) -> _Parts | None:
    """The parts, when they give what the module gives on a probe."""
    inner = getattr(module, "original_component", module)
    act = next((getattr(inner, key) for key in _ACTIVATIONS if callable(getattr(inner, key, None))), None)
    try:
        into, out = (read_affine(getattr(module, key), key) for key in ("in", "out"))
        gate = read_affine(module.gate, "gate") if getattr(module, "gate", None) is not None else None
    except (AttributeError, UserError):
        return None
    if act is None or into.W.shape[0] != probe.shape[-1]:
        return None
    parts = _Parts(into, gate, out, getattr(act, "original_component", None) or act)
    tolerance = 1e-5 if probe.dtype in (torch.float32, torch.float64) else 3e-2
    size = max(1.0, float(wanted.abs().max()))
    close = float((parts.out(parts.post(probe)) - wanted).abs().max()) <= tolerance * size
    return parts if close else None
