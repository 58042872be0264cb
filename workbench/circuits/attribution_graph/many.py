"""One graph of many prompts: nodes without positions, every edge a mean with its interval.

A node stands for a feature (layer and latent), the error of a layer, the tokens together, or the logit that is
explained. An edge's weight in one prompt is the sum over the positions of both ends; over prompts it is the mean, an
edge that a prompt does not have counting 0, with the 95% percentile bootstrap over prompts. With `edges_per_target`
thinned edges count 0 too, which draws small means towards it.

The explained quantity should be the same in every prompt: give a pair of tokens for each (answer, counterfactual),
whose logit difference it then is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.anatomy import Anatomy
from workbench.circuits.attribution_graph.trace import AttributionTrace, trace_prompt
from workbench.circuits.attribution_graph.transcoders import Transcoders, join_transcoders
from workbench.circuits.circuit_graph import CircuitGraph, node_table
from workbench.dictionaries import Dictionary
from workbench.errors import UserError
from workbench.intervals import N_RESAMPLES

EDGES_AT_ONCE = 4096


@dataclass(frozen=True, eq=False)
class _Numbering:
    """Numbers of nodes without positions: features of every layer, then errors, tokens, the logit."""

    sizes: tuple[int, ...]

    @property
    def n_features(self) -> int:
        return sum(self.sizes)

    def __len__(self) -> int:
        return self.n_features + len(self.sizes) + 2

    def of(self, found: AttributionTrace) -> Int[Tensor, " node"]:
        """The number of each node of a trace."""
        sources, active = found.model.sources, found.model.sources.active
        starts = torch.tensor([0, *np.cumsum(self.sizes)[:-1].tolist()])
        features = starts[active.layer.cpu()] + active.latent.cpu()
        n, n_layers = self.n_features, len(self.sizes)
        errors = (n + torch.arange(n_layers)).repeat_interleave(sources.n_pos)
        rest = (
            torch.full((sources.n_pos,), n + n_layers),
            torch.full((len(found.logits.pairs),), n + n_layers + 1),
        )
        return torch.cat([features, errors, *rest])

    def record(self, number: int) -> dict[str, Any]:
        """A row of the node table."""
        n, n_layers = self.n_features, len(self.sizes)
        if number >= n:
            layer = number - n
            if layer < n_layers:
                return {"node_id": f"e{layer}", "kind": "error", "layer": layer}
            name = "embed" if layer == n_layers else "logit"
            return {"node_id": name, "kind": name}
        ends = np.cumsum(self.sizes)
        layer = int(np.searchsorted(ends, number, side="right"))
        latent = number - int(ends[layer]) + self.sizes[layer]
        return {"node_id": f"f{layer}.{latent}", "kind": "feature", "layer": layer, "feature": latent}


def trace_many(
    anatomy: Anatomy,
    prompts: Sequence[str | Sequence[int] | Tensor],
    transcoders: Sequence[Dictionary] | Dictionary,
    *,
    targets: Sequence[tuple[int | str, int | str] | int | str],
    n_edges: int = 10_000,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
    **options: Any,
) -> CircuitGraph:
    """The graph of many prompts.

    Args:
        anatomy: The model.
        prompts: Texts or token ids, of any lengths.
        transcoders: As for `trace_prompt`.
        targets: What is explained in each prompt: a pair of tokens (their logit difference) or one token.
        n_edges: Keep the edges with the largest absolute means.
        n_resamples: Bootstrap resamples.
        seed: Decides the resamples.
        **options: Of `trace_prompt`.

    Raises:
        UserError: no prompt, not as many targets as prompts, or what `trace_prompt` refuses.

    Status: exact means of effects that are first-order statements on the model; intervals are percentile bootstrap.
    """
    if not prompts or len(prompts) != len(targets) or n_edges < 1:
        raise UserError(
            f"{len(prompts)} prompts, {len(targets)} targets and n_edges {n_edges} make no graph: give one target for "
            "each prompt and keep at least one edge"
        )
    joined = join_transcoders(anatomy, transcoders)
    numbering = _Numbering(tuple(joined.n_latents(layer) for layer in range(anatomy.n_layers)))
    parts = [
        _edges_of(trace_prompt(anatomy, prompt, joined, targets=[target], **options), numbering)
        for prompt, target in zip(prompts, targets, strict=True)
    ]
    codes, values = _matrix(parts, n_edges)
    low, high = intervals(values, n_resamples=n_resamples, seed=seed)
    return _graph(numbering, codes, values.mean(0), low, high, joined, len(prompts))


def _edges_of(
    found: AttributionTrace, numbering: _Numbering
) -> tuple[Int[np.ndarray, " edge"], Float[np.ndarray, " edge"]]:
    """Codes of the edges of a prompt, ascending, and their weights summed over positions."""
    number, (source, target) = numbering.of(found), found.edges
    codes, own = np.unique((number[source] * len(numbering) + number[target]).numpy(), return_inverse=True)
    return codes, np.bincount(own, weights=found.effects.weight.double().numpy(), minlength=len(codes))


def _matrix(
    parts: list[tuple[np.ndarray, np.ndarray]], n_edges: int
) -> tuple[Int[np.ndarray, " edge"], Float[np.ndarray, "prompt edge"]]:
    """The edges of largest absolute mean, and their weights in every prompt."""
    codes = np.unique(np.concatenate([codes for codes, _ in parts]))
    total = np.zeros(len(codes))
    for own, weight in parts:
        total[np.searchsorted(codes, own)] += weight
    chosen = np.sort(codes[np.argsort(-np.abs(total), kind="stable")[:n_edges]])
    values = np.zeros((len(parts), len(chosen)))
    for row, (own, weight) in zip(values, parts, strict=True):
        at = np.searchsorted(chosen, own).clip(max=len(chosen) - 1)
        there = chosen[at] == own
        row[at[there]] = weight[there]
    return chosen, values


def intervals(
    values: Float[np.ndarray, "prompt edge"], *, n_resamples: int, seed: int
) -> tuple[Float[np.ndarray, " edge"], Float[np.ndarray, " edge"]]:
    """95% percentile bootstrap intervals of the means over prompts, the same draws for every edge."""
    n, rng = len(values), np.random.default_rng(seed)
    drawn = rng.integers(n, size=(n_resamples, n))
    counts = np.stack([np.bincount(row, minlength=n) for row in drawn]) / n
    ends = [
        np.quantile(counts @ values[:, start : start + EDGES_AT_ONCE], [0.025, 0.975], axis=0)
        for start in range(0, values.shape[1], EDGES_AT_ONCE)
    ]
    low, high = np.concatenate(ends, axis=1)
    return low, high


def _graph(
    numbering: _Numbering,
    codes: np.ndarray,
    mean: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    transcoders: Transcoders,
    n_prompts: int,
) -> CircuitGraph:
    source, target = codes // len(numbering), codes % len(numbering)
    numbers = np.unique(np.concatenate([source, target]))
    ends = [torch.from_numpy(np.searchsorted(numbers, end)) for end in (source, target)]
    meta = {
        "method": "attribution graphs of many prompts, summed over positions, mean over prompts",
        "n_prompts": n_prompts,
        "dictionary_hashes": transcoders.hashes,
    }
    return CircuitGraph(
        nodes=node_table([numbering.record(int(number)) for number in numbers]),
        source=ends[0], target=ends[1], weight=torch.from_numpy(mean), low=torch.from_numpy(low),
        high=torch.from_numpy(high), unit="pre-activation of the target, or its logit", meta=meta,
    )  # fmt: skip
