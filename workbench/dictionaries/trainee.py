"""A dictionary while it is trained: an architecture on a layout, its tensors, losses, state and export."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from workbench.dictionaries.architecture import Architecture, Encoded, Part, Pass, Phase
from workbench.dictionaries.base import Dictionary
from workbench.dictionaries.initialise import SEARCH, SEARCH_ROWS, scaled, search_norm
from workbench.dictionaries.layouts.base import Initialisation, Layout
from workbench.dictionaries.normalise import Affine, fit_affine
from workbench.dictionaries.ranks import Ranks
from workbench.kernels import latent_counts

Objective = Callable[[Float[Tensor, "row d_out"]], Mapping[str, Part]]


@dataclass(frozen=True)
class StepLosses:
    """What one training batch measured, on normalised activations; all tensors are scalars.

    Attributes:
        loss: What is minimised.
        parts: Its parts before their weights, detached.
        fvu: Fraction of the batch's variance left unexplained: summed squared error over that of the mean.
        explained_variance: 1 - variance of the error over that of the target; above 1 - fvu by what the mean misses.
        l0: Mean number of latents with a positive value per row.
        dead_frac: Latents that have not fired for longer than the limit, this batch included.

    The last four are NaN where a step was asked not to measure them.
    """

    loss: Float[Tensor, ""]
    parts: Mapping[str, Float[Tensor, ""]]
    fvu: Float[Tensor, ""]
    explained_variance: Float[Tensor, ""]
    l0: Float[Tensor, ""]
    dead_frac: Float[Tensor, ""]


class Trainee:
    """Leaf tensors and buffers under one architecture and one layout.

    Attributes:
        parameters: What the optimiser updates, by name.
        buffers: State that it does not, by name; `tokens_since_fired` (d_sae) is always among them.
        inputs: Normalisation of the input.
        outputs: Normalisation of the target; the same object for an autoencoder.
        ranks: Other processes that train the same dictionary; by default none.
    """

    def __init__(
        self,
        architecture: Architecture,
        layout: Layout,
        parameters: Mapping[str, Tensor],
        inputs: Affine,
        outputs: Affine,
    ) -> None:
        self.architecture, self.layout = architecture, layout
        self.parameters = {name: tensor.requires_grad_() for name, tensor in parameters.items()}
        silent = torch.zeros(architecture.d_sae, dtype=torch.int64)
        self.buffers: dict[str, Tensor] = {"tokens_since_fired": silent, **architecture.buffers()}
        self.inputs, self.outputs, self.ranks = inputs, outputs, Ranks()

    @classmethod
    @torch.no_grad()
    def initialise(
        cls,
        architecture: Architecture,
        layout: Layout,
        x: Float[Tensor, "row d_in"],
        y: Float[Tensor, "row d_out"] | None = None,
        *,
        start: Initialisation | None = None,
        normalise: str = "spread",
        generator: torch.Generator,
    ) -> Trainee:
        """A fresh trainee from raw sample rows.

        Args:
            architecture: Its options.
            layout: Its inputs and targets.
            x: Sample of the input.
            y: Sample of the target; None for an autoencoder.
            start: How weights start.
            normalise: Kind of normalisation, one of `normalise.KINDS`.
            generator: Decides the initial directions.

        Raises:
            UserError: the architecture cannot be trained on the layout, the sample cannot be normalised, or an option
                is out of its range.
        """
        architecture.check_layout(layout.kind)
        inputs = fit_affine(x, normalise, widths=layout.widths)
        outputs = inputs if y is None else fit_affine(y, normalise, widths=layout.widths_out)
        x_scaled = inputs.apply(x)
        y_scaled = x_scaled if y is None else outputs.apply(y)
        start, unit = start or Initialisation(), architecture.unit_decoder
        weights = layout.initialise(
            x_scaled, y_scaled, architecture.d_sae, start, generator, unit_decoder=unit
        )
        if start.decoder_norm == SEARCH:
            rows = (inputs, outputs, x_scaled[:SEARCH_ROWS], y_scaled[:SEARCH_ROWS])
            norm = search_norm(
                lambda at: cls._first_error(
                    architecture, layout, scaled(weights, at, unit_decoder=unit), *rows
                )
            )
            weights = scaled(weights, norm, unit_decoder=unit)
        made = cls(architecture, layout, {**weights, **architecture.parameters(weights)}, inputs, outputs)
        architecture.start(made, x_scaled)
        return made

    @classmethod
    def _first_error(
        cls, architecture: Architecture, layout: Layout, weights: Mapping[str, Tensor],
        inputs: Affine, outputs: Affine, x: Tensor, y: Tensor,
    ) -> float:  # fmt: skip
        """Squared error of the architecture's first reconstruction of normalised rows."""
        made = cls(architecture, layout, {**weights, **architecture.parameters(weights)}, inputs, outputs)
        code = architecture.encode(made, x, Phase(0, 1))
        errors, _ = layout.squared_errors(
            made.parameters, (code.indices, code.values), x, y, (architecture.d_sae,)
        )
        return float(errors[-1])

    def to(self, device: str | torch.device) -> Trainee:
        """The same trainee with its tensors on another device; call it before the first step."""
        self.parameters = {
            name: tensor.detach().to(device).requires_grad_() for name, tensor in self.parameters.items()
        }
        self.buffers = {name: tensor.to(device) for name, tensor in self.buffers.items()}
        same, self.inputs = self.outputs is self.inputs, self.inputs.to(device)
        self.outputs = self.inputs if same else self.outputs.to(device)
        return self

    @property
    def tokens_since_fired(self) -> Int64[Tensor, " d_sae"]:
        """Tokens since each latent last had a positive value."""
        return self.buffers["tokens_since_fired"]

    def dead(self) -> Bool[Tensor, " d_sae"]:
        """Latents that have not fired for more than the architecture's limit."""
        return self.tokens_since_fired > self.architecture.dead_after_tokens

    def losses(
        self,
        x: Float[Tensor, "row d_in"],
        y: Float[Tensor, "row d_out"] | None = None,
        *,
        phase: Phase,
        beside: Mapping[str, Tensor] | None = None,
        objective: Objective | None = None,
        measure: bool = True,
    ) -> StepLosses:
        """Losses of one raw batch; counts firings and updates buffers before the auxiliary parts.

        Args:
            x: Input rows.
            y: Target rows; None for an autoencoder.
            phase: Where the training stands.
            beside: What else is known of each row, by the names in `Architecture.needs`.
            objective: Takes the raw, differentiable reconstruction and gives the parts that stand in place of the
                reconstruction loss (end-to-end training).
            measure: Whether to measure what is only for the log.

        Gradients of every parameter equal a dense float64 expression (tests/dictionaries).
        """
        x_in = self.inputs.apply(x)
        target = x_in if y is None else self.outputs.apply(y)
        beside = beside or {}
        code = self.architecture.encode_beside(self, x_in, beside, phase)
        self._count(code)
        parts, y_hat = self._reconstruction(code, x_in, target, objective)
        passed = Pass(x_in, target, code, y_hat, beside)
        self.architecture.observe(self, passed, phase)
        parts = {**parts, **self.architecture.parts(self, passed, phase)}
        loss = torch.stack([part.weight * part.value for part in parts.values()]).sum()
        measured = self._measured(passed) if measure else [loss.new_full((), torch.nan)] * 4
        return StepLosses(loss, {name: part.value.detach() for name, part in parts.items()}, *measured)

    def _reconstruction(
        self, code: Encoded, x: Tensor, y: Tensor, objective: Objective | None
    ) -> tuple[dict[str, Part], Tensor]:
        pair = (code.indices, code.values)
        if objective is not None:
            y_hat = self.layout.decode(self.parameters, pair) + self.layout.offset(self.parameters, x)
            return dict(objective(self.outputs.invert(y_hat))), y_hat.detach()
        prefixes = self.architecture.prefixes
        errors, y_hat = self.layout.squared_errors(self.parameters, pair, x, y, prefixes)
        return {"reconstruction": Part(1.0, errors.sum() / (len(prefixes) * y.numel()))}, y_hat

    @torch.no_grad()
    def _count(self, code: Encoded) -> None:
        """Advance the counters of silence by this batch; latents that fired start again from 0."""
        silent = self.tokens_since_fired
        fired = latent_counts(code.indices, code.values, len(silent)) > 0
        silent.add_(len(code.indices) * self.ranks.n_data).masked_fill_(fired, 0)
        silent.copy_(self.ranks.least(silent))

    @torch.no_grad()
    def _measured(self, passed: Pass) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Fvu, explained variance, l0 and dead fraction."""
        ranks, error = self.ranks, passed.y - passed.y_hat
        spread = ranks.mean((passed.y - ranks.mean(passed.y.mean(0))).square().sum())
        varying = ranks.mean((error - ranks.mean(error.mean(0))).square().sum())
        fired = (passed.code.values > 0).sum() / max(len(passed.x), 1)
        return (
            ranks.mean(error.square().sum()) / spread,
            1 - varying / spread,
            ranks.total_latents(ranks.mean(fired)),
            ranks.mean_latents(self.dead().float().mean()),
        )

    def constrain_gradients(self) -> None:
        """Remove from the gradients what the constraints would undo, before the optimiser sees them."""
        if self.architecture.unit_decoder:
            self.layout.constrain_gradients(self.parameters)

    def constrain(self) -> None:
        """Put the parameters back onto their constraints, after the optimiser."""
        if self.architecture.unit_decoder:
            self.layout.constrain(self.parameters)
        self.architecture.constrain(self)

    def state(self) -> dict[str, Tensor]:
        """All tensors that a checkpoint needs."""
        maps = self.inputs.state("inputs")
        if self.outputs is not self.inputs:
            maps = {**maps, **self.outputs.state("outputs")}
        return {**self.parameters, **{f"buffer.{name}": t for name, t in self.buffers.items()}, **maps}

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take over the tensors of a checkpoint, bit for bit."""
        for name, parameter in self.parameters.items():
            parameter.copy_(state[name])
        device = self.tokens_since_fired.device
        for name in [name for name in state if name.startswith("buffer.")]:
            self.buffers[name.removeprefix("buffer.")] = state[name].to(device, copy=True)
        same = self.outputs is self.inputs
        self.inputs = Affine.from_state(state, "inputs").to(device)
        self.outputs = self.inputs if same else Affine.from_state(state, "outputs").to(device)

    def export(
        self,
        *,
        hook_name: str,
        hook_name_out: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        parameters: Mapping[str, Tensor] | None = None,
    ) -> Dictionary:
        """The frozen dictionary for raw activations.

        Args:
            hook_name: What it reads.
            hook_name_out: What it reconstructs, if that is another hook point.
            metadata: What is stored beside the weights.
            parameters: Other values than the present ones, such as their moving averages.
        """
        present = self.parameters
        try:
            self.parameters = dict(parameters or present)
            folded = self.layout.fold(
                self.parameters, self.inputs, self.outputs, rescalable=self.architecture.rescalable
            )
            return self.layout.freeze(
                self, folded, hook_name=hook_name, hook_name_out=hook_name_out, metadata=metadata or {}
            )
        finally:
            self.parameters = present
