"""Faithfulness and completeness of feature circuits: all nodes outside replaced, at all sites at once.

Each site's activation is encoded as it arrives, with everything upstream already replaced; kept features and
errors stay what they are, the others take their replacement:

    x' = x + sum over features not kept of (replacement - live) W_dec + [error not kept] (replacement - live error)

    faithfulness(C) = (m(C) - m(empty)) / (m(model) - m(empty))        completeness(C) = faithfulness(model - C)

both of means over prompts; x' is x itself where all is kept, so faithfulness(model) = 1, faithfulness(empty) = 0
and completeness(model) = 0 exactly. Sites below `start_layer` are left alone, the embedding too unless it is -1.
Error nodes carry much; `errors` gives each set its own (`default`), all of them, or none. With none, not even
the whole set of features is the model; m(model) is always the model's own.

Replacements: `mean` over reference prompts and positions (the first `n_bos` positions by themselves),
`position_mean`, `zero`, `resample` (the reference prompt of the same number). Status: exact.

Source: Marks et al. 2024, arXiv:2403.19647, section 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.anatomy import Edit
from workbench.circuits.feature_circuits.codes import encode
from workbench.circuits.feature_circuits.effects import MAX_TOKENS
from workbench.circuits.feature_circuits.metrics import Prompts
from workbench.circuits.feature_circuits.node_sets import NodeSets, everything, nothing
from workbench.circuits.feature_circuits.replacement import Fill, Replacement
from workbench.circuits.feature_circuits.sites import EMBED_HOOK, FeatureSite, FeatureSites
from workbench.circuits.split import written_rows
from workbench.errors import UserError, nearest

ERRORS = ("default", "keep", "remove")


@dataclass(frozen=True, eq=False)
class Ablated:
    """Metric of one batch of prompts under each set and its complement, in the metric's unit.

    Attributes:
        circuit: Only the set is kept (set, prompt).
        complement: Only the rest is kept (set, prompt).
        model: Nothing replaced (prompt).
        empty: Everything replaced (prompt).
    """

    circuit: Float[Tensor, "set prompt"]
    complement: Float[Tensor, "set prompt"]
    model: Float[Tensor, " prompt"]
    empty: Float[Tensor, " prompt"]


@dataclass(frozen=True, eq=False)
class Faithfulness:
    """Faithfulness and completeness of each set over all prompts, as shares of m(model) - m(empty).

    Attributes:
        faithfulness_frac: 1: the set alone does what the model does (set).
        completeness_frac: 0: nothing is left without it (set).
        range: m(model) - m(empty), in the metric's unit; shares mean little where it is small.
    """

    faithfulness_frac: Float[Tensor, " set"]
    completeness_frac: Float[Tensor, " set"]
    range: float


def faithfulness(parts: Sequence[Ablated]) -> Faithfulness:
    """The figures over batches of prompts; means over prompts are taken first.

    Raises:
        UserError: replacing everything changes nothing, so there is no share of it.
    """
    model, empty = (torch.cat([getattr(part, name) for part in parts]).mean() for name in ("model", "empty"))
    span = model - empty
    if not float(span.abs()) > 0:
        raise UserError(
            f"m(model) and m(empty) are both {float(model):.4g}: nothing is replaced from start_layer on, or the "
            "replacements are the clean values"
        )
    sums = (
        torch.cat([getattr(part, name) for part in parts], -1).mean(-1) for name in ("circuit", "complement")
    )
    found = [(mean - empty) / span for mean in sums]
    return Faithfulness(found[0], found[1], float(span))


@torch.no_grad()
def ablate_sets(
    sites: FeatureSites,
    prompts: Prompts,
    replacement: Replacement,
    sets: NodeSets,
    *,
    errors: str = "default",
    start_layer: int = 0,
    max_tokens: int = MAX_TOKENS,
) -> Ablated:
    """The metric of each set and of its complement on one batch.

    Args:
        sites: The dictionaries.
        prompts: Their clean ids are run.
        replacement: What nodes outside a set become; made for prompts of this length.
        sets: What is kept.
        errors: `default` (as each set says), `keep` or `remove` (for all sets).
        start_layer: First layer whose sites are replaced; -1 for the embedding too.
        max_tokens: Largest number of tokens in one forward pass.

    Raises:
        UserError: unknown `errors`, a start layer after all sites, or replacements for other prompts.
    """
    if errors not in ERRORS:
        raise UserError(f"errors {errors!r} is not known; {nearest(errors, ERRORS)}")
    replacement.check(prompts.clean)
    first = _first_layer(sites, start_layer)
    runner = _Runner(
        sites, prompts, replacement, start_layer, _start(sites, prompts, first), 2 * max(first, 0)
    )
    width = max(1, max_tokens // prompts.clean.numel())
    model = runner(everything(sites))[0]
    empty = runner(_with(nothing(sites), errors))[0]
    found = [_run_all(runner, part, errors, model, empty, width) for part in (sets, sets.complement)]
    return Ablated(found[0], found[1], model, empty)


def _run_all(
    runner: _Runner, sets: NodeSets, errors: str, model: Tensor, empty: Tensor, width: int
) -> Float[Tensor, "set prompt"]:
    """The metric of every set; those that keep all or nothing are not run again."""
    none, asked = sets.all_are(False), _with(sets, errors)
    whole = sets.all_are(True) & asked.all_are(True)
    out = torch.where(none[:, None], empty, model.expand(len(sets), -1)).clone()
    for rows in (~(none | whole)).nonzero()[:, 0].split(width):
        if len(rows):
            out[rows] = runner(asked[rows])
    return out


def _with(sets: NodeSets, errors: str) -> NodeSets:
    return sets if errors == "default" else sets.with_errors(errors == "keep")


def _first_layer(sites: FeatureSites, start_layer: int) -> int:
    layers = [s.site.layer for s in sites if s.site.layer >= start_layer]
    if not layers:
        raise UserError(
            f"start_layer {start_layer} lies after all sites (the last is {sites[len(sites) - 1].site.hook!r}): "
            "give an earlier layer"
        )
    return min(layers)


def _start(sites: FeatureSites, prompts: Prompts, layer: int) -> Float[Tensor, "prompt pos d_model"]:
    """The stream before the first block with a replaced site."""
    return sites.anatomy.run(sites.anatomy.embed(prompts.clean), stop=2 * max(layer, 0))


@dataclass(frozen=True, eq=False)
class _Runner:
    """Runs sets of nodes from the first block whose sites are replaced."""

    sites: FeatureSites
    prompts: Prompts
    replacement: Replacement
    start_layer: int
    stream: Tensor
    depth: int

    def __call__(self, sets: NodeSets) -> Float[Tensor, "set prompt"]:
        x = self.stream.expand(len(sets), *self.stream.shape)
        edits = dict[str, Edit]()
        for index, at in enumerate(self.sites):
            if at.site.layer >= self.start_layer:
                edits[at.site.hook] = self._edit(index, at, sets)
        if EMBED_HOOK in edits:
            x = self._embedding(x, edits.pop(EMBED_HOOK))
        metric = self.prompts.metric
        return metric(self.sites.anatomy.run(x, start=self.depth, stop=metric.stop, edits=edits))

    def _embedding(self, x: Tensor, edit: Edit) -> Tensor:
        offset = self.sites.position_part(x.shape[-2])
        return edit(x - offset) + offset

    def _edit(self, index: int, at: FeatureSite, sets: NodeSets) -> Edit:
        fill = self.replacement.of(at, index, sets)
        return partial(_replace, at=at, index=index, sets=sets, fill=fill, n_bos=self.sites.n_bos)


def _replace(
    x: Float[Tensor, "set prompt pos d_model"],
    *,
    at: FeatureSite,
    index: int,
    sets: NodeSets,
    fill: Fill,
    n_bos: int,
) -> Float[Tensor, "set prompt pos d_model"]:
    """The activation of one site with the nodes that each set does not keep replaced. Status: exact."""
    codes = encode(at, x.flatten(0, 1), n_bos=n_bos)
    keep = _kept_slots(at, index, sets, codes.indices.unflatten(0, x.shape[:2]))
    live = written_rows(at.dictionary.W_dec, codes, codes.values.masked_fill(keep.flatten(0, 1), 0))
    lost = ~sets.errors[index][:, None, :, None] * (fill.error - codes.error.view_as(x))
    return x + (fill.features - live.view_as(x)) + lost


def _kept_slots(at: FeatureSite, index: int, sets: NodeSets, indices: Tensor) -> Tensor:
    """Whether each live slot (set, prompt, pos, k) is kept."""
    named = sets.named[index]
    column = torch.full((at.dictionary.d_sae,), len(named), dtype=torch.long, device=indices.device)
    column[named] = torch.arange(len(named), device=indices.device)
    kept = sets.kept[index]
    every = torch.cat([kept, sets.others[:, None, None].expand(*kept.shape[:2], 1)], -1)
    every = every[:, None].expand(-1, indices.shape[1], indices.shape[2], -1)
    return every.gather(-1, column[indices])
