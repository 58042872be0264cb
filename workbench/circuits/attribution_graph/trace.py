"""Tracing a prompt: replacement model, freeze check, logits, rows of effects.

    found = trace_prompt(model, "the prompt", transcoders)
    graph = to_graph(found)                      # graph.py
    checked = verify_edges(found)                # verify.py

The freeze check runs first and refuses a model in which frozen gradients are not what an intervention does; its
figure is kept with the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Int
from torch import Tensor

from workbench.anatomy import Anatomy, open_anatomy
from workbench.circuits.attribution_graph.effects import Effects
from workbench.circuits.attribution_graph.expand import MEMORY_BYTES, all_rows
from workbench.circuits.attribution_graph.freeze_check import FreezeCheck, freeze_check
from workbench.circuits.attribution_graph.logits import MASS_FRAC, MAX_LOGITS, LogitTargets, logit_targets
from workbench.circuits.attribution_graph.replacement import Replacement, open_replacement
from workbench.circuits.attribution_graph.transcoders import Transcoders
from workbench.dictionaries import Dictionary
from workbench.errors import UserError

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


@dataclass(frozen=True, eq=False)
class AttributionTrace:
    """Direct effects between the nodes of one prompt.

    Attributes:
        model: The replacement model.
        logits: The logits that are explained.
        features: Sources that have a row, ascending.
        effects: Rows of these features, then of the logits.
        check: How well the freeze held.
        settings: The options that were used.
    """

    model: Replacement
    logits: LogitTargets
    features: Int[Tensor, " feature"]
    effects: Effects
    check: FreezeCheck
    settings: dict[str, Any]

    @property
    def n_nodes(self) -> int:
        """Sources and logits."""
        return len(self.model.sources) + len(self.logits.token_ids)

    @property
    def target_nodes(self) -> Int[Tensor, " target"]:
        """Node number of each row's target; logits are numbered behind the sources."""
        n = len(self.model.sources)
        return torch.cat([self.features.cpu(), n + torch.arange(len(self.logits.token_ids))])

    @property
    def edges(self) -> tuple[Int[Tensor, " edge"], Int[Tensor, " edge"]]:
        """Node numbers of the source and the target of every edge, in the order of `effects`."""
        return self.effects.source.long(), self.target_nodes[self.effects.target]


def trace_prompt(
    model: TransformerBridge | Anatomy,
    prompt: str | Sequence[int] | Tensor,
    transcoders: Sequence[Dictionary] | Dictionary | Transcoders,
    *,
    targets: Sequence[int | str | tuple[int | str, int | str]] | Tensor | None = None,
    mass_frac: float = MASS_FRAC,
    max_logits: int = MAX_LOGITS,
    n_skipped: int = 1,
    max_feature_nodes: int | None = None,
    edges_per_target: int | None = None,
    threshold: float = 0.0,
    memory_bytes: int = MEMORY_BYTES,
) -> AttributionTrace:
    """The attribution graph of one prompt.

    Args:
        model: A bridge, or its anatomy.
        prompt: Text, or token ids that start as the model expects.
        transcoders: One per layer, from the MLP's input to its output; or one cross-layer dictionary.
        targets: Tokens (ids or texts), pairs of them, whose difference is explained, or directions at the final norm's
            output (target, d_model); by default the likeliest tokens.
        mass_frac: Probability that the default logits reach.
        max_logits: At most so many of them.
        n_skipped: First positions without features and errors.
        max_feature_nodes: Give rows to so many features, chosen greedily by influence; None to all.
        edges_per_target: Keep so many edges of each target; by default all that `memory_bytes` hold.
        threshold: Keep edges of at least this absolute value.
        memory_bytes: Bound on the kept edges.

    Raises:
        UserError: a model, transcoders, prompt or option that does not fit, or a freeze that does not hold.
        KeyboardInterrupt: Ctrl-C; nothing is kept.

    Status: exact for the frozen model; as a statement on the model itself first-order, patterns, norm scales and
    the set of active features held (`verify_edges`, `verify_nodes` measure how far that goes).
    """
    anatomy = model if isinstance(model, Anatomy) else open_anatomy(model)
    opened = open_replacement(anatomy, token_ids(anatomy, prompt), transcoders, n_skipped=n_skipped)
    check = freeze_check(opened)
    logits = logit_targets(opened, targets, mass_frac=mass_frac, n_max=max_logits)
    weights = logits.probs.nan_to_num(1.0)
    rows = all_rows(
        opened, logits.targets, weights, max_feature_nodes=max_feature_nodes, edges_per_target=edges_per_target,
        threshold=threshold, memory_bytes=memory_bytes,
    )  # fmt: skip
    settings = {
        "n_skipped": n_skipped, "max_feature_nodes": max_feature_nodes, "edges_per_target": rows.edges_per_target,
        "threshold": threshold, "mass_frac": mass_frac, "max_logits": max_logits,
    }  # fmt: skip
    return AttributionTrace(opened, logits, rows.features, rows.effects, check, settings)


def token_ids(anatomy: Anatomy, prompt: str | Sequence[int] | Tensor) -> Int[Tensor, " pos"]:
    """The ids of a prompt.

    Raises:
        UserError: a text for a model without a tokenizer, or ids that are no list of integers.
    """
    if isinstance(prompt, str):
        if anatomy.model.tokenizer is None:
            raise UserError("the prompt is a text and this model has no tokenizer: give token ids")
        return anatomy.model.to_tokens(prompt)[0]
    ids = torch.as_tensor(prompt)
    if ids.ndim != 1 or ids.is_floating_point() or not len(ids):
        raise UserError(
            f"the prompt's ids are of shape {tuple(ids.shape)} and {ids.dtype}: give one list of integers"
        )
    return ids.long()
