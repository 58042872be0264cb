"""Adam in one pass over each parameter, its state as plain named tensors.

The pass (`kernels.adam`) clips, projects the gradients of unit decoder rows, updates and renormalises.
Parameters whose rows have unit length are named at the start; a layout with another constraint does its own
work before and after the step instead.

Checkpoints hold tensors and JSON only: moments and master weights stand under `<kind>.<name>`; the number of
steps is the trainer's.

Reference: Kingma & Ba 2014, arXiv:1412.6980.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.artifacts import sha256_json
from workbench.errors import UserError, nearest
from workbench.kernels.adam.equation import AdamStep
from workbench.kernels.adam.op import adam_step, clip_scale, gradient_norm
from workbench.training.optimiser_options import OptimiserOptions

MOMENTS = ("exp_avg", "exp_avg_sq")


class Adam:
    """Adam over named parameters, which it updates in place.

    Attributes:
        parameters: What is updated; bfloat16 for matrices where the options say so.
        masters: Their float32 weights, by name, where they have such.
    """

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        options: OptimiserOptions | None = None,
        *,
        unit_rows: Collection[str] = (),
        seed: int = 0,
    ) -> None:
        self.options, self.unit_rows, self.seed = options or OptimiserOptions(), frozenset(unit_rows), seed
        for name in self.options.lr_factors:
            if name not in parameters:
                known = nearest(name, parameters)
                raise UserError(f"optimiser lr_factors {name!r} is not a parameter; {known}")
        self.masters: dict[str, Tensor] = {}
        self.parameters = {name: self._stored(name, value) for name, value in parameters.items()}
        self._moments = {name: (_zeros(value), _zeros(value)) for name, value in self.parameters.items()}

    def _stored(self, name: str, value: Tensor) -> Tensor:
        """The parameter in its precision; keeps its master."""
        if self.options.precision == "float32" or value.dim() < 2:
            return value
        if self.options.precision == "bfloat16":
            self.masters[name] = value.detach().clone()
        return value.detach().bfloat16().requires_grad_()

    def step(self, lr: float, gradients: Mapping[str, Tensor], number: int) -> Float[Tensor, ""] | None:
        """Update every parameter that has a gradient.

        Args:
            lr: Learning rate.
            gradients: By name of the parameter; one without a gradient stays as it is.
            number: The step, counted from 1.

        Returns:
            The length of all gradients before clipping, where it was needed.
        """
        norm = self.norm(gradients) if self.options.clip_norm is not None else None
        scale = None if norm is None else clip_scale(norm, self.options.clip_norm or 1.0)
        for name, grad in gradients.items():
            parameter, (mean, mean_square) = self.parameters[name], self._moments[name]
            rounded = parameter.dtype == torch.bfloat16 and name not in self.masters
            adam_step(
                parameter, grad, mean, mean_square, self._at(name, lr, number), scale=scale,
                unit_rows=name in self.unit_rows, master=self.masters.get(name),
                rounding_key=self._key(name, number) if rounded else None,
            )  # fmt: skip
        return norm

    def norm(self, gradients: Mapping[str, Tensor]) -> Float[Tensor, ""]:
        """Length of all gradients as one vector, on their device."""
        return gradient_norm(list(gradients.values()))

    def _at(self, name: str, lr: float, number: int) -> AdamStep:
        lr *= self.options.lr_factors.get(name, 1.0)
        return AdamStep(lr=lr, step=number, betas=self.options.betas, epsilon=self.options.epsilon)

    def _key(self, name: str, number: int) -> int:
        return int(sha256_json([self.seed, number, name])[:8], 16)

    def weights(self) -> dict[str, Tensor]:
        """The weights in the highest precision that there is."""
        return {name: self.masters.get(name, value).detach() for name, value in self.parameters.items()}

    def state(self) -> dict[str, Tensor]:
        """Moments and masters by kind and parameter."""
        named = {
            f"{kind}.{name}": moment
            for name, moments in self._moments.items()
            for kind, moment in zip(MOMENTS, moments, strict=True)
        }
        return named | {f"master.{name}": master for name, master in self.masters.items()}

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take over moments and masters, bit for bit and in the parameters' own memory layout."""
        for name, tensor in self.state().items():
            tensor.copy_(state[name])


def _zeros(value: Tensor) -> Tensor:
    """A moment of a parameter before the first step, in the parameter's memory order."""
    return torch.zeros_like(value, dtype=torch.promote_types(value.dtype, torch.float32), requires_grad=False)
